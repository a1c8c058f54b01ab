package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/template"
)

// bootFrom boots a machine from a source and returns its boot mode, with the reason if there is one.
func bootFrom(t *testing.T, source harness.Source, spec harness.Spec) string {
	t.Helper()
	m, err := harness.Boot(t.Context(), from(source, spec))
	require.NoError(t, err)
	defer m.Close()
	conn, err := m.Dial(t.Context(), "tcp", echoPort)
	require.NoError(t, err)
	defer conn.Close()
	echoes(t, conn, "in every boot mode")
	return strings.TrimSuffix(string(m.Result().Boot)+": "+m.Result().Why, ": ")
}

// templates lists the templates of a cache, without those of platforms.
func templates(t *testing.T, cache *harness.TemplateCache) []template.Entry {
	t.Helper()
	return slices.DeleteFunc(allTemplates(t, cache), func(e template.Entry) bool { return e.Guest == "platform" })
}

// allTemplates lists the templates of a cache.
func allTemplates(t *testing.T, cache *harness.TemplateCache) []template.Entry {
	t.Helper()
	c, err := template.OpenCache(cache.Dir)
	require.NoError(t, err)
	return c.List()
}

const (
	firstBoot = "cold: the first boot of its kind, saved for the next"
	firstRun  = "delivered: the first run of its program, saved for the next"
)

// withoutTemplate returns the boot mode of a machine that has lost its template. If the program was
// delivered, the template of the platform is still there.
func withoutTemplate(spec harness.Spec) harness.BootMode {
	if spec.Program != "" {
		return harness.BootDelivered
	}
	return harness.BootCold
}

// savedFirst returns what bootFrom returns for the first machine of a program in a cache of ownCache.
func savedFirst(spec harness.Spec) string {
	if spec.Program != "" {
		return firstRun
	}
	return firstBoot
}

// A machine that has no program, or has it in its initramfs.
func TestAPlatformsTemplateIsMadeByItsFirstMachine(t *testing.T) {
	t.Parallel()
	spec := harnesstest.Platform(t, oneTarget(t))
	spec.Accel, spec.From = harness.TCG, &harness.TemplateCache{Dir: t.TempDir()}
	for _, want := range []string{firstBoot, "restored: "} {
		m := harnesstest.Boot(t, spec)
		require.Equal(t, want, string(m.Result().Boot)+": "+m.Result().Why)
	}
}

func TestTheSecondMachineOfAKindIsRestored(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Accel = harness.TCG
	cache := ownCache(t, spec)
	cache.AnyGuest = true
	require.Equal(t, savedFirst(spec), bootFrom(t, cache, spec))
	require.Equal(t, "restored", bootFrom(t, cache, spec))
	spec.Ports = spec.Ports[1:]
	require.Equal(t, "restored", bootFrom(t, cache, spec), "the ports do not distinguish kinds")

	all := templates(t, cache)
	require.Len(t, all, 1)
	require.Equal(t, target, all[0].Target)

	require.Equal(t, "cold: asked for", bootFrom(t, harness.Cold, spec))
	require.NoError(t, os.Truncate(filepath.Join(cache.Dir, all[0].Key, "state"), 1000))
	require.Contains(t, bootFrom(t, cache, spec), string(withoutTemplate(spec))+": template "+filepath.Join(cache.Dir, all[0].Key)+": state is damaged")
	all = templates(t, cache)
	require.Empty(t, all, "the next boot saves another template")
}

// The machine boots despite any fault of the cache.
func TestAFaultOfTheCacheCostsAColdBoot(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Accel = harness.TCG
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.Contains(t, bootFrom(t, &harness.TemplateCache{Dir: file}, spec), "cold: no template cache: mkdir "+file)

	cache := ownCache(t, spec)
	m, err := harness.Start(t.Context(), from(cache, spec))
	require.NoError(t, err)
	defer m.Close()
	workshops, err := filepath.Glob(filepath.Join(cache.Dir, "tmp", "*"))
	require.NoError(t, err)
	require.Len(t, workshops, 1)
	require.NoError(t, os.Symlink("/dev/full", filepath.Join(workshops[0], "state")))
	require.NoError(t, m.WaitReady(t.Context()))
	require.Contains(t, m.Result().Why, "it could not be saved: ")
	conn, err := m.Dial(t.Context(), "udp", echoPort)
	require.NoError(t, err)
	defer conn.Close()
	echoes(t, conn, "it goes on")
	require.NoDirExists(t, workshops[0])
	all := templates(t, cache)
	require.Empty(t, all)
}

func TestAMachineOutlivesItsTemplate(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Accel = harness.TCG
	cache := ownCache(t, spec)
	require.Equal(t, savedFirst(spec), bootFrom(t, cache, spec))
	m, err := harness.Boot(t.Context(), from(cache, spec))
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, harness.BootRestored, m.Result().Boot, m.Result().Why)
	require.NoError(t, cache.Clear())
	conn, err := m.Dial(t.Context(), "udp", echoPort)
	require.NoError(t, err)
	defer conn.Close()
	echoes(t, conn, "still here")
	ctx, cancel := m.Within(t.Context(), harnesstest.Within)
	defer cancel()
	// The machine's memory is mapped from a file that was removed.
	require.NoError(t, m.Console().Send(ctx, "sh cat /bin/* >/dev/null; echo read by $((40 + 2))"))
	_, err = m.Console().Expect(ctx, `read by 42`)
	require.NoError(t, err)
}

// The test binary runs itself as another process that uses the cache.
func TestProcessesShareACache(t *testing.T) {
	if dir := os.Getenv("GUESTHOUSE_TEST_CACHE"); dir != "" {
		spec, err := harness.ReadSpec(filepath.Join(dir, "spec.json"))
		require.NoError(t, err)
		cache := &harness.TemplateCache{Dir: dir, AnyGuest: true}
		if os.Getenv("GUESTHOUSE_TEST_KILL") != "" {
			_, err := harness.Start(t.Context(), from(cache, spec))
			require.NoError(t, err)
			fmt.Println("making")
			select {} // until the test kills it
		}
		fmt.Println("boot was", bootFrom(t, cache, spec))
		return
	}
	t.Parallel()
	target := oneTarget(t)
	cache := &harness.TemplateCache{Dir: t.TempDir(), AnyGuest: true}
	spec := echoSpec(t, target)
	spec.Accel = harness.TCG
	text, err := json.Marshal(spec)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(cache.Dir, "spec.json"), text, 0o644))
	user := func(env ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcessesShareACache$")
		cmd.Env = append(append(os.Environ(), "GUESTHOUSE_TEST_CACHE="+cache.Dir), env...)
		cmd.Stderr = os.Stderr
		return cmd
	}

	killed := user("GUESTHOUSE_TEST_KILL=1")
	out, err := killed.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, killed.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "making\n", line)
	require.NoError(t, killed.Process.Kill())
	killed.Wait()
	all := templates(t, cache)
	require.Empty(t, all, "an unfinished template is not listed")

	users := []*exec.Cmd{user(), user(), user()}
	said := make([]strings.Builder, len(users))
	for i, u := range users {
		u.Stdout = &said[i]
		require.NoError(t, u.Start())
	}
	count := make(map[string]int)
	for i, u := range users {
		require.NoError(t, u.Wait(), said[i].String())
		first, _, _ := strings.Cut(said[i].String(), "\n")
		count[first]++
	}
	require.Equal(t, map[string]int{
		"boot was cold: the first boot of its kind, saved for the next": 1,
		"boot was restored": 2,
	}, count)
	left, err := os.ReadDir(filepath.Join(cache.Dir, "tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
}
