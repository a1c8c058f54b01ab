// Package socketservice is Zephyr's socket service in Go: one loop polls the
// sockets of any number of services and calls a service's handler when one of
// its sockets has something to report.
//
// It is for programs that serve many mostly idle sockets with little memory
// and one thread, and for programs written against Zephyr's API that are to
// run on Linux: names, limits and errors are Zephyr's, and where Zephyr's
// behaviour has been reported as a bug this package has the fixed behaviour
// (the documentation names the issue).
//
// It is not for handlers that wait. A handler runs on the loop, one at a time,
// and while it runs no other socket is served: sockets must be non-blocking,
// and work that takes long belongs in a goroutine of its own. A server that
// wants a goroutine a connection is better served by package net.
//
// # Use
//
// A service is defined once, normally at package level, with the number of
// sockets that it can hold; Register gives it the sockets:
//
//	var echo = socketservice.Define("echo", serve, 1)
//
//	func serve(ev *socketservice.Event) { ... }
//
//	func main() {
//		socketservice.Start()
//		fd, err := socketservice.ListenUDP(4242)
//		...
//		err = echo.Register([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, nil)
//		...
//	}
//
// An exported variable is Zephyr's NET_SOCKET_SERVICE_SYNC_DEFINE, an
// unexported one is NET_SOCKET_SERVICE_SYNC_DEFINE_STATIC. A handler that
// changes its own service uses ev.Service: were it to name the package-level
// variable, the variable's initial value would depend on itself, which Go
// refuses as an initialization cycle.
//
// The package-level functions work on a default loop, as those of net/http
// work on a default mux. Tests and programs that want several loops use
// [NewLoop].
//
// # Promises
//
// Register replaces the whole set of a service's sockets or, if it fails,
// changes nothing. A change takes effect at once: a handler is never called
// for a socket that was removed or replaced before the call, not even when the
// event had been collected already and not when the kernel has given the
// descriptor's number to a new socket. No lock is held while a handler runs,
// so a handler may call every function of this package. When Unregister,
// Remove or Close returns, no handler of the service runs. Every ready socket is
// served once before any is served twice.
//
// A socket should be unregistered before it is closed. One that is closed
// first costs at most a few surplus calls, the last of which reports POLLNVAL,
// and then its slot is free; the loop does not spin on it.
package socketservice
