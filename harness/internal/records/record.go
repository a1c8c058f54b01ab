package records

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

	"guesthouse.example/internal/printable"
)

// A Record writes the directory of one run, which holds Files. It writes every file while things happen, so
// that a process that is killed leaves the record complete up to that moment. Until Open, it keeps what
// is written in memory.
type Record struct {
	Console io.Writer // console.log: each line with its time, made safe for a terminal
	Agent   io.Writer // agent.log: each line with its time
	QMP     io.Writer // qmp.log
	Stderr  io.Writer // qemu.stderr

	Start time.Time // the times in the logs count from it

	dir       string
	temporary bool     // this package made it in the system's temporary directory
	held      *os.File // the directory, locked as long as the machine runs
	logs      map[string]*logFile

	broken context.Context // ends when something cannot be written, which is its cause
	breaks context.CancelCauseFunc
}

// New begins a record in memory.
func New() *Record {
	r := &Record{Start: time.Now(), logs: make(map[string]*logFile)}
	r.broken, r.breaks = context.WithCancelCause(context.Background())
	for _, name := range []string{"console.log", "qmp.log", "agent.log", stderrFile} {
		r.logs[name] = &logFile{failed: func(err error) { r.Fail(name, err) }}
	}
	r.Console = printable.NewWriter(&timedLines{file: r.logs["console.log"], start: r.Start})
	r.Agent = &timedLines{file: r.logs["agent.log"], start: r.Start}
	r.QMP, r.Stderr = r.logs["qmp.log"], r.logs[stderrFile]
	return r
}

// Create is New and Open.
func Create(dir string, spec any, args []string) (*Record, error) {
	r := New()
	if err := r.Open(dir, spec, args); err != nil {
		return nil, err
	}
	return r, nil
}

// Fail says that a file of the record cannot be written. The first failure counts.
func (r *Record) Fail(name string, err error) {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // the new error has the name already
	}
	r.breaks(fmt.Errorf("record %s: %s: %w", r.dir, name, err))
}

// Failure returns why the record is incomplete, nil if it is not.
func (r *Record) Failure() error { return context.Cause(r.broken) }

// WithFailure returns a context that also ends when the record cannot be written.
func (r *Record) WithFailure(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.broken, func() { cancel(r.Failure()) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

var sweepOnce sync.Once

// Open makes the directory and its files, with QEMU's command line in one of them. An empty dir stands for a
// temporary directory; the first Open of a process that makes one removes those that killed processes left.
func (r *Record) Open(dir string, spec any, args []string) (err error) {
	defer func() {
		if err != nil {
			r.Close(false)
			err = fmt.Errorf("record: %w", err)
		}
	}()
	if dir == "" {
		sweepOnce.Do(func() { SweepTemporary(os.TempDir()) })
		if r.held, err = Temporary(os.TempDir()); err != nil {
			return err
		}
		r.dir, r.temporary = r.held.Name(), true
	} else if err := r.hold(dir); err != nil {
		return err
	}
	if err := r.WriteSpec(spec); err != nil {
		return err
	}
	var list bytes.Buffer
	for _, a := range args {
		fmt.Fprintln(&list, printable.Text(a))
	}
	if err := os.WriteFile(r.path("qemu.args"), list.Bytes(), 0o600); err != nil {
		return err
	}
	for name, f := range r.logs {
		if err := f.open(r.path(name)); err != nil {
			return err
		}
	}
	return nil
}

// hold makes and locks a directory that the user named.
func (r *Record) hold(dir string) (err error) {
	if r.dir, err = filepath.Abs(dir); err != nil { // a reader may have another working directory
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
	for _, name := range Files { // writing to a FIFO would block
		if info, err := os.Stat(r.path(name)); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%s: not a regular file: remove it, or give the record a directory of its own", r.path(name))
		}
	}
	return nil
}

// Dir returns the directory; it is empty before Open.
func (r *Record) Dir() string { return r.dir }

// Temporary reports whether Close may remove the directory.
func (r *Record) Temporary() bool { return r.temporary }

// WriteSpec replaces spec.json in one step.
func (r *Record) WriteSpec(spec any) error {
	text, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	file := r.path(SpecFile)
	if err := os.WriteFile(file+".new", append(printable.JSON(text), '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func (r *Record) path(name string) string { return filepath.Join(r.dir, name) }

// WriteResult replaces result.json in one step, so that a reader finds the old result or the new one. A
// failure is the record's.
func (r *Record) WriteResult(result any) {
	text, err := json.MarshalIndent(result, "", "\t")
	if err == nil {
		err = r.replaceResult(append(printable.JSON(text), '\n'))
	}
	if err != nil {
		r.Fail(ResultFile, err)
	}
}

// replaceResult keeps the file that it replaces and overwrites it the next time. So a full disk has room
// for the result that says that the disk is full.
func (r *Record) replaceResult(text []byte) error {
	file, spare := r.path(ResultFile), r.path(ResultFile+".new")
	if err := overwrite(spare, text); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE)
	if err == nil {
		return nil
	}
	// This is the first result, or the file system cannot exchange files.
	if err := os.Rename(spare, file); err != nil {
		return err
	}
	return overwrite(spare, text)
}

// overwrite writes a file without truncating it first.
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

const (
	stderrFile  = "qemu.stderr"
	stderrShown = 4 << 10 // bytes of its end
)

// StderrText returns the end of what QEMU has printed on its standard error so far.
func (r *Record) StderrText() string {
	text := r.logs[stderrFile].inMemory()
	if text == nil {
		text, _ = os.ReadFile(r.path(stderrFile))
	}
	text = bytes.TrimSpace(text)
	if over := len(text) - stderrShown; over > 0 {
		text = fmt.Appendf(nil, "[%d bytes are left out]%s", over, text[over:])
	}
	return string(text)
}

// Close closes the files. It removes a temporary directory unless keep is set.
func (r *Record) Close(keep bool) {
	if r.temporary && !keep {
		os.RemoveAll(r.dir)
	}
	for _, f := range r.logs {
		f.close()
	}
	if r.dir != "" {
		r.Tidy()
	}
	if r.held != nil {
		r.held.Close()
	}
}

// Tidy removes what only a record that is being written needs. After Close, each WriteResult needs another
// Tidy.
func (r *Record) Tidy() { os.Remove(r.path(ResultFile + ".new")) }
