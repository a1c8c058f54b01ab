// Package console reads and types on the console of a guest, and tells when the guest has crashed.
// The guest may be any system at the other end of any line: a virtual machine behind a
// pseudoterminal, a board on a serial device, a host behind an SSH session, a program behind a pipe.
//
// [New] takes the line, an io.ReadWriter, and reads it from then on. [Console.Expect] waits for a
// pattern and [Console.Send] types a line:
//
//	c := console.New(port, console.Options{Record: logFile})
//	if _, err := c.Expect(ctx, `login: $`); err != nil {
//		return err
//	}
//	err := c.Send(ctx, "root")
//
// A test that looks for words in a stream of bytes goes wrong in ways that this package rules out:
//
//   - Patterns match what a person would read, without colours and cursor movements.
//   - A match does not depend on how the bytes were split over reads.
//   - The echo of a command is no answer to it.
//   - A guest that panics ends every wait at once, with its own words, and an error tells what came
//     instead of the pattern. The console knows the signs of Linux, Go, Zephyr and others.
//   - A guest that is not waited for goes on printing, and nothing of it is lost.
//
// The package does not emulate a screen: programs that draw on one, such as editors and menus, are
// out of its reach. It opens no device and sets no baud rate; the caller brings the line.
//
// A guest in an emulated machine of package harness has its console ready: Machine.Console.
package console
