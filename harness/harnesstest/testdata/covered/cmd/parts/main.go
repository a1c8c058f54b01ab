// Parts is a guest whose functions run only when a test asks for them.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"guesthouse.example/guest"
)

func main() {
	if len(os.Args) > 1 {
		asCommand()
		return
	}
	guest.Main(func() error {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
		go func() {
			for s := range signals {
				if s == syscall.SIGUSR1 {
					beforeClose()
				} else {
					beforePowerOff()
				}
			}
		}()
		return nil
	})
}

func beforeClose() {
	guest.Event("ran")
}

func beforePowerOff() {
	guest.Event("ran")
}

func asCommand() {
	fmt.Println("ran")
}

func never() {
	fmt.Println("never")
}

var _ = never
