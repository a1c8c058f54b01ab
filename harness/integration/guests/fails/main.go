// Fails is a guest whose program fails before it is ready, in the way that its argument names.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest"
)

// In "init" the program ends before main. It prints so much that the serial port is still
// busy with it when the program has ended.
func init() {
	if slices.Contains(os.Args, "init") {
		for i := range 1000 {
			fmt.Fprintln(os.Stderr, "word", i)
		}
		os.Exit(3)
	}
}

var ports []error

func main() {
	guest.Main(func() error {
		switch os.Args[len(os.Args)-1] {
		case "error":
			return errors.New("no such sensor")
		case "panic":
			return ports[len(ports)]
		case "killed": // the program prints nothing
			return unix.Kill(unix.Getpid(), unix.SIGKILL)
		case "hangs":
			slog.Info("waiting for what never comes")
			time.Sleep(math.MaxInt64)
		}
		return nil
	})
}
