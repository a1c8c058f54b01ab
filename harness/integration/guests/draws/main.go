// Draws is a guest whose goroutines draw random numbers all the time, as libraries in the background
// may, and keep those that they draw after the machine was restored. It thinks that it is
// the year 2001 until then. In OnRestore it tells its identity.
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

// values is how many are kept.
const values = 200

// draw draws until it has values from after the machine was restored, which it finds out by the
// clock. It writes them to a file, with the time before for which it had not run.
func draw(file string, random func([]byte)) {
	var drawn strings.Builder
	for n, last := 0, time.Now(); n < values; {
		// It may be stopped anywhere, also between two looks at the clock.
		before, value := time.Now(), make([]byte, 16)
		isRestored := time.Now().Year() > 2001
		held := time.Since(last) // by the monotonic clock
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
