// Uinit is guesthouse's own guest: Zephyr's echo service on port 4242 and a
// shell on the serial console. u-root's init starts it as uinit.
package main

import (
	"guesthouse.example/guest"
	"guesthouse.example/guest/echo"
)

// Defined before the loop starts, as Zephyr's services are when the program is
// linked.
var server = echo.New(echo.Config{})

func main() { guest.Main(server.Start) }
