// Caller is a guest that connects to port 80 of the host, by its name and over IPv6, looks a machine's name up, and
// sends the test what it has found.
package main

import (
	"fmt"
	"io"
	"net"

	"guesthouse.example/guest"
)

func main() { guest.Main(setup) }

func setup() error {
	for _, address := range []string{"host:80", "[2001:db8::2]:80"} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(c)
		c.Close()
		if err != nil {
			return err
		}
		guest.Event(string(text))
	}
	found, err := net.LookupHost("other")
	if err != nil {
		return err
	}
	guest.Event(fmt.Sprint(found))
	return nil
}
