package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"guesthouse.example/harness"
)

const (
	escape     = 0x01 // Ctrl-A, as in QEMU
	escapeHelp = "\r\nCtrl-A x  end the machine\r\nCtrl-A a  send Ctrl-A to the guest\r\nCtrl-A h  this help\r\n"
)

// attach connects the user's terminal to the console until the machine ends or
// the user types Ctrl-A x. Every key goes to the guest, including Ctrl-C, and every
// byte of the guest goes to the terminal. Before attach returns, it restores the terminal.
func attach(ctx context.Context, m *harness.Machine, in, out *os.File, stderr io.Writer) error {
	screen := newScreen(out, stderr, true)
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	io.WriteString(out, keepTitle)
	giveBack := func() {
		screen.muted.Store(true) // after a panic here, the guest still prints
		io.WriteString(out, giveBackModes+"\r\n")
		term.Restore(int(in.Fd()), before)
	}
	defer giveBack()
	// Ctrl-Z goes to the guest, so a SIGTSTP comes from another process.
	stops, goesOn := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stops, unix.SIGTSTP)
	signal.Notify(goesOn, unix.SIGCONT)
	defer signal.Stop(stops)
	defer signal.Stop(goesOn)
	// A panic runs only the deferred calls of its own goroutine before the process ends.
	start := func(f func()) {
		go func() {
			defer func() {
				if p := recover(); p != nil {
					giveBack()
					panic(p)
				}
			}()
			f()
		}()
	}

	shown := make(chan error, 1)
	start(func() { shown <- m.Console().Follow(context.Background(), screen) })
	ready := make(chan error, 1)
	start(func() {
		err := m.WaitReady(ctx)
		if err == nil {
			screen.notice(readyLine(m, "Ctrl-A x ends"))
		} else if running(m) && ctx.Err() == nil {
			// The user may want to watch a guest that is not ready.
			screen.notice(fmt.Sprintf("guesthouse: %v\nguesthouse: Ctrl-A x ends", err))
		}
		ready <- err
	})
	ended := make(chan error, 1)
	start(func() {
		err := m.Wait(ctx)
		if running(m) && ctx.Err() == nil {
			// The user may want to look around in a guest that has crashed.
			if m.Result().State == harness.StateReady { // otherwise WaitReady reports it
				screen.notice(fmt.Sprintf("guesthouse: %v\nguesthouse: Ctrl-A x ends", err))
			}
			m.Console().Follow(ctx, io.Discard) // until it ends
			err = m.Wait(ctx)
		}
		ended <- err
	})
	quit := make(chan error, 1)
	start(func() { quit <- keys(ctx, m, in, out) })

	start(func() {
		for {
			select {
			case <-stops:
				giveBack()
				select {
				case <-goesOn: // discard an earlier signal
				default:
				}
				unix.Kill(0, unix.SIGSTOP) // the whole job, as Ctrl-Z does
				<-goesOn                   // the stop may take effect a moment later
				term.MakeRaw(int(in.Fd()))
				io.WriteString(out, keepTitle)
				screen.again()
			case <-ctx.Done():
				return
			}
		}
	})

	select {
	case err = <-ended:
		// Prefer the error that says more, which names the pattern that the console did not show.
		if notReady := <-ready; err == nil || notReady != nil && errors.As(err, new(*harness.ExitError)) {
			err = notReady
		}
	case err = <-quit:
		// A machine that is not ready, or has crashed, has not ended well although the user ended it.
		select {
		case notReady := <-ready:
			err = cmp.Or(err, notReady)
		default:
		}
		if err == nil && m.Console().Crash() != "" {
			err = m.Wait(ctx)
		}
	}
	if broken := m.Close(); err == nil {
		err = broken
	}
	if showErr := <-shown; err == nil {
		err = showErr
	}
	return err
}

func running(m *harness.Machine) bool {
	select {
	case <-m.Done():
		return false
	default:
		return true
	}
}

// keys sends the typed keys to the guest until the user types Ctrl-A x or the terminal
// is closed.
func keys(ctx context.Context, m *harness.Machine, in io.Reader, out io.Writer) error {
	buf := make([]byte, 4096)
	escaped := false
	for {
		n, err := in.Read(buf)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("terminal: %w", err)
		}
		var send []byte
		for _, b := range buf[:n] {
			switch {
			case !escaped && b == escape:
				escaped = true
				continue
			case !escaped:
				send = append(send, b)
			case b == 'x':
				return nil
			case b == 'a' || b == escape:
				send = append(send, escape)
			default:
				io.WriteString(out, escapeHelp)
			}
			escaped = false
		}
		if err := m.Console().Type(ctx, send); err != nil {
			<-ctx.Done() // the machine has ended, and attach reports how
			return nil
		}
	}
}
