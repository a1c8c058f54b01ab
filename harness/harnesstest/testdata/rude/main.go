// Rude is a guest that prints bytes that control a terminal wherever it can. With rude=setup or
// rude=panic on the kernel's command line, it also fails in that way.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"guesthouse.example/guest"
	"guesthouse.example/guest/socketservice"
)

// rude sets the clipboard and the title and requests the mouse. It has a NUL, a backspace, a control
// character of one byte and one of two, an incomplete character, and one that reverses the text.
const rude = "\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x1b\\\x1b[?1003h\x00\b\x9b5m\u009b2J\xe2\x82 \u202egnp.exe\x7f"

func main() {
	guest.Main(func() error {
		fmt.Println("console " + rude)
		guest.Event("event " + rude)
		socketservice.Define("service "+rude, func(*socketservice.Event) {}, 1)
		cmdline, err := os.ReadFile("/proc/cmdline")
		switch {
		case err != nil:
			return err
		case strings.Contains(string(cmdline), "rude=setup"):
			return errors.New("reason " + rude)
		case strings.Contains(string(cmdline), "rude=panic"):
			panic(errors.New("panic " + rude)) // of a string Go itself escapes some
		}
		return nil
	})
}
