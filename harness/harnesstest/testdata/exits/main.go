// Exits is a guest that ends without a word when it gets SIGUSR1.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGUSR1)
		go func() {
			<-signals
			os.Exit(3)
		}()
		return nil
	})
}
