package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"guesthouse.example/harness/internal/executable"
	"guesthouse.example/harness/internal/until"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/target"
)

// hostPrograms is the directory of the guest for programs of the host. Each is in a directory that its hash
// names, so that two programs of the same name do not meet, and a new version does not replace one that runs.
const hostPrograms = "/run/guesthouse/bin"

// hostFiles is what a machine's guest has of the host's files.
type hostFiles struct {
	busy     chan struct{}     // holds a token while files are delivered
	programs map[string]bool   // by the absolute path on the host: a command has named it, and it was delivered
	sums     map[string]string // by the path in the guest: the file's hash
}

func newHostFiles() *hostFiles {
	return &hostFiles{busy: make(chan struct{}, 1), programs: make(map[string]bool), sums: make(map[string]string)}
}

// lock waits until no other call uses the files.
func (h *hostFiles) lock(ctx context.Context) (unlock func(), err error) {
	if err := until.Take(ctx, h.busy); err != nil {
		return nil, err
	}
	return func() { <-h.busy }, nil
}

// has reports whether a program of the host was delivered. The guest had no file of that name then.
func (h *hostFiles) has(ctx context.Context, name string) (bool, error) {
	if !strings.Contains(name, "/") {
		return false, nil
	}
	file, err := filepath.Abs(name)
	if err != nil {
		return false, err
	}
	unlock, err := h.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	return h.programs[file], nil
}

// errNoProgram says that the host has no program either.
var errNoProgram = errors.New("the host has no such file either")

// deliverProgram gives the guest a program of the host, with its interpreter and its libraries if it has any, and
// returns the program's path in the guest. The libraries have the same paths there as here. libraryPath is the
// program's LD_LIBRARY_PATH. Files that the guest has already are not sent again.
//
// If the file cannot be run, the error is a *fileError.
func (m *Machine) deliverProgram(ctx context.Context, name, libraryPath string) (string, error) {
	file, err := filepath.Abs(name)
	if err != nil {
		return "", &fileError{err}
	}
	switch _, err := os.Stat(file); {
	case errors.Is(err, fs.ErrNotExist):
		return "", errNoProgram
	case err != nil:
		return "", &fileError{err}
	}
	libraries, err := m.checkProgram(ctx, file, libraryPath)
	if err != nil {
		return "", &fileError{err}
	}
	sum, err := regular.SHA256(file)
	if err != nil {
		return "", &fileError{err}
	}
	unlock, err := m.hostFiles.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	path := hostPrograms + "/" + sum + "/" + filepath.Base(file)
	if err := m.deliverAll(ctx, libraries); err != nil {
		return "", err
	}
	if err := m.deliverFile(ctx, file, path); err != nil {
		return "", err
	}
	m.hostFiles.programs[file] = true
	return path, nil
}

// deliverLibraries gives the guest the interpreter and the libraries of a program that it has in a share.
//
// If the file cannot be run, the error is a *fileError.
func (m *Machine) deliverLibraries(ctx context.Context, file, libraryPath string) error {
	libraries, err := m.checkProgram(ctx, file, libraryPath)
	if err != nil {
		return &fileError{err}
	}
	unlock, err := m.hostFiles.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return m.deliverAll(ctx, libraries)
}

// sharesPath reports whether a path of the guest leads to the host's file of the same path.
func (m *Machine) sharesPath(path string) bool {
	return filepath.IsAbs(path) && slices.ContainsFunc(m.plan.spec.Share, func(s Share) bool {
		rel, err := filepath.Rel(s.Host, path)
		return cmp.Or(s.Guest, s.Host) == s.Host && err == nil && filepath.IsLocal(rel)
	})
}

// A fileError says why a file of the host cannot be run in the guest.
type fileError struct{ error }

func (e *fileError) Unwrap() error { return e.error }

// checkProgram checks that the guest can run a file of the host, and returns the files that it needs besides. A
// script needs its interpreter in the guest.
func (m *Machine) checkProgram(ctx context.Context, file, libraryPath string) ([]string, error) {
	t, err := target.Lookup(m.plan.spec.Target)
	if err != nil {
		return nil, err
	}
	program, err := executable.Check(file, t)
	if errors.Is(err, executable.ErrScript) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return program.Libraries(ctx, libraryPath)
}

// deliverAll copies files of the host to the same paths in the guest. The caller has the lock.
func (m *Machine) deliverAll(ctx context.Context, files []string) error {
	for _, file := range files {
		if err := m.deliverFile(ctx, file, file); err != nil {
			return err
		}
	}
	return nil
}

// deliverFile copies a file of the host to a path in the guest, unless the guest has it. The caller has the lock.
func (m *Machine) deliverFile(ctx context.Context, file, path string) error {
	f, err := regular.Open(file)
	if err != nil {
		return &fileError{err}
	}
	defer f.Close()
	sum, err := regular.SHA256(file)
	if err != nil {
		return &fileError{err}
	}
	if m.hostFiles.sums[path] == sum {
		return nil
	}
	if err := m.vm.Deliver(ctx, f, path, 0o755, sum); err != nil {
		return fmt.Errorf("copy %s into the guest: %w", file, err)
	}
	m.hostFiles.sums[path] = sum
	return nil
}
