package agent

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The test runs itself as the first process of a PID namespace, where it can signal all processes.
func TestWithoutControlGroupsSignalsStopTheProcesses(t *testing.T) {
	if os.Getenv("GUESTHOUSE_TEST_INIT") != "" {
		require.Equal(t, 1, os.Getpid())
		f, err := newFreezer(nil)
		require.EqualError(t, err, "this kernel has no control groups")
		require.NoError(t, f.thaw(), "there is no process yet")
		cat := exec.Command("cat")
		end, err := cat.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cat.Start())
		var status unix.WaitStatus
		require.NoError(t, f.freeze())
		_, err = unix.Wait4(cat.Process.Pid, &status, unix.WUNTRACED, nil)
		require.NoError(t, err)
		require.True(t, status.Stopped())
		require.NoError(t, f.thaw())
		_, err = unix.Wait4(cat.Process.Pid, &status, unix.WCONTINUED, nil)
		require.NoError(t, err)
		require.True(t, status.Continued())
		require.NoError(t, end.Close())
		require.NoError(t, cat.Wait())
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GUESTHOUSE_TEST_INIT=1")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWUSER, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Skip("this host allows no namespaces: ", err)
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
}
