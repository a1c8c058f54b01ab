package harness

import (
	"context"
	"errors"

	"guesthouse.example/harness/internal/kvm"
)

// A KVMError says why a machine does not run under KVM.
type KVMError struct {
	Target   string
	What     string // what is wrong
	Evidence string // the observation that shows it
	Cure     string // what could make KVM work; empty if nothing is known
}

func (e *KVMError) Error() string { return (*kvm.Error)(e).Error() }

// Cause returns the error without its hint.
func (e *KVMError) Cause() string { return (*kvm.Error)(e).Cause() }

// Hint returns what the user can do about the error.
func (e *KVMError) Hint() string { return (*kvm.Error)(e).Hint() }

// hostKVM probes the KVM of this host. Tests replace it.
var hostKVM = kvm.NewProber()

// chooseAccel chooses the acceleration of the machine: Spec.Accel if it is not empty, and otherwise KVM if
// KVM boots the machine's kernel, or TCG. The error says that ctx has ended, or why KVM does not work if
// Spec.Accel is KVM.
func (p *plan) chooseAccel(ctx context.Context, prober *kvm.Prober) error {
	template, fromTemplate := p.spec.From.(*Template)
	switch {
	case p.spec.Accel == TCG:
		p.use(choice{accel: TCG, why: "asked for"})
		return nil
	case p.spec.Accel == KVM:
		evidence, err := prober.Probe(ctx, p.qemu, false)
		if failed, ok := errors.AsType[*kvm.Error](err); ok {
			err = (*KVMError)(failed)
		}
		p.useKVM(prober, "asked for", evidence)
		return err
	case fromTemplate && !template.underKVM():
		p.use(choice{accel: TCG, why: "the template was saved under TCG"})
		return nil
	case p.board != nil:
		p.use(choice{accel: TCG, why: "a board is emulated"})
		return nil
	case p.spec.ownHardware():
		p.use(choice{accel: TCG, why: "it has hardware of its own"})
		return nil
	case len(p.spec.QEMUArgs) > 0:
		// The user's arguments may forbid KVM, as -icount does, and the probe boots without them.
		p.use(choice{accel: TCG, why: "it has QEMU arguments of its own"})
		return nil
	}
	evidence, err := prober.Probe(ctx, p.qemu, true)
	var failed *kvm.Error
	switch {
	case err == nil:
		p.useKVM(prober, "it boots the kernel", evidence)
	case ctx.Err() != nil:
		return err
	case errors.As(err, &failed):
		p.use(choice{accel: TCG, why: failed.What, evidence: failed.Evidence})
	default:
		p.use(choice{accel: TCG, why: "KVM could not be tried", evidence: oneLine(err)})
	}
	return nil
}

// useKVM sets the acceleration to KVM. The reason says whether templates work too: the probe knows it for
// this host, since its last boot.
func (p *plan) useKVM(prober *kvm.Prober, why, evidence string) {
	c := choice{accel: KVM, why: why, evidence: evidence, notRestored: prober.Restores(p.qemu)}
	if c.notRestored == nil {
		c.why += ", and restores a saved machine"
	} else {
		c.why += ", and restores no machine"
		c.evidence += "; not restored: " + oneLine(c.notRestored)
	}
	p.use(c)
}
