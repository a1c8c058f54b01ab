package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"guesthouse.example/internal/testcache"
)

// A Spec describes a machine to boot. Kernel is required, and either Target or
// Board; the zero value of every other field works. The spec.json of every record holds the Spec,
// so that a run can be repeated.
type Spec struct {
	// Target names the emulated machine: "x86", "x86_64", "arm", "arm64".
	Target string `json:"target"`

	// Board names an emulated machine for another system than Linux, such as
	// "zephyr/qemu_x86" or "uboot/qemu_arm64"; guesthouse targets lists the boards. Kernel
	// is then the system's image. A board has no agent and no kernel command line: of
	// Cmdline only the guest's addresses count, and Initramfs, Program and Share are
	// errors. Target may be empty, or the target that has the board's processor.
	Board string `json:"board,omitempty"`

	// CustomBoard describes the Board if guesthouse does not have it. If it is nil, the
	// nearest file boards.toml does, in the directory of Kernel or above it. Every
	// record has it.
	CustomBoard *CustomBoard `json:"custom_board,omitempty"`

	// Machine and CPU replace the values of QEMU's -machine and -cpu. The machine is
	// then emulated, unless Accel is KVM.
	Machine string `json:"machine,omitempty"`
	CPU     string `json:"cpu,omitempty"`

	// NICs replace the machine's network cards, the first of them first. A machine has
	// one card for each network of Net, or else one.
	NICs []NIC `json:"nics,omitempty"`

	// Kernel and Initramfs are files, such as package images builds. A kernel
	// that needs no initramfs, such as an RTOS, boots without one.
	Kernel    string `json:"kernel"`
	Initramfs string `json:"initramfs,omitempty"`

	// Loaders are further files that QEMU puts into the machine's memory before it
	// starts. They are part of what templates have in common, and of the record. A
	// Board may have some of its own, which lie beside Kernel.
	Loaders []Loader `json:"loaders,omitempty"`

	// Program is the guest program: a static executable of this host, built for
	// the target, such as package images builds. The initramfs is then a
	// platform, which has no program of its own (images.Platform). When the
	// platform is ready, the harness delivers the program to /bin/uinit and
	// starts it there. The kernel needs virtio_console and virtio_blk for that.
	// Without Program, init starts /bin/uinit of the initramfs.
	Program string `json:"program,omitempty"`

	// Args and Env are the arguments and further environment variables (K=V) of
	// the guest program. If it is in the initramfs, they go over the kernel's
	// command line, which bounds their length.
	Args []string `json:"args,omitempty"`
	Env  []string `json:"env,omitempty"`

	// Cmdline is appended to the target's kernel command line. It sets the
	// guest's addresses with guesthouse.ip=ADDRESS/BITS (or dhcp) and
	// guesthouse.ip6=ADDRESS/BITS (or none), and QEMU's network follows them.
	// The defaults are the addresses of Zephyr's samples, 192.0.2.1/24 and
	// 2001:db8::1/64.
	Cmdline []string `json:"cmdline,omitempty"`

	// Memory is the machine's size in MiB; 0 is 256, or the size of the Board.
	Memory int `json:"memory_mib,omitempty"`

	// CPUs is the number of the machine's processors; 0 is 1, or that of the Board. The target's machine
	// has a limit: 8 on arm and arm64, 32 on x86, 255 on x86_64. Under TCG every
	// processor is a thread of QEMU, so a machine may have more processors than the
	// host, which then takes turns.
	CPUs int `json:"cpus,omitempty"`

	// Disks are the machine's disks, at most 16.
	Disks []Disk `json:"disks,omitempty"`

	// Ports are the guest's ports that Dial reaches: "udp/4242", "tcp/80". Other programs of the host reach them at the
	// ports of 127.0.0.1 that [Machine.Ports] returns. On the networks of Net, Dial reaches all ports without it.
	Ports []string `json:"ports,omitempty"`

	// Net are the networks that the machine's cards are on, one card each. The first card is eth0 in the
	// guest. Without Net the machine has one card, on QEMU's user network. Dial then reaches all ports of
	// the guest. The record holds the frames of each card in net0.pcapng, net1.pcapng and so on. In JSON the networks
	// are in the words of the flag -net of guesthouse run, and are read as a [RecordedNetwork] each.
	Net []Network `json:"-"`

	// Capture writes the frames of the card on QEMU's user network into net0.pcap of the record, at most 256 MiB of
	// them: what the guest sends, also if Outbound stops it, and what it receives. Such a machine is not prefetched.
	// With Net, the record has captures anyway. See [Machine.FollowCapture].
	Capture bool `json:"capture,omitempty"`

	// Name is the machine's name on the networks of Net: letters in lower case, digits and hyphens. If it is
	// empty, the first of them chooses a name.
	Name string `json:"name,omitempty"`

	// Share are directories of the host that the guest sees.
	Share []Share `json:"share,omitempty"`

	// Outbound is what the guest may connect to: nothing (empty or "none"), the
	// host's loopback ("host"), or everything that the host can reach
	// ("internet"). It does not bind a second network in QEMUArgs.
	Outbound Outbound `json:"outbound,omitempty"`

	// Ready is a regular expression. The machine is ready when the console
	// matches it. If it is empty, a Board has an expression of its own, such as its
	// prompt, and the harness stops the countdown of a boot loader there. On a
	// target it is DefaultReady, and Boot also waits for
	// the prompt below it: from then on the guest answers what is typed. A
	// platform without a program needs PlatformReady.
	Ready string `json:"ready,omitempty"`

	// Crashes are regular expressions for what the guest prints when it
	// crashes, in addition to the signs that the harness knows of Linux, Go,
	// Zephyr and others. They match at the start of a line, and after a
	// shell's prompt there. Machines with different Crashes share templates.
	Crashes []string `json:"crashes,omitempty"`

	// FirstByteWithin and ReadyWithin bound the time from QEMU's start to the
	// first byte on the console and to Ready. They are in nanoseconds in JSON,
	// and 0 stands for 30 s and 90 s of the machine's time; see
	// [Machine.Within]. With a Program, ReadyWithin bounds both the time until
	// the platform is ready and the time from then to Ready. A guest that prints
	// nothing and is mostly idle or spins for a quarter of ReadyWithin hangs, and the boot
	// fails then.
	FirstByteWithin time.Duration `json:"first_byte_within,omitempty"`
	ReadyWithin     time.Duration `json:"ready_within,omitempty"`

	// Accel is how QEMU runs the guest's processor. If it is empty, Start
	// chooses KVM if KVM boots the kernel, and TCG otherwise, or if there are
	// QEMUArgs or From is a *Template that was saved under TCG. To find out, Start boots the kernel
	// under both to the first byte on the console; KVM may take 2 s longer
	// than TCG, and 10 s at most, of the machine's time. The finding holds
	// until the host boots again. The Result has the choice and the reason. If
	// Accel is KVM and KVM does not boot the kernel, Start fails with a
	// *KVMError.
	Accel Accel `json:"accel,omitempty"`

	// From is what the machine starts from. Nil and Cold boot the kernel, a
	// *Template restores a saved machine, and a *TemplateCache keeps templates
	// of the machines that it boots. In JSON, "cold": true stands for Cold;
	// other sources are left out.
	From Source `json:"-"`

	// Savable lets Machine.Save save a machine that is restored from a template.
	// The machine gets a copy of the template's memory, which takes some tens of
	// milliseconds, and is not prefetched. A machine that boots its kernel can be
	// saved without Savable.
	Savable bool `json:"savable,omitempty"`

	// Dir is the directory of the record. Boot makes it if it is missing. If it
	// is empty, the record is in a temporary directory, which is removed after
	// a run without failure. If this process is killed, a later boot removes it.
	Dir string `json:"-"`

	// CoverDir is a directory for the coverage data of the guest's programs that were built with go build
	// -cover: the files that such programs write into GOCOVERDIR. Their data arrives when the machine powers
	// off. On Close, only a program with package guest, built with -covermode=atomic, can give its data. If
	// CoverDir is empty, the data is dropped. Package harnesstest sets it in a test with coverage.
	CoverDir string `json:"-"`

	// Test is the name of the test that boots the machine, for the Result.
	Test string `json:"-"`

	// Origin identifies Kernel, Initramfs and Program on a host that does not
	// have these files. The spec.json of every record has their hashes.
	Origin *Origin `json:"origin,omitempty"`

	// QEMU is the emulator's binary. If it is empty, the target's is looked up in
	// PATH.
	QEMU string `json:"qemu,omitempty"`

	// QEMUArgs are appended to QEMU's command line. A machine with QEMUArgs has
	// no templates.
	QEMUArgs []string `json:"qemu_args,omitempty"`
}

// An Origin identifies the kernel, the initramfs, the program and the loaders' files of a Spec by their hashes, and says how
// they were made if that is known.
type Origin struct {
	KernelSHA256    string `json:"kernel_sha256,omitempty"`    // in hexadecimal
	KernelPackage   string `json:"kernel_package,omitempty"`   // a Debian package and its version; empty for a kernel of the user's own
	InitramfsSHA256 string `json:"initramfs_sha256,omitempty"` // in hexadecimal
	ProgramSHA256   string `json:"program_sha256,omitempty"`   // in hexadecimal
	Guest           string `json:"guest,omitempty"`            // the import path of the guest program

	LoaderSHA256 []string `json:"loader_sha256,omitempty"` // of the files of Loaders, in their order
}

// hashes returns the hashes of an origin.
func (o *Origin) hashes() hashes {
	return hashes{o.KernelSHA256, o.InitramfsSHA256, o.ProgramSHA256, strings.Join(o.LoaderSHA256, " ")}
}

// withHashes returns the origin of files with these hashes. It keeps the package and the guest of o, which
// may be nil, only if o has the same hashes.
func (o *Origin) withHashes(h hashes) *Origin {
	origin := Origin{KernelSHA256: h.kernel, InitramfsSHA256: h.initramfs, ProgramSHA256: h.program, LoaderSHA256: strings.Fields(h.loaders)}
	if o != nil && o.KernelSHA256 == h.kernel {
		origin.KernelPackage = o.KernelPackage
	}
	if o != nil && o.InitramfsSHA256 == h.initramfs && o.ProgramSHA256 == h.program {
		origin.Guest = o.Guest
	}
	return &origin
}

// DefaultReady matches the line that guest.Main prints above its first prompt when all services are up.
const DefaultReady = `guesthouse: ready$`

// PlatformReady matches the line that init prints when a platform is ready for its program.
const PlatformReady = `^init: ready$`

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
	debianMemory     = 96 // MiB that Debian's kernels and u-root need to boot
)

// ReadSpec reads a Spec from a JSON file, such as the spec.json of a record.
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

// DecodeSpec decodes the content of a spec.json. It refuses fields that it does not know.
func DecodeSpec(text []byte) (s Spec, err error) {
	err = json.NewDecoder(bytes.NewReader(text)).Decode(&s)
	return s, err
}

// fields are a Spec's own fields in JSON.
type fields Spec

// A specFile is a Spec in JSON.
type specFile struct {
	fields
	Cold bool              `json:"cold,omitempty"`
	Net  []RecordedNetwork `json:"net,omitempty"`
}

// MarshalJSON encodes a Spec as spec.json has it.
func (s Spec) MarshalJSON() ([]byte, error) {
	f := specFile{fields: fields(s), Cold: s.From == Cold}
	for _, n := range s.Net {
		f.Net = append(f.Net, RecordedNetwork(n.String()))
	}
	return json.Marshal(f)
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
	for _, n := range f.Net {
		s.Net = append(s.Net, n)
	}
	if f.Cold {
		s.From = Cold
	}
	return nil
}

// Command returns a QEMU command line that boots the machine with its console
// on the terminal; Ctrl-A x ends QEMU. Boot runs another command line, with the
// console and the monitor on inherited descriptors. Command uses TCG unless Accel
// is KVM.
//
// With OutboundNone, QEMU runs with restrict=on, under which forwarded UDP ports
// do not answer. OutboundHost and Program are errors: QEMU can do neither
// without the harness.
func (s Spec) Command() ([]string, error) {
	p, err := s.check()
	if err != nil {
		return nil, err
	}
	if p.spec.Outbound == OutboundHost {
		return nil, errHostAlone
	}
	if len(p.spec.Net) > 0 {
		return nil, errors.New("only the harness connects a machine to the networks of Spec.Net")
	}
	if p.spec.Program != "" {
		return nil, fmt.Errorf("program %s: only the harness delivers it: for a QEMU command, build it into the initramfs (images.Build, or guesthouse run -n -guest PACKAGE)", p.spec.Program)
	}
	return append([]string{p.qemu.Binary}, p.qemu.TerminalArgs()...), nil
}

// Validate returns an error for a Spec that cannot boot with any kernel and
// initramfs. Boot returns it too.
func (s Spec) Validate() error {
	p, err := s.plan()
	if err == nil {
		err = p.findDisks()
	}
	return err
}
