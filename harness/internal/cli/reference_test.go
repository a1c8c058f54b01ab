package cli

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the commands' help into docs/reference.md")

const reference = "../../../docs/reference.md"

// helpBlock is a command's help in the reference: <!-- guesthouse NAME -h --> and a block of text.
var helpBlock = regexp.MustCompile("(?s)<!-- guesthouse ([a-z]+) -h -->\n```text\n(.*?)```\n")

// go test ./harness/internal/cli -run TestTheReference -update brings it up to date.
func TestTheReferenceHasTheHelpOfEveryCommand(t *testing.T) {
	text, err := os.ReadFile(reference)
	require.NoError(t, err)
	var found []string
	now := helpBlock.ReplaceAllStringFunc(string(text), func(block string) string {
		name := helpBlock.FindStringSubmatch(block)[1]
		found = append(found, name)
		status, help, _ := call(t, name, "-h")
		require.Zero(t, status, name)
		return "<!-- guesthouse " + name + " -h -->\n```text\n" + strings.TrimRight(strings.ReplaceAll(help, "\t", "    "), "\n") + "\n```\n"
	})
	var want []string
	for name := range commands {
		want = append(want, name)
	}
	slices.Sort(want)
	slices.Sort(found)
	require.Equal(t, want, found, "the commands of the reference")
	if *update {
		require.NoError(t, os.WriteFile(reference, []byte(now), 0o666))
		return
	}
	require.Equal(t, string(text), now, "docs/reference.md: run this test with -update")
}

const scenarioPage = "../../../docs/scenarios.md"

func TestTheScenarioPageHasTheReferenceOfTheLanguage(t *testing.T) {
	text, err := os.ReadFile(scenarioPage)
	require.NoError(t, err)
	status, help, _ := call(t, "help", "scenario")
	require.Zero(t, status)
	block := regexp.MustCompile("(?s)<!-- guesthouse help scenario -->\n```text\n(.*?)```\n")
	require.Len(t, block.FindAllString(string(text), -1), 1)
	now := block.ReplaceAllLiteralString(string(text),
		"<!-- guesthouse help scenario -->\n```text\n"+strings.TrimRight(strings.ReplaceAll(help, "\t", "    "), "\n")+"\n```\n")
	if *update {
		require.NoError(t, os.WriteFile(scenarioPage, []byte(now), 0o666))
		return
	}
	require.Equal(t, string(text), now, "docs/scenarios.md: run this test with -update")
}
