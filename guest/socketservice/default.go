package socketservice

import "iter"

var defaultLoop = NewLoop(Config{})

// Define makes a service on the default loop; see [Loop.Define]. It is meant
// for package-level variables.
func Define(name string, handler Handler, count int) *Service {
	return defaultLoop.define(1, name, handler, count)
}

// All lists the services of the default loop; see [Loop.All].
func All() iter.Seq[*Service] { return defaultLoop.All() }

// Start starts the default loop; see [Loop.Start].
func Start() error { return defaultLoop.Start() }

// Stop ends the default loop for good; see [Loop.Stop].
func Stop() error { return defaultLoop.Stop() }
