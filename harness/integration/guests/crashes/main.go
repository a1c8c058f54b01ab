// Crashes is a guest that crashes in the way that a datagram on UDP port 4242 names. It does so in a
// new goroutine and without an answer. It logs any other datagram.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"

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
				text := string(buf[:n])
				if way, ok := ways[text]; ok {
					go way()
				} else {
					slog.Info("a client says " + text)
					slog.Info(text, "again", text)
				}
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
	"all memory": func() {
		var all [][]byte
		for {
			block := make([]byte, 1<<20)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			all = append(all, block)
			runtime.KeepAlive(all)
		}
	},
	"report of a data race": func() { // as the race detector prints it, which does not support every target
		fmt.Fprint(os.Stderr, "==================\nWARNING: DATA RACE\nWrite at 0x00c00001c0a8 by goroutine 7:\n==================\n")
		fmt.Println("the guest goes on")
	},
	"fatal error": func() {
		new(sync.Mutex).Unlock()
	},
}

func deep(n int) int {
	if n == 0 {
		panic("no such sensor")
	}
	return deep(n-1) + 1
}
