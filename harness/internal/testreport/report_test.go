package testreport

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The packages of a module: one passes, and the others fail in different ways.
var sources = map[string]string{
	"go.mod": "module m\n\ngo 1.26\n",
	"ok/ok_test.go": `package ok
import ("fmt"; "testing")
func TestOK(t *testing.T) { fmt.Println("from a test that passes"); t.Run("sub", func(*testing.T) {}) }
func TestSkipped(t *testing.T) { t.Skip("no need") }
`,
	"bad/bad_test.go": `package bad
import ("fmt"; "testing")
func TestGood(t *testing.T) { fmt.Println("from a good test") }
func TestBad(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Error("wrong\nvery \x1b[1mwrong") }) }
`,
	"panics/p_test.go": "package panics\nimport \"testing\"\nfunc TestPanic(t *testing.T) { panic(\"too much\") }\n",
	"broken/b.go":      "package broken\nfunc f() { missing() }\n",
	"broken/b_test.go": "package broken\n",
	"none/n.go":        "package none\n",
}

// events returns what the real go command prints.
func events(t *testing.T, flags ...string) string {
	t.Helper()
	return eventsOf(t, sources, flags...)
}

func eventsOf(t *testing.T, sources map[string]string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range sources {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"test", "-json"}, flags...), "./...")...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := cmd.Output()
	require.ErrorAs(t, err, new(*exec.ExitError), "packages fail")
	return string(out)
}

const run = "[arm64, 6.1.0]"

func report(t *testing.T, o Options, streams ...string) (r *Report, printed string) {
	var out strings.Builder
	r = New(&out, o)
	for _, s := range streams {
		require.NoError(t, r.Read(run, strings.NewReader(s)))
	}
	return r, out.String()
}

func TestAReportPrintsWhatGoTestPrints(t *testing.T) {
	r, printed := report(t, Options{}, events(t))
	for _, line := range []string{
		`ok  \tm/ok \[arm64, 6\.1\.0\]\t[0-9.]+s`,
		`FAIL\tm/bad \[arm64, 6\.1\.0\]\t[0-9.]+s`,
		`    bad_test.go:4: wrong`,
		`--- FAIL: TestBad \([0-9.]+s\)`,
		`panic: too much.*`,
		`FAIL\tm/broken \[arm64, 6\.1\.0\] \[build failed\]`,
		`broken/b.go:2:12: undefined: missing`,
		`\?   \tm/none \[arm64, 6\.1\.0\]\t\[no test files\]`,
	} {
		require.Regexp(t, "(?m)^"+line+"$", printed)
	}
	for _, text := range []string{"from a test that passes", "from a good test", "=== RUN"} {
		require.NotContains(t, printed, text)
	}
	require.True(t, r.Failed())
	require.Equal(t, "FAIL m/bad [arm64, 6.1.0]: TestBad\nFAIL m/broken [arm64, 6.1.0]: outside its tests\nFAIL m/panics [arm64, 6.1.0]: TestPanic\n"+
		"FAIL: 4 kinds of machine: packages: 1 passed, 3 failed, 1 without tests; tests: 2 passed, 2 failed, 1 skipped; 1.5 s\n",
		r.Summary(4, 1500*time.Millisecond))

	_, printed = report(t, Options{Verbose: true}, events(t, "-v"))
	for _, text := range []string{"=== RUN   TestOK\n", "from a test that passes\n", "from a good test\n", "--- SKIP: TestSkipped"} {
		require.Contains(t, printed, text)
	}
	_, printed = report(t, Options{Passed: true}, events(t))
	require.Contains(t, printed, "from a test that passes\n")
	require.NotContains(t, printed, "=== RUN")
}

// Go test prints no event for that.
func TestABenchmarkThatHasEndedHasPassed(t *testing.T) {
	r, _ := report(t, Options{}, eventsOf(t, map[string]string{"go.mod": sources["go.mod"], "b_test.go": `package m
import "testing"
func BenchmarkBad(b *testing.B) { b.Error("slow") }
func BenchmarkGood(b *testing.B) { b.Run("sub/part", func(b *testing.B) { for b.Loop() {} }) }
func BenchmarkHalf(b *testing.B) { b.Run("good", func(b *testing.B) { for b.Loop() {} }); b.Run("bad", BenchmarkBad) }
`}, "-bench", ".", "-benchtime", "1x"))
	require.Contains(t, r.Summary(1, time.Second), "FAIL m [arm64, 6.1.0]: BenchmarkBad, BenchmarkHalf\n")
	require.Contains(t, r.Summary(1, time.Second), "tests: 1 passed, 2 failed, 0 skipped")
	var text strings.Builder
	require.NoError(t, r.WriteJUnit(&text))
	var suites junitSuites
	require.NoError(t, xml.Unmarshal([]byte(text.String()), &suites))
	var failed []string
	for _, c := range suites.Suites[0].Cases {
		if c.Failure != nil {
			failed = append(failed, c.Name)
		}
	}
	require.Equal(t, []string{"BenchmarkBad", "BenchmarkHalf", "BenchmarkHalf/bad"}, failed)

	// A benchmark that takes long prints its line in two parts.
	r, _ = report(t, Options{}, `{"Action":"run","Package":"m","Test":"BenchmarkLong"}
{"Action":"output","Package":"m","Test":"BenchmarkLong","Output":"BenchmarkLong-2   \t"}
{"Action":"output","Package":"m","Test":"BenchmarkLong","Output":"       1\t 2 ns/op\n"}
{"Action":"pass","Package":"m"}
`)
	require.Contains(t, r.Summary(1, time.Second), "tests: 1 passed, 0 failed, 0 skipped")
}

// Two runs write at the same time. With -v, the packages are printed one after the other.
func TestThePackagesOfSeveralRunsDoNotMix(t *testing.T) {
	var out strings.Builder
	r := New(&out, Options{Verbose: true})
	line := func(run, pkg, action, output string) {
		text, err := json.Marshal(map[string]string{"Action": action, "Package": pkg, "Output": output})
		require.NoError(t, err)
		require.NoError(t, r.Read(run, strings.NewReader(string(text)+"\n")))
	}
	line("[a]", "p", "start", "")
	line("[b]", "p", "start", "")
	line("[b]", "p", "output", "b1\n")
	line("[a]", "p", "output", "a1\n")
	require.Equal(t, "a1\n", out.String(), "the first package is printed while it runs")
	line("[b]", "p", "pass", "")
	line("[a]", "p", "output", "a2\n")
	line("[a]", "p", "pass", "")
	require.Equal(t, "a1\na2\nb1\n", out.String())
	line("[b]", "q", "output", "q1\n")
	require.Equal(t, "a1\na2\nb1\nq1\n", out.String())
	require.True(t, r.Failed(), "a package that has not ended has failed")
}

func TestEventsPassThroughWithTheRunBehindThePackage(t *testing.T) {
	stream := events(t)
	_, printed := report(t, Options{JSON: true}, stream, "no event\n")
	before, after := strings.Split(stream, "\n"), strings.Split(printed, "\n")
	require.Len(t, after, len(before)+1)
	require.Equal(t, "no event", after[len(after)-2])
	name := regexp.MustCompile(`"Package":"(m/[a-z]+)"`)
	for i, line := range before[:len(before)-1] {
		require.Equal(t, name.ReplaceAllString(line, `"Package":"$1 `+run+`"`), after[i])
	}
}

func TestJUnitHasASuiteForEachPackageAndRun(t *testing.T) {
	r, _ := report(t, Options{}, events(t))
	var text strings.Builder
	require.NoError(t, r.WriteJUnit(&text))
	var suites junitSuites
	require.NoError(t, xml.Unmarshal([]byte(text.String()), &suites), text.String())
	found := make(map[string]junitSuite)
	for _, s := range suites.Suites {
		found[s.Name] = s
	}
	require.Len(t, found, 5)
	ok := found["m/ok "+run]
	require.Equal(t, []int{3, 0, 1}, []int{ok.Tests, ok.Failures, ok.Skipped})
	bad := found["m/bad "+run]
	require.Equal(t, []int{3, 2, 0}, []int{bad.Tests, bad.Failures, bad.Skipped}, "TestBad and its subtest")
	require.Contains(t, text.String(), "very \uFFFD[1mwrong", "XML has no escape character")
	broken := found["m/broken "+run]
	require.Equal(t, "(package)", broken.Cases[0].Name)
	require.Contains(t, broken.Cases[0].Failure.Text, "undefined: missing")
	require.Empty(t, found["m/none "+run].Cases)
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestAFailedWriteEndsTheReading(t *testing.T) {
	r := New(full{}, Options{})
	require.ErrorContains(t, r.Read(run, strings.NewReader("text\n")), "no space")
	require.Error(t, r.WriteJUnit(full{}))
	broken, w := io.Pipe()
	w.CloseWithError(errors.New("broken pipe"))
	require.ErrorContains(t, New(io.Discard, Options{}).Read(run, broken), "broken pipe")
}
