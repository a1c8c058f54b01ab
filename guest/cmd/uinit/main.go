// Uinit is guesthouse's own guest: Zephyr's echo service on port 4242, and a
// shell on the serial console. Init starts it as /bin/uinit.
package main

import (
	"guesthouse.example/guest"
	"guesthouse.example/guest/echo"
)

// The services are defined before the loop starts, like Zephyr's, which are defined
// when the program is linked.
var server = echo.New(echo.Config{})

func main() { guest.Main(server.Start) }
