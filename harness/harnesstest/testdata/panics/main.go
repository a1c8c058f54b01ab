// Panics is a guest that panics when it is sent a byte on TCP port 4242.
package main

import (
	"net"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
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
