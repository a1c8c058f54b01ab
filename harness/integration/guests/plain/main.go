// Plain is a guest that serves TCP with package net.
package main

import (
	"io"
	"net"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		l, err := net.Listen("tcp", ":4242")
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					io.Copy(conn, conn)
					conn.Close()
				}()
			}
		}()
		return nil
	})
}
