package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"guesthouse.example/internal/testcache"
)

// A Spec says what machine to boot. It is plain data: the command line, the
// tests and every record's spec.json hold the same thing, so that a run can be
// repeated. The zero value of every field but Target, Kernel and Initramfs works.
type Spec struct {
	// Target names the emulated machine: "x86", "x86_64", "arm", "arm64".
	Target string `json:"target"`

	// Kernel and Initramfs are files, as package images builds them. A
	// kernel that needs no initramfs, an RTOS for example, is booted
	// without.
	Kernel    string `json:"kernel"`
	Initramfs string `json:"initramfs,omitempty"`

	// Cmdline is added to the target's kernel command line. The guest's
	// addresses are set here: guesthouse.ip=ADDRESS/BITS (or dhcp) and
	// guesthouse.ip6=ADDRESS/BITS (or none); QEMU's network follows them.
	// The defaults are those of Zephyr's samples, 192.0.2.1/24 and
	// 2001:db8::1/64.
	Cmdline []string `json:"cmdline,omitempty"`

	// Memory is the machine's size in MiB; 0 is 256.
	Memory int `json:"memory_mib,omitempty"`

	// Ports are the guest's ports that Dial reaches: "udp/4242", "tcp/80".
	Ports []string `json:"ports,omitempty"`

	// Outbound is what the guest can reach by itself: nothing (empty, or "none"), the host's
	// loopback ("host"), or all that the host reaches ("internet"). A second network
	// in QEMUArgs is not bound by it.
	Outbound Outbound `json:"outbound,omitempty"`

	// Ready is a regular expression; Boot ends when the console shows it.
	// Empty is DefaultReady, and then Boot waits for the prompt below it
	// too: from there on the guest answers what is typed.
	Ready string `json:"ready,omitempty"`

	// Crashes are regular expressions for what the guest prints when it has
	// crashed, in addition to what the harness knows of Linux, Go, Zephyr and
	// others. They match at the start of a line, or behind a shell's prompt there.
	// A template serves whatever they are.
	Crashes []string `json:"crashes,omitempty"`

	// FirstByteWithin and ReadyWithin bound the time from QEMU's start to
	// the first byte on the console and to Ready, in nanoseconds in
	// JSON; 0 is 30 s and 90 s. It is the machine's time, see
	// [Machine.Within]. A guest that prints nothing and has little to do
	// for a quarter of ReadyWithin hangs, and fails then.
	FirstByteWithin time.Duration `json:"first_byte_within,omitempty"`
	ReadyWithin     time.Duration `json:"ready_within,omitempty"`

	// Accel is how QEMU runs the guest's processor. If it is empty, the
	// machine runs under KVM if KVM boots its kernel, and under TCG otherwise
	// or with a *Template or QEMUArgs. Start finds that out once until the
	// host boots again: it boots the kernel to its first byte on the console
	// under both, and KVM may take 2 s longer, and 10 s at most, of the
	// machine's time. The Result has the choice and the reason. If Accel asks
	// for KVM and KVM does not boot the kernel, Start fails with a *KVMError.
	Accel Accel `json:"accel,omitempty"`

	// From is what the machine starts from: nil or Cold boots the kernel, a *Template is
	// restored, and a *TemplateCache is a set of templates that makes itself. In JSON, "cold":
	// true stands for Cold, and every other source is left out.
	From Source `json:"-"`

	// Dir is the record directory (made if missing); empty is a temporary
	// one that is removed after a run without failure, or by a later boot
	// when this process was killed.
	Dir string `json:"-"`

	// Test names the test that the machine is for; its Result has the name.
	Test string `json:"-"`

	// Origin tells what Kernel and Initramfs are, for whoever boots the Spec where these
	// files are not. Every record's spec.json has their hashes.
	Origin *Origin `json:"origin,omitempty"`

	// QEMU is the emulator's binary; empty is the target's, found in PATH.
	QEMU string `json:"qemu,omitempty"`

	// QEMUArgs are added to QEMU's command line.
	QEMUArgs []string `json:"qemu_args,omitempty"`
}

// An Origin tells which kernel and initramfs a Spec means, wherever their files are, and how they
// were made, as far as that is known.
type Origin struct {
	KernelSHA256    string `json:"kernel_sha256,omitempty"`    // in hexadecimal
	KernelPackage   string `json:"kernel_package,omitempty"`   // a Debian package and its version; empty for a kernel of the user's own
	InitramfsSHA256 string `json:"initramfs_sha256,omitempty"` // in hexadecimal
	Guest           string `json:"guest,omitempty"`            // the import path of the guest program in the initramfs
}

// of returns the origin of files with these hashes, without the facts about files with other hashes.
func (o *Origin) of(kernel, initramfs string) *Origin {
	is := Origin{KernelSHA256: kernel, InitramfsSHA256: initramfs}
	if o != nil && o.KernelSHA256 == kernel {
		is.KernelPackage = o.KernelPackage
	}
	if o != nil && o.InitramfsSHA256 == initramfs {
		is.Guest = o.Guest
	}
	return &is
}

// DefaultReady matches what guest.Main prints, above its first prompt, when all services are
// up.
const DefaultReady = `guesthouse: ready$`

// guestPrompt is the prompt of guest.Main.
const guestPrompt = "uart:~$ "

// Accel is how QEMU runs the guest's processor.
type Accel string

const (
	TCG Accel = "tcg" // translation, on any host
	KVM Accel = "kvm" // the host's own processor, where /dev/kvm works
)

const (
	defaultMemory    = 256 // MiB
	defaultFirstByte = 30 * time.Second
	defaultReadyIn   = 90 * time.Second
	debianMemory     = 96 // MiB with which Debian's kernels and u-root still boot
)

// ReadSpec reads a Spec from a JSON file, as it stands in every record.
func ReadSpec(file string) (Spec, error) {
	testcache.Depends(file)
	text, err := os.ReadFile(file)
	if err != nil {
		return Spec{}, fmt.Errorf("spec: %w", err)
	}
	s, err := DecodeSpec(text)
	if err != nil {
		return s, fmt.Errorf("spec %s: %w", file, err)
	}
	return s, nil
}

// DecodeSpec decodes the content of such a file. It refuses fields that it does not know.
func DecodeSpec(text []byte) (s Spec, err error) {
	err = json.Unmarshal(text, &s)
	return s, err
}

// fields are a Spec's own fields in JSON.
type fields Spec

// A specFile is a Spec in JSON.
type specFile struct {
	fields
	Cold bool `json:"cold,omitempty"`
}

// MarshalJSON encodes a Spec as spec.json has it.
func (s Spec) MarshalJSON() ([]byte, error) {
	return json.Marshal(specFile{fields(s), s.From == Cold})
}

// UnmarshalJSON decodes a Spec. It refuses fields that it does not know.
func (s *Spec) UnmarshalJSON(text []byte) error {
	var f specFile
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return err
	}
	*s = Spec(f.fields)
	if f.Cold {
		s.From = Cold
	}
	return nil
}

// Command returns a QEMU command line that boots the machine with its console
// on the terminal where it is run; Ctrl-A x ends it. It differs from the one
// that Boot runs, which waits for its monitor and has its console elsewhere, and
// it uses TCG unless the Spec asks for KVM. Where the guest can reach nothing (OutboundNone) QEMU is
// told so by restrict=on, with which forwarded UDP ports do not answer. OutboundHost is
// an error: no QEMU alone can do that.
func (s Spec) Command() ([]string, error) {
	p, err := s.check()
	if err != nil {
		return nil, err
	}
	if p.spec.Outbound == OutboundHost {
		return nil, errHostAlone
	}
	return append([]string{p.qemu.Binary}, p.qemu.TerminalArgs()...), nil
}

// Validate refuses a Spec that cannot boot whatever its kernel and initramfs
// are. Boot does so too.
func (s Spec) Validate() error {
	_, err := s.plan()
	return err
}
