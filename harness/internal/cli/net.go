package cli

import (
	"errors"
	"fmt"

	"guesthouse.example/harness"
)

// A Lan is a network of run -net.
type Lan interface {
	harness.Network
	Close() error
}

// newLan makes the network that the words of -net describe. It is nil in the command without package lan.
var newLan func(words string) (Lan, error)

// errNoLan says that this program cannot make the network of run -net.
var errNoLan = errors.New("this command is built without package lan, which has the networks of -net")

const noLanHint = "use the command of that package: go run guesthouse.example/harness/lan/cmd/guesthouse run …"

// makeNetworks gives a Spec the network of the words, or those of its record if there are no words. The function
// closes them.
func makeNetworks(spec *harness.Spec, words *string) (closeAll func() error, err error) {
	var made []Lan
	closeAll = func() (err error) {
		for _, l := range made {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	recorded := spec.Net
	if words != nil {
		recorded = []harness.Network{harness.RecordedNetwork(*words)}
	}
	spec.Net = nil
	for _, n := range recorded {
		if newLan == nil {
			return closeAll, fmt.Errorf("run: network %s: %w", n, errNoLan)
		}
		l, err := newLan(n.String())
		if err != nil {
			return closeAll, fmt.Errorf("run: %w (%w; see -h)", err, errUsage)
		}
		made = append(made, l)
		spec.Net = append(spec.Net, l)
	}
	return closeAll, nil
}
