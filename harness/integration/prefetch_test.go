package integration

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/console"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/sys"
)

// waits returns when the cache has a prefetched machine of the Spec. That takes a while if other
// tests use the host's memory.
func waits(t *testing.T, cache *harness.TemplateCache, spec harness.Spec) {
	t.Helper()
	spec.Dir = ""
	why := ""
	for range 100 {
		n, err := cache.Waiting(t.Context())
		require.NoError(t, err)
		if n > 0 {
			return
		}
		m, err := harness.Boot(t.Context(), from(cache, spec))
		require.NoError(t, err)
		why = m.Result().Why
		require.NoError(t, m.Close())
	}
	t.Fatalf("no machine was prefetched: a quarter of the host's memory must be free; the last boot: %s", why)
}

func TestAPrefetchedMachineHasItsOwnClockIdentityAndRecord(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/lost")
	spec.Accel, spec.Outbound = harness.TCG, harness.OutboundHost
	cache := ownCache(t, spec)
	cache.Prefetch = true
	defer cache.Close()
	random, boots, places := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range 2 {
		waits(t, cache, spec)
		spec.Ports = []string{"udp/4242", "tcp/4242", "tcp/" + strconv.Itoa(80+i)}
		spec.Dir = filepath.Join(t.TempDir(), "record")
		asked := time.Now()
		m, err := harness.Boot(t.Context(), from(cache, spec))
		require.NoError(t, err)
		defer m.Close()
		handedOut := time.Now()
		require.Equal(t, harness.BootPrefetched, m.Result().Boot, m.Result().Why)
		require.Equal(t, harness.StateReady, m.Result().State)
		require.LessOrEqual(t, m.Result().ReadySeconds, handedOut.Sub(asked).Seconds())
		require.Len(t, m.Ports(), len(spec.Ports))

		dial := func(network string, port int) net.Conn {
			conn, err := m.Dial(t.Context(), network, port)
			require.NoError(t, err)
			t.Cleanup(func() { conn.Close() })
			require.NoError(t, conn.SetDeadline(time.Now().Add(4*harnesstest.Within)))
			return conn
		}
		s := says(t, dial)
		late := time.Duration(m.Result().ClockLate * float64(time.Second))
		require.Positive(t, late)
		require.Less(t, late, handedOut.Sub(asked), "the clock was set while the cache handed the machine out")
		require.WithinRange(t, s.clock, s.before.Add(-max(late, clockOff)), s.after.Add(clockOff))
		random[s.random], boots[s.boot], places[s.where] = true, true, true
		stats, err := m.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, s.boot, stats.BootID)
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		defer cancel()
		told, err := m.Event(ctx)
		require.NoError(t, err)
		require.Equal(t, "set up", told, "the event of the saved machine")
		echoes(t, dial("tcp", echoPort), strings.Repeat("there and back ", 1000))
		called(t, dial, s.boot)
		countsOn(ctx, t, m.Console())
		require.NoError(t, m.Shutdown(ctx))
		tellsOfTheWholeRun(t, m, spec)
	}
	require.Len(t, random, 2)
	require.Len(t, boots, 2)
	require.Len(t, places, 1, "a restored machine keeps the addresses")
}

// countsOn requires that the console has every number once, from before the cache handed the machine
// out until after it.
func countsOn(ctx context.Context, t *testing.T, c *console.Console) {
	t.Helper()
	numbers := func() [][]string {
		return regexp.MustCompile(`(?m)^(?:uart:~\$ )?n(\d+)$`).FindAllStringSubmatch(c.Text(), -1)
	}
	now := len(numbers())
	_, err := c.Expect(ctx, "n"+strconv.Itoa(now+10)+"\n")
	require.NoError(t, err)
	all := numbers()
	require.Greater(t, len(all), now+10)
	for i, n := range all {
		require.Equal(t, strconv.Itoa(i), n[1])
	}
}

// tellsOfTheWholeRun requires that the record covers the machine from before the cache handed it out
// to its end.
func tellsOfTheWholeRun(t *testing.T, m *harness.Machine, spec harness.Spec) {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(spec.Dir, name))
		require.NoError(t, err)
		return string(text)
	}
	require.Equal(t, spec.Dir, m.Dir())
	var log strings.Builder
	require.NoError(t, m.Console().Follow(context.Background(), &log))
	require.Equal(t, log.String(), regexp.MustCompile(`(?m)^\[ *\d+\.\d{6}\] `).ReplaceAllString(read("console.log"), ""))
	require.Contains(t, read("qmp.log"), "migrate-incoming")
	require.GreaterOrEqual(t, strings.Count(read("agent.log"), "guest: restored"), 2, "once when it was restored and once when it was handed out")
	require.Contains(t, read("qemu.args"), "-incoming\n")
	saved, err := harness.ReadSpec(filepath.Join(spec.Dir, "spec.json"))
	require.NoError(t, err)
	require.Equal(t, spec.Ports, saved.Ports)
}

func TestAPrefetchedMachineIsForItsOwnKind(t *testing.T) {
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Accel = harness.TCG
	cache := ownCache(t, spec)
	cache.Prefetch = true
	defer cache.Close()
	// From here on, QEMU inherits a mark, and no other cache restores a machine in the background.
	harnesstest.EndPrefetched()
	const variable = "GUESTHOUSE_TEST_MARK"
	own := t.TempDir()
	t.Setenv(variable, own)
	mark := variable + "=" + own

	waits(t, cache, spec)
	all := sys.ProcessesWithEnv(mark)
	require.Len(t, all, 1)
	require.NoError(t, unix.Kill(all[0].PID, unix.SIGKILL))
	require.Regexp(t, "^restored: the prefetched machine could not be used: .", bootFrom(t, cache, spec))

	waits(t, cache, spec)
	other := spec
	other.Cmdline = []string{"another=kind"}
	require.Equal(t, "cold: the first boot of its kind, saved for the next", bootFrom(t, cache, other))
	spec.Ports, spec.ReadyWithin = []string{"tcp/4242"}, time.Minute
	require.Equal(t, "prefetched", bootFrom(t, cache, spec), "ports and deadlines do not distinguish kinds")

	waits(t, cache, spec)
	cache.Close()
	require.Empty(t, sys.ProcessesWithEnv(mark))

	waits(t, cache, spec)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := harness.Boot(gone, from(cache, spec))
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, sys.ProcessesWithEnv(mark))

	cache.Prefetch = false
	require.Equal(t, "restored", bootFrom(t, cache, spec))
	require.Empty(t, sys.ProcessesWithEnv(mark))
}
