// Package executable checks programs of the host that are to run in a guest, before anything is started.
package executable

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/target"
)

// A File is an ELF executable of the host that a target can run.
type File struct {
	Path string
	Size int64 // bytes

	// Interpreter is the dynamic loader that the executable names, such as
	// /lib64/ld-linux-x86-64.so.2; empty for a static executable.
	Interpreter string
}

// ErrScript is wrapped by Check's error for an executable text whose first line names an interpreter.
var ErrScript = errors.New("it is a script")

// Check refuses a file that a guest of the target could not execute: one that is missing, no regular
// file, not executable, no ELF executable, or built for another architecture. Its errors begin with
// "program FILE".
func Check(file string, t target.Target) (File, error) {
	checked, machine, err := check(file)
	if err == nil && machine != t.ELFMachines[0] {
		err = fmt.Errorf("it is built for %s; the target is %s", machineName(machine), t.Name)
	}
	if err != nil {
		return File{}, fmt.Errorf("program %s: %w", file, err)
	}
	return checked, nil
}

// Target returns the target whose own processor a program is built for. Otherwise it is like Check.
func Target(file string) (target.Target, error) {
	_, machine, err := check(file)
	if err == nil {
		for _, t := range target.All() {
			if t.ELFMachines[0] == machine {
				return t, nil
			}
		}
		err = fmt.Errorf("it is built for %s; the targets are %s", machine, strings.Join(target.Names(), ", "))
	}
	return target.Target{}, fmt.Errorf("program %s: %w", file, err)
}

// check refuses a file that no guest could execute. It returns the processor that the file is built for.
func check(file string) (File, elf.Machine, error) {
	fail := func(err error) (File, elf.Machine, error) {
		if path, ok := errors.AsType[*os.PathError](err); ok {
			err = path.Err // the path is in the error already
		}
		return File{}, 0, err
	}
	f, err := regular.Open(file)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if info.Mode()&0o111 == 0 {
		return fail(fmt.Errorf("it is not executable (its mode is %#o): chmod +x it", info.Mode().Perm()))
	}
	head := make([]byte, len(elf.ELFMAG))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return fail(err)
	}
	if bytes.HasPrefix(head, []byte("#!")) {
		return fail(fmt.Errorf("it is not an ELF executable: %w", ErrScript))
	}
	if !bytes.Equal(head, []byte(elf.ELFMAG)) {
		return fail(errors.New("it is not an ELF executable"))
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return fail(fmt.Errorf("it is a damaged ELF file: %w", err))
	}
	if e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN || e.Entry == 0 {
		return fail(errors.New("it is an object file or a library, not an executable"))
	}
	interpreter, err := interpreterOf(e)
	if err != nil {
		return fail(fmt.Errorf("its interpreter: %w", err))
	}
	return File{file, info.Size(), interpreter}, e.Machine, nil
}

// CheckStatic is Check and refuses an executable that needs a dynamic loader, because a guest has none.
func CheckStatic(file string, t target.Target) (File, error) {
	f, err := Check(file, t)
	if err == nil && f.Interpreter != "" {
		return File{}, fmt.Errorf("program %s: it is not static: it needs the interpreter %s and shared libraries, which the guest lacks; build it with CGO_ENABLED=0 or -static", file, f.Interpreter)
	}
	return f, err
}

// machineName returns the name of the target whose processor the machine is, or ELF's name.
func machineName(m elf.Machine) string {
	all := target.All()
	if i := slices.IndexFunc(all, func(t target.Target) bool { return t.ELFMachines[0] == m }); i >= 0 {
		return all[i].Name
	}
	return m.String()
}

const maxInterpreter = 4096 // bytes, as in Linux

func interpreterOf(e *elf.File) (string, error) {
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			if p.Filesz > maxInterpreter {
				return "", fmt.Errorf("a path of %d bytes", p.Filesz)
			}
			path, err := io.ReadAll(p.Open())
			return string(bytes.TrimRight(path, "\x00")), err
		}
	}
	return "", nil
}
