// Guesthouse is the command guesthouse.example/harness/cmd/guesthouse with the network of package lan:
//
//	guesthouse run -net lan,loss=5%,delay=20ms±5ms,seed=7
//
// Its other commands and flags are the same.
package main

import (
	"os"

	"guesthouse.example/harness/internal/cli"
	"guesthouse.example/harness/lan"
)

func main() { os.Exit(cli.Main(newLan)) }

// newLan returns the network that words describe.
func newLan(words string) (cli.Lan, error) {
	c, err := lan.ParseConfig(words)
	if err != nil {
		return nil, err
	}
	return lan.New(c)
}
