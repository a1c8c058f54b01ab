// Stillborn is a guest whose program panics before main, with so long a trace that its way
// through the serial port takes a while. The runtime then kills it by SIGABRT.
package main

import (
	"runtime/debug"
	"strings"

	"guesthouse.example/guest"
)

func init() {
	debug.SetTraceback("crash")
	for range 50 {
		go func() { select {} }()
	}
	panic("no sensor " + strings.Repeat("x", 100))
}

func main() { guest.Main(func() error { return nil }) }
