// Uinit is guesthouse's own guest: Zephyr's echo service on port 4242, and a
// shell on the serial console. Init starts it as /bin/uinit.
package main

import (
	"guesthouse.example/guest"
	"guesthouse.example/guest/echo"
)

// New defines the services before the loop starts, as Zephyr's linker does.
var server = echo.New(echo.Config{})

func main() { guest.Main(server.Start) }
