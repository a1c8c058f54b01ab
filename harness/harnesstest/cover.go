package harnesstest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// coverFlags returns the flags of go build for a guest whose coverage is to be in the test's, or nothing if
// the test runs without coverage. Only atomic counters can be read while the guest's program runs.
func coverFlags() []string {
	if coverDir() == "" {
		return nil
	}
	flags := []string{"-cover", "-covermode=atomic"}
	if packages := os.Getenv(coverPackagesVariable); packages != "" {
		flags = append(flags, "-coverpkg="+packages)
	}
	return flags
}

// coverDir returns the directory into which machines write the coverage data of their guests, or "" if the test
// runs without coverage. Package testing does not read it.
func coverDir() string {
	if dir := testDir(); dir != "" {
		return filepath.Join(dir, "guests")
	}
	return ""
}

// testDir returns the directory from which package testing makes the test's coverage profile when all tests
// have ended, or "". The go command sets it.
func testDir() string {
	if f := flag.Lookup("test.gocoverdir"); f != nil && testing.CoverMode() != "" {
		return f.Value.String()
	}
	return ""
}

var collecting sync.Mutex

// collectCoverage gives what machines have written to coverDir to package testing. That package merges the files
// in its directory whose names hold the hash of the test binary's own metadata, whatever else the names hold,
// and whose mode of counting is the test's.
func collectCoverage(t testing.TB) {
	if coverDir() == "" {
		return
	}
	collecting.Lock()
	defer collecting.Unlock()
	if err := collectInto(testDir(), coverDir()); err != nil {
		t.Logf("the coverage of guests is incomplete: %v", err)
	}
}

func collectInto(dir, from string) error {
	files, err := os.ReadDir(from)
	if os.IsNotExist(err) || len(files) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	own, err := ownHash()
	if err != nil {
		return err
	}
	for _, f := range files {
		file := filepath.Join(from, f.Name())
		parts := strings.SplitN(f.Name(), ".", 3) // covmeta.HASH or covcounters.HASH.PROCESS.TIME
		switch {
		case parts[0] == "covmeta" && len(parts) == 2:
			err = setMode(file)
		case parts[0] == "covcounters" && len(parts) == 3:
		default:
			continue // it is still being written
		}
		if err != nil {
			return err
		}
		parts[1] += "-" + own
		if err := os.Rename(file, filepath.Join(dir, strings.Join(parts, "."))); err != nil {
			return err
		}
	}
	return nil
}

// The place of the mode of counting in a file of metadata, and its values. Source: internal/coverage/defs.go
// of Go.
const modeAt = 4 + 4 + 8 + 8 + 16 + 4 + 4

var coverModes = map[string]byte{"set": 1, "count": 2, "atomic": 3}

// setMode makes a guest's metadata say the test's mode of counting. The counters are the same in all modes but
// "set", in which package testing takes each count but 0 for 1.
func setMode(file string) error {
	meta, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	mode := coverModes[testing.CoverMode()]
	if len(meta) <= modeAt || !bytes.HasPrefix(meta, []byte("\x00\x63\x76\x6d")) || mode == 0 {
		return fmt.Errorf("%s has another form than this version of guesthouse knows", filepath.Base(file))
	}
	meta[modeAt] = mode
	return os.WriteFile(file, meta, 0o666)
}

const ownHashWithin = time.Minute

// ownHash returns the hash of the test binary's metadata. Package testing computes it when all tests have
// ended. The binary, told to list no test, writes it at once.
var ownHash = sync.OnceValues(func() (string, error) {
	const step = "find the hash of the test binary's coverage data"
	dir, err := os.MkdirTemp("", "guesthouse-cover-*")
	if err != nil {
		return "", fmt.Errorf("%s: %w", step, err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("%s: %w", step, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), ownHashWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-test.list=^$")
	cmd.Env = append(os.Environ(), "GOCOVERDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", step, err, out)
	}
	files, err := os.ReadDir(dir)
	i := slices.IndexFunc(files, func(f os.DirEntry) bool { return strings.HasPrefix(f.Name(), "covmeta.") })
	if err != nil {
		return "", fmt.Errorf("%s: %w", step, err)
	}
	if i < 0 { // The binary has no code that is counted, and so no hash: it looks for zeros.
		return strings.Repeat("0", 32), nil
	}
	return strings.TrimPrefix(files[i].Name(), "covmeta."), nil
})
