package harnesstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A scratch is a user's module with a guest, the guest's dependencies and tests. Beside it is another
// module, which replaces a dependency in its go.mod.
type scratch struct {
	dir    string // the module's directory
	env    []string
	gotool string // the go command, which PATH in env need not find
}

func newScratch(t *testing.T) *scratch {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	gotool, err := exec.LookPath("go")
	require.NoError(t, err)
	parent := t.TempDir()
	s := &scratch{dir: filepath.Join(parent, "user"), gotool: gotool, env: append(os.Environ(), "GOFLAGS=", "GOWORK=", "GUESTHOUSE_COLD=", "GUESTHOUSE_TARGETS=")}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		s.write(t, name, string(text))
	}
	for name, text := range map[string]string{
		"guest/main.go": `package main

import (
	_ "embed"
	"fmt"

	"guesthouse.example/guest"
	"lib.example/lib"
	"user.example/dep"
)

//go:embed text/embedded.txt
var embedded string

func main() {
	guest.Main(func() error {
		fmt.Println("it says", "good", dep.Text, lib.Text, embedded)
		return nil
	})
}
`,
		"guest/text/embedded.txt": "embedded",
		"dep/dep.go":              "package dep\n\nconst Text = \"dependency\"\n",
		"../kernel":               "a kernel of the user's own",
		"../own":                  "a file of the user's own",
		"../spec.json":            "{}",
		"../lib/go.mod":           "module lib.example\n",
		"../lib/lib/lib.go":       "package lib\n\nconst Text = \"replaced\"\n",
		"user_test.go": `package user

import (
	"os"
	"testing"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
)

func TestGuest(t *testing.T) {
	spec := harnesstest.Spec(t, "arm64", "./guest")
	spec.From = harness.Cold
	m := harnesstest.Boot(t, spec)
	m.Expect("it says good dependency replaced embedded")
}

func TestBuild(t *testing.T) { harnesstest.Spec(t, "arm64", "./guest") }

func TestOwnFiles(t *testing.T) {
	_, err := images.Build(t.Context(), "arm64", "./guest", images.Options{
		Kernel: "../kernel", Files: map[string]string{"/etc/own": "../own"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, spec harness.Spec) {
	spec.Target, spec.Kernel = "arm64", "../kernel"
	if m, err := harness.Start(t.Context(), spec); err == nil {
		m.Close()
	}
}

func TestOwnKernel(t *testing.T) { start(t, harness.Spec{}) }

func TestOwnQEMUArgs(t *testing.T) { start(t, harness.Spec{QEMUArgs: []string{"-drive", "file=../own"}}) }

func TestRequire(t *testing.T) { harnesstest.Require(t, "arm64") }

func TestSpecFile(t *testing.T) {
	_, err := harness.ReadSpec("../spec.json")
	if err != nil {
		t.Fatal(err)
	}
}

// TestEdit edits a source file while it runs.
func TestEdit(t *testing.T) {
	harnesstest.Spec(t, "arm64", "./guest")
	text, err := os.ReadFile("dep/dep.go")
	if err == nil {
		err = os.WriteFile("dep/dep.go", append(text, '\n'), 0o666)
	}
	if err == nil {
		err = os.Chtimes("dep/dep.go", time.Time{}, time.Now().Add(-time.Minute))
	}
	if err != nil {
		t.Fatal(err)
	}
}
`,
	} {
		s.write(t, name, text)
	}
	out, err := s.goCommand(t, "mod", "edit", "-module", "user.example", "-go", "1.26.0",
		"-require", "guesthouse.example@v0.0.0", "-replace", "guesthouse.example="+root,
		"-require", "lib.example@v0.0.0", "-replace", "lib.example=../lib")
	require.NoError(t, err, out)
	s.replace(t, "go.mod", "", "") // make the file look older
	return s
}

// write writes a file of the module and dates it back by a minute, because the go command does not
// trust younger files.
func (s *scratch) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(s.dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o777))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o666))
	require.NoError(t, os.Chtimes(file, time.Time{}, time.Now().Add(-time.Minute)))
}

func (s *scratch) replace(t *testing.T, name, old, by string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	require.NoError(t, err)
	require.Contains(t, string(text), old)
	s.write(t, name, strings.Replace(string(text), old, by, 1))
}

func (s *scratch) goCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.gotool, args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *scratch) goTest(t *testing.T, test string) (string, error) {
	t.Helper()
	// Most of the time goes into linking, which takes half as long without what a debugger needs.
	return s.goCommand(t, "test", "-vet=off", "-ldflags=-s -w", "-run", "^"+test+"$", ".")
}

// run runs a test of the module, which must pass. It reports whether go answered from its cache.
func (s *scratch) run(t *testing.T, test string) (cached bool) {
	t.Helper()
	out, err := s.goTest(t, test)
	require.NoError(t, err, out)
	return strings.Contains(out, "(cached)")
}

// runs requires that go runs a test, and that it then answers from its cache. Without the second
// requirement, the test would pass even if go cached nothing.
func (s *scratch) runs(t *testing.T, test string) {
	t.Helper()
	require.False(t, s.run(t, test), "go answered from its cache")
	require.True(t, s.run(t, test), "go does not answer from its cache although no file was edited, in this repository either")
}

// A result from go's cache comes from the same guest on the same machine.
func TestGoTestRunsAgainAfterAChangeOfAnInput(t *testing.T) {
	t.Parallel()
	Require(t, "arm64")
	s := newScratch(t)

	s.runs(t, "TestGuest")
	s.replace(t, "guest/main.go", "good", "poor")
	out, err := s.goTest(t, "TestGuest")
	require.Error(t, err, "the guest no longer prints what its test expects: %s", out)
	require.Contains(t, out, "it says poor dependency")
	s.replace(t, "guest/main.go", "poor", "good")
	s.runs(t, "TestGuest")
	s.env = append(s.env, "GUESTHOUSE_COLD=1")
	require.False(t, s.run(t, "TestGuest"), "after a change of GUESTHOUSE_COLD go answered from its cache")

	s.runs(t, "TestBuild")
	for _, edit := range []struct {
		of string
		do func()
	}{
		{"a package that the guest imports", func() { s.replace(t, "dep/dep.go", "dependency", "dependence") }},
		{"a module that a directory replaces", func() { s.replace(t, "../lib/lib/lib.go", "replaced", "exchange") }},
		{"an embedded file", func() { s.write(t, "guest/text/embedded.txt", "EMBEDDED") }},
		{"the files of a package", func() { s.write(t, "dep/more.go", "package dep\n") }},
		{"go.mod", func() { s.replace(t, "go.mod", "module user.example", "// Somebody's.\nmodule user.example") }},
		{"go.mod of a module that a directory replaces", func() { s.write(t, "../lib/go.mod", "module lib.example\n\ngo 1.26.0\n") }},
		{"a workspace above", func() { s.write(t, "../go.work", "go 1.26.0\n\nuse ./user\n") }},
		{"GOFLAGS", func() { s.env = append(s.env, "GOFLAGS=-mod=readonly") }},
	} {
		edit.do()
		require.False(t, s.run(t, "TestBuild"), "after a change of %s go answered from its cache", edit.of)
	}
	require.True(t, s.run(t, "TestBuild"), "go does not answer from its cache although no file was edited, in this repository either")
}

func TestGoTestRunsAgainAfterAChangeOfQEMU(t *testing.T) {
	t.Parallel()
	Require(t, "arm64")
	qemu, err := exec.LookPath("qemu-system-aarch64")
	require.NoError(t, err)
	s := newScratch(t)
	program := func(dir, script string) {
		name := filepath.Join("..", dir, "qemu-system-aarch64")
		s.write(t, name, "#!/bin/sh\n"+script+"\n")
		require.NoError(t, os.Chmod(filepath.Join(s.dir, name), 0o777))
	}
	parent := filepath.Dir(s.dir)
	// Without QEMU the test is skipped, which go caches as a pass.
	s.env = append(s.env, "PATH="+filepath.Join(parent, "first")+":"+filepath.Join(parent, "second"), "GUESTHOUSE_REQUIRE=")
	s.runs(t, "TestRequire")
	for _, dir := range []string{"second", "first"} { // install QEMU, then another one that PATH finds first
		program(dir, "exec "+qemu+` "$@"`)
		s.runs(t, "TestRequire")
	}
	s.runs(t, "TestGuest")
	program("first", "exit 1")
	out, err := s.goTest(t, "TestGuest")
	require.Error(t, err, "QEMU no longer starts: %s", out)
	require.Contains(t, out, "QEMU did not start")
}

func TestGoTestRunsAgainAfterAChangeOfTheUsersFiles(t *testing.T) {
	t.Parallel()
	Require(t, "arm64")
	s := newScratch(t)
	for test, file := range map[string]string{
		"TestOwnFiles": "../own", "TestOwnKernel": "../kernel", "TestSpecFile": "../spec.json",
	} {
		s.runs(t, test)
		text, err := os.ReadFile(filepath.Join(s.dir, file))
		require.NoError(t, err)
		s.write(t, file, string(text)+" ")
		s.runs(t, test)
	}
	for range 3 {
		require.False(t, s.run(t, "TestOwnQEMUArgs"), "QEMU's arguments may name files that the harness does not track")
	}
}

// The go command hashes the files after the test has ended. It cannot know that a file was edited
// after the test had read it.
func TestGoTestCachesNoResultOfATestDuringWhichTheGuestWasEdited(t *testing.T) {
	t.Parallel()
	Require(t, "arm64")
	s := newScratch(t)
	s.runs(t, "TestBuild")
	for range 3 {
		require.False(t, s.run(t, "TestEdit"), "go answered from its cache")
	}
}
