package harnesstest

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The go command makes the profile: what ran in the machines is in it with what ran here. Each test binary of
// the run counts all packages, so that the profile has several lines for a block.
func TestTheProfileHasWhatRanInTheGuests(t *testing.T) {
	t.Parallel()
	targets := cmp.Or(os.Getenv(targetsVariable), "arm64,x86_64")
	for _, name := range strings.Split(targets, ",") {
		Require(t, name)
	}
	const pkg = "guesthouse.example/harness/harnesstest/testdata/covered"
	source, err := os.ReadFile("testdata/covered/cmd/parts/main.go")
	require.NoError(t, err)
	for _, mode := range []string{"set", "atomic"} {
		profile := filepath.Join(t.TempDir(), "profile")
		cmd := exec.Command("go", "test", "-count=1", "-v", "-covermode="+mode, "-coverprofile="+profile,
			"-coverpkg="+pkg+","+pkg+"/cmd/parts", pkg, pkg+"/cmd/parts")
		cmd.Env = append(os.Environ(), targetsVariable+"="+targets)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NotContains(t, string(out), "incomplete")
		text, err := os.ReadFile(profile)
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(text, []byte("mode: "+mode+"\n")))
		for name, ran := range map[string]bool{"beforeClose": true, "beforePowerOff": true, "asCommand": true, "never": false} {
			before, _, found := bytes.Cut(source, []byte("func "+name+"()"))
			require.True(t, found)
			first := bytes.Count(before, []byte("\n")) + 1
			block := regexp.MustCompile(fmt.Sprintf(`(?m)^%s/cmd/parts/main\.go:%d\.\S+ \d+ [1-9]`, regexp.QuoteMeta(pkg), first))
			require.Equal(t, ran, block.Match(text), "%s\n%s\n%s", name, text, out)
		}
	}
}

func TestATestWithoutCoverageBuildsGuestsAsEver(t *testing.T) {
	if testing.CoverMode() == "" {
		require.Empty(t, coverFlags())
		require.Empty(t, coverDir())
		return
	}
	require.Contains(t, coverFlags(), "-covermode=atomic")
}
