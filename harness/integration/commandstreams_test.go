package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// inTime returns a context for commands that take long on a busy host.
func inTime(t *testing.T, m *harnesstest.Machine) context.Context {
	ctx, cancel := m.Machine.Within(t.Context(), 8*harnesstest.Within)
	t.Cleanup(cancel)
	return ctx
}

func TestStandardInputAndOutputCarryEveryByte(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, harnesstest.Spec(t, target, "./guests/runs"))
		data := make([]byte, 5<<20+1)
		rand.NewChaCha8([32]byte{1}).Read(data)
		cmd := m.Machine.Command(inTime(t, m), "cat")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, out))
		cmd = m.Machine.Command(inTime(t, m), runs, "sink")
		cmd.Stdin = bytes.NewReader(data)
		out, err = cmd.Output()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%d %x <nil>\n", len(data), sha256.Sum256(data)), string(out))
		require.Equal(t, fmt.Sprintf("0 %x <nil>\n", sha256.Sum256(nil)), m.Output(runs, "sink"), "without Stdin it is empty")
	})
}

func TestOneWriterForBothOutputsKeepsTheirOrder(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
	}
	require.Equal(t, want.String(), m.Command(runs, "both").CombinedOutput())
	cmd := m.Command(runs, "both")
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	cmd.Run()
	require.Equal(t, want.String(), both.String())
	cmd = m.Command(runs, "both")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	require.Equal(t, 1000, strings.Count(out.String(), "out"))
	require.Equal(t, 1000, strings.Count(errs.String(), "err"))
	require.NotContains(t, out.String(), "err")
}

// A dialogue goes on over pipes while the command runs, and signals reach it.
func TestPipesAndSignalsReachACommand(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	cmd := m.Command(runs, "signals")
	out := bufio.NewReader(cmd.StdoutPipe())
	line := func() string {
		text, err := out.ReadString('\n')
		require.NoError(t, err)
		return text
	}
	cmd.Start()
	require.Equal(t, "ready\n", line())
	cmd.Signal(syscall.SIGTERM)
	require.Equal(t, "terminated\n", line())
	cmd.Signal(syscall.SIGUSR1)
	require.Equal(t, "user defined signal 1\n", line())
	_, err := out.ReadString('\n')
	require.Equal(t, io.EOF, err)
	cmd.Wait()

	cmd = m.Command("cat")
	in := cmd.StdinPipe()
	out = bufio.NewReader(cmd.StdoutPipe())
	cmd.Start()
	for i := range 10 {
		fmt.Fprintf(in, "line %d\n", i)
		require.Equal(t, fmt.Sprintf("line %d\n", i), line())
	}
	require.NoError(t, in.Close())
	cmd.Wait()
	_, err = in.Write([]byte("x"))
	require.Error(t, err)
}

func TestACommandThatIgnoresSignalsIsKilledWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cmd := m.Machine.Command(ctx, runs, "stubborn")
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out := bufio.NewReader(pipe)
	_, err = out.ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Signal(syscall.SIGHUP))
	m.Output("uname")
	why := errors.New("enough")
	cancel(why) // also without Wait
	rest, err := io.ReadAll(out)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.ErrorIs(t, cmd.Wait(), why)
	require.NotContains(t, m.Output("sh", "-c", listProcesses), "stubborn")
}

// A guest whose commands write what nobody reads, and do not read what they are sent, still runs others.
func TestStreamsThatNobodyReadsHoldUpNothingElse(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var unread []*harness.Cmd
	var in countedReader
	for range 8 {
		cmd := m.Machine.Command(ctx, runs, "pour", "1000000000")
		_, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		unread = append(unread, cmd)
		cmd = m.Machine.Command(ctx, "sleep", "1000")
		cmd.Stdin = &in
		require.NoError(t, cmd.Start())
		unread = append(unread, cmd)
	}
	const size = 3 << 20
	out, err := m.Machine.Command(inTime(t, m), runs, "pour", fmt.Sprint(size)).Output()
	require.NoError(t, err)
	require.Len(t, out, size)
	m.Stats()
	cancel()
	for _, cmd := range unread {
		require.ErrorIs(t, cmd.Wait(), context.Canceled)
	}
	require.Less(t, in.n.Load(), int64(8*(1<<20)), "the harness reads a Stdin only as far as the guest has room")
}

// The output is larger than the guest's memory.
func TestMuchOutputFlowsInLittleMemory(t *testing.T) {
	t.Parallel()
	spec := harnesstest.Spec(t, oneTarget(t), "./guests/runs")
	spec.Memory = 128
	m := harnesstest.Boot(t, spec)
	var block [4096]byte // as the guest makes it
	for i := range block {
		block[i] = byte(i * i / 7)
	}
	const size = 192 << 20
	n, wrong := 0, 0
	cmd := m.Machine.Command(inTime(t, m), runs, "pour", fmt.Sprint(size))
	cmd.Stdout = writerFunc(func(p []byte) (int, error) {
		for done := 0; done < len(p); {
			k := min(len(p)-done, len(block)-n%len(block))
			if !bytes.Equal(p[done:done+k], block[n%len(block):][:k]) {
				wrong++
			}
			done, n = done+k, n+k
		}
		return len(p), nil
	})
	require.NoError(t, cmd.Run())
	require.Equal(t, size, n)
	require.Zero(t, wrong)
}

// A countedReader is an input without an end.
type countedReader struct{ n atomic.Int64 }

func (r *countedReader) Read(p []byte) (int, error) {
	r.n.Add(int64(len(p)))
	return len(p), nil
}

func TestAnInputWithoutEndEndsWithItsCommand(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	cmd := m.Command("head", "-c", "3")
	cmd.Stdin = new(countedReader)
	require.Equal(t, "\x00\x00\x00", cmd.Output())
	never, end := io.Pipe() // a Read that does not return
	defer end.Close()
	cmd = m.Command("uname")
	cmd.Stdin = never
	cmd.Run()

	cmd = m.Command(runs, "deaf")
	in, out := cmd.StdinPipe(), bufio.NewReader(cmd.StdoutPipe())
	cmd.Start()
	_, err := out.ReadString('\n')
	require.NoError(t, err)
	for err == nil {
		_, err = in.Write(make([]byte, 1<<10))
	}
	require.ErrorContains(t, err, "the command has closed its standard input")
	cmd.Signal(unix.SIGUSR1)
	cmd.Wait()
}

func TestAnOutputThatIsClosedEndsItsCommand(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	var failed *harness.CommandError
	cmd := m.Machine.Command(inTime(t, m), runs, "pour", "1000000000000")
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.ReadFull(pipe, make([]byte, 1000))
	require.NoError(t, err)
	pipe.Close()
	require.ErrorAs(t, cmd.Wait(), &failed)
	require.Equal(t, syscall.SIGPIPE, failed.Signal)

	full := errors.New("full")
	cmd = m.Machine.Command(inTime(t, m), runs, "pour", "1000000000000")
	cmd.Stdout = writerFunc(func([]byte) (int, error) { return 0, full })
	err = cmd.Run()
	require.ErrorIs(t, err, full)
	require.ErrorAs(t, err, &failed)

	out, err := m.Machine.Command(inTime(t, m), runs, "pour", "1000000000000").Output()
	require.ErrorContains(t, err, "it wrote more than the 67108864 bytes that are kept")
	require.Len(t, out, 64<<20)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Wait does not wait for the processes that a command leaves behind, and returns all that the command itself
// has written.
func TestWaitReturnsWhileAChildHoldsTheOutputOpen(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	require.Contains(t, m.Output(runs, "leave"), "begun\n")
	require.Contains(t, m.Command(runs, "leave").CombinedOutput(), "begun\n")
	require.Contains(t, m.Output("sh", "-c", listProcesses), "stubborn")
}

func TestManyCommandsRunAtOnce(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	ctx := inTime(t, m)
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			cmd := m.Machine.Command(ctx, "cat")
			want := fmt.Appendf(nil, "%d %s", i, data)
			cmd.Stdin = bytes.NewReader(want)
			out, err := cmd.Output()
			if err != nil || !bytes.Equal(want, out) {
				t.Errorf("command %d: %d bytes, %v", i, len(out), err)
			}
		})
	}
	all.Wait()
}

func TestACommandHasATerminal(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	cmd := m.Command(runs, "terminal")
	cmd.Terminal = &harness.TerminalSize{Rows: 30, Columns: 100}
	in, out := cmd.StdinPipe(), bufio.NewReader(cmd.StdoutPipe())
	line := func() string {
		text, err := out.ReadString('\n')
		require.NoError(t, err)
		return strings.TrimRight(text, "\r\n")
	}
	cmd.Start()
	require.Equal(t, "size 30 100", line())
	cmd.Resize(harness.TerminalSize{Rows: 31, Columns: 101})
	require.Equal(t, "size 31 101", line())
	fmt.Fprintln(in, "typed")
	require.Equal(t, "typed", line(), "the terminal's echo")
	require.Equal(t, "line typed", line())
	require.NoError(t, in.Close())
	require.Equal(t, "the end", line())
	cmd.Wait()

	cmd = m.Command(runs, "stubborn")
	cmd.Args[1] = "signals"
	cmd.Terminal = &harness.TerminalSize{Rows: 30, Columns: 100}
	in, out = cmd.StdinPipe(), bufio.NewReader(cmd.StdoutPipe())
	cmd.Start()
	require.Equal(t, "ready", line())
	in.Write([]byte{3})
	require.Contains(t, line(), "interrupt", "Ctrl-C")
	cmd.Signal(unix.SIGUSR1)
	require.Equal(t, "user defined signal 1", line())
	cmd.Wait()
	require.Equal(t, "no terminal: inappropriate ioctl for device\n", m.Output(runs, "terminal"))
}
