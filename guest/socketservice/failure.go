package socketservice

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"
)

// A failure says why the latest failed handler call did not return.
type failure struct {
	cause any // the argument of the panic
	stack string
}

// handle calls the handler for l.event. It does not return if the handler calls
// runtime.Goexit, as a failing test does: see survive.
func (l *Loop) handle() (ok bool) {
	l.inProgram = true
	ok = l.guarded()
	l.inProgram = false
	return ok
}

func (l *Loop) guarded() (ok bool) {
	defer func() {
		if !ok {
			// A nil cause means a panic with nil (GODEBUG=panicnil=1) or a
			// Goexit. After a panic, handle continues; after Goexit, it does not.
			l.failure = failure{recover(), string(debug.Stack())}
		}
	}()
	l.event.Service.handler(&l.event)
	return true
}

// survive cleans up after a handler or a logger that has called runtime.Goexit. The loop
// cannot prevent that this ends its goroutine, and continues in another one.
func (l *Loop) survive() {
	l.mu.Lock()
	service, fd := l.running, l.runningFd
	if service != nil {
		l.finish(false, l.clock()-l.begun)
	}
	l.mu.Unlock()
	if service != nil && l.failure.stack != "" { // otherwise the logger called Goexit while it logged the failure
		l.logFailure(service, fd, "runtime.Goexit")
	}
	l.inProgram = true // for the function that starts the next goroutine
}

// report logs a call that failed or was slow. The lock is not held.
func (l *Loop) report(ok bool, took time.Duration) {
	service, fd := l.running, l.runningFd
	if !ok {
		l.logFailure(service, fd, text(l.failure.cause))
	}
	if took >= l.slow {
		l.say(slog.LevelWarn, "slow handler returned", "service", service.name, "owner", service.Owner(),
			"fd", fd, "took", took)
	}
}

func (l *Loop) logFailure(service *Service, fd int32, cause string) {
	stack := l.failure.stack
	l.failure = failure{}
	l.say(slog.LevelError, "handler failed, socket dropped", "service", service.name, "owner", service.Owner(),
		"fd", fd, "cause", cause, "stack", stack)
}

// text returns the cause of a panic as text, even if the cause's methods panic.
func text(cause any) (s string) {
	defer func() {
		if recover() != nil {
			s = fmt.Sprintf("a %T that cannot be printed", cause)
		}
	}()
	if cause == nil {
		return "panic with nil"
	}
	return fmt.Sprint(cause)
}

// say logs from the loop's goroutine. A logger is the program's code, and its failure must
// not end the loop.
func (l *Loop) say(level slog.Level, message string, args ...any) {
	within := l.inProgram
	l.inProgram = true
	l.record(level, message, args...)
	l.inProgram = within
}

// record logs. If the logger fails, record writes to standard error.
func (l *Loop) record(level slog.Level, message string, args ...any) {
	ok := false
	defer func() {
		if !ok {
			cause := "runtime.Goexit"
			if r := recover(); r != nil {
				cause = text(r)
			}
			fmt.Fprintln(os.Stderr, append([]any{"socketservice: the logger failed:", cause, "at:", message}, args...)...)
		}
	}()
	l.log.Log(context.Background(), level, message, args...)
	ok = true
}
