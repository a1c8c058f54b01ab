// Package console is a test's end of a guest's console: it logs what the guest prints, waits for
// patterns, types lines, and detects crashes. The guest is any system behind any line: a virtual
// machine on a pseudoterminal, a board on a serial device, a host in an SSH session, a program on a
// pair of pipes.
//
// [New] takes the line, an io.ReadWriter. [Console.Expect] waits for a pattern, and [Console.Send]
// types a line:
//
//	c := console.New(port, console.Options{Record: logFile})
//	if _, err := c.Expect(ctx, `login: $`); err != nil {
//		return err
//	}
//	err := c.Send(ctx, "root")
//
// A search in a stream of bytes goes wrong in ways that this package prevents:
//
//   - Patterns match what a person would read, without colours and cursor movements.
//   - A match does not depend on how the output was split over reads.
//   - The echo of a command does not match; its answer does.
//   - A crash of the guest ends Expect with an error that quotes the guest. The console knows the
//     signs of Linux, Go, Zephyr and others.
//   - The console reads the line all the time, so a guest never stalls because nobody expects
//     anything.
//   - The error of an Expect that fails shows what the guest printed instead.
//
// The package opens no device and sets no baud rate; the caller brings the line. It does not emulate
// a screen, so a test cannot use it to operate an editor or a menu.
//
// Some methods are for authors of harnesses: [Console.CatchUp], [Console.HoldTyping] and
// [Console.State] save a console together with its machine, and [Console.WaitFor] lets a boot wait for
// the guest's prompt without taking it from the test. For a guest that package harness boots, the
// method Console of harness.Machine returns the console.
package console
