// Package gotest knows how the go command runs a test binary, so that the binary can run elsewhere: which
// directories of the host a test needs, which files it writes for the user, and how the go command's cache of
// test results learns what a test depends on.
//
// "go test -exec COMMAND" runs "COMMAND BINARY -test.paniconexit0 -test.timeout=10m0s …" in the directory of
// the package. BINARY is in a directory of its own, in which the go command expects the coverage of the test.
// The source of these rules is cmd/go/internal/test of Go 1.26.
package gotest

import (
	"path/filepath"
	"slices"
	"strings"
)

// A Call is a call of a test binary.
type Call struct {
	Binary string   // an absolute path
	Dir    string   // the absolute path of the working directory
	Args   []string // without the binary's name

	flags map[string]string // the values of the -test.* flags, without the prefix
}

// flagPrefix starts the name of every flag of package testing.
const flagPrefix = "test."

// Parse returns the call of a test binary, or false if args have no flag of package testing.
func Parse(dir, binary string, args []string) (Call, bool) {
	c := Call{Binary: binary, Dir: dir, Args: args, flags: make(map[string]string)}
	for i := 0; i < len(args); i++ {
		name, isFlag := strings.CutPrefix(args[i], "-")
		if !isFlag || name == "" || name == "-" {
			break // as package flag does
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		name, isTest := strings.CutPrefix(name, flagPrefix)
		if !isTest {
			continue
		}
		if !hasValue && i+1 < len(args) && !slices.Contains(boolFlags, name) {
			i++
			value = args[i]
		}
		c.flags[name] = value
	}
	return c, len(c.flags) > 0
}

// boolFlags are the flags of package testing whose value is not in the next argument.
var boolFlags = []string{"artifacts", "benchmem", "failfast", "fullpath", "paniconexit0", "short", "v", "fuzzworker"}

// fileFlags are the flags whose values name files that the binary writes for the user.
var fileFlags = []string{"blockprofile", "coverprofile", "cpuprofile", "memprofile", "mutexprofile", "trace"}

// artifacts is the directory below -test.outputdir that package testing makes for -test.artifacts.
const artifacts = "_artifacts"

// Outputs returns the absolute paths of the files and directories that the binary writes for the user, and
// that a caller copies to the host when the test has ended. Those in Scratch are not among them.
func (c Call) Outputs() (paths []string) {
	scratch, _ := c.Scratch()
	add := func(path string) {
		if scratch == "" || !within(path, scratch) {
			paths = append(paths, path)
		}
	}
	for _, name := range fileFlags {
		if value := c.flags[name]; value != "" {
			add(c.output(value))
		}
	}
	for _, name := range []string{"gocoverdir", "testlogfile"} {
		if value := c.flags[name]; value != "" {
			add(absolute(c.Dir, value)) // package testing does not look for them in -test.outputdir
		}
	}
	if on, set := c.flags["artifacts"]; set && on != "false" && on != "0" {
		add(c.output(artifacts))
	}
	return paths
}

// output returns where package testing writes a file, as its toOutputDir does.
func (c Call) output(name string) string {
	if dir := c.flags["outputdir"]; dir != "" && !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	return absolute(c.Dir, name)
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// within reports whether a path is a directory or lies in it. Both are clean.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Fuzzes reports whether the binary fuzzes. It then writes the inputs that fail into testdata/fuzz of the
// package.
func (c Call) Fuzzes() bool { return c.flags["fuzz"] != "" }

// FuzzCache returns the directory in which the go command keeps the inputs that the fuzzing has found, or
// an empty string.
func (c Call) FuzzCache() string {
	if dir := c.flags["fuzzcachedir"]; dir != "" {
		return absolute(c.Dir, dir)
	}
	return ""
}

// Scratch returns the go command's directory for this run of the binary, which holds the binary and receives
// its coverage and its log. It returns false if the binary was not called by the go command.
func (c Call) Scratch() (dir string, ok bool) {
	if _, byGo := c.flags["paniconexit0"]; !byGo {
		return "", false
	}
	return filepath.Dir(c.Binary), true
}
