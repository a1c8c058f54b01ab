package imagecache

import (
	"context"
	"errors"
	"strings"
	"syscall"
)

// An Error says which step failed, on which object, why, and what the user can do. Its fields are
// those of images.Error.
type Error struct {
	Step   string
	Object string
	Err    error
	Hint   string
}

// Cause returns the error without its hint: "step object: cause".
func (e *Error) Cause() string { return e.Step + " " + e.Object + ": " + e.Err.Error() }

// Error returns the cause and, on a line of its own, the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Cause()
	}
	return e.Cause() + "\nhint: " + e.Hint
}

func (e *Error) Unwrap() error { return e.Err }

// Fail returns an Error, or err itself if it wraps one already. For a full disk it replaces the
// hint. If a context has ended, it drops the hint, because the caller gave up.
func Fail(step, object string, err error, hint string) error {
	if _, already := errors.AsType[*Error](err); already {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		hint = ""
	case isFull(err):
		hint = "free some space or raise the limit, or name a directory on another disk with -cache DIR or Options.Cache"
	}
	return &Error{Step: step, Object: object, Err: err, Hint: hint}
}

// isFull reports whether an error says that a disk is full or that a quota or the file size limit
// (ulimit -f) is reached. The error may be the output of a program that this process ran.
func isFull(err error) bool {
	words := strings.ToLower(err.Error())
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) || strings.Contains(words, full.Error()) {
			return true
		}
	}
	// This signal ends a program that does not handle the file size limit.
	return strings.Contains(words, syscall.SIGXFSZ.String())
}
