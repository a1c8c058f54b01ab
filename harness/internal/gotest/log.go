package gotest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"guesthouse.example/internal/testcache"
)

// The go command reads what a test has looked at from a log that the test binary writes, and answers from its
// cache of results until something in the log has changed. With -exec it asks no binary for a log, because it
// does not know what else the result depends on. It still takes the log if it finds one. So the caller asks
// the binary for a log and adds what it knows itself.
const (
	logName   = "testlog.txt"            // where the go command looks in Scratch
	guestLog  = "guesthouse-testlog.txt" // what the binary writes in Scratch
	logHeader = "# test log\n"
)

// A Log is the log of a test that the go command may cache.
type Log struct {
	// Arg is the argument with which the binary writes its part of the log.
	Arg string

	dir, root string
	inputs    map[string]fs.FileInfo // the files on which the run depends; nil values for missing files
	began     time.Time
}

// NewLog returns the log for a call, or nil if the go command cannot cache its result: if it has not called
// the binary, if the call has a log already, or if the package is not in a module.
func NewLog(c Call) *Log {
	scratch, ok := c.Scratch()
	if _, has := c.flags["testlogfile"]; !ok || has {
		return nil
	}
	root, err := enclosing(c.Dir, "go.mod")
	if root == "" || err != nil {
		return nil
	}
	return &Log{Arg: "-test.testlogfile=" + filepath.Join(scratch, guestLog), dir: scratch, root: root,
		inputs: make(map[string]fs.FileInfo), began: time.Now()}
}

// Depends adds files on which the run depends: on whether they exist, and on their size and time. It is
// called before they are used.
func (l *Log) Depends(files ...string) {
	for _, file := range files {
		if _, known := l.inputs[file]; !known {
			info, err := os.Stat(file)
			if err != nil {
				info = nil
			}
			l.inputs[file] = info
		}
	}
}

// Finish joins what the binary has logged and the files of Depends into the log of the go command. Without a
// call of Finish, the go command does not cache the result. Finish returns an error if one of the files has
// changed meanwhile.
func (l *Log) Finish() error {
	text, err := os.ReadFile(filepath.Join(l.dir, guestLog))
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(text, []byte(logHeader)) || !bytes.HasSuffix(text, []byte("\n")) {
		return errors.New("the test binary has written an incomplete log")
	}
	names := make([]string, 0, len(l.inputs))
	for file, before := range l.inputs {
		now, err := os.Stat(file)
		if (before == nil) != (err != nil) || err == nil && !same(before, now) {
			return fmt.Errorf("%s has changed during the test", file)
		}
		if !strings.Contains(file, "\n") {
			names = append(names, file)
		}
	}
	slices.Sort(names)
	for _, file := range names {
		// The go command ignores a file outside the module unless its name leads through the module's
		// root. "open" makes it refuse to cache a result if the file is younger than two seconds.
		text = fmt.Appendf(text, "open %s\n", testcache.ThroughRoot(l.root, file))
	}
	tmp := filepath.Join(l.dir, logName+".new")
	if err := os.WriteFile(tmp, text, 0o666); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(l.dir, logName))
}

func same(a, b fs.FileInfo) bool {
	return a.Size() == b.Size() && a.Mode() == b.Mode() && a.ModTime().Equal(b.ModTime())
}
