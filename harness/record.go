package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/records"
	"guesthouse.example/internal/printable"
)

// A record is the directory that tells of one run, with records.Files. Every file is written
// while things happen, so that a test that is killed leaves it whole up to that moment.
type record struct {
	dir     string
	made    bool     // by us, in the system's temporary directory
	held    *os.File // the directory, locked as long as the machine runs
	start   time.Time
	console recordFile
	qmp     recordFile
	agent   recordFile
	stderr  recordFile

	broken context.Context // ends, with its cause, when something cannot be written
	breaks context.CancelCauseFunc
}

// startRecord begins a record in memory.
func startRecord() *record {
	r := &record{start: time.Now()}
	r.broken, r.breaks = context.WithCancelCause(context.Background())
	for name, f := range r.logs() {
		f.failed = func(err error) { r.fails(name, err) }
	}
	return r
}

// logs are the files of a record that grow, by their names.
func (r *record) logs() map[string]*recordFile {
	return map[string]*recordFile{"console.log": &r.console, "qmp.log": &r.qmp, "agent.log": &r.agent, "qemu.stderr": &r.stderr}
}

// fails says that a file of the record cannot be written. The first failure counts.
func (r *record) fails(name string, err error) {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // the name is said already
	}
	r.breaks(fmt.Errorf("record %s: %s: %w", r.dir, name, err))
}

// failure is why the record is not whole, nil if it is.
func (r *record) failure() error { return context.Cause(r.broken) }

// unlessBroken returns a context that ends too when the record cannot be written.
func (r *record) unlessBroken(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.broken, func() { cancel(r.failure()) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

var sweepOnce sync.Once

// newRecord makes a record with its directory.
func newRecord(dir string, spec Spec, args []string) (*record, error) {
	r := startRecord()
	if err := r.open(dir, spec, args); err != nil {
		return nil, err
	}
	return r, nil
}

// open makes the directory and its files. Without a name it makes a temporary one, and
// the first one of a process sweeps those of killed owners.
func (r *record) open(dir string, spec Spec, args []string) (err error) {
	defer func() {
		if err != nil {
			r.close(false)
			err = fmt.Errorf("record: %w", err)
		}
	}()
	if dir == "" {
		sweepOnce.Do(func() { records.SweepTemporary(os.TempDir()) })
		if r.held, err = records.Temporary(os.TempDir()); err != nil {
			return err
		}
		r.dir, r.made = r.held.Name(), true
	} else {
		if r.dir, err = filepath.Abs(dir); err != nil { // whoever reads of it may be elsewhere
			return err
		}
		if err := os.MkdirAll(r.dir, 0o700); err != nil {
			return err
		}
		if r.held, err = os.Open(r.dir); err != nil {
			return err
		}
		if err := unix.Flock(int(r.held.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return fmt.Errorf("%s: a running machine writes its record there; give each a directory of its own", r.dir)
		}
		for _, name := range records.Files { // a FIFO would hold up whoever writes to it
			if info, err := os.Stat(r.path(name)); err == nil && !info.Mode().IsRegular() {
				return fmt.Errorf("%s: not a regular file: remove it, or give the record a directory of its own", r.path(name))
			}
		}
	}
	if err := r.spec(spec); err != nil {
		return err
	}
	var list bytes.Buffer
	for _, a := range args {
		fmt.Fprintln(&list, printable.Text(a))
	}
	if err := os.WriteFile(r.path("qemu.args"), list.Bytes(), 0o600); err != nil {
		return err
	}
	for name, f := range r.logs() {
		if err := f.open(r.path(name)); err != nil {
			return err
		}
	}
	return nil
}

// spec replaces spec.json at once.
func (r *record) spec(s Spec) error {
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	file := r.path(records.SpecFile)
	if err := os.WriteFile(file+".new", append(printable.JSON(text), '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func (r *record) path(name string) string { return filepath.Join(r.dir, name) }

// result replaces result.json at once, so that a reader finds the old or the
// new one. The file that it replaces stays, and the next one is written in its place: so a disk
// that is full takes the result that says so.
func (r *record) result(res Result) {
	text, err := json.MarshalIndent(res, "", "\t")
	if err == nil {
		err = r.replaceResult(append(printable.JSON(text), '\n'))
	}
	if err != nil {
		r.fails(records.ResultFile, err)
	}
}

func (r *record) replaceResult(text []byte) error {
	file, spare := r.path(records.ResultFile), r.path(records.ResultFile+".new")
	if err := overwrite(spare, text); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE)
	if err == nil {
		return nil
	}
	// It is the first one, or the file system cannot exchange files.
	if err := os.Rename(spare, file); err != nil {
		return err
	}
	return overwrite(spare, text)
}

// overwrite writes a file in the place that it has.
func overwrite(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// mostSaid is how much of QEMU's standard error a report shows: bytes of its end.
const mostSaid = 4 << 10

// stderrText returns the end of what QEMU said on its standard error so far.
func (r *record) stderrText() string {
	text := r.stderr.inMemory()
	if text == nil {
		text, _ = os.ReadFile(r.path("qemu.stderr"))
	}
	text = bytes.TrimSpace(text)
	if over := len(text) - mostSaid; over > 0 {
		text = fmt.Appendf(nil, "[%d bytes are left out]%s", over, text[over:])
	}
	return string(text)
}

// close closes the files and removes a temporary directory that is not to be kept.
func (r *record) close(keep bool) {
	if r.made && !keep {
		os.RemoveAll(r.dir)
	}
	for _, f := range r.logs() {
		f.close()
	}
	if r.dir != "" {
		r.tidy()
	}
	if r.held != nil {
		r.held.Close()
	}
}

// tidy removes what only a record that is being written needs.
func (r *record) tidy() { os.Remove(r.path(records.ResultFile + ".new")) }

// stampedLines writes text to a file with the seconds since start before each
// line.
type stampedLines struct {
	file    io.Writer
	start   time.Time
	midLine bool
	buf     []byte
}

func (s *stampedLines) Write(text []byte) (int, error) {
	s.buf = s.buf[:0]
	for line := range bytes.Lines(text) {
		if !s.midLine {
			s.buf = fmt.Appendf(s.buf, "[%11.6f] ", time.Since(s.start).Seconds())
		}
		s.buf = append(s.buf, line...)
		s.midLine = line[len(line)-1] != '\n'
	}
	if _, err := s.file.Write(s.buf); err != nil {
		return 0, err
	}
	return len(text), nil
}
