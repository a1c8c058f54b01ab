// Package kills tests that the owner of a machine, the process that booted it, leaves nothing behind
// when it dies for any reason: no process, no temporary file, no lock. The machine's record is complete
// up to the owner's death.
//
// A killed owner cannot remove its temporary record. The next boot removes it, so the tests count
// files after a boot. They do not look for sockets, because the harness's sockets have no names and
// vanish with the last process that holds them.
package kills

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/sys"
)

// The target makes no difference here. This one boots with the least work.
const target = "arm64"

// A way is a way for an owner to die.
type way struct {
	name string
	kill func(o *owner)
	// the possible states in the record's result.json afterwards: "ended" if the owner had the time to
	// write that, or "" for the state at its death
	states []string
}

var killed = []string{""}

func signalTo(name string, signal unix.Signal, states ...string) way {
	return way{name, func(o *owner) { require.NoError(o.t, unix.Kill(o.cmd.Process.Pid, signal)) }, states}
}

// ctrlC interrupts the owner's process group, as a terminal does.
func ctrlC(states ...string) way {
	return way{"Ctrl-C", func(o *owner) { require.NoError(o.t, unix.Kill(-o.cmd.Process.Pid, unix.SIGINT)) }, states}
}

func told(name string) way {
	return way{name, func(o *owner) { o.tell(name) }, killed}
}

func TestAnOwnerLeavesNothingHoweverItDies(t *testing.T) {
	if os.Getenv(ownVariable) != "" {
		select {} // until go test -timeout ends the process
	}
	harnesstest.Require(t, target)
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "guesthouse.example/harness/cmd/guesthouse", "guesthouse.example/internal/leash").CombinedOutput()
	require.NoError(t, err, "%s", out)
	guesthouse := filepath.Join(bin, "guesthouse")
	makefile, err := filepath.Abs("testdata/Makefile")
	require.NoError(t, err)

	echo := harnesstest.Spec(t, target, "guesthouse.example/guest/cmd/uinit")
	echo.Ports = []string{"udp/4242", "tcp/4242"}
	template := save(t, echo)

	owners := []struct {
		name  string
		own   bool // the record is temporary
		start func(t *testing.T, env []string, spec, record string) *owner
		ways  []way
	}{
		{"test binary", true, func(t *testing.T, env []string, spec, _ string) *owner {
			return start(t, append(env, ownVariable+"="+spec), os.Args[0])
		}, []way{
			told("return"), told("error"), told("panic"), told("timeout"),
			ctrlC(killed...), signalTo("SIGTERM", unix.SIGTERM, killed...), signalTo("SIGKILL", unix.SIGKILL, killed...),
		}},
		{"guesthouse run", false, func(t *testing.T, env []string, spec, record string) *owner {
			return start(t, env, guesthouse, "run", "-spec", spec, "-dir", record)
		}, []way{
			ctrlC("ended"), signalTo("SIGTERM", unix.SIGTERM, "ended"), signalTo("SIGKILL", unix.SIGKILL, killed...),
		}},
		// The recipe may be killed before it has ended in order.
		{"make", false, func(t *testing.T, env []string, spec, record string) *owner {
			return start(t, append(env, "MAKEFLAGS="), "make", "--no-print-directory", "-f", makefile, "kills-run", "guesthouse="+guesthouse, "SPEC="+spec, "RECORD="+record)
		}, []way{
			ctrlC("ended", ""), signalTo("SIGTERM", unix.SIGTERM, "ended", ""), signalTo("SIGKILL", unix.SIGKILL, "ended", ""),
		}},
		{"make of a test binary", true, func(t *testing.T, env []string, spec, _ string) *owner {
			return start(t, append(env, "MAKEFLAGS=", ownVariable+"="+spec), "make", "--no-print-directory", "-f", makefile, "kills-test", "guesthouse="+guesthouse, "TEST="+os.Args[0])
		}, []way{
			signalTo("SIGKILL", unix.SIGKILL, killed...),
		}},
	}
	for _, of := range owners {
		for _, w := range of.ways {
			for _, at := range []string{"booting", "ready", "under traffic"} {
				t.Run(strings.Join([]string{of.name, w.name, at}, "/"), func(t *testing.T) {
					t.Parallel()
					spec := echo
					if at != "under traffic" {
						spec.From = harness.Cold
					}
					var env []string
					switch at { // with the least work
					case "booting":
						spec.Cmdline, spec.Ready = []string{"earlycon loglevel=7"}, "it boots for ever"
					case "ready":
						spec.Cmdline, spec.Ready = []string{"earlycon loglevel=7"}, "Linux version"
					default:
						env = append(env, templateVariable+"="+template)
					}
					dir := t.TempDir()
					file, record := filepath.Join(dir, "spec.json"), filepath.Join(dir, "record")
					text, err := json.Marshal(spec)
					require.NoError(t, err)
					require.NoError(t, os.WriteFile(file, text, 0o644))

					o := of.start(t, env, file, record)
					ended := o.waitUntil(at)
					require.True(t, o.hasQEMU())
					w.kill(o)
					o.waitEnd()
					o.leavesNoProcess()
					ended()
					if of.own {
						record = o.onlyFile()
					} else {
						require.Empty(t, o.files())
					}
					o.tellsAll(record, at, w.states)
					if of.own {
						o.sweep(file)
						require.Empty(t, o.files())
					}
				})
			}
		}
	}
}

func TestAnOwnerLeavesNothingOfAPrefetchedMachine(t *testing.T) {
	harnesstest.Require(t, target)
	dir := t.TempDir()
	file := filepath.Join(dir, "spec.json")
	spec := harnesstest.Spec(t, target, "guesthouse.example/guest/cmd/uinit")
	spec.Accel = harness.TCG
	text, err := json.Marshal(spec)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o644))
	for _, w := range []way{
		told("return"), told("error"), told("panic"), told("timeout"),
		ctrlC(), signalTo("SIGTERM", unix.SIGTERM), signalTo("SIGKILL", unix.SIGKILL),
	} {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			o := start(t, []string{ownVariable + "=" + file, cacheVariable + "=" + dir}, os.Args[0])
			o.waitFor(&o.err, `waits`)
			require.True(t, o.hasQEMU())
			require.Empty(t, o.files())
			w.kill(o)
			o.waitEnd()
			o.leavesNoProcess()
			require.Empty(t, o.files())
		})
	}
}

// save boots a machine and saves it.
func save(t *testing.T, spec harness.Spec) (template string) {
	template = filepath.Join(t.TempDir(), "template")
	spec.Accel, spec.From, spec.Savable = harness.TCG, new(harness.TemplateCache), true
	spec.Dir = filepath.Join(t.TempDir(), "record")
	m, err := harness.Boot(t.Context(), spec)
	require.NoError(t, err)
	defer m.Close()
	_, err = m.Save(t.Context(), template)
	require.NoError(t, err)
	return template
}

// waitUntil waits for a moment in a machine's life. The function that it returns waits for the end of
// the traffic.
func (o *owner) waitUntil(at string) (ended func()) {
	o.waitFor(&o.out, `.`)
	if at == "booting" {
		return func() {}
	}
	ports := o.waitFor(&o.err, `ready.*; udp (127\.0\.0\.1:\d+) -> 4242; tcp (127\.0\.0\.1:\d+) -> 4242`)
	if at == "ready" {
		return func() {}
	}
	var traffic sync.WaitGroup
	var stop atomic.Bool
	answered := make(chan string, 2)
	for i, network := range []string{"udp", "tcp"} {
		conn, err := net.Dial(network, ports[i+1])
		require.NoError(o.t, err)
		o.t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		traffic.Go(func() {
			buf := make([]byte, 1400)
			for n := 0; !stop.Load(); {
				if _, err := conn.Write(buf); err != nil {
					return
				}
				if network == "udp" { // a lost datagram is sent again
					conn.SetReadDeadline(time.Now().Add(time.Second))
				}
				got, err := conn.Read(buf)
				if err != nil && network == "tcp" {
					return
				}
				if n += got; n > 4*len(buf) && got > 0 {
					select {
					case answered <- network:
					default:
					}
				}
			}
		})
	}
	late := time.After(patience)
	for seen := map[string]bool{}; len(seen) < 2; {
		select {
		case network := <-answered:
			seen[network] = true
		case <-late:
			o.t.Fatal("the echo service has not answered")
		}
	}
	return func() {
		stop.Store(true) // UDP has no end of stream
		traffic.Wait()
	}
}

// hasQEMU reports whether a QEMU with the owner's mark runs.
func (o *owner) hasQEMU() bool {
	return slices.ContainsFunc(sys.ProcessesWithEnv(o.mark), func(p sys.Process) bool { return strings.HasPrefix(p.Name, "qemu") })
}

// leavesNoProcess waits until the owner's last process is gone and its output is read.
func (o *owner) leavesNoProcess() {
	o.t.Helper()
	late := time.After(patience)
	// A second look finds processes that were started during the first.
	for clean := 0; clean < 2; {
		if clean++; len(sys.ProcessesWithEnv(o.mark)) == 0 {
			continue
		}
		clean = 0
		select {
		case <-late:
			o.t.Fatalf("processes left behind: %v", sys.ProcessesWithEnv(o.mark))
		case <-time.After(10 * time.Millisecond):
		}
	}
	o.read.Wait()
}

// files returns the files in the owner's temporary directory.
func (o *owner) files() (names []string) {
	entries, err := os.ReadDir(o.tmp)
	require.NoError(o.t, err)
	for _, e := range entries {
		names = append(names, filepath.Join(o.tmp, e.Name()))
	}
	return names
}

func (o *owner) onlyFile() string {
	o.t.Helper()
	all := o.files()
	require.Len(o.t, all, 1)
	return all[0]
}

// sweep boots another machine with the owner's temporary directory.
func (o *owner) sweep(spec string) {
	o.t.Helper()
	next := start(o.t, []string{ownVariable + "=" + spec, "TMPDIR=" + o.tmp}, os.Args[0])
	next.tell("close")
	next.waitEnd()
	next.leavesNoProcess()
}

var stamp = regexp.MustCompile(`(?m)^\[ *\d+\.\d{6}\] `)

// tellsAll requires that a record covers the run up to the owner's death.
func (o *owner) tellsAll(dir, at string, states []string) {
	o.t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(o.t, err)
		return string(text)
	}
	console := stamp.ReplaceAllString(read("console.log"), "")
	require.NotEmpty(o.t, o.out.text())
	require.True(o.t, strings.HasPrefix(console, o.out.text()), "the record lacks output that the owner has printed:\n%s", console)
	if at == "under traffic" {
		require.Contains(o.t, console, "guesthouse: ready\n")
	}
	require.Contains(o.t, read("qemu.args"), "-machine\n")
	require.Contains(o.t, read("qmp.log"), `"cont"`)
	_, err := harness.ReadSpec(filepath.Join(dir, "spec.json"))
	require.NoError(o.t, err)

	var result harness.Result
	require.NoError(o.t, json.Unmarshal([]byte(read("result.json")), &result))
	require.Empty(o.t, result.Error, "the machine has not failed")
	soFar := "ready"
	if at == "booting" {
		soFar = at
	}
	var want []string
	for _, s := range states {
		if s == "" {
			s = soFar
		}
		want = append(want, s)
	}
	require.Contains(o.t, want, string(result.State))

	f, err := os.Open(dir)
	require.NoError(o.t, err)
	defer f.Close()
	require.NoError(o.t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), "no process holds the record's lock")
}
