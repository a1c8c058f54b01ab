package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"guesthouse.example/harness/internal/template"
)

// Save saves the ready machine into a new directory, from which any number of machines can be
// restored ([Spec].From). The directory is complete when it appears.
//
// Save first makes the guest's agent echo some datagrams, unless the machine was restored or saved before. It
// waits until the guest is idle, for at most 6 s of the machine's time in all. The machine then stands still for some tenths of a second, and goes on. Save
// fails if a TCP connection to the machine is open. It waits up to 5 s of the machine's time for
// connections that are about to close. It does not know the connections of a guest with other machines on a
// network of Spec.Net.
//
// The agent of package guest gives the saved machine, and each restored one, the host's clock, new
// entropy for its kernel and a new boot identity. Machines that are restored from a guest without
// an agent draw the same random numbers until their kernels have other entropy, and their clocks
// are late by the age of the template.
//
// A restored machine can be saved if its Spec has Savable. A test can thus save a machine in the middle of
// a scenario and continue from there any number of times. A machine with QEMUArgs, shares or a Disk with
// Write cannot be saved, nor one under a KVM that restored no machine in the probe; a machine with shares can be restored from a template of one without.
func (m *Machine) Save(ctx context.Context, dir string) (*Template, error) {
	fail := func(err error) (*Template, error) {
		return nil, fmt.Errorf("save %s into %s: %w", m.plan.name(), dir, err)
	}
	if state := m.Result().State; state != StateReady {
		return fail(fmt.Errorf("the machine is not ready but %s", state))
	}
	if shares := m.plan.spec.Share; len(shares) > 0 {
		return fail(fmt.Errorf("its guest has mounted directories of the host (%s), and no machine that is restored could read them: save a machine without Spec.Share, and restore it with Spec.Share", shares[0].Guest))
	}
	if err := m.vm.Crashed(); err != nil {
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
	id, err := m.plan.identity()
	if err == nil {
		err = m.plan.disksUnchanged()
	}
	if err != nil {
		return fail(err)
	}
	w := template.NewWriter(building)
	defer w.Stop()
	if err := m.vm.Save(ctx, w, id, m.plan.spec.guestName(), true); err != nil {
		return fail(err)
	}
	if err := os.Rename(building, dir); err != nil {
		return fail(err)
	}
	t, err := template.Open(dir)
	if err != nil {
		return fail(err)
	}
	return &Template{t}, nil
}
