// Runs is a guest that also is the command of the tests of commands: its first argument says what the command
// does.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest"
)

func main() {
	if len(os.Args) < 2 {
		guest.Main(func() error { return nil })
		return
	}
	switch os.Args[1] {
	case "show": // how it was started
		dir, _ := os.Getwd()
		json.NewEncoder(os.Stdout).Encode(map[string]any{"args": os.Args, "env": os.Environ(), "dir": dir})
	case "pour": // as many bytes as the second argument says
		n, _ := strconv.Atoi(os.Args[2])
		pour(n)
	case "sink": // read everything
		sum := sha256.New()
		n, err := io.Copy(sum, os.Stdin)
		fmt.Printf("%d %x %v\n", n, sum.Sum(nil), err)
	case "both": // to both outputs in turn
		for i := range 1000 {
			fmt.Fprintf(os.Stdout, "out %d\n", i)
			fmt.Fprintf(os.Stderr, "err %d\n", i)
		}
	case "stubborn":
		signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
		fmt.Println("ready")
		time.Sleep(math.MaxInt64)
	case "signals": // name the signals that come, up to SIGUSR1
		all := make(chan os.Signal, 8)
		signal.Notify(all, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1)
		fmt.Println("ready")
		for s := range all {
			fmt.Println(s)
			if s == unix.SIGUSR1 {
				return
			}
		}
	case "leave": // a process that holds the output open
		child := exec.Command("/proc/self/exe", "stubborn")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.Start()
		fmt.Println("begun")
	case "deaf": // close the standard input, and wait for SIGUSR1
		os.Stdin.Close()
		all := make(chan os.Signal, 8)
		signal.Notify(all, unix.SIGUSR1)
		fmt.Println("ready")
		<-all
	case "file": // write one, with a path, a mode and a content
		mode, _ := strconv.ParseUint(os.Args[3], 8, 32)
		os.WriteFile(os.Args[2], []byte(os.Args[4]), os.FileMode(mode))
	case "terminal":
		terminal()
	}
}

func pour(n int) {
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	var block [4096]byte
	for i := range block {
		block[i] = byte(i * i / 7)
	}
	for ; n > 0; n -= len(block) {
		w.Write(block[:min(n, len(block))])
	}
	w.Flush()
}

// terminal prints the size of its terminal, at first and at each change, and then each line that it reads.
func terminal() {
	changes := make(chan os.Signal, 8)
	signal.Notify(changes, syscall.SIGWINCH)
	lines := make(chan string)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
		close(lines)
	}()
	for {
		size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			fmt.Println("no terminal:", err)
			return
		}
		fmt.Println("size", size.Row, size.Col)
		for changed := false; !changed; {
			select {
			case <-changes:
				changed = true
			case line, ok := <-lines:
				if !ok {
					fmt.Println("the end")
					return
				}
				fmt.Println("line", line)
			}
		}
	}
}
