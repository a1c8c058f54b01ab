// Crashes is a guest that crashes in the way that a datagram on UDP port 4242 names, in a
// goroutine of its own and without an answer.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		conn, err := net.ListenPacket("udp", ":4242")
		if err != nil {
			return err
		}
		go func() {
			buf := make([]byte, 1500)
			for {
				n, _, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				go ways[string(buf[:n])]()
			}
		}()
		return nil
	})
}

var ways = map[string]func(){
	"panic": func() { panic("no such sensor") },
	"panic with a deep stack": func() {
		deep(100)
	},
	"panic after an unfinished line": func() {
		fmt.Print("working... ")
		panic("no such sensor")
	},
	"panic of many lines": func() {
		panic(errors.New("no such sensor" + strings.Repeat("\nlook at its cable", 100)))
	},
	"coloured panic": func() {
		fmt.Fprint(os.Stderr, "\x1b[1;31m")
		panic("no such sensor")
	},
	"nil pointer": func() {
		var p *int
		*p = 1
	},
	"concurrent map writes": func() {
		m := make(map[int]int)
		for range 2 {
			go func() {
				for {
					m[1] = 1
				}
			}()
		}
	},
}

func deep(n int) int {
	if n == 0 {
		panic("no such sensor")
	}
	return deep(n-1) + 1
}
