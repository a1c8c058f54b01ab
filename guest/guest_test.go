package guest

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// On a user's own computer Main must not power off. It prints an error and exits.
func TestMainRefusesToRunOutsideAMachine(t *testing.T) {
	if os.Getenv("GUESTHOUSE_TEST_MAIN") != "" {
		Main(func() error { panic("setup was called") })
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainRefusesToRunOutsideAMachine$")
	cmd.Env = append(os.Environ(), "GUESTHOUSE_TEST_MAIN=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit), "%v", err)
	require.Equal(t, 1, exit.ExitCode())
	require.Equal(t, "guest: this program runs only in an emulated machine: boot it with \"guesthouse run -guest PACKAGE\"\n", string(out))
}
