package guesthouse

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README's programs and its scenario are compiled and tested where they stand. The README shows the same text.
func TestTheREADMEShowsItsProgramsAsTheyAre(t *testing.T) {
	blocks := regexp.MustCompile("(?s)<!-- (\\S+\\.(?:go|txtar)) -->\n```(?:go|text)\n(.*?)```").FindAllStringSubmatch(read(t, "README.md"), -1)
	require.Len(t, blocks, 3)
	for _, b := range blocks {
		require.Equal(t, read(t, b[1]), b[2], "README.md and %s differ", b[1])
	}
}

// The reference shows a test of three machines, which make test runs.
func TestTheReferenceShowsItsTestAsItIs(t *testing.T) {
	block := regexp.MustCompile("(?s)<!-- (\\S+\\.go) -->\n```go\n(.*?)```").FindStringSubmatch(read(t, "docs/reference.md"))
	require.NotNil(t, block)
	require.True(t, strings.HasSuffix(read(t, block[1]), "\n\n"+block[2]), "docs/reference.md and %s differ", block[1])
	require.LessOrEqual(t, strings.Count(block[2], "\n"), 40)
}

// executed names, for each command of the README, the file of the test that executes it and words in
// that file.
var executed = map[string][2]string{
	"make qemu-run": {"docs/img/qemu-run.txt", "$ make qemu-run"}, // recorded; run.txt runs what it runs
	"make test":     {"Makefile", "\ntest: $(guesthouse)"},        // it runs this test
	"printf hello":  {"harness/integration/integration_test.go", "traffic.Echo"},
	"go mod edit":   {"usermodule_test.go", `"mod", "edit", "-require=guesthouse.example@v0.0.0", "-replace=guesthouse.example=`},
	"go mod tidy":   {"usermodule_test.go", `"mod", "tidy"`},
	"go run guesthouse.example/harness/cmd/guesthouse run -guest ./cmd/upper": {"harness/internal/cli/testdata/script/readme.txt", "exec guesthouse run -guest ./cmd/upper -target arm64"},
	"go test -exec":                           {"harness/internal/cli/testdata/script/gotest.txt", "exec go test -v -exec 'guesthouse exec' ./p"},
	"GOARCH=arm64 go test -exec":              {"harness/internal/cli/testdata/script/gotest.txt", "env GOARCH=arm64"},
	"guesthouse run -board":                   {"harness/internal/cli/testdata/script/board.txt", "exec guesthouse run -board uboot/qemu_arm64 /usr/lib/u-boot/qemu_arm64/u-boot.bin"},
	"printf 'net sockets\\n' | make qemu-run": {"harness/internal/cli/testdata/script/run.txt", "net sockets"},
}

func TestEveryCommandOfTheREADMEIsExecutedByATest(t *testing.T) {
	used := map[string]bool{}
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(read(t, "README.md"), -1) {
		for line := range strings.Lines(block[1]) {
			found := ""
			for command := range executed {
				if strings.HasPrefix(line, command) && len(command) > len(found) {
					found = command
				}
			}
			if found == "" {
				t.Errorf("no test executes the README's %q", line)
				continue
			}
			used[found] = true
			where := executed[found]
			require.Contains(t, read(t, where[0]), where[1])
		}
	}
	for command := range executed {
		require.True(t, used[command], "the README has no %q any more", command)
	}
}

// The README's ready line is the recording's, and matches the pattern of the command's own test.
func TestTheREADMEShowsTheReadyLineThatIsPrinted(t *testing.T) {
	line := regexp.MustCompile(`(?m)^guesthouse: x86_64 ready in .*$`)
	shown := line.FindString(read(t, "README.md"))
	require.NotEmpty(t, shown)
	require.Equal(t, line.FindString(read(t, "docs/img/qemu-run.txt")), shown, "the recording has another ready line")

	wanted := regexp.MustCompile(`stderr '(\^guesthouse: arm64 ready in .*?);[^;]*\$'`).FindStringSubmatch(read(t, "harness/internal/cli/testdata/script/run.txt"))
	require.NotNil(t, wanted, "the test of the ready line")
	pattern := strings.Replace(wanted[1], "arm64", "x86_64", 1) + "; Ctrl-A x ends$"
	require.Regexp(t, pattern, shown)
}

// The README's commands are those of the program, in its order.
func TestTheREADMEListsTheCommands(t *testing.T) {
	usage := read(t, "harness/internal/cli/main.go")
	_, usage, _ = strings.Cut(usage, "const usage = `")
	usage, _, _ = strings.Cut(usage, "`")
	var printed, listed []string
	for _, m := range regexp.MustCompile(`(?m)^\tguesthouse ([a-z]+)`).FindAllStringSubmatch(usage, -1) {
		printed = append(printed, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `guesthouse ([a-z]+)").FindAllStringSubmatch(read(t, "README.md"), -1) {
		listed = append(listed, m[1])
	}
	require.NotEmpty(t, printed)
	require.Equal(t, printed, listed)
}
