package harnesstest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
)

// onlyResult returns the result in the only record that TestInner has left in a directory.
func onlyResult(t *testing.T, tmp string) (r harness.Result, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(tmp, "TestInner-*", "result.json"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &r))
	return r, filepath.Dir(files[0])
}

// A record says whether its test passed, even if the machine did not fail.
func TestARecordHasTheVerdictOfItsTest(t *testing.T) {
	Require(t, "arm64")
	for name, says := range map[string]string{
		"expect": `^the test failed: expect "never said": the console has ended`,
		"off":    "^the test failed: the machine powered off during the test",
		"crash":  "^the guest failed: .*sysrq triggered crash",
		"panic":  "^the test panicked$",
		"fail":   "^the test failed$",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			out, ok := run(t, name, []string{"TMPDIR=" + tmp})
			require.False(t, ok, out)
			result, dir := onlyResult(t, tmp)
			require.Equal(t, harness.StateFailed, result.State)
			require.Regexp(t, says, result.Error)
			require.Equal(t, "TestInner", result.Test)
			require.NoFileExists(t, filepath.Join(dir, "result.json.new"))
		})
	}
	t.Run("pass", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		out, ok := run(t, "pass", nil, "-test.artifacts", "-test.outputdir", dir)
		require.True(t, ok, out)
		require.NotContains(t, out, "go test -timeout")
		files, err := filepath.Glob(filepath.Join(dir, "_artifacts", "*", "TestInner-*", "result.json"))
		require.NoError(t, err)
		require.Len(t, files, 1, out)
		text, err := os.ReadFile(files[0])
		require.NoError(t, err)
		require.Contains(t, string(text), `"state": "ended"`)
	})
}
