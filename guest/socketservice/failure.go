package socketservice

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"
)

// A failure is how the newest handler that did not return ended.
type failure struct {
	cause any // what it panicked with
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
			// A cause of nil can be a panic (under GODEBUG=panicnil=1) or
			// Goexit. Only after a panic does handle go on.
			l.failure = failure{recover(), string(debug.Stack())}
		}
	}()
	l.event.Service.handler(&l.event)
	return true
}

// survive ends the call of a handler, or of the logger, that has ended the loop's
// goroutine. It can not be refused, but it is no reason to leave the other sockets
// without a loop.
func (l *Loop) survive() {
	l.mu.Lock()
	service, fd := l.running, l.runningFd
	if service != nil {
		l.finish(false, l.clock()-l.begun)
	}
	l.mu.Unlock()
	if service != nil && l.failure.stack != "" { // else it was the logger, which has had it
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

// text is the cause of a panic in words, whatever its methods do.
func text(cause any) (s string) {
	defer func() {
		if recover() != nil {
			s = fmt.Sprintf("a %T that can not be printed", cause)
		}
	}()
	if cause == nil {
		return "panic with nil"
	}
	return fmt.Sprint(cause)
}

// say logs, from the loop's goroutine. A logger is the program's code: it may fail,
// and so must not cost the loop.
func (l *Loop) say(level slog.Level, message string, args ...any) {
	within := l.inProgram
	l.inProgram = true
	l.record(level, message, args...)
	l.inProgram = within
}

// record logs. What a logger does not take goes to standard error.
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
