package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/internal/printable"
)

// A coverage writes the coverage data of a machine's programs into Spec.CoverDir.
type coverage struct {
	dir string

	mu      sync.Mutex
	content []byte // of the file whose pieces come
	err     error  // the first
}

// The names of the files that a program writes, with a hash of what was built: its metadata, and its counters
// with the process's number and a time.
var (
	coverMeta     = regexp.MustCompile(`^covmeta\.[0-9a-f]{32}$`)
	coverCounters = regexp.MustCompile(`^(covcounters\.[0-9a-f]{32}\.\d+)\.\d+$`)
)

// maxCoverFile is the length limit in bytes of a file with coverage data.
const maxCoverFile = 64 << 20

// add adds a piece of a file. A guest chooses its content, and not where it is written.
func (c *coverage) add(name string, data []byte, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.content)+len(data) > maxCoverFile {
		c.failed(fmt.Errorf("%s is longer than %d MiB", name, maxCoverFile>>20))
		data = nil
	}
	c.content = append(c.content, data...)
	if !last {
		return
	}
	content := c.content
	c.content = nil
	switch match := coverCounters.FindStringSubmatch(name); {
	case match != nil:
		name = fmt.Sprintf("%s.%d", match[1], uniqueTime())
	case !coverMeta.MatchString(name):
		return // a temporary file of a program that was killed
	}
	if c.err == nil {
		c.failed(writeWhole(filepath.Join(c.dir, name), content))
	}
}

func (c *coverage) failed(err error) {
	if c.err == nil {
		c.err = err
	}
}

// result returns the first error.
func (c *coverage) result() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

var lastTime atomic.Int64

// uniqueTime returns the time in nanoseconds, which is greater at each call.
func uniqueTime() int64 {
	for {
		last := lastTime.Load()
		if now := max(last+1, time.Now().UnixNano()); lastTime.CompareAndSwap(last, now) {
			return now
		}
	}
}

// writeWhole writes a file that appears when it is complete.
func writeWhole(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "guest-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// coverWithin bounds how long Close waits for the guest's coverage data, in the machine's time.
const coverWithin = 5 * time.Second

// collectCoverage asks a machine that runs for the coverage data of its programs. Without an answer the data of
// this machine is missing, and the record's agent.log says so.
func (m *Machine) collectCoverage(ctx context.Context) {
	if m.covered == nil || !m.runs() || m.vm.Crashed() != nil || !m.vm.Agent.Present() {
		return
	}
	ctx, cancel := m.Within(ctx, coverWithin)
	defer cancel()
	if err := m.vm.Agent.Coverage(ctx); err != nil {
		m.lostCoverage(err)
	}
}

// noteCoverage says in the record's agent.log why coverage data is missing.
func (m *Machine) noteCoverage() {
	if m.covered == nil {
		return
	}
	err := m.covered.result()
	if err == nil {
		err = m.vm.Crashed()
	}
	if err != nil {
		m.lostCoverage(err)
	}
}

func (m *Machine) lostCoverage(why error) {
	m.vm.Agent.Remark("the coverage of this machine's programs is lost: " + printable.Text(why.Error()))
}
