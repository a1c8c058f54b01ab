package harness

import (
	"errors"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/records"
	"guesthouse.example/internal/regular"
)

// A State is how far a machine has come.
type State string

const (
	StateBooting State = "booting"
	StateReady   State = "ready"
	StateEnded   State = "ended"
	StateFailed  State = "failed" // before it was ready, or at its end, or by Machine.MarkFailed
)

// A BootMode is how a machine got to its ready state.
type BootMode string

const (
	BootCold       BootMode = "cold"       // it booted its kernel
	BootRestored   BootMode = "restored"   // it was restored from a template
	BootPrefetched BootMode = "prefetched" // it was restored from a template before Start was called
)

// Result is the content of a record's result.json.
type Result struct {
	State         State    `json:"state"`
	Test          string   `json:"test,omitempty"` // that the machine is for
	Target        string   `json:"target"`
	Accel         Accel    `json:"accel"`
	AccelWhy      string   `json:"accel_why"`                // it was chosen, in few words; "asked for" if it was
	AccelEvidence string   `json:"accel_evidence,omitempty"` // of what KVM does or does not do here
	QEMU          string   `json:"qemu,omitempty"`           // its version, as it says itself
	PID           int      `json:"qemu_pid"`                 // the number of QEMU's process, while it runs
	Boot          BootMode `json:"boot"`
	Why           string   `json:"why,omitempty"`           // a cold boot was one, or a restored machine had not been prefetched
	ClockLate     float64  `json:"clock_late,omitempty"`    // seconds: a restored guest's clock is late by that much at most
	ReadySeconds  float64  `json:"ready_seconds,omitempty"` // to Ready, from QEMU's start, or of a prefetched machine from when it was asked for
	Seconds       float64  `json:"seconds,omitempty"`       // from then to its end
	PowerOff      string   `json:"power_off,omitempty"`     // why the guest powered off, as its agent said
	Exit          *Exit    `json:"exit,omitempty"`          // how the guest's program ended; nil if nobody said so, as of one that has powered the machine off itself
	Error         string   `json:"error,omitempty"`

	// Stopped is where the guest wanted to go so far and may not (Spec.Outbound), as
	// "tcp 192.0.2.2:80": the first 32 places.
	Stopped []string `json:"outbound_stopped,omitempty"`

	// Warnings are the lines of the console by which the guest was seen to be at
	// fault without having crashed; see [console.Console.Warnings].
	Warnings []string `json:"warnings,omitempty"`

	// The hashes of the files that it booted from, in hexadecimal; empty while
	// they are computed, which takes part of the boot, and for a file that is
	// gone meanwhile.
	KernelSHA256    string `json:"kernel_sha256,omitempty"`
	InitramfsSHA256 string `json:"initramfs_sha256,omitempty"`
}

// Result returns how far the machine has come.
func (m *Machine) Result() Result {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	return m.current()
}

// keepsRecord says whether the record is there after Close: a temporary one is
// kept only of a run that has failed.
func (m *Machine) keepsRecord() bool { return !m.record.Temporary() || m.Result().Error != "" }

// fail records how the machine ended. That somebody changed their mind is an
// error but no failure.
func (m *Machine) fail(err error, failure bool) {
	err = m.besides(err)
	m.err = err
	seconds := time.Since(m.plan.asked).Seconds()
	<-m.hashed
	m.writeResult(func(r *Result) {
		r.State, r.Seconds = StateEnded, seconds
		r.PowerOff, r.Exit = m.agent.PowerOffReason(), m.exit
		if err != nil && failure && r.Error == "" {
			r.Error = err.Error()
		}
		if r.Error != "" {
			r.State = StateFailed
		}
	})
}

// besides adds to an error that the record is not whole.
func (m *Machine) besides(err error) error {
	switch broken := m.record.Failure(); {
	case broken == nil || errors.Is(err, broken):
		return err
	case err == nil:
		return broken
	default:
		return fmt.Errorf("%w; %w", err, broken)
	}
}

// hash records the hashes of the kernel and the initramfs, while the machine boots.
func (m *Machine) hash() {
	defer close(m.hashed)
	kernel, _ := regular.SHA256(m.plan.spec.Kernel) // what is gone by now has none
	initramfs := ""
	if m.plan.spec.Initramfs != "" {
		initramfs, _ = regular.SHA256(m.plan.spec.Initramfs)
	}
	m.writeResult(func(r *Result) { r.KernelSHA256, r.InitramfsSHA256 = kernel, initramfs })
	if said := m.plan.spec.Origin; said == nil || said.KernelSHA256 != kernel || said.InitramfsSHA256 != initramfs {
		m.correctSpec(said.of(kernel, initramfs))
	}
}

// correctSpec records what the Spec did not say of its files.
func (m *Machine) correctSpec(origin *Origin) {
	spec := m.plan.spec
	spec.Origin = origin
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed {
		return
	}
	if err := m.record.WriteSpec(spec); err != nil {
		m.record.Fail(records.SpecFile, err)
	}
}

func (m *Machine) writeResult(change func(*Result)) {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed {
		return
	}
	change(&m.result)
	m.record.WriteResult(m.current())
}

// current returns the result with what other parts of the machine know now. The caller holds resultMu.
func (m *Machine) current() Result {
	r := m.result
	r.ClockLate = time.Duration(m.clockLate.Load()).Seconds()
	r.Warnings = m.console.Warnings()
	r.Stopped = m.filter.Stopped()
	return r
}

// noteVersion notes QEMU's version, for the next time that the result is written.
func (m *Machine) noteVersion() {
	if m.qmp == nil {
		return // QEMU has not answered
	}
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	m.result.QEMU = m.qmp.Version()
}

// MarkFailed says that the run has failed, for a reason that the machine does not know: that of a
// test for example. Its Result says so, unless it has a reason of the machine's own, and so a
// temporary record stays. It may be called after Close too, where the record is kept.
func (m *Machine) MarkFailed(reason error) {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed && m.record.Temporary() && m.result.Error == "" {
		return // the record is gone
	}
	m.result.State = StateFailed
	if m.result.Error == "" {
		m.result.Error = reason.Error()
	}
	m.record.WriteResult(m.result)
	if m.sealed {
		m.record.Tidy()
	}
}
