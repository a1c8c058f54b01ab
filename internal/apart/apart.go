// Package apart runs a test in a process of its own. A test needs that if it changes its
// whole process, for example by a limit of files or descriptors. Only tests use the package.
package apart

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"guesthouse.example/internal/tied"
)

const variable = "GUESTHOUSE_TEST_APART" // the name of the test that this process is for

// Run runs f in another process, which is this test binary with only this test. If the test
// fails there, Run fails it here with the output of the other process. A test must call Run
// before it does anything else, and must not be a subtest. The other process dies with this one.
func Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(variable) == t.Name() {
		f(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	ended, err := tied.Start(cmd)
	if err == nil {
		err = <-ended
	}
	// A process that knows no such test succeeds too.
	if err != nil || !strings.Contains(said.String(), "--- PASS: "+t.Name()+" (") {
		t.Fatalf("in a process of its own: %v\n%s", err, said.String())
	}
}
