package integration

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
)

// The platform is restored and rehearses a delivery before the program is known. Nothing of the rehearsal is
// left in the machine or in its template.
func TestAProgramIsDeliveredIntoThePlatformThatWasExpected(t *testing.T) {
	t.Parallel()
	spec := delivered(t, oneTarget(t), echoGuest)
	cache := &harness.TemplateCache{Dir: t.TempDir(), Prefetch: true}
	t.Cleanup(cache.Close)
	cache.Expect(t.Context(), spec)
	require.Zero(t, waiting(t, cache), "there is no platform yet")
	require.Equal(t, firstBoot, bootFrom(t, cache, spec))
	cache.Close()

	spec.Args = []string{"another", "run"}
	cache.Expect(t.Context(), spec)
	require.Equal(t, 1, waiting(t, cache))
	larger := spec
	larger.Memory = 640
	require.Equal(t, firstBoot, bootFrom(t, cache, larger), "another machine is not the expected one")
	cache.Close()
	cache.Expect(t.Context(), spec)
	require.Equal(t, 1, waiting(t, cache))
	m := harnesstest.Boot(t, from(cache, spec))
	require.Equal(t, firstRun, bootMode(m))
	require.Contains(t, readFile(t, filepath.Join(m.Dir(), "agent.log")), `"true"`, "it has rehearsed")
	requireProgram(t, m, spec)

	cache.Close()
	m = harnesstest.Boot(t, from(cache, spec))
	require.Equal(t, "restored", bootMode(m))
	requireProgram(t, m, spec)
}

func waiting(t *testing.T, cache *harness.TemplateCache) int {
	t.Helper()
	n, err := cache.Waiting(t.Context())
	require.NoError(t, err)
	return n
}

// bootMode returns how a machine has started, in the form of bootFrom.
func bootMode(m *harnesstest.Machine) string {
	r := m.Result()
	if r.Why == "" {
		return string(r.Boot)
	}
	return fmt.Sprintf("%s: %s", r.Boot, r.Why)
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

// requireProgram requires that the guest's program is the Spec's, and that it works.
func requireProgram(t *testing.T, m *harnesstest.Machine, spec harness.Spec) {
	t.Helper()
	require.Equal(t, readFile(t, spec.Program), m.Output("cat", "/bin/uinit"))
	echoes(t, m.Dial("udp", echoPort), "from the program")
}

func TestTheCallerLearnsThatTheProgramIsCompiled(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	var platforms []images.Image
	options := images.Options{
		BuildFlags: []string{"-ldflags=-s -w -buildid= -X main.unused=" + rand.Text()},
		Compiling:  func(p images.Image) { platforms = append(platforms, p) },
	}
	platform, program, err := images.PlatformAndProgram(t.Context(), target, echoGuest, options)
	require.NoError(t, err)
	require.Equal(t, []images.Image{platform}, platforms)
	_, again, err := images.PlatformAndProgram(t.Context(), target, echoGuest, options)
	require.NoError(t, err)
	require.Equal(t, program, again)
	require.Len(t, platforms, 1, "the cache has the program")
}
