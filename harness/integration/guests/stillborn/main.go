// Stillborn is a guest whose program ends before main, after so many words that their way
// through the serial port takes a while.
package main

import (
	"fmt"
	"os"

	"guesthouse.example/guest"
)

func init() {
	for i := range 1000 {
		fmt.Fprintln(os.Stderr, "word", i)
	}
	os.Exit(3)
}

func main() { guest.Main(func() error { return nil }) }
