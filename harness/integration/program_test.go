package integration

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

// delivered returns the Spec of a machine whose guest program is no part of its initramfs, whatever
// GUESTHOUSE_BUILTIN says.
func delivered(t *testing.T, target, guest string) harness.Spec {
	t.Helper()
	spec := harnesstest.Platform(t, target)
	program, err := images.Program(t.Context(), target, guest, images.Options{})
	require.NoError(t, err)
	spec.Ready, spec.Program, spec.Ports = "", program.Path, []string{"udp/4242", "tcp/4242"}
	origin := *spec.Origin
	origin.ProgramSHA256, origin.Guest = program.SHA256, program.Guest
	spec.Origin = &origin
	spec.Accel = harness.TCG // which templates require
	return spec
}

func TestAnotherProgramCostsNoBoot(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		spec := delivered(t, target, echoGuest)
		cache := ownCache(t, spec)
		require.Equal(t, firstRun, bootFrom(t, cache, spec))
		require.Equal(t, "restored", bootFrom(t, cache, spec))
		spec.Args = []string{"another", "run"}
		require.Equal(t, firstRun, bootFrom(t, cache, spec))
		require.Equal(t, "restored", bootFrom(t, cache, spec))

		guests := make(map[string]int)
		for _, e := range allTemplates(t, cache) {
			guests[e.Guest]++
		}
		require.Equal(t, map[string]int{"platform": 1, echoGuest: 2}, guests)

		platform := harnesstest.Platform(t, target)
		platform.Accel = harness.TCG
		m := harnesstest.Boot(t, from(cache, platform))
		require.Equal(t, harness.BootRestored, m.Result().Boot, "a machine without a program is a platform: %s", m.Result().Why)
		require.Contains(t, m.Output("ip", "addr"), "192.0.2.1/24")
		m.Shutdown()
	})
}

// Four kinds of machines start at once, from an empty cache. One boots, and the others wait for its
// platform.
func TestMachinesOfDifferentProgramsWaitForOnePlatform(t *testing.T) {
	t.Parallel()
	spec := delivered(t, oneTarget(t), echoGuest)
	cache := &harness.TemplateCache{Dir: t.TempDir()}
	var machines sync.WaitGroup
	var mu sync.Mutex
	count := make(map[string]int)
	for i := range 4 {
		spec.Args = []string{fmt.Sprint(i)}
		s := from(cache, spec)
		machines.Go(func() {
			m, err := harness.Boot(t.Context(), s)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			count[string(m.Result().Boot)+": "+m.Result().Why]++
			m.Close()
		})
	}
	machines.Wait()
	require.Equal(t, map[string]int{firstBoot: 1, firstRun: 3}, count)
	require.Len(t, allTemplates(t, cache), 5)
}

func TestATemplateOfAPlatformTakesAnyProgram(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := delivered(t, target, echoGuest)
	platform := harnesstest.Platform(t, target)
	_, saved := save(t, platform)
	spec.From, spec.Savable, spec.Dir = saved, true, t.TempDir()
	m := harnesstest.Boot(t, spec)
	require.Equal(t, harness.BootDelivered, m.Result().Boot, m.Result().Why)
	echoes(t, m.Dial("udp", echoPort), "delivered")

	// A template of the program has the program.
	spec.From, spec.Savable, spec.Dir = m.Save(filepath.Join(t.TempDir(), "template")), false, t.TempDir()
	m = restored(t, spec)
	echoes(t, m.Dial("tcp", echoPort), "restored")
	log, err := os.ReadFile(filepath.Join(spec.Dir, "agent.log"))
	require.NoError(t, err)
	require.NotContains(t, string(log), "copy in")

	spec.Args, spec.Dir = []string{"others"}, ""
	m = harnesstest.Boot(t, spec)
	require.Equal(t, "the template was saved with another argument or environment variable of the program", m.Result().Why)
}

// behaviour is what a test sees of a guest program.
type behaviour struct {
	started, ready   string // the console from init's line about the program to the first prompt
	args             string
	exits            map[string]string
	event, services  string
	powerOff, status string
	lastWords        string
}

// observe lets a guest do what it can.
func observe(t *testing.T, spec func(guest string) harness.Spec) (b behaviour) {
	ends := spec("./guests/ends")
	ends.Args, ends.Env = []string{"-v", "two  words", "", `"`}, []string{"K=a b"}
	b.exits = make(map[string]string)
	for _, way := range []string{"exit 3", "kill", "exit 0"} {
		m := harnesstest.Boot(t, ends)
		if b.args == "" {
			m.Send("args")
			b.args = m.Expect(`\[.*\] ".*"`)[0]
			text := m.Console().Text()
			_, text, _ = strings.Cut(text, "init: starting ")
			b.started, _, _ = strings.Cut(text, "uart:~$ ")
		}
		m.Send(way)
		if way == "exit 0" {
			m.Wait()
		} else if way == "exit 3" {
			m.WaitExit(3)
		} else {
			require.Error(t, m.Machine.Wait(t.Context()))
		}
		m.Close()
		b.exits[way] = fmt.Sprintf("%v", m.Result().Exit)
		lines := strings.Split(strings.TrimSpace(m.Console().Text()), "\n")
		b.lastWords += regexp.MustCompile(`(?m)^\[.*$`).ReplaceAllString(strings.Join(lines[max(0, len(lines)-2):], "\n"), "KERNEL") + "\n"
	}

	lost := spec("./guests/lost")
	lost.Ports = []string{"udp/4242", "tcp/4242"}
	m := harnesstest.Boot(t, lost)
	b.ready = regexp.MustCompile(`\[[0-9:.,]+\] (<inf> guesthouse: ready\nuart:~\$ )`).FindStringSubmatch(m.Console().Text())[1]
	b.event = m.Event()
	for _, s := range m.Stats().Services {
		b.services += fmt.Sprint(s.Name, " ", s.Sockets, "\n")
	}
	echoes(t, m.Dial("tcp", echoPort), "the same")
	m.Shutdown()
	b.powerOff, b.status = m.Result().PowerOff, fmt.Sprint(m.Result().Exit)
	return b
}

func TestABuiltInAndADeliveredProgramBehaveTheSame(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	builtIn := observe(t, func(guest string) harness.Spec { return harnesstest.BuiltInSpec(t, target, guest) })
	apart := observe(t, func(guest string) harness.Spec { return delivered(t, target, guest) })
	require.Equal(t, builtIn, apart)
	require.Equal(t, `["-v" "two  words" "" "\""] "a b"`, apart.args)
	require.Equal(t, map[string]string{"exit 0": "exit status 0", "exit 3": "exit status 3", "kill": "signal 9 (killed)"}, apart.exits)
}

func TestAProgramThatCannotStartFailsTheBoot(t *testing.T) {
	t.Parallel()
	name := oneTarget(t)
	tg, err := target.Lookup(name)
	require.NoError(t, err)
	spec := harnesstest.Platform(t, name)
	spec.Ready = ""
	spec.Program = filepath.Join(t.TempDir(), "empty")
	// An ELF file without a segment: the harness cannot know what the guest's kernel makes of a program.
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(tg.ELFMachines[0]), Version: 1, Entry: 0x1000, Ehsize: 64}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	var b bytes.Buffer
	require.NoError(t, binary.Write(&b, binary.LittleEndian, h))
	require.NoError(t, os.WriteFile(spec.Program, b.Bytes(), 0o755))
	failed := boot(t, spec)
	require.ErrorIs(t, failed, harness.ErrGuest)
	require.ErrorContains(t, failed, "the guest failed: start the guest program: fork/exec /bin/uinit: exec format error")
}

func TestAProgramNeedsADiskOfTheGuest(t *testing.T) {
	t.Parallel()
	spec := delivered(t, oneTarget(t), echoGuest)
	spec.Cmdline, spec.From = []string{"module_blacklist=virtio_blk"}, harness.Cold
	_, err := harness.Boot(t.Context(), spec)
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "copy "+spec.Program+" into the guest: ")
	require.ErrorContains(t, err, "its kernel needs the driver virtio_blk")
}

func TestAProgramNeedsAPlatformAndAPlatformAProgram(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	builtIn := harnesstest.BuiltInSpec(t, target, echoGuest)
	builtIn.Program = delivered(t, target, echoGuest).Program
	err := boot(t, builtIn)
	require.ErrorContains(t, err, "the initramfs "+builtIn.Initramfs+" has a guest program of its own, /bin/uinit: to run "+builtIn.Program)

	platform := harnesstest.Platform(t, target)
	platform.Ready = ""
	err = boot(t, platform)
	require.ErrorContains(t, err, "the initramfs "+platform.Initramfs+" is a platform, which has no guest program: name one in Spec.Program")
}

// The harness still delivers the program when a test ends the machine.
func TestAMachineCanEndDuringTheDelivery(t *testing.T) {
	t.Parallel()
	spec := delivered(t, oneTarget(t), echoGuest)
	spec.From = nil
	for name, end := range map[string]func(m *harness.Machine) error{
		"close": func(m *harness.Machine) error { return m.Close() },
		"shutdown": func(m *harness.Machine) error {
			ctx, cancel := m.Within(t.Context(), 2*harnesstest.Within)
			defer cancel()
			return m.Shutdown(ctx)
		},
	} {
		m, err := harness.Start(t.Context(), spec)
		require.NoError(t, err)
		ctx, cancel := m.Within(t.Context(), 4*harnesstest.Within)
		_, err = m.Console().Expect(ctx, harness.PlatformReady)
		cancel()
		require.NoError(t, err)
		require.NoError(t, end(m), name)
		begun := time.Now()
		err = m.WaitReady(t.Context())
		require.Error(t, err, name)
		require.Less(t, time.Since(begun), 4*harnesstest.Within, name)
	}
}
