// Panics is a guest whose service never comes up because its program is wrong.
package main

import "guesthouse.example/guest"

var ports []error

func main() {
	guest.Main(func() error {
		return ports[len(ports)]
	})
}
