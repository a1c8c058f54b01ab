package vm

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/harness/internal/qmp/qmptest"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/internal/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startScript returns a VM with a shell script in place of QEMU. The script's descriptor 3 is the console.
func startScript(t *testing.T, script string) *VM {
	x86, err := target.Lookup("x86_64")
	require.NoError(t, err)
	v, err := Start(Config{QEMU: qemu.Machine{Binary: "sh", Target: x86}, Args: []string{"-c", script}, Record: records.New()})
	require.NoError(t, err)
	return v
}

// The host's kernel closes the connections of a killed QEMU before the harness can reap the process.
func TestAMachineIsEndingOnceQEMUIsKilled(t *testing.T) {
	v := startScript(t, "exec sleep 1000")
	require.False(t, v.Ending())
	v.Process.Kill()
	require.True(t, v.Ending())
	v.Discard()
}

// The event is in the monitor's socket when a connection breaks, and the harness has not read it yet.
func TestEndingReadsTheEventThatAnnouncesTheEnd(t *testing.T) {
	v := startScript(t, "exec sleep 1000")
	defer v.Discard()
	fake, monitor := qmptest.New()
	t.Cleanup(func() { fake.Close() })
	var err error
	v.QMP, err = qmp.New(t.Context(), monitor, io.Discard, v.onEvent)
	require.NoError(t, err)
	answer := func(before string) {
		id, command, err := fake.Receive()
		require.NoError(t, err)
		require.Equal(t, "query-status", command)
		if before != "" {
			fake.Send(before)
		}
		fake.Send(fmt.Sprintf(`{"return": {}, "id": %d}`, id))
	}
	go answer("")
	require.False(t, v.Ending())
	go answer(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`)
	require.True(t, v.Ending())
	require.Contains(t, v.ShutdownReason(), "guest-reset")
	fake.Close()
}

// QEMU refuses "cont" until it has left "finish-migrate", a moment after it has reported that the migration is complete.
func TestASavedMachineGoesOnWhenTheMigrationIsFinalized(t *testing.T) {
	fake, monitor := qmptest.New()
	t.Cleanup(func() { fake.Close() })
	v := new(VM)
	var err error
	v.QMP, err = qmp.New(t.Context(), monitor, io.Discard, func(qmp.Event) {})
	require.NoError(t, err)
	went := make(chan error, 1)
	go func() { went <- v.goOn(t.Context()) }()
	for _, answer := range []struct{ to, says string }{
		{"query-status", `{"status": "finish-migrate"}`}, {"query-status", `{"status": "finish-migrate"}`},
		{"query-status", `{"status": "postmigrate"}`}, {"cont", "{}"},
	} {
		id, command, err := fake.Receive()
		require.NoError(t, err)
		require.Equal(t, answer.to, command)
		fake.Send(fmt.Sprintf(`{"return": %s, "id": %d}`, answer.says, id))
	}
	require.NoError(t, <-went)
}

func TestAMachineThatHasCrashedIsGone(t *testing.T) {
	v := startScript(t, "echo 'Kernel panic - not syncing: gone' >&3; exec sleep 1000")
	<-v.Console.Crashed()
	require.EqualError(t, v.Gone(), "Kernel panic - not syncing: gone")
	v.Discard()
}

// What cannot be started completely leaves neither a process nor a descriptor.
func TestAFailedStartLeavesNothing(t *testing.T) {
	x86, err := target.Lookup("x86_64")
	require.NoError(t, err)
	open := func() *os.File {
		f, err := os.CreateTemp(t.TempDir(), "")
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	closed := open()
	closed.Close()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection closes what nobody refers to
	descriptors := func() (all []string) {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		for _, e := range entries {
			link, _ := os.Readlink("/proc/self/fd/" + e.Name())
			all = append(all, link)
		}
		return all
	}
	ram := open()
	config := Config{
		QEMU: qemu.Machine{Binary: "sh", Target: x86, Filtered: true}, Args: []string{"-c", "exec sleep 1000"}, Record: records.New(),
		RAM: ram, Savable: true, Base: ram,
		Disks: []qemu.DiskFiles{{Saved: []*os.File{ram}, Overlay: closed}},
	}
	before := descriptors()
	_, err = Start(config)
	require.Error(t, err)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.ElementsMatch(c, before, descriptors())
	}, time.Minute, 10*time.Millisecond, "the killed process is reaped")
}
