package integration

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// A dialer connects to a port of the guest, as harnesstest.Machine.Dial does.
type dialer func(network string, port int) net.Conn

// asked sends a command to the guest "lost" or "calls" and returns its answer.
func asked(t *testing.T, dial dialer, what string) string {
	t.Helper()
	conn := dial("udp", echoPort)
	_, err := conn.Write([]byte(what))
	require.NoError(t, err)
	answer := make([]byte, 1500)
	n, err := conn.Read(answer)
	require.NoError(t, err)
	return string(answer[:n])
}

// clockOff bounds the difference between a guest's clock and the host's. driftOff bounds how much
// faster than the host's clock the guest's monotonic clock may run.
const (
	clockOff = 50 * time.Millisecond
	driftOff = 100 // one part in a hundred
)

// A saying is a report of the guest "lost" about itself, with the host's time of the report.
type saying struct {
	before, after       time.Time // the request and the answer, on the host's clock
	clock               time.Time
	uptime              time.Duration
	random, boot, where string
}

func says(t *testing.T, dial dialer) (s saying) {
	t.Helper()
	s.before = time.Now()
	answer := asked(t, dial, "self")
	s.after = time.Now()
	var clock int64
	_, err := fmt.Sscan(answer, &clock, &s.uptime, &s.random, &s.boot)
	require.NoError(t, err, "%q", answer)
	s.clock = time.Unix(0, clock)
	s.where = answer[strings.Index(answer, s.boot)+len(s.boot):]
	return s
}

// Every machine that is restored from a template, and the machine that was saved, has its own clock,
// random numbers and identity, and a working network.
func TestARestoredMachineHasItsOwnClockRandomnessAndIdentity(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		spec := harnesstest.Spec(t, target, "./guests/lost")
		spec.Ports = []string{"udp/4242", "tcp/4242"}
		calls := target == oneTarget(t)
		if calls { // on one target, because the others' platforms have no template with it
			spec.Outbound = harness.OutboundHost
		}
		spec.Accel = harness.TCG // which templates require
		original := fresh(t, spec)
		require.Equal(t, "set up", original.Event())
		first := says(t, original.Dial)
		require.Equal(t, 2001, first.clock.UTC().Year(), "nothing has set the clock yet")
		// The timer and the events run while the machine is saved, or have just ended.
		require.Equal(t, "done", asked(t, original.Dial, "timer"))
		const events = 300
		require.Equal(t, "done", asked(t, original.Dial, fmt.Sprint("events ", events)))
		template := original.Save(filepath.Join(t.TempDir(), "template"))
		saved := time.Now()

		random, boots := map[string]bool{first.random: true}, map[string]bool{first.boot: true}
		check := func(m *harnesstest.Machine, ran time.Duration) {
			begin := time.Now()
			s := says(t, m.Dial)
			late := time.Duration(m.Result().ClockLate * float64(time.Second)) // more on a host that is very busy
			require.Positive(t, late)
			require.False(t, s.clock.Before(s.before.Add(-max(late, clockOff))), "its clock says %v, and it was asked at %v", s.clock, s.before)
			require.False(t, s.clock.After(s.after.Add(clockOff)), "its clock says %v, and it had answered at %v", s.clock, s.after)
			require.Greater(t, s.uptime, first.uptime)
			ran += s.after.Sub(begin)
			require.Less(t, s.uptime-first.uptime, ran+ran/driftOff, "the monotonic clock stands still while the machine is saved")
			require.Equal(t, first.where, s.where, "a restored machine keeps the addresses")
			random[s.random], boots[s.boot] = true, true
			require.Equal(t, s.boot, m.Stats().BootID)

			echoes(t, m.Dial("tcp", echoPort), "from the host")
			if calls {
				called(t, m.Dial, s.boot)
			}
			tells(t, m, events)
			require.Equal(t, "done", asked(t, m.Dial, "timer"))
			again := m.Event()
			require.Contains(t, again, "timer ", "events from before the save come once, and so does a timer")
		}
		check(original, saved.Sub(first.before))
		spec.From = template
		for range 2 {
			begin := time.Now()
			m := restored(t, spec)
			require.Equal(t, "set up", m.Event(), "the event from before the save")
			check(m, saved.Sub(first.before)+time.Since(begin))
		}
		require.Len(t, random, 4)
		require.Len(t, boots, 4)
	})
}

// called makes the guest connect to a port of the host and send its boot identity there.
func called(t *testing.T, dial dialer, boot string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(4*harnesstest.Within)))
	said := make(chan string, 1)
	go func() {
		defer close(said)
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			text, _ := io.ReadAll(conn)
			said <- string(text)
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	require.Equal(t, "done", asked(t, dial, "dial 192.0.2.2:"+port)) // the host, as the guest's network has it
	require.Equal(t, boot, <-said)
}

// tells requires the events that the guest sends around the save: one of the timer, and each numbered
// event once and in order.
func tells(t *testing.T, m *harnesstest.Machine, events int) {
	t.Helper()
	next, timers := 0, 0
	for next < events || timers == 0 {
		text := m.Event()
		if ns, ok := strings.CutPrefix(text, "timer "); ok {
			took, err := time.ParseDuration(ns + "ns")
			require.NoError(t, err)
			require.GreaterOrEqual(t, took, 100*time.Millisecond)
			timers++
			continue
		}
		require.Equal(t, fmt.Sprint("event ", next), text)
		next++
	}
	require.Equal(t, 1, timers)
}

func TestStatsCountMemoryAndServiceCalls(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		spec := echoSpec(t, target)
		m := harnesstest.Boot(t, spec)
		before := m.Stats()
		conn := m.Dial("udp", echoPort)
		echoes(t, conn, "hello")
		echoes(t, conn, "again") // the service has counted the first call by then
		after := m.Stats()

		require.Equal(t, before.BootID, after.BootID)
		require.Greater(t, after.Uptime, before.Uptime)
		spent := uint64(m.Spec().Memory)<<20 - after.MemoryTotal
		require.Less(t, spent, uint64(128<<20), "the kernel keeps some of the machine's memory to itself")
		require.Less(t, after.MemoryFree, after.MemoryTotal)
		sockets := make(map[string]int)
		for i, svc := range after.Services {
			sockets[svc.Name] = svc.Sockets
			require.Equal(t, before.Services[i].Name, svc.Name)
			calls := svc.Calls - before.Services[i].Calls
			switch svc.Name {
			case "service_udp":
				require.Contains(t, []uint64{1, 2}, calls, "the second may not be counted yet")
				require.Positive(t, svc.Time)
			default:
				require.Zero(t, calls, svc.Name)
			}
			require.Zero(t, svc.Errors, svc.Name)
		}
		require.Equal(t, map[string]int{"service_udp": 1, "service_accept": 1, "service_tcp": 0}, sockets)
		m.Shutdown()
	})
}
