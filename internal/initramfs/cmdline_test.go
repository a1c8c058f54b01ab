package initramfs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestArgumentsAndVariablesPassThroughTheKernelCommandLine(t *testing.T) {
	args := []string{"", "-v", "two words", "tab\tand\nline", `"quoted" 'twice' \`, "100%", "%41", "é\xff\x00", "a=b+c"}
	env := []string{"K=", "PATH=/a:/b c"}
	words := Words(args, env)
	for _, w := range words {
		require.NotContains(t, w, " ")
		require.NotContains(t, w, `"`)
	}
	require.Contains(t, words, "guesthouse.arg=two%20words")
	gotArgs, gotEnv, err := FromCommandLine("quiet " + strings.Join(words, " ") + " panic=-1\n")
	require.NoError(t, err)
	require.Equal(t, args, gotArgs)
	require.Equal(t, env, gotEnv)
	_, _, err = FromCommandLine("guesthouse.arg=%4")
	require.ErrorContains(t, err, "guesthouse.arg=%4")
}
