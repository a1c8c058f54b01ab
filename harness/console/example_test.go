package console_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"

	"guesthouse.example/harness/console"
)

// A guest with a shell of one command. A pseudoterminal, a serial device or an SSH session takes the
// place of the pipe.
func Example() {
	line, guest := net.Pipe()
	defer line.Close()
	go func() {
		keys := bufio.NewReader(guest)
		fmt.Fprint(guest, "booting...\r\n\x1b[32m$ \x1b[m")
		for {
			typed, err := keys.ReadString('\r')
			if err != nil {
				return
			}
			fmt.Fprintf(guest, "%s\nUptime: 42 ms\r\n$ ", typed) // first the echo, as terminals do
		}
	}()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := console.New(line, console.Options{})
	if _, err := c.Expect(ctx, `^\$ $`); err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Send(ctx, "uptime"); err != nil {
		fmt.Println(err)
		return
	}
	match, err := c.Expect(ctx, `Uptime: (\d+) ms`)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("up for", match[1], "ms")
	// Output: up for 42 ms
}

// A crash ends every wait, with the guest's words.
func ExampleConsole_Crash() {
	line, guest := net.Pipe()
	go func() {
		fmt.Fprint(guest, "[    1.500000] Kernel panic - not syncing: no init found\r\n")
		guest.Close()
	}()
	c := console.New(line, console.Options{})
	_, err := c.Expect(context.Background(), "login:")
	fmt.Println(err)
	fmt.Println(c.Crash())
	// Output:
	// expect "login:": the guest failed: [    1.500000] Kernel panic - not syncing: no init found
	// [    1.500000] Kernel panic - not syncing: no init found
}
