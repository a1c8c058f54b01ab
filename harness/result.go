package harness

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"guesthouse.example/harness/internal/records"
	"guesthouse.example/internal/regular"
)

// A State is the stage of a run.
type State string

const (
	StateBooting State = "booting"
	StateReady   State = "ready"
	StateEnded   State = "ended"
	StateFailed  State = "failed" // the boot failed, the machine ended with an error, or Machine.MarkFailed was called
)

// A BootMode is how a machine got to its ready state.
type BootMode string

const (
	BootCold       BootMode = "cold"       // it booted its kernel
	BootDelivered  BootMode = "delivered"  // its platform was restored from a template, and its program delivered into it
	BootRestored   BootMode = "restored"   // it was restored from a template
	BootPrefetched BootMode = "prefetched" // it was restored from a template before Start was called
)

// Result is the content of a record's result.json.
type Result struct {
	State         State    `json:"state"`
	Test          string   `json:"test,omitempty"` // the name of the test that booted the machine
	Target        string   `json:"target"`
	Board         string   `json:"board,omitempty"`
	Accel         Accel    `json:"accel"`
	AccelWhy      string   `json:"accel_why"`                // why Accel was chosen; "asked for" if the Spec says so
	AccelEvidence string   `json:"accel_evidence,omitempty"` // what the probe of KVM found on this host
	QEMU          string   `json:"qemu,omitempty"`           // QEMU's own version string
	PID           int      `json:"qemu_pid"`                 // the number of QEMU's process
	Boot          BootMode `json:"boot"`
	Why           string   `json:"why,omitempty"`           // why the machine did not start in a faster BootMode
	ClockLate     float64  `json:"clock_late,omitempty"`    // the most seconds by which a restored guest's clock is late
	Unseeded      bool     `json:"unseeded,omitempty"`      // it was restored, and its guest has no agent: it draws the same random numbers as every other machine from its template
	ReadySeconds  float64  `json:"ready_seconds,omitempty"` // from QEMU's start, or for a prefetched machine from the call of Start, to Ready
	Seconds       float64  `json:"seconds,omitempty"`       // from the same moment to the machine's end
	PowerOff      string   `json:"power_off,omitempty"`     // why the guest powered off, in its agent's words
	Exit          *Exit    `json:"exit,omitempty"`          // how the guest's program ended; nil if it is unknown, as when the program itself powers the machine off
	Error         string   `json:"error,omitempty"`

	// Stopped are the first 32 destinations that Spec.Outbound has kept from the guest so far,
	// such as "tcp 192.0.2.2:80".
	Stopped []string `json:"outbound_stopped,omitempty"`

	// Net describes the places of the machine's cards on the networks of Spec.Net: name, hardware address,
	// addresses, and the seed of the network's faults.
	Net []string `json:"net,omitempty"`

	// Warnings are the console's lines that show a fault of the guest that is no crash; see
	// [console.Console.Warnings].
	Warnings []string `json:"warnings,omitempty"`

	// KernelSHA256, InitramfsSHA256 and ProgramSHA256 are hashes in hexadecimal. They are empty while
	// they are computed, during the boot, and if there is no such file, or it was removed before.
	KernelSHA256    string `json:"kernel_sha256,omitempty"`
	InitramfsSHA256 string `json:"initramfs_sha256,omitempty"`
	ProgramSHA256   string `json:"program_sha256,omitempty"`

	// LoaderSHA256 are the hashes of the files of Spec.Loaders, in their order.
	LoaderSHA256 []string `json:"loader_sha256,omitempty"`
}

// Result returns the machine's result so far. PowerOff is set as soon as the guest says that it powers off, a moment
// before the machine ends.
func (m *Machine) Result() Result {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	r := m.current()
	if r.PowerOff == "" {
		r.PowerOff = m.vm.Agent.PowerOffReason()
	}
	return r
}

// keepsRecord reports whether the record stays after Close. A temporary record stays only if the run has
// failed. The Result says so only when a machine whose guest has crashed has ended.
func (m *Machine) keepsRecord() bool {
	return !m.vm.Record.Temporary() || m.Result().Error != "" || m.vm.Crashed() != nil
}

// fail records how the machine ended. An error that is no failure, such as a cancelled context, does not
// make the run a failed one.
func (m *Machine) fail(err error, failure bool) {
	err = m.withRecordFailure(err)
	m.err = err
	seconds := time.Since(m.began).Seconds()
	<-m.hashed
	m.writeResult(func(r *Result) {
		r.State, r.Seconds = StateEnded, seconds
		r.PowerOff, r.Exit = m.vm.Agent.PowerOffReason(), m.exit
		if err != nil && failure && r.Error == "" {
			r.Error = err.Error()
		}
		if r.Error != "" {
			r.State = StateFailed
		}
	})
}

// withRecordFailure adds the failure of the record to an error.
func (m *Machine) withRecordFailure(err error) error {
	switch broken := m.vm.Record.Failure(); {
	case broken == nil || errors.Is(err, broken):
		return err
	case err == nil:
		return broken
	default:
		return fmt.Errorf("%w; %w", err, broken)
	}
}

// hashes are the SHA-256 of a machine's files in hexadecimal; empty for a file that the machine does not have.
// Those of the loaders' files are separated by spaces.
type hashes struct{ kernel, initramfs, program, loaders string }

// hashesOf returns the hashes of the files of a Spec. An error is that of the first file that cannot be read;
// such a file has no hash.
func hashesOf(s Spec) (h hashes, err error) {
	for _, f := range []struct {
		file string
		sum  *string
	}{{s.Kernel, &h.kernel}, {s.Initramfs, &h.initramfs}, {s.Program, &h.program}} {
		if f.file == "" {
			continue
		}
		sum, failed := regular.SHA256(f.file)
		*f.sum, err = sum, cmp.Or(err, failed)
	}
	sums := make([]string, len(s.Loaders))
	for i, l := range s.Loaders {
		sum, failed := regular.SHA256(l.File)
		sums[i], err = cmp.Or(sum, "none"), cmp.Or(err, failed)
	}
	h.loaders = strings.Join(sums, " ")
	return h, err
}

// hash records the hashes of the machine's files while it boots.
func (m *Machine) hash() {
	defer close(m.hashed)
	h, _ := hashesOf(m.plan.spec) // a file that has gone has no hash
	m.writeResult(func(r *Result) {
		r.KernelSHA256, r.InitramfsSHA256, r.ProgramSHA256 = h.kernel, h.initramfs, h.program
		r.LoaderSHA256 = strings.Fields(h.loaders)
	})
	if o := m.plan.spec.Origin; o == nil || o.hashes() != h {
		m.correctSpec(o.withHashes(h))
	}
}

// correctSpec replaces the origin in the recorded Spec.
func (m *Machine) correctSpec(origin *Origin) {
	spec := m.plan.spec
	spec.Origin = origin
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed {
		return
	}
	if err := m.vm.Record.WriteSpec(spec); err != nil {
		m.vm.Record.Fail(records.SpecFile, err)
	}
}

func (m *Machine) writeResult(change func(*Result)) {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed {
		return
	}
	change(&m.result)
	m.vm.Record.WriteResult(m.current())
}

// current returns the result with the values that the console, the filter and the VM have now. The caller
// holds resultMu.
func (m *Machine) current() Result {
	r := m.result
	r.ClockLate, r.Unseeded = m.vm.ClockLate().Seconds(), m.vm.Unseeded()
	r.Warnings = m.vm.Console.Warnings()
	r.Stopped = m.vm.Filter.Stopped()
	return r
}

// noteVersion adds QEMU's version to the result. The next writeResult writes it.
func (m *Machine) noteVersion() {
	if m.vm.QMP == nil {
		return // QEMU has not answered
	}
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	m.result.QEMU = m.vm.QMP.Version()
}

// MarkFailed marks the run as failed for a reason outside the machine, such as a failed test. The reason
// becomes the error of the Result, unless the Result has an error of the machine already. A temporary
// record is then kept. After Close, MarkFailed works only if the record was kept.
func (m *Machine) MarkFailed(reason error) {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed && m.vm.Record.Temporary() && m.result.Error == "" {
		return // the record is gone
	}
	m.result.State = StateFailed
	if m.result.Error == "" {
		m.result.Error = reason.Error()
	}
	m.vm.Record.WriteResult(m.result)
	if m.sealed {
		m.vm.Record.Tidy()
	}
}
