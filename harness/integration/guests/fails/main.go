// Fails is a guest whose setup returns an error.
package main

import (
	"errors"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error { return errors.New("no such sensor") })
}
