package socketservice

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// An Error says which operation failed on which service. It wraps an errno, for
// use with errors.Is(err, unix.ENOMEM) for example. The errnos are Zephyr's:
//
//   - ENOENT: the service belongs to no loop, or a start found no service
//   - ENOMEM: more sockets than the service has slots, or more slots than
//     [Config.PollMax]
//   - EIO: the loop failed to start or has been stopped
//   - EALREADY: the loop was started before
//
// Any other errno comes from the kernel, which refused a socket.
type Error struct {
	Op      string // "register", "unregister", "add", "remove", "close", "start"
	Service string // the service's name; empty if the loop itself failed
	Err     error
}

func (e *Error) Error() string {
	if e.Service == "" {
		return e.Op + " socket service loop: " + e.Err.Error()
	}
	return e.Op + " socket service " + e.Service + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// refusal returns the error of a call to a loop that does not run. Zephyr's errno
// is always EIO.
func refusal(st state, cause error) error {
	if st == failed {
		return fmt.Errorf("loop failed to start (%w): %w", cause, unix.EIO)
	}
	return fmt.Errorf("loop stopped: %w", unix.EIO)
}
