// Hangs is a guest that never becomes ready.
package main

import (
	"log/slog"
	"math"
	"time"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		slog.Info("waiting for what never comes")
		time.Sleep(math.MaxInt64)
		return nil
	})
}
