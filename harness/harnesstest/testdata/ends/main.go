// Ends is a guest that exits silently on SIGUSR1, and panics when it gets a byte on TCP port 4242.
package main

import (
	"net"
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
		listener, err := net.Listen("tcp", ":4242")
		if err != nil {
			return err
		}
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1))
			panic("no such sensor")
		}()
		return nil
	})
}
