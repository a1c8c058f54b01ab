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
// descriptor's number to a new socket. Every ready socket is served once before
// any is served twice. No lock is held while a handler runs, so a handler may
// call every function of this package.
//
// One rule holds for the calls that take sockets from a service: Register,
// RegisterEach, Unregister, Remove and Close. When such a call returns, no handler
// of the service runs, and none will run for a socket that the call has taken away.
// So the caller may close the socket and free what its handler uses. If a handler of
// the service runs, the call waits for it, however long that takes: the caller must
// not hold a lock that the handler takes. Called from inside a handler of the same
// loop they do not wait, and hold from when that handler returns. Add takes nothing
// away and never waits for a handler.
//
// # Sockets that are closed while a service has them
//
// A socket should be unregistered before it is closed. If one is closed first, or by
// the Close of another service that had it too, the service loses it. Its handler is
// called once more, with POLLNVAL; the slot is free by then, and the descriptor's
// number may already belong to another file, so the handler must neither use nor
// close it. There is no such call when the loop finds another file under the number:
// to that service the number means nothing any more.
//
// The kernel does not say that a socket was closed. The loop finds out when the
// service's Add needs the slot, when Sockets lists the service, when the number is
// registered again, and of itself: it looks at 128 sockets every second. If a
// duplicate of the descriptor keeps the socket open, the handler may be called once
// for the socket's events before that. The loop does not spin on it.
//
// # POLLOUT
//
// Events are level-triggered, as those of poll(2): a handler is called again as long
// as what it was called for lasts. Nearly always a socket is writable, so one that is
// polled for POLLOUT has its handler called several hundred thousand times a second.
// Poll for POLLOUT only while something waits to be sent:
//
//	_ = ev.Service.Add(int(ev.Fd), unix.POLLOUT, ev.UserData) // until it is sent
//	_ = ev.Service.Add(int(ev.Fd), unix.POLLIN, ev.UserData)
//
// The loop logs one warning for a service that does otherwise for a second. It also
// logs a handler that runs for a second, with its stack, and again when it returns.
package socketservice
