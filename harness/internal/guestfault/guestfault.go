// Package guestfault holds the error that every layer of the harness wraps if the guest caused a
// failure and not the host. Packages harness and console export it as ErrGuest.
package guestfault

import (
	"errors"
	"fmt"

	"guesthouse.example/internal/printable"
)

// ErrGuest is wrapped by every error whose cause is the guest: it crashed, hung or ended.
var ErrGuest = errors.New("the guest failed")

// New returns an error that quotes the guest. It escapes what could control a terminal.
func New(words string) error { return fmt.Errorf("%w: %s", ErrGuest, printable.Text(words)) }
