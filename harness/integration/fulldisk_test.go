package integration

import (
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/apart"
)

// fillDisk limits the size of every file that this process writes, like a full disk. Only a process
// of its own may call it; see package apart.
func fillDisk(t *testing.T, bytes uint64) {
	t.Helper()
	signal.Ignore(unix.SIGXFSZ) // the write returns an error instead
	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: before.Max}))
	t.Cleanup(func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &before)) })
}

func readResult(t *testing.T, dir string) (r harness.Result) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "result.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &r))
	return r
}

// The guest and its test continue. The error at the end of the run names the incomplete files of the record.
func TestARunContinuesWithoutSpaceForItsRecordAndFailsAtItsEnd(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	apart.Run(t, func(t *testing.T) {
		spec := echoSpec(t, target)
		spec.From, spec.Dir = harness.Cold, t.TempDir()
		m, err := harness.Boot(t.Context(), spec)
		require.NoError(t, err)
		defer m.Close()
		fillDisk(t, 8<<10)
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		defer cancel()
		require.NoError(t, m.Console().Send(ctx, "sh dmesg; echo all-of-it"))
		_, err = m.Console().Expect(ctx, `^all-of-it$`)
		require.NoError(t, err, "the log in memory is complete")
		require.Equal(t, harness.StateReady, m.Result().State)

		says := "record " + spec.Dir + ": console.log: file too large"
		require.EqualError(t, m.Shutdown(ctx), says)
		require.EqualError(t, m.Wait(ctx), says)
		require.ErrorIs(t, m.Wait(ctx), syscall.EFBIG)
		require.NotErrorIs(t, m.Wait(ctx), harness.ErrGuest)
		require.EqualError(t, m.Close(), says)
		result := readResult(t, spec.Dir)
		require.Equal(t, harness.StateFailed, result.State)
		require.Equal(t, says, result.Error)
		info, err := os.Stat(filepath.Join(spec.Dir, "console.log"))
		require.NoError(t, err)
		require.EqualValues(t, 8<<10, info.Size(), "the file ends where the disk was full")
	})
}

func TestABootFailsAtOnceWithoutSpaceForItsRecord(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	apart.Run(t, func(t *testing.T) {
		spec := echoSpec(t, target)
		spec.From, spec.Dir = harness.Cold, t.TempDir()
		spec.Cmdline = []string{"loglevel=7"}
		spec.Ready = "never said"
		m, err := harness.Start(t.Context(), spec)
		require.NoError(t, err)
		defer m.Close()
		fillDisk(t, 8<<10)
		err = m.WaitReady(t.Context())
		require.ErrorIs(t, err, syscall.EFBIG)
		require.NotErrorIs(t, err, harness.ErrGuest)
		require.ErrorContains(t, err, "boot "+target+": record "+spec.Dir+": console.log: file too large\nits console:")
		require.EqualError(t, m.Close(), "record "+spec.Dir+": console.log: file too large")
		require.Equal(t, harness.StateFailed, readResult(t, spec.Dir).State)
	})
}
