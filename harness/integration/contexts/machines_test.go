package contexts

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/baremetal"
)

// The states of a machine in which calls wait.
const (
	stopped = "QEMU is stopped"
	spins   = "the guest spins"
	deaf    = "the guest reads nothing and has no agent"
)

const noAgent = "the guest has no agent"

// ofMachines are the calls of a machine that is ready. The last call ends the machine.
var ofMachines = []row[*harness.Machine]{
	// Save comes first: it refuses a machine with a command whose start the guest has not answered.
	{name: "harness.Machine.Save", call: func(ctx context.Context, m *harness.Machine) error {
		dir, err := os.MkdirTemp("", "")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		_, err = m.Save(ctx, filepath.Join(dir, "template"))
		return err
	}, atOnce: map[string]string{deaf: ""}},
	{name: "harness.Machine.Wait", call: func(ctx context.Context, m *harness.Machine) error { return m.Wait(ctx) }},
	{name: "harness.Machine.WaitExit", call: func(ctx context.Context, m *harness.Machine) error { return m.WaitExit(ctx, 3) }},
	{name: "harness.Machine.Within", call: func(ctx context.Context, m *harness.Machine) error {
		ctx, cancel := m.Within(ctx, harnesstest.Within)
		defer cancel()
		<-ctx.Done()
		return context.Cause(ctx)
	}},
	{name: "harness.Machine.WaitReady", call: func(ctx context.Context, m *harness.Machine) error { return m.WaitReady(ctx) },
		atOnce: map[string]string{stopped: "", spins: "", deaf: ""}}, // see ofBoots
	{name: "harness.Machine.Dial", call: func(ctx context.Context, m *harness.Machine) error {
		for range 8 { // the host's kernel accepts some connections for QEMU
			conn, err := m.Dial(ctx, "tcp", 4242)
			if err != nil {
				return err
			}
			defer conn.Close()
		}
		return nil
	}, atOnce: map[string]string{spins: "", deaf: ""}},
	{name: "console.Console.Expect", call: func(ctx context.Context, m *harness.Machine) error {
		_, err := m.Console().Expect(ctx, "never said")
		return err
	}},
	{name: "console.Console.ExpectAll", call: func(ctx context.Context, m *harness.Machine) error {
		return m.Console().ExpectAll(ctx, "never said", "nor this")
	}},
	{name: "console.Console.Idle", call: func(ctx context.Context, m *harness.Machine) error {
		return m.Console().Idle(ctx, time.Hour)
	}},
	{name: "console.Console.Follow", call: func(ctx context.Context, m *harness.Machine) error {
		reader, writer := io.Pipe()
		defer reader.Close() // until then the pipe has no reader
		return m.Console().Follow(ctx, writer)
	}},
	{name: "harness.Machine.FollowCapture", call: func(ctx context.Context, m *harness.Machine) error {
		reader, writer := io.Pipe()
		defer reader.Close() // until then the pipe has no reader
		return m.FollowCapture(ctx, 0, writer)
	}},
	{name: "console.Console.Send", call: func(ctx context.Context, m *harness.Machine) error {
		return m.Console().Send(ctx, strings.Repeat("x", 1<<20))
	}},
	{name: "console.Console.Type", call: func(ctx context.Context, m *harness.Machine) error {
		return m.Console().Type(ctx, make([]byte, 1<<20))
	}},
	{name: "console.Console.HoldTyping", call: func(ctx context.Context, m *harness.Machine) error {
		hold, err := m.Console().HoldTyping(ctx)
		if err != nil {
			return err
		}
		defer hold()
		_, err = m.Console().HoldTyping(ctx)
		return err
	}},
	{name: "console.Console.WaitByte", call: func(ctx context.Context, m *harness.Machine) error { return m.Console().WaitByte(ctx) },
		atOnce: map[string]string{stopped: "", spins: "", deaf: ""}}, // its own test has a guest that prints nothing
	{name: "console.Console.WaitFor", call: func(ctx context.Context, m *harness.Machine) error {
		_, _, err := m.Console().WaitFor(ctx, "never said", 0)
		return err
	}},
	{name: "harness.Machine.Stats", call: func(ctx context.Context, m *harness.Machine) error {
		_, err := m.Stats(ctx)
		return err
	}, atOnce: map[string]string{deaf: noAgent}},
	{name: "harness.Machine.Command", call: func(ctx context.Context, m *harness.Machine) error {
		return m.Command(ctx, "sleep", "1000").Run()
	}, atOnce: map[string]string{deaf: noAgent}},
	{name: "harness.Machine.CopyIn", call: func(ctx context.Context, m *harness.Machine) error {
		return m.CopyIn(ctx, os.Args[0], "/tmp/copy")
	}, atOnce: map[string]string{deaf: "the machine has no disk for the guest's agent"}},
	{name: "harness.Machine.CopyOut", call: func(ctx context.Context, m *harness.Machine) error {
		dir, err := os.MkdirTemp("", "")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		return m.CopyOut(ctx, "/bbin", dir)
	}, atOnce: map[string]string{deaf: "the machine has no disk for the guest's agent"}},
	{name: "harness.Machine.Event", call: func(ctx context.Context, m *harness.Machine) error {
		_, err := m.Event(ctx)
		return err
	}, atOnce: map[string]string{deaf: noAgent}},
	{name: "harness.Machine.SetLink", call: func(ctx context.Context, m *harness.Machine) error { return m.SetLink(ctx, true) },
		atOnce: map[string]string{spins: "", deaf: ""}},
	{name: "harness.Machine.Shutdown", call: func(ctx context.Context, m *harness.Machine) error { return m.Shutdown(ctx) }},
}

func TestEveryCallEndsWithItsContextWhileQEMUIsStopped(t *testing.T) {
	captured := echoSpec(t)
	captured.Capture = true
	m := boot(t, captured)
	qemu := m.Result().PID
	require.NoError(t, unix.Kill(qemu, unix.SIGSTOP))
	last := len(ofMachines) - 1
	for _, r := range ofMachines[:last] {
		t.Run(r.name, func(t *testing.T) { try(t, r, stopped, m) })
	}
	// Several calls wait for each other and for one whose context ends later.
	fillMonitor(t, m)
	fillSerialPort(t, m)
	patient, end := context.WithCancel(t.Context())
	var waits sync.WaitGroup
	waits.Go(func() { m.SetLink(patient, true) })
	waits.Go(func() { m.Stats(patient) })
	waits.Go(func() { m.Console().Send(patient, "x") })
	waits.Go(func() { m.Console().Expect(patient, "never said") })
	t.Run("all at once", func(t *testing.T) {
		for _, r := range ofMachines[:last] {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				try(t, r, stopped, m)
			})
		}
	})
	end()
	waits.Wait()

	require.NoError(t, unix.Kill(qemu, unix.SIGCONT))
	ctx, cancel := m.Within(t.Context(), 4*harnesstest.Within)
	defer cancel()
	_, err := m.Stats(ctx)
	require.NoError(t, err, "the monitor and the agent work again")
	out, err := m.Command(ctx, "echo", "hello").Output()
	require.NoError(t, err)
	require.Equal(t, "hello\n", string(out))
	conn, err := m.Dial(ctx, "udp", 4242)
	require.NoError(t, err)
	defer conn.Close()
	echoes(t, conn)
	require.NoError(t, m.Console().Send(ctx, "\x03"), "end the typed line")
	require.NoError(t, m.Console().Send(ctx, "uptime"))
	_, err = m.Console().Expect(ctx, `Uptime: \d+ ms`)
	require.NoError(t, err)
	template, err := m.Save(ctx, filepath.Join(t.TempDir(), "template"))
	require.NoError(t, err, "nothing of the cancelled saves is mistaken for a part of this one")
	spec := m.Spec()
	spec.From, spec.Dir = template, t.TempDir()
	again, err := harness.Boot(t.Context(), spec)
	require.NoError(t, err)
	defer again.Close()
	require.Equal(t, harness.BootRestored, again.Result().Boot, again.Result().Why)

	require.NoError(t, unix.Kill(again.Result().PID, unix.SIGSTOP))
	t.Run(ofMachines[last].name, func(t *testing.T) { try(t, ofMachines[last], stopped, again) })
	require.NoError(t, unix.Kill(qemu, unix.SIGSTOP))
	require.NoError(t, m.Close(), "Close ends a stopped QEMU")
}

func TestEveryCallEndsWithItsContextWhileTheGuestSpins(t *testing.T) {
	spec := harnesstest.Spec(t, target, "../guests/spins")
	spec.Accel, spec.From, spec.Savable, spec.Capture = harness.TCG, new(harness.TemplateCache), true, true
	spec.Dir, spec.Ports = t.TempDir(), []string{"udp/4242", "tcp/4242"}
	m := boot(t, spec)
	ctx, cancel := m.Within(t.Context(), harnesstest.Within)
	defer cancel()
	conn, err := m.Dial(ctx, "udp", 4242)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("spin"))
	require.NoError(t, err)
	_, err = m.Console().Expect(ctx, `\bspins$`)
	require.NoError(t, err)
	for _, r := range ofMachines {
		t.Run(r.name, func(t *testing.T) { try(t, r, spins, m) })
	}
}

func TestEveryCallEndsWithItsContextWhileTheGuestReadsNothing(t *testing.T) {
	m := boot(t, bareMetal(t, "no kernel here", "^no kernel here$"))
	fillSerialPort(t, m)
	for _, r := range ofMachines {
		t.Run(r.name, func(t *testing.T) { try(t, r, deaf, m) })
	}
}

// fillSerialPort types until the serial port is full. The host's kernel buffers some hundred writes
// for QEMU.
func fillSerialPort(t *testing.T, m *harness.Machine) {
	t.Helper()
	fill(t, "the guest accepts no more", 2*time.Second, func(ctx context.Context) error {
		return m.Console().Type(ctx, bytes.Repeat([]byte("x"), 1<<20))
	})
}

// fillMonitor sends commands to a stopped QEMU until its monitor is full.
func fillMonitor(t *testing.T, m *harness.Machine) {
	t.Helper()
	fill(t, "QEMU does not read its commands", time.Millisecond, func(ctx context.Context) error { return m.SetLink(ctx, true) })
}

// fill calls f until its error says full.
func fill(t *testing.T, full string, lasts time.Duration, f func(context.Context) error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for says := ""; !strings.Contains(says, full); {
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			if err := f(ctx); err != nil {
				says = err.Error()
			}
			cancel()
		}
	}()
	select {
	case <-done:
	case <-time.After(harnesstest.Within + margin):
		t.Fatalf("the call does not end with its context, or never says %q", full)
	}
}

// boot boots a machine that is closed when the test ends.
func boot(t *testing.T, spec harness.Spec) *harness.Machine {
	t.Helper()
	m, err := harness.Boot(t.Context(), spec)
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// echoSpec returns the Spec of a machine that can be saved. It is restored if there is a template.
func echoSpec(t *testing.T) harness.Spec {
	spec := harnesstest.Spec(t, target, "guesthouse.example/guest/cmd/uinit")
	spec.Accel, spec.From, spec.Savable = harness.TCG, new(harness.TemplateCache), true
	spec.Dir, spec.Ports = t.TempDir(), []string{"udp/4242", "tcp/4242"}
	return spec
}

// bareMetal returns the Spec of a guest that prints a line and then idles forever.
func bareMetal(t *testing.T, says, ready string) harness.Spec {
	file := filepath.Join(t.TempDir(), "guest.elf")
	guest, err := baremetal.ELF(target, says)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, guest, 0o644))
	return harness.Spec{Target: target, Kernel: file, Ready: ready, Accel: harness.TCG, From: harness.Cold, Capture: true,
		Dir: t.TempDir(), Ports: []string{"tcp/4242"}}
}

func echoes(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := conn.Write([]byte("hello"))
	require.NoError(t, err)
	got := make([]byte, 5)
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
}
