// Floods is a guest that tells its harness more than anybody keeps: 400 events of nearly 64 KiB.
package main

import (
	"fmt"
	"strings"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		go func() {
			long := strings.Repeat("x", 60<<10)
			for i := range 400 {
				guest.Event(fmt.Sprint(i, " ", long))
			}
			guest.Event("the last")
			fmt.Println("all told")
		}()
		return nil
	})
}
