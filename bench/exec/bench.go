package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"guesthouse.example/bench/internal/echoguest"
	"guesthouse.example/internal/target"
)

// A bench holds the data that the runs share.
type bench struct {
	source string // guesthouse's module
	tmp    string
	cli    string   // the command guesthouse
	env    []string // of the go command: the caches of the benchmark are its own, and the compiler's is the user's

	guests echoguest.Guests
	made   map[string]bool        // the directories of modules that were made
	peers  map[string]peerMachine // by target
}

func newBench(ctx context.Context, source, tmp string) (*bench, error) {
	b := &bench{source: source, tmp: tmp, cli: filepath.Join(tmp, "guesthouse"), env: os.Environ(),
		guests: echoguest.Guests{Source: source, Dir: tmp}, made: map[string]bool{}, peers: map[string]peerMachine{}}
	_, err := b.goIn(ctx, source, nil, "build", "-buildvcs=false", "-o", b.cli, "./harness/cmd/guesthouse")
	return b, err
}

// goIn runs the go command in a directory, and returns the time that it took. An error has its output.
func (b *bench) goIn(ctx context.Context, dir string, env []string, args ...string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(append(b.env, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS="), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	said, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return took, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, said[max(0, len(said)-2000):])
	}
	return took, nil
}

// architecture returns the environment that makes the go command build for a target.
func architecture(name string) []string {
	t, err := target.Lookup(name)
	if err != nil {
		panic(err) // targets lists it
	}
	return []string{"GOARCH=" + t.GOARCH, "GOARM=" + t.GOARM}
}

// emptyModule returns the directory of a module with eight packages, each with one empty test.
func (b *bench) emptyModule() (string, error) {
	dir := filepath.Join(b.tmp, "empty")
	if b.made[dir] {
		return dir, nil
	}
	files := map[string]string{"go.mod": "module empty.example\n\ngo 1.26.0\n"}
	for i := range packages {
		name := fmt.Sprintf("p%d", i)
		files[name+"/empty_test.go"] = "package " + name + "\n\nimport \"testing\"\n\nfunc TestEmpty(*testing.T) {}\n"
	}
	b.made[dir] = true
	return dir, writeFiles(dir, files)
}

// packages is how many packages the cases with several of them test.
const packages = 8

func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// exampleModule returns the directory of a module with the README's guest and its test.
func (b *bench) exampleModule(ctx context.Context) (string, error) {
	dir := filepath.Join(b.tmp, "example")
	if b.made[dir] {
		return dir, nil
	}
	files := map[string]string{
		"go.mod": "module user.example\n\ngo 1.26.0\n\nrequire guesthouse.example v0.0.0\n\nreplace guesthouse.example => " + b.source + "\n",
	}
	for name, from := range map[string]string{
		"go.sum": "go.sum", guestFile: "harness/harnesstest/example/cmd/upper/main.go", "upper_test.go": "harness/harnesstest/example/upper_test.go",
	} {
		text, err := os.ReadFile(filepath.Join(b.source, from))
		if err != nil {
			return "", err
		}
		files[name] = string(text)
	}
	if err := writeFiles(dir, files); err != nil {
		return "", err
	}
	if _, err := b.goIn(ctx, dir, nil, "mod", "tidy"); err != nil {
		return "", err
	}
	b.made[dir] = true
	return dir, nil
}

const guestFile = "cmd/upper/main.go"
