// Killed is a guest whose program is killed by a signal, so that it cannot say a word.
package main

import (
	"golang.org/x/sys/unix"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		return unix.Kill(unix.Getpid(), unix.SIGKILL)
	})
}
