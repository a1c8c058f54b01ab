// Package testcache tells go's cache of test results what a test depends on.
//
// The go command answers from that cache when the test binary, the environment variables
// that it read and the files that it opened are what they were. It sees only what the
// test process itself did through package os, and no file outside the root of the
// test's module. A test of a machine depends on more: on sources that a go command of its
// own compiles, on QEMU, on a kernel in a cache. Outside of a test that the go command may
// cache, the functions of this package do nothing.
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

// Depends says that the test depends on files: on their content, and on whether they are
// there. Of a directory it means the names in it.
//
// The go command looks at the files when the test has ended. One that changes while the
// test binary runs would pass for what the test has seen, so the result is not cached then.
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

// DependsOnEnv says that the test depends on environment variables, which programs read that
// it starts.
func DependsOnEnv(names ...string) {
	for _, name := range names {
		_ = os.Getenv(name)
	}
}

// LookPath is exec.LookPath of a program on which the test depends: another one that is found
// first is another input.
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

// Never says that the result must not be cached, because the test depends on what nobody
// can name.
func Never() {
	if Active() {
		// Each go command finds another directory there.
		_, _ = os.Stat(throughRoot("/proc/self"))
	}
}

// start is the directory of the test's package, and began when this process did.
var (
	start, _ = os.Getwd()
	began    = time.Now()
)

// throughRoot returns a name of a file under which the go command looks at it. The go command
// compares the beginning of the name with the root of the module before it resolves
// anything, so the name leads from the root to the file.
func throughRoot(file string) string {
	root := start
	for {
		if _, err := os.Lstat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == "/" || root == "." || root == "" {
			return file // without a module nothing is cached
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

// Look has the result not cached when a file has changed since this process began.
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
	name := throughRoot(file)
	info, err := os.Stat(name)
	a.existed[file] = err == nil
	if err == nil && info.Mode().IsRegular() {
		// What is opened, and not only looked at, the go command distrusts if it is young.
		if f, err := os.Open(name); err == nil {
			f.Close()
		}
	}
}

// lookAgain looks again and again, for it has no place at the end of a test binary.
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

// tick is more than the step in which the kernel counts the time of files.
const tick = 20 * time.Millisecond

func hasChanged(file string, existed bool) bool {
	var is unix.Stat_t
	err := unix.Stat(file, &is)
	if err != nil || !existed {
		return existed || err == nil
	}
	return time.Unix(is.Ctim.Unix()).After(began.Add(-tick))
}
