// Package records writes the record of a machine's run, which is a directory of logs and JSON files,
// and removes the records that killed processes have left. It does not know
// what a Spec or a Result is: package harness passes both as values for encoding/json.
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

// The names of files in a record that other packages use.
const (
	SpecFile   = "spec.json"
	ResultFile = "result.json"
)

// Files are the names of all files that a record can hold.
var Files = []string{
	SpecFile,          // the Spec; "guesthouse run -spec" boots it again
	SpecFile + ".new", // a new spec.json, until it replaces the old one
	"qemu.args",       // QEMU's command line, one argument a line
	"console.log",     // the console, each line with the seconds since QEMU's start
	"qemu.stderr",     // what QEMU printed
	"agent.log",       // the messages of the harness and of the guest's agent
	"qmp.log",         // every QMP line, with its time
	"net0.pcap",       // the frames of the card on QEMU's user network
	"net0.pcapng",     // the frames of the first card on a lan; the other cards have files of their own
	"net1.pcapng", "net2.pcapng", "net3.pcapng", "net4.pcapng", "net5.pcapng", "net6.pcapng", "net7.pcapng",
	ResultFile,          // the state of the run
	ResultFile + ".new", // a new result.json, until it replaces the old one
}

// A Record writes the directory of one run, which holds Files. It writes to the files as the run goes on, so
// the record of a killed process is complete up to the kill. Before Open, a Record keeps its logs in
// memory.
type Record struct {
	Console io.Writer // console.log: each line with its time, made safe for a terminal
	Agent   io.Writer // agent.log: each line with its time
	QMP     io.Writer // qmp.log
	Stderr  io.Writer // qemu.stderr, with repeated lines folded

	Start time.Time // the origin of the times in the console's and the agent's log

	dir       string
	temporary bool     // createTemporary made dir
	locked    *os.File // the directory, locked from Open to Close
	logs      map[string]*logFile
	stderr    *foldedLines // writes to the log of stderrFile

	failed context.Context // ends at the first failure to write, which is its cause
	fail   context.CancelCauseFunc
}

// New returns a record that is kept in memory until Open.
func New() *Record {
	r := &Record{Start: time.Now(), logs: make(map[string]*logFile)}
	r.failed, r.fail = context.WithCancelCause(context.Background())
	for _, name := range []string{"console.log", "qmp.log", "agent.log", stderrFile} {
		r.logs[name] = &logFile{max: logLimit, failed: func(err error) { r.Fail(name, err) }}
	}
	r.logs[stderrFile].max = stderrLimit
	r.stderr = &foldedLines{file: r.logs[stderrFile]}
	r.Console = printable.NewWriter(&timedLines{file: r.logs["console.log"], start: r.Start})
	r.Agent = &timedLines{file: r.logs["agent.log"], start: r.Start}
	r.QMP, r.Stderr = r.logs["qmp.log"], r.stderr
	return r
}

// Create returns a new record that is open.
func Create(dir string, spec any, args []string) (*Record, error) {
	r := New()
	if err := r.Open(dir, spec, args); err != nil {
		return nil, err
	}
	return r, nil
}

// Fail notes that a file of the record cannot be written. Failure returns the first such error.
func (r *Record) Fail(name string, err error) {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // the new error has the name already
	}
	r.fail(fmt.Errorf("record %s: %s: %w", r.dir, name, err))
}

// Failure returns why the record is incomplete, or nil if nothing has failed.
func (r *Record) Failure() error { return context.Cause(r.failed) }

// WithFailure returns a context that also ends when the record cannot be written.
func (r *Record) WithFailure(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.failed, func() { cancel(r.Failure()) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

var sweepOnce sync.Once

// Open makes the directory and its files. It writes the Spec and QEMU's command line, and then the logs
// that were kept in memory. If dir is empty, Open makes a temporary directory; the first such Open of a
// process also removes the temporary records of killed processes.
func (r *Record) Open(dir string, spec any, args []string) (err error) {
	defer func() {
		if err != nil {
			r.Close(false)
			err = fmt.Errorf("record: %w", err)
		}
	}()
	if dir == "" {
		sweepOnce.Do(func() { sweepTemporary(os.TempDir()) })
		if r.locked, err = createTemporary(os.TempDir()); err != nil {
			return err
		}
		r.dir, r.temporary = r.locked.Name(), true
	} else if err := r.lockNamed(dir); err != nil {
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

// lockNamed makes and locks a directory that the user named.
func (r *Record) lockNamed(dir string) (err error) {
	if r.dir, err = filepath.Abs(dir); err != nil { // a reader of Dir may have another working directory
		return err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	if r.locked, err = os.Open(r.dir); err != nil {
		return err
	}
	if err := unix.Flock(int(r.locked.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s: a running machine writes its record there; give each a directory of its own", r.dir)
	}
	for _, name := range Files { // writing to a FIFO would block
		if info, err := os.Stat(r.path(name)); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%s: not a regular file: remove it, or give the record a directory of its own", r.path(name))
		}
	}
	return nil
}

// Dir returns the directory, or "" before Open.
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

// WriteResult replaces result.json in one step, so that a reader finds the old result or the new one.
// Failure returns its error.
func (r *Record) WriteResult(result any) {
	text, err := json.MarshalIndent(result, "", "\t")
	if err == nil {
		err = r.replaceResult(append(printable.JSON(text), '\n'))
	}
	if err != nil {
		r.Fail(ResultFile, err)
	}
}

// replaceResult keeps the file that it replaces and overwrites it the next time. The result therefore
// needs no new disk space, and can be written when the disk is full.
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
	stderrShown = 4 << 10 // bytes at its end that StderrText returns
)

// StderrText returns the end of what QEMU has printed on its standard error so far.
func (r *Record) StderrText() string {
	text := r.logs[stderrFile].inMemory()
	if text == nil {
		text, _ = os.ReadFile(r.path(stderrFile))
	}
	text = bytes.TrimSpace(append(text, r.stderr.pending()...))
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
	r.stderr.flush()
	for _, f := range r.logs {
		f.close()
	}
	if r.dir != "" {
		r.Tidy()
	}
	if r.locked != nil {
		r.locked.Close()
	}
}

// Tidy removes the spare file that WriteResult keeps. Close calls it; call it after each later WriteResult.
func (r *Record) Tidy() { os.Remove(r.path(ResultFile + ".new")) }
