// Client is a guest. It adds the route ROUTE, sends a text of 100 KB to the TCP echo service at the address SERVER, and tells the test what
// has come back.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"guesthouse.example/guest"
)

func main() { guest.Main(setup) }

func setup() error {
	words := append([]string{"route", "add"}, strings.Fields(os.Getenv("ROUTE"))...)
	if out, err := exec.Command("ip", words...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %q: %w: %s", words, err, out)
	}
	c, err := net.Dial("tcp", os.Getenv("SERVER"))
	if err != nil {
		return err
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("0123456789"), 10_000)
	go c.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	guest.Event(fmt.Sprint(bytes.Equal(sent, got)))
	return nil
}
