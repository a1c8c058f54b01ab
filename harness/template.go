package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/regular"
)

// A Template is a machine that was saved when it was ready. A Spec that names it
// is restored in a fraction of the time that booting takes, any number of times
// and at once: memory is shared until it is written to, and nothing is ever
// written to the template.
type Template struct {
	dir string
	templateFile
}

// A template is a directory with these files.
const (
	ramName      = "ram"   // the memory, with holes where it is zero
	stateName    = "state" // the devices and the processor, as QEMU's migration has them
	templateName = "template.json"
)

// templateFile is the content of template.json.
type templateFile struct {
	Of      identity      `json:"of"`
	Version string        `json:"qemu_version"` // as QEMU says itself
	Saved   time.Time     `json:"saved"`
	RAM     savedFile     `json:"ram"`
	State   savedFile     `json:"state"`
	Console console.State `json:"console"`
	Agent   *agent.Saved  `json:"agent,omitempty"` // nil of a guest without one
}

// A savedFile is a file when it was saved.
type savedFile struct {
	regular.State
	SHA256 string `json:"sha256"`
}

// identity is everything that a machine and its template must have in common.
type identity struct {
	Format    int      `json:"format"`
	Target    string   `json:"target"`
	QEMU      string   `json:"qemu"` // path, size and time of change of the binary
	Args      []string `json:"args"` // without those of one run
	Kernel    string   `json:"kernel"`
	Initramfs string   `json:"initramfs,omitempty"`
	Ready     string   `json:"ready"`
	Outbound  Outbound `json:"outbound"` // a machine that waits to be handed out has it already
}

// templateFormat changes with everything that makes older templates useless.
const templateFormat = 4

// identity describes the plan's machine.
func (p *plan) identity() (identity, error) {
	id := identity{Format: templateFormat, Target: p.spec.Target, Args: p.qemu.IdentityArgs(), Ready: p.spec.Ready, Outbound: p.spec.Outbound}
	var err error
	if id.QEMU, err = qemu.Identity(p.qemu.Binary); err != nil {
		return id, err
	}
	if id.Kernel, err = regular.SHA256(p.spec.Kernel); err == nil && p.spec.Initramfs != "" {
		id.Initramfs, err = regular.SHA256(p.spec.Initramfs)
	}
	return id, err
}

// differs says in what two identities differ, "" if in nothing.
func (id identity) differs(other identity) string {
	for _, part := range []struct {
		name string
		a, b any
	}{
		{"format", id.Format, other.Format},
		{"target", id.Target, other.Target},
		{"QEMU", id.QEMU, other.QEMU},
		{"kernel", id.Kernel, other.Kernel},
		{"initramfs", id.Initramfs, other.Initramfs},
		{"ready pattern", id.Ready, other.Ready},
		{"choice of what it reaches (Outbound)", id.Outbound, other.Outbound},
		{"memory, devices, network or command line", strings.Join(id.Args, "\n"), strings.Join(other.Args, "\n")},
	} {
		if part.a != part.b {
			return part.name
		}
	}
	return ""
}

// noTemplate says why the plan's machine can neither be saved nor restored, ""
// if it can.
func (p *plan) noTemplate() string {
	switch {
	case !p.savable() && p.accel.accel != TCG:
		return "templates are for " + string(TCG)
	case !p.savable():
		return "it has QEMU arguments of its own"
	}
	return ""
}

// savable says whether the machine may be saved. QEMU arguments may name what a
// second machine must not share (a disk, a file to write to, a port), or change
// the memory. KVM's state depends on the host.
func (p *plan) savable() bool { return len(p.spec.QEMUArgs) == 0 && p.accel.accel == TCG }

// Save saves the ready machine into a new directory, from which any number of
// machines can be restored (Spec.From). Before that its agent echoes some datagrams on a port
// of its own and Save waits until the guest has little to do, at most 6 s of its time. The machine stands
// still meanwhile, for some tenths of a second, and then goes on. No TCP connection to it may
// be open; Save waits for one that is about to close, at most 5 s of the machine's time. The agent of package guest gives this machine and each restored one the
// host's clock, new entropy for its kernel and a new boot identity. Of a guest
// without it restored machines draw the same random numbers until their kernels
// have other entropy, and their clocks are late by the template's age. A machine
// that was restored itself, runs with KVM or has QEMUArgs cannot be saved.
//
// The directory is there whole or not at all.
func (m *Machine) Save(ctx context.Context, dir string) (*Template, error) {
	fail := func(err error) (*Template, error) {
		return nil, fmt.Errorf("save %s into %s: %w", m.plan.spec.Target, dir, err)
	}
	if state := m.Result().State; state != StateReady {
		return fail(fmt.Errorf("the machine is not ready but %s", state))
	}
	if err := m.crashed(); err != nil {
		return fail(err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fail(errors.New("it exists already"))
	}
	building, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-*.new")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(building)
	if err := m.save(ctx, building, true); err != nil {
		return fail(err)
	}
	if err := os.Rename(building, dir); err != nil {
		return fail(err)
	}
	t, err := openTemplate(dir)
	if err != nil {
		return fail(err)
	}
	return t, nil
}

// errStands is wrapped when a machine did not go on after it was saved.
var errStands = errors.New("the machine does not go on after it was saved")

// save writes a template into a directory.
func (m *Machine) save(ctx context.Context, dir string, anyGuest bool) error {
	if m.ram == nil {
		return errors.New("it was restored from a template itself (with Spec.From = Cold it boots), runs with KVM, has QEMU arguments of its own, or the host has no memfd_create")
	}
	if err := m.noConnections(ctx); err != nil {
		return err
	}
	if err := take(ctx, m.saving); err != nil {
		return err
	}
	release, err := m.console.HoldTyping(ctx)
	if err != nil {
		<-m.saving
		return err
	}
	var r resumption
	err = m.write(ctx, dir, anyGuest, &r)
	if again := m.resume(ctx, &r, func() { release(); <-m.saving }); again != nil {
		if err != nil {
			again = fmt.Errorf("%w; saving it failed before: %w", again, err)
		}
		return fmt.Errorf("%w: %w", errStands, again)
	}
	return err
}

// take takes a token that somebody else may have.
func take(ctx context.Context, token chan<- struct{}) error {
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write writes a template and notes what has to be undone, so that the machine goes on.
func (m *Machine) write(ctx context.Context, dir string, anyGuest bool, r *resumption) error {
	m.warmUp(ctx)
	saved, err := m.quiesce(ctx, r)
	if err != nil && (!anyGuest || !errors.Is(err, errNoAgent)) {
		return err
	}
	// What the guest is about when it is saved, each restored machine has to finish first.
	if err := m.clock.WaitIdle(ctx); err != nil {
		return err
	}
	if err := m.stopWithoutConnections(ctx, r); err != nil {
		return err
	}
	t := templateFile{Version: m.qmp.Version(), Saved: time.Now(), Agent: saved}
	if t.Of, err = m.plan.identity(); err != nil {
		return err
	}
	if t.State, err = m.saveState(ctx, filepath.Join(dir, stateName), r); err != nil {
		return err
	}
	// QEMU has written to the console's line what it does not say in its
	// state, before it said that the state is complete.
	if err := m.console.CatchUp(); err != nil {
		return err
	}
	t.Console = m.console.State()
	if t.RAM, err = copyRAM(ctx, filepath.Join(dir, ramName), m.ram); err != nil {
		return err
	}
	text, err := json.MarshalIndent(t, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, templateName), append(text, '\n'), 0o600)
}

// ignoreShared is what QEMU must do the same at both ends: leave the memory that is a
// file where it is.
var ignoreShared = map[string]any{"capabilities": []map[string]any{
	{"capability": "x-ignore-shared", "state": true},
}}

func (v *vm) saveState(ctx context.Context, file string, r *resumption) (savedFile, error) {
	f, err := createPrivate(file)
	if err != nil {
		return savedFile{}, err
	}
	defer f.Close()
	err = v.qmp.Execute(ctx, "migrate-set-capabilities", ignoreShared, nil)
	if err == nil {
		err = v.qmp.Give(ctx, "state", f)
	}
	for len(v.migration) > 0 { // one that was given up
		<-v.migration
	}
	if err == nil {
		r.migrates = true
		err = v.qmp.Execute(ctx, "migrate", map[string]string{"uri": "fd:state"}, nil)
	}
	if err == nil {
		err = v.migrated(ctx)
	}
	if err == nil || ctx.Err() == nil {
		r.migrates = false // it is over, whatever came of it
	}
	if err != nil {
		return savedFile{}, err
	}
	f, err = os.Open(file) // from its start
	if err != nil {
		return savedFile{}, err
	}
	defer f.Close()
	return describeFile(f)
}

var (
	errMigrationFailed  = errors.New("QEMU: the migration failed")
	errEndedInMigration = errors.New("QEMU ended during the migration")
)

// migrated waits for the end of a migration that was just asked for. What is told before it
// begins is of one that was given up.
func (v *vm) migrated(ctx context.Context) error {
	for begun := false; ; {
		select {
		case status := <-v.migration:
			switch {
			case status == "setup":
				begun = true
			case !begun:
			case status == "completed":
				return nil
			case status == "failed", status == "cancelled":
				return fmt.Errorf("%w: its status is %s", errMigrationFailed, status)
			}
		case <-v.qmp.Done():
			if err := v.processEnd(ctx); err != nil {
				return err
			}
			return fmt.Errorf("%w: %w", errEndedInMigration, v.proc.Describe())
		case <-ctx.Done():
			return fmt.Errorf("migration: %w", context.Cause(ctx))
		}
	}
}

// OpenTemplate opens a directory that Save made and checks that it is whole: all
// of its memory is read.
func OpenTemplate(dir string) (*Template, error) {
	t, err := openTemplate(dir)
	if err != nil {
		return nil, err
	}
	f, err := regular.Open(filepath.Join(t.dir, ramName))
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	defer f.Close()
	is, err := t.checkRAM(f)
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", dir, err)
	}
	t.RAM.State = is // trusted from now on, also where it is a copy
	return t, nil
}

// openTemplate checks all but the content of the memory.
func openTemplate(dir string) (*Template, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	t := &Template{dir: dir}
	text, err := readOurs(filepath.Join(dir, templateName))
	if err != nil {
		return nil, fmt.Errorf("template: %w", missing(err))
	}
	if err := json.Unmarshal(text, &t.templateFile); err != nil {
		return nil, fmt.Errorf("template %s: %s: %w", dir, templateName, templateFault{err})
	}
	ram, state, err := t.open()
	if err != nil {
		return nil, err
	}
	ram.Close()
	state.Close()
	return t, nil
}

// readOurs reads a file that no other user can have written.
func readOurs(file string) ([]byte, error) {
	f, err := regular.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := ownedByUs(f); err != nil {
		return nil, templateFault{err}
	}
	return io.ReadAll(f)
}

// start restores the machine. If the template does not fit or cannot be restored, the machine boots, and
// its Result says why.
func (t *Template) start(ctx context.Context, p *plan) (*Machine, error) {
	if t == nil {
		return p.launch(ctx, nil, "")
	}
	m, err := p.restored(ctx, t, "")
	if err == nil || ctx.Err() != nil {
		return m, err
	}
	return p.launch(ctx, nil, oneLine(err))
}

// Dir returns the template's directory.
func (t *Template) Dir() string { return t.dir }

// open opens memory and state for one machine and refuses what is not as it was
// saved. The machine needs the directory no more afterwards.
func (t *Template) open() (ram, state *os.File, err error) {
	defer func() {
		if err != nil {
			if ram != nil {
				ram.Close()
			}
			if state != nil {
				state.Close()
			}
			ram, state, err = nil, nil, fmt.Errorf("template %s: %w", t.dir, err)
		}
	}()
	if ram, err = regular.Open(filepath.Join(t.dir, ramName)); err != nil {
		return ram, state, missing(err)
	}
	if err = t.trustRAM(ram); err != nil {
		return ram, state, err
	}
	if state, err = regular.Open(filepath.Join(t.dir, stateName)); err != nil {
		return ram, state, missing(err)
	}
	if err = ownedByUs(state); err != nil {
		return ram, state, templateFault{err}
	}
	is, err := describeFile(state)
	if err != nil {
		return ram, state, err
	}
	if is.Size != t.State.Size || is.SHA256 != t.State.SHA256 {
		return ram, state, templateFault{fmt.Errorf("%s is damaged: it has %d bytes of %d, or others than were saved", stateName, is.Size, t.State.Size)}
	}
	_, err = state.Seek(0, io.SeekStart)
	return ram, state, err
}

// trustRAM refuses memory that is not what was saved. A file that nothing was written to since
// then is trusted; of another one, as of a copy, all is read.
func (t *Template) trustRAM(f *os.File) error {
	if err := ownedByUs(f); err != nil {
		return templateFault{err}
	}
	is, err := regular.StateOf(f)
	if err != nil || is == t.RAM.State {
		return err
	}
	_, err = t.checkRAM(f)
	return err
}

// checkRAM reads all memory, refuses it if it is not what was saved, and returns the state that
// the file had before.
func (t *Template) checkRAM(f *os.File) (regular.State, error) {
	is, err := regular.StateOf(f)
	if err != nil {
		return is, err
	}
	sum := ""
	if is.Size == t.RAM.Size {
		if sum, err = hashRAM(f, t.RAM.Size); err != nil {
			return is, err
		}
	}
	if sum != t.RAM.SHA256 {
		return is, templateFault{fmt.Errorf("%s is damaged: it has %d bytes of %d, or others than were saved; save the machine again", ramName, is.Size, t.RAM.Size)}
	}
	return is, nil
}

func describeFile(f *os.File) (savedFile, error) {
	is, err := regular.StateOf(f)
	if err != nil {
		return savedFile{}, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return savedFile{}, err
	}
	return savedFile{is, hex.EncodeToString(h.Sum(nil))}, nil
}

// ownedByUs refuses a file that another user could have made or changed: whoever can change a
// template changes what every machine restored from it does.
func ownedByUs(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	switch {
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return fmt.Errorf("%s belongs to another user, whose number is %d", f.Name(), st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written by other users (its mode is %#o)", f.Name(), st.Mode&0o777)
	}
	return nil
}
