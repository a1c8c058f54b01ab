package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/host/traffic"
	"guesthouse.example/internal/sys"
)

const (
	port = 4242

	// These are in the machine's time.
	stepWithin  = 2 * time.Minute
	floodWithin = 20 * time.Minute // an emulated serial line may be as slow as 20 kB/s
	killWithin  = 8 * time.Second  // after its start, while it boots or has traffic

	floodLines = 10<<20/floodLine + 1 // 10 MiB
)

// usual lists the faults of a soak. A flood takes as long as ten other boots.
var usual = strings.Repeat("plain,kill,link,", 6) + "plain,flood"

// checks has a function for each fault. It injects the fault into a started machine and returns an
// error for an unexpected outcome.
var checks = map[string]func(ctx context.Context, m *harness.Machine, j job) error{
	"plain": plain,
	"kill":  kill,
	"flood": flood,
	"link":  link,
}

// boot boots or restores a machine as the job demands, and checks it.
func boot(ctx context.Context, templates *harness.TemplateCache, j job, dir string) error {
	spec := j.spec
	spec.Dir = dir
	spec.Ports = []string{"udp/4242", "tcp/4242"}
	if j.how == cold {
		spec.From = harness.Cold
	} else {
		spec.From, spec.Accel = templates, harness.TCG // templates need TCG
	}
	m, err := harness.Start(ctx, spec)
	if err != nil {
		return err
	}
	defer m.Close()
	if r := m.Result(); (r.Boot == harness.BootRestored) != (j.how == restored) {
		return fmt.Errorf("the job is %s, and the machine is %s: %s", j.how, r.Boot, r.Why)
	}
	return checks[j.fault](ctx, m, j)
}

// plain expects that a machine boots, serves, answers and powers off.
func plain(ctx context.Context, m *harness.Machine, _ job) error {
	return steps(ctx, m, ready, echoes, answers, off)
}

// flood also expects every byte of a flooded console in its log, in order.
func flood(ctx context.Context, m *harness.Machine, j job) error {
	// The echo of the command does not contain the result of the sum.
	command := fmt.Sprintf(`sh b=%s; for n in 1 2 3 4; do b=$b$b$b$b; done; i=0; `+
		`while [ $i -lt %d ]; do i=$((i+1)); echo $i $b; done; echo flood of $((40 + 2))`, floodWord, j.floodLines)
	return steps(ctx, m, ready, answers, func(context.Context, *harness.Machine) error {
		ctx, cancel := m.Within(ctx, floodWithin)
		defer cancel()
		if err := m.Console().Send(ctx, command); err != nil {
			return err
		}
		_, err := m.Console().Expect(ctx, `flood of 42`)
		return err
	}, echoes, answers, off, func(_ context.Context, m *harness.Machine) error {
		return flooded(filepath.Join(m.Dir(), "console.log"), j.floodLines)
	})
}

const (
	floodWord = "0123456789abcdef"
	floodLine = 256 * len(floodWord) // bytes, without the number in front of them
)

// flooded requires all lines of a flood, in order, in a console.log.
func flooded(log string, lines int) error {
	text, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	filler := strings.Repeat(floodWord, floodLine/len(floodWord))
	next := 1
	for line := range strings.Lines(string(text)) {
		// A line is "[   12.345678] 1 0123456789abcdef…". The first may follow the typed command in
		// the same line.
		if next <= lines && strings.HasSuffix(line, fmt.Sprintf(" %d %s\n", next, filler)) {
			next++
		} else if strings.Contains(line, floodWord+floodWord) {
			return fmt.Errorf("console.log has %d of %d lines of the flood, and then %d bytes: %.100s", next-1, lines, len(line), line)
		}
	}
	if next <= lines {
		return fmt.Errorf("console.log has %d of %d lines of the flood", next-1, lines)
	}
	return nil
}

// link also expects no answer while the link is cut, and every answer once it is restored.
func link(ctx context.Context, m *harness.Machine, _ job) error {
	return steps(ctx, m, ready, echoes, func(ctx context.Context, m *harness.Machine) error {
		conn, err := m.Dial(ctx, "udp", port)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := m.SetLink(ctx, false); err != nil {
			return err
		}
		switch answered, err := answersWithin(conn, time.Second); {
		case err != nil:
			return err
		case answered:
			return errors.New("a datagram came back over a link that is cut")
		}
		if err := m.SetLink(ctx, true); err != nil {
			return err
		}
		for {
			if answered, err := answersWithin(conn, time.Second); answered || err != nil {
				return err
			}
			if ctx.Err() != nil {
				return fmt.Errorf("no answer since the link was restored: %w", context.Cause(ctx))
			}
		}
	}, echoes, answers, off)
}

// kill kills QEMU at a random moment. It expects an error that blames QEMU and not the guest.
func kill(ctx context.Context, m *harness.Machine, j job) error {
	killed := make(chan error, 1)
	after := time.Duration(j.rng.Int64N(int64(j.killWithin)))
	qemu, err := openQEMU(m)
	if err != nil {
		return err
	}
	go func() { killed <- killQEMU(ctx, m, qemu, after) }()
	// A datagram that QEMU accepted before the kill gets neither an answer nor an error.
	alive, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() { end(cmp.Or(m.Wait(alive), errors.New("the machine has ended"))) }()
	seen := steps(ctx, m, ready)
	for seen == nil {
		seen = steps(alive, m, echoes)
	}
	if err := <-killed; err != nil {
		return fmt.Errorf("kill QEMU: %w; seen: %w", err, seen)
	}
	err = steps(ctx, m, func(ctx context.Context, m *harness.Machine) error { return m.Wait(ctx) })
	if err == nil || errors.Is(err, harness.ErrGuest) || errors.Is(seen, harness.ErrGuest) ||
		!strings.Contains(err.Error(), "QEMU ended: signal: killed") {
		return fmt.Errorf("QEMU was killed after %v and the machine's error is: %v; seen: %w", after, err, seen)
	}
	return nil
}

// killQEMU kills QEMU after that much of the machine's time.
func killQEMU(ctx context.Context, m *harness.Machine, qemu int, after time.Duration) error {
	defer unix.Close(qemu)
	moment, cancel := m.Within(ctx, after)
	defer cancel()
	<-moment.Done()
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(qemu, unix.SIGKILL, nil, 0))
}

// openQEMU returns a descriptor of QEMU's process. The process number may have been reused, so
// openQEMU requires that the process is a child of this one.
func openQEMU(m *harness.Machine) (int, error) {
	pid := m.Result().PID
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	if p, ok := sys.LookupProcess(pid); !ok || p.Parent != os.Getpid() {
		unix.Close(fd)
		return -1, fmt.Errorf("QEMU, process %d, has ended", pid)
	}
	return fd, nil
}

type step func(ctx context.Context, m *harness.Machine) error

// steps takes one step after the other, each in the machine's time.
func steps(ctx context.Context, m *harness.Machine, all ...step) error {
	for _, s := range all {
		within, cancel := m.Within(ctx, stepWithin)
		err := s(within, m)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// ready waits with the Spec's own deadlines, which are shorter.
func ready(ctx context.Context, m *harness.Machine) error { return m.WaitReady(ctx) }

// echoes expects every byte back from the echo service, by UDP and TCP.
func echoes(ctx context.Context, m *harness.Machine) error {
	dial := func(ctx context.Context, network string) (net.Conn, error) { return m.Dial(ctx, network, port) }
	for _, network := range []string{"udp", "tcp"} {
		// The deadline in the machine's time is that of ctx. Timeout would be wall time.
		cfg := traffic.EchoConfig{Network: network, Window: 1, Timeout: 24 * time.Hour}
		if err := traffic.Echo(ctx, dial, cfg); err != nil {
			return fmt.Errorf("%s echo: %w", network, err)
		}
	}
	return nil
}

// answers expects the console to carry out a command.
func answers(ctx context.Context, m *harness.Machine) error {
	if err := m.Console().Send(ctx, "uptime"); err != nil {
		return err
	}
	_, err := m.Console().Expect(ctx, `Uptime: [1-9]\d* ms`)
	return err
}

func off(ctx context.Context, m *harness.Machine) error { return m.Shutdown(ctx) }

// answersWithin sends a datagram and reports whether one comes back.
func answersWithin(conn net.Conn, d time.Duration) (bool, error) {
	if _, err := conn.Write([]byte("soak")); err != nil {
		return false, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false, err
	}
	_, err := conn.Read(make([]byte, 1500))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}
