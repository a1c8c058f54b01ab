package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"guesthouse.example/harness"
)

// signals are the signals that this process gets. Before the program runs they end guesthouse, and then they
// go to the program.
type signals struct {
	caught chan os.Signal
	cancel context.CancelCauseFunc
	start  chan *harness.Cmd
	done   chan struct{}
}

// forwarded are the signals that a program gets.
var forwarded = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

// catchSignals catches the signals, and cancels the returned context when they end guesthouse. The cause is a
// signalError.
func catchSignals(ctx context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &signals{make(chan os.Signal, 16), cancel, make(chan *harness.Cmd), make(chan struct{})}
	signal.Notify(s.caught, forwarded...)
	signal.Notify(s.caught, syscall.SIGWINCH,
		syscall.SIGPIPE) // so that a write to a pipe without a reader fails, and the program learns of it
	go s.handle(ctx)
	return ctx, s
}

// handle handles signals until stop is called.
func (s *signals) handle(ctx context.Context) {
	var cmd *harness.Cmd
	seen := make(map[os.Signal]bool)
	for {
		select {
		case <-s.done:
			return
		case cmd = <-s.start:
		case sig := <-s.caught:
			number := sig.(syscall.Signal)
			again := seen[sig] && (number == syscall.SIGINT || number == syscall.SIGTERM)
			seen[sig] = true
			switch {
			case number == syscall.SIGPIPE:
			case number == syscall.SIGWINCH:
				if cmd != nil && cmd.Terminal != nil {
					go cmd.Resize(terminalSize())
				}
			case cmd == nil || again:
				s.cancel(signalError{number})
			default:
				go cmd.Signal(number) // it waits for the guest
			}
		}
	}
}

// forward sends the signals that come from now on to a command that was started.
func (s *signals) forward(cmd *harness.Cmd) { s.start <- cmd }

func (s *signals) stop() {
	signal.Stop(s.caught)
	close(s.done)
	s.cancel(nil)
}
