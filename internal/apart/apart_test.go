package apart

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRunRunsInAProcessOfItsOwn(t *testing.T) {
	const first = "GUESTHOUSE_TEST_FIRST"
	if os.Getenv(first) == "" {
		t.Setenv(first, "it ran here")
		Run(t, func(t *testing.T) { t.Fatal("not in this process") })
		return
	}
	Run(t, func(t *testing.T) { require.Equal(t, t.Name(), os.Getenv(variable)) })
}

// In the other process, the test fails, or exits without a result.
func TestAFailureInTheOtherProcessFailsTheTest(t *testing.T) {
	const how = "GUESTHOUSE_TEST_HOW"
	if os.Getenv(how) != "" {
		Run(t, func(t *testing.T) {
			if os.Getenv(how) == "exits" {
				syscall.Exit(0) // package testing sees os.Exit
			}
			t.Error("what it found there")
		})
		return
	}
	for way, says := range map[string]string{"fails": "what it found there", "exits": "in a process of its own: <nil>"} {
		here := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		here.Env = append(os.Environ(), how+"="+way)
		out, err := here.CombinedOutput()
		require.Error(t, err, way)
		require.Contains(t, string(out), says)
	}
}
