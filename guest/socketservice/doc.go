// Package socketservice is Zephyr's socket service in Go: one loop polls the
// sockets of any number of services and calls a service's handler when one of
// its sockets has an event.
//
// It is for programs that serve many mostly idle sockets with little memory
// and one thread, and for programs that use Zephyr's API and are to run on
// Linux. Names, limits and errors are Zephyr's. Where Zephyr's behaviour was
// reported as a bug, this package has the fixed behaviour, and the
// documentation names the issue.
//
// It is not for handlers that wait. The loop calls one handler at a time, and
// serves no other socket until the handler returns. So sockets must be
// non-blocking, and long work belongs in another goroutine. For a server with a
// goroutine for each connection, use package net.
//
// # Use
//
// A program defines a service once, normally at package level, with the number
// of sockets that the service can hold. Register gives it the sockets:
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
// An exported variable corresponds to Zephyr's NET_SOCKET_SERVICE_SYNC_DEFINE, an
// unexported one to NET_SOCKET_SERVICE_SYNC_DEFINE_STATIC. A handler that changes
// its own service uses ev.Service. If it named the package-level variable, the
// variable's initial value would depend on itself, which Go rejects as an
// initialization cycle.
//
// The package-level functions use a default loop, as those of net/http use a
// default mux. Tests, and programs with several loops, use [NewLoop].
//
// # Promises
//
// Register replaces the whole set of a service's sockets or, if it fails,
// changes nothing. A change takes effect at once: the loop never calls a handler
// for a socket that was removed or replaced before the call, even if it had
// already collected the event, and even if the kernel has given the descriptor's
// number to a new socket. The loop serves every ready socket once before it serves
// any twice. It holds no lock while a handler runs, so a handler may call every
// function of this package.
//
// One rule holds for the calls that remove sockets from a service: Register,
// RegisterEach, Unregister, Remove and Close. When such a call returns, no handler
// of the service runs, and none will run for a removed socket. So the caller may
// close the socket and free the data that its handler uses. If a handler of the
// service runs, the call waits until the handler returns, however long that takes,
// so the caller must not hold a lock that the handler takes. A call from inside a
// handler of the same loop does not wait, and its promise holds once that handler
// returns. Add removes nothing and never waits for a handler.
//
// # Sockets that are closed while a service has them
//
// Unregister a socket before you close it. If the program closes a registered socket,
// or if another service that shares the socket is closed, the service loses the socket.
// The loop calls the service's handler once more, with POLLNVAL. The slot is free by
// then, and the descriptor's number may already belong to another file, so the handler
// must neither use nor close it. The loop makes no such call if it finds another file
// under the number, because the number then means nothing to the service.
//
// The kernel does not report that a socket was closed. The loop finds out when the
// service's Add needs the slot, when Sockets lists the service, and when the number is
// registered again. It also checks 128 sockets every second. If a duplicate of the
// descriptor keeps the socket open, the loop may first call the handler once for the
// socket's events. It does not call the handler in every round.
//
// # POLLOUT
//
// Events are level-triggered, like those of poll(2): the loop calls a handler again for
// as long as the event lasts. A socket is nearly always writable. If a service polls it
// for POLLOUT, the loop calls the handler several hundred thousand times a second. Poll
// for POLLOUT only while there are unsent bytes:
//
//	_ = ev.Service.Add(int(ev.Fd), unix.POLLOUT, ev.UserData) // until they are sent
//	_ = ev.Service.Add(int(ev.Fd), unix.POLLIN, ev.UserData)
//
// The loop logs one warning for a service that breaks this rule for a second. It also
// logs a handler that runs for a second, with its stack, and again when it returns.
package socketservice
