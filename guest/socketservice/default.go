package socketservice

import (
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

var defaultLoop = NewLoop(Config{})

// Define makes a service on the default loop; see [Loop.Define]. It is meant
// for package-level variables.
func Define(name string, handler Handler, count int) *Service {
	return defaultLoop.define(1, name, handler, count)
}

// All lists the services of the default loop; see [Loop.All].
func All() iter.Seq[*Service] { return defaultLoop.All() }

// Configure sets the configuration of the default loop, which is that of the
// zero Config otherwise. It fails with EALREADY once the loop was started.
func Configure(c Config) error {
	defaultLoop.mu.Lock()
	defer defaultLoop.mu.Unlock()
	if defaultLoop.state != idle {
		return &Error{Op: "configure", Err: fmt.Errorf("started before: %w", unix.EALREADY)}
	}
	defaultLoop.configure(c)
	return nil
}

// Start starts the default loop; see [Loop.Start].
func Start() error { return defaultLoop.Start() }

// Stop ends the default loop for good; see [Loop.Stop].
func Stop() error { return defaultLoop.Stop() }
