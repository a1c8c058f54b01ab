package harness

import (
	"context"
	"errors"

	"guesthouse.example/harness/internal/kvm"
)

// A KVMError tells why a machine does not run under KVM. Its fields are strings: Target, What is
// wrong, the Evidence that shows it, and the Cure, which is empty if none is known. Its method Cause
// returns the error without the Hint.
type KVMError = kvm.Error

// hostKVM probes the KVM of this host. It is a variable for the tests.
var hostKVM = kvm.NewProber()

// chooseAccel settles the acceleration of the machine. It is what the Spec asks for. A Spec that
// leaves it open gets KVM if KVM boots the machine's kernel, and TCG otherwise. The error tells why
// KVM does not work if the Spec asks for it, or that ctx has ended.
func (p *plan) chooseAccel(ctx context.Context, prober *kvm.Prober) error {
	_, fromTemplate := p.spec.From.(*Template)
	switch {
	case p.spec.Accel == TCG:
		p.use(choice{TCG, "asked for", ""})
		return nil
	case p.spec.Accel == KVM:
		evidence, err := prober.Probe(ctx, p.qemu, false)
		p.use(choice{KVM, "asked for", evidence})
		return err
	case fromTemplate:
		p.use(choice{TCG, "templates are restored under TCG", ""})
		return nil
	case len(p.spec.QEMUArgs) > 0:
		// They may forbid KVM, as -icount does, and the probe boots without them.
		p.use(choice{TCG, "it has QEMU arguments of its own", ""})
		return nil
	}
	evidence, err := prober.Probe(ctx, p.qemu, true)
	var failed *KVMError
	switch {
	case err == nil:
		p.use(choice{KVM, "it boots the kernel", evidence})
	case ctx.Err() != nil:
		return err
	case errors.As(err, &failed):
		p.use(choice{TCG, failed.What, failed.Evidence})
	default:
		p.use(choice{TCG, "KVM could not be tried", oneLine(err)})
	}
	return nil
}
