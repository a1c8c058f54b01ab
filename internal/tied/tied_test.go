package tied

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

const ownerVariable = "GUESTHOUSE_TEST_TIED"

// TestMain makes the test binary the owner of a command that never ends by itself.
func TestMain(m *testing.M) {
	if os.Getenv(ownerVariable) == "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("sh", "-c", "echo runs; exec sleep 1000")
	cmd.Stdout = os.Stdout
	if _, err := Start(cmd); err != nil {
		panic(err)
	}
	select {}
}

func TestACommandDiesWithItsOwner(t *testing.T) {
	owner := exec.CommandContext(t.Context(), os.Args[0])
	owner.Env = append(os.Environ(), ownerVariable+"=1")
	out, w, err := os.Pipe()
	require.NoError(t, err)
	defer out.Close()
	owner.Stdout = w
	ended, err := Start(owner)
	w.Close()
	require.NoError(t, err)
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "runs\n", line)
	require.NoError(t, owner.Process.Kill())
	require.EqualError(t, <-ended, "signal: killed")
	_, err = io.Copy(io.Discard, lines) // until nobody holds the other end
	require.NoError(t, err)
}

func TestTheEndAndTheFailureToStartAreTold(t *testing.T) {
	ended, err := Start(exec.Command("sh", "-c", "exit 3"))
	require.NoError(t, err)
	require.EqualError(t, <-ended, "exit status 3")
	_, err = Start(exec.Command("/nowhere/to/be/found"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
