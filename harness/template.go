package harness

import (
	"context"
	"strings"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/sys"
)

// A Template is a machine that was saved when it was ready. It is a [Source]: a restored machine is
// ready in a fraction of the time that a boot takes. Any number of machines can be restored from a
// template, also at the same time: they share its memory until they write to it, and nothing is
// ever written to the template.
type Template struct{ files *template.Template }

// OpenTemplate opens a directory that Save has made. It reads the complete memory, and fails if the
// template is damaged or another user could have written it.
func OpenTemplate(dir string) (*Template, error) {
	t, err := template.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := t.Verify(); err != nil {
		return nil, err
	}
	return &Template{t}, nil
}

// Dir returns the template's directory.
func (t *Template) Dir() string { return t.files.Dir() }

// start restores the machine. If the template does not fit or cannot be restored, the machine boots, and
// its Result says why. A program is delivered into a template of its platform.
func (t *Template) start(ctx context.Context, p *plan) (*Machine, error) {
	if t == nil {
		return p.launch(ctx, how{})
	}
	why := p.noTemplate()
	if why == "" {
		id, err := p.identity()
		if p.delivers(t.files) {
			id = id.Platform(PlatformReady)
		}
		if err == nil {
			var m *Machine
			if m, err = p.restored(ctx, how{from: t.files}, id); err == nil || ctx.Err() != nil {
				return m, err
			}
		}
		why = oneLine(err)
	}
	return p.launch(ctx, how{why: why})
}

// identity returns what the plan's machine and its template must have in common.
func (p *plan) identity() (template.Identity, error) {
	id := template.Identity{Format: template.Format, Target: p.name(), Args: p.qemu.IdentityArgs(), Ready: p.spec.Ready, Outbound: string(p.spec.Outbound), Disks: p.disks}
	var err error
	if id.QEMU, err = qemu.Identity(p.qemu.Binary); err != nil {
		return id, err
	}
	if p.accel.accel == KVM {
		// The probe's verdict, and the state of the host's processor, are of this boot of this host.
		if id.Host, err = sys.BootID(); err != nil {
			return id, err
		}
	}
	h, err := hashesOf(p.spec)
	id.Kernel, id.Initramfs, id.Loaders = h.kernel, h.initramfs, h.loaders
	if p.spec.Program != "" {
		id.Program = &template.Program{SHA256: h.program, Args: p.spec.Args, Env: p.spec.Env}
	}
	return id, err
}

// noTemplate returns why the plan's machine can neither be saved nor restored, or "" if it can.
func (p *plan) noTemplate() string {
	switch {
	case p.savable():
		return ""
	case p.accel.notRestored != nil:
		return "KVM has restored no machine on this host: " + oneLine(p.accel.notRestored)
	}
	if p.writes() {
		return "it writes to the file of a disk"
	}
	return "it has QEMU arguments of its own"
}

// savable reports whether the machine may be saved. A machine with QEMU arguments may not: they may
// name a disk, a file or a port that two machines must not share, and they may change the memory. A
// machine under KVM may only where the probe of KVM has restored one, because its state depends on the
// host. A machine that writes to the file of a disk may not, because the file does not stay as it was when
// the machine was saved.
func (p *plan) savable() bool {
	return len(p.spec.QEMUArgs) == 0 && p.accel.notRestored == nil && !p.writes()
}

// underKVM reports whether the template was saved under KVM.
func (t *Template) underKVM() bool {
	return t != nil && t.files != nil && strings.Contains(strings.Join(t.files.Of.Args, " "), ",accel=kvm")
}
