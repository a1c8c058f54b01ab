// Draws is a guest whose goroutines draw random numbers all the time, as libraries may do in the
// background. They keep the numbers that they draw after a restore. Until then the guest's clock is in
// the year 2001. In OnRestore the guest sends its boot identity as an event.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest"
)

func main() {
	guest.OnRestore(func() { guest.Event("restored as " + guest.BootID()) })
	guest.Main(func() error {
		wrong := unix.NsecToTimespec(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &wrong); err != nil {
			return err
		}
		for i := range 2 {
			go draw(fmt.Sprint("/drawn-by-go-", i), func(b []byte) { rand.Read(b) })
			go draw(fmt.Sprint("/drawn-by-getrandom-", i), func(b []byte) { unix.Getrandom(b, 0) })
		}
		return nil
	})
}

// values is how many numbers each goroutine keeps.
const values = 200

// draw draws numbers until it has enough from after the restore, which it recognizes by the clock. It
// writes them to a file, below the duration for which the goroutine was stopped before the first.
func draw(file string, random func([]byte)) {
	var drawn strings.Builder
	for n, last := 0, time.Now(); n < values; {
		// The goroutine may be stopped anywhere, even between two reads of the clock.
		before, value := time.Now(), make([]byte, 16)
		isRestored := time.Now().Year() > 2001
		held := time.Since(last) // on the monotonic clock
		random(value)
		if isRestored {
			if n == 0 {
				fmt.Fprintln(&drawn, held)
			}
			fmt.Fprintln(&drawn, hex.EncodeToString(value))
			n++
		}
		last = before
	}
	if err := os.WriteFile(file+".new", []byte(drawn.String()), 0o644); err != nil {
		guest.Event(err.Error())
	}
	os.Rename(file+".new", file)
}
