package sys

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProcessesAreFoundByParentAndByEnvironment(t *testing.T) {
	const mark = "GUESTHOUSE_TEST_PROCESSES=this one"
	// The child of sh leaves the process group. It exits when its standard input ends.
	parent := exec.CommandContext(t.Context(), "sh", "-c", "setsid sh -c 'echo $$; cat' 2>/dev/null; :")
	parent.Env = append(os.Environ(), mark)
	in, err := parent.StdinPipe()
	require.NoError(t, err)
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n')
	require.NoError(t, err)

	pids := func(found []Process) (all []int) {
		for _, p := range found {
			all = append(all, p.PID)
		}
		return all
	}
	children := Children(os.Getpid())
	require.Contains(t, pids(children), parent.Process.Pid)
	descendants := Descendants(parent.Process.Pid)
	require.NotEmpty(t, descendants)
	for _, p := range descendants {
		require.NotContains(t, pids(children), p.PID)
		require.Contains(t, pids(Descendants(os.Getpid())), p.PID)
		require.Contains(t, pids(ProcessesWithEnv(mark)), p.PID)
	}
	require.Contains(t, pids(ProcessesWithEnv(mark)), parent.Process.Pid)
	require.NotContains(t, pids(ProcessesWithEnv(mark)), os.Getpid())
	require.Empty(t, ProcessesWithEnv(mark+" not"))
	require.Equal(t, parent.Args, CommandLine(parent.Process.Pid))

	in.Close()
	_, err = io.Copy(io.Discard, lines)
	require.NoError(t, err)
	require.NoError(t, parent.Wait())
	require.Empty(t, ProcessesWithEnv(mark))
	require.Empty(t, CommandLine(parent.Process.Pid))
	_, ok := LookupProcess(parent.Process.Pid)
	require.False(t, ok)
}

func TestAProcessNameMayHoldParentheses(t *testing.T) {
	p, ok := parseStat(7, []byte("7 (a) S 1 (b) R 5 6 7 8"))
	require.True(t, ok)
	require.Equal(t, Process{7, "a) S 1 (b", 'R', 5, 6, false, 0}, p)
	require.Equal(t, "7 (a) S 1 (b)", p.String())
	for _, torn := range []string{"", "7", "7 (a", "7 (a) S 1", "7 (a) S x 2"} {
		_, ok := parseStat(7, []byte(torn))
		require.False(t, ok, torn)
	}
}

func TestAProcessIsExitingUntilItsParentWaits(t *testing.T) {
	p, ok := LookupProcess(os.Getpid())
	require.True(t, ok)
	require.False(t, p.Exiting)
	require.Positive(t, p.Threads)
	cmd := exec.Command("true")
	require.NoError(t, cmd.Start())
	for !p.Exiting {
		p, ok = LookupProcess(cmd.Process.Pid)
		require.True(t, ok, "nobody has waited for it")
	}
	require.NoError(t, cmd.Wait())
}
