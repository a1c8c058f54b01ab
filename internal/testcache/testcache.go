// Package testcache tells the go command's cache of test results what a test depends on.
//
// The go command answers from that cache if the test binary, the environment variables that
// it read and the files that it opened are unchanged. The go command knows only of accesses
// that the test process itself made through package os, to files in the test's module. A test
// of a machine depends on more: on sources that another go command compiles, on QEMU, on a
// kernel in a cache. In a process whose result the go command does not cache, the functions
// of this package do nothing.
package testcache

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Active reports whether this process is a test whose result the go command may cache.
func Active() bool {
	f := flag.Lookup("test.testlogfile")
	return f != nil && f.Value.String() != ""
}

// Depends declares that the test depends on files: on whether they exist, on the content of
// regular files, and on the names in directories.
//
// The go command reads the files only after the test has ended. So if a file changes while the
// test binary runs, the result is not cached.
func Depends(files ...string) {
	if !Active() {
		return
	}
	for _, file := range files {
		if file, err := filepath.Abs(file); err == nil {
			all.add(file)
		}
	}
}

// DependsOnEnv declares that the test depends on environment variables, which are read by
// programs that it starts.
func DependsOnEnv(names ...string) {
	for _, name := range names {
		_ = os.Getenv(name)
	}
}

// LookPath is like exec.LookPath, and declares that the test depends on the program and on the
// earlier directories of PATH, where another program of that name may appear.
func LookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if !Active() {
		return path, err
	}
	if strings.Contains(name, "/") {
		Depends(name)
		return path, err
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		candidate := filepath.Join(dir, name)
		Depends(candidate)
		if candidate == path {
			break
		}
	}
	return path, err
}

// Never prevents caching of the result. It is for a test that depends on something other than
// files and variables.
func Never() {
	if Active() {
		// For each go command, this is another directory.
		_, _ = os.Stat(ThroughRoot(start, "/proc/self"))
	}
}

// start is the directory of the test's package, and began when this process did.
var (
	start, _ = os.Getwd()
	began    = time.Now()
)

// ThroughRoot returns a path of a file that the go command accepts for a test in the directory dir. The go
// command accepts only paths that begin with the root of the module, and compares them before it resolves
// "..". So the path leads from the root up to "/" and then to the file.
func ThroughRoot(dir, file string) string {
	root := dir
	for {
		if _, err := os.Lstat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == "/" || root == "." || root == "" {
			return file // without a module, the go command caches nothing
		}
		root = filepath.Dir(root)
	}
	if root == "/" || file == root || strings.HasPrefix(file, root+"/") {
		return file
	}
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		resolved = root
	}
	return root + strings.Repeat("/..", strings.Count(resolved, "/")) + file
}

// all are the files of this process.
var all inputs

type inputs struct {
	mu      sync.Mutex
	existed map[string]bool
}

// Look prevents caching of the result if a file has changed since this process began.
func Look() {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.look()
}

// lookEvery is less than the 2 s for which the go command distrusts a file after a change.
const lookEvery = time.Second

func (a *inputs) add(file string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.existed[file]; known {
		return
	}
	if a.existed == nil {
		a.existed = make(map[string]bool)
		time.AfterFunc(lookEvery, a.lookAgain)
	}
	name := ThroughRoot(start, file)
	info, err := os.Stat(name)
	a.existed[file] = err == nil
	if err == nil && info.Mode().IsRegular() {
		// The go command refuses to cache a result if a file that the test opened, rather than
		// only called Stat for, has changed in the last two seconds.
		if f, err := os.Open(name); err == nil {
			f.Close()
		}
	}
}

// lookAgain calls look every lookEvery, because a package cannot run code at the end of a test binary.
func (a *inputs) lookAgain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.look() {
		time.AfterFunc(lookEvery, a.lookAgain)
	}
}

func (a *inputs) look() (changed bool) {
	for file, existed := range a.existed {
		if hasChanged(file, existed) {
			Never()
			return true
		}
	}
	return false
}

// tick is longer than the resolution of the kernel's file times.
const tick = 20 * time.Millisecond

func hasChanged(file string, existed bool) bool {
	var is unix.Stat_t
	err := unix.Stat(file, &is)
	if err != nil || !existed {
		return existed || err == nil
	}
	return time.Unix(is.Ctim.Unix()).After(began.Add(-tick))
}
