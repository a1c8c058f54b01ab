package shellquote

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAShellReadsOneWord(t *testing.T) {
	for s, quoted := range map[string]string{
		"":                        "''",
		"/tmp/run-1/spec.json":    "/tmp/run-1/spec.json",
		"virtio-net-pci,romfile=": "virtio-net-pci,romfile=",
		"größe":                   "größe",
		"two words":               "'two words'",
		"it's":                    `'it'\''s'`,
		"$HOME":                   "'$HOME'",
		"~":                       "'~'",
		"a\nb":                    "'a\nb'",
		"*.go":                    "'*.go'",
		"#":                       "'#'",
	} {
		require.Equal(t, quoted, Word(s))
		out, err := exec.Command("sh", "-c", "printf %s "+Word(s)).Output()
		require.NoError(t, err)
		require.Equal(t, s, string(out))
	}
}
