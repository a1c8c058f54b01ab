package harness

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// minimal returns a Spec that passes every check. Its kernel is a file of an
// unknown format.
func minimal(t *testing.T) Spec {
	kernel := filepath.Join(t.TempDir(), "kernel")
	require.NoError(t, os.WriteFile(kernel, []byte("anything"), 0o644))
	return Spec{Target: "x86_64", Kernel: kernel}
}

func TestTheZeroValuesWork(t *testing.T) {
	p, err := minimal(t).check()
	require.NoError(t, err)
	require.Equal(t, 256, p.spec.Memory)
	require.Equal(t, TCG, p.accel.accel)
	require.Equal(t, DefaultReady, p.spec.Ready)
}

func TestASpecThatCannotBootIsRefusedBeforeAnythingStarts(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"unknown target":   {func(s *Spec) { s.Target = "vax" }, `unknown target "vax": the targets are x86, x86_64, arm, arm64`},
		"unknown board":    {func(s *Spec) { s.Target, s.Board = "", "zephyr/vax" }, `unknown board "zephyr/vax": the boards are zephyr/qemu_x86, `},
		"board's target":   {func(s *Spec) { s.Board = "zephyr/qemu_x86" }, "board zephyr/qemu_x86: its processor is that of the target x86, not x86_64"},
		"board, initramfs": {func(s *Spec) { s.Target, s.Board, s.Initramfs = "", "zephyr/qemu_x86", "i" }, "board zephyr/qemu_x86: it boots no initramfs: i"},
		"board, words": {func(s *Spec) {
			s.Target, s.Board, s.Cmdline = "", "zephyr/qemu_x86", []string{"guesthouse.ip=dhcp quiet"}
		}, "board zephyr/qemu_x86: its image has no kernel command line: quiet"},
		"board, KVM":        {func(s *Spec) { s.Target, s.Board, s.Accel = "", "zephyr/qemu_x86", KVM }, "board zephyr/qemu_x86: it is emulated, and KVM does not run it"},
		"machine's file":    {func(s *Spec) { s.Machine = "q35,dumpdtb=/file" }, `machine "q35,dumpdtb=/file": guesthouse does not set the option dumpdtb`},
		"file, machine":     {func(s *Spec) { s.Machine = "dumpdtb=/file,type=q35" }, `machine "dumpdtb=/file,type=q35": guesthouse does not set the option dumpdtb`},
		"no kernel":         {func(s *Spec) { s.Kernel = "" }, "kernel: none given"},
		"missing kernel":    {func(s *Spec) { s.Kernel = "/nonexistent" }, "kernel: stat /nonexistent: no such file"},
		"kernel directory":  {func(s *Spec) { s.Kernel = "/" }, "kernel /: not a regular file"},
		"missing initramfs": {func(s *Spec) { s.Initramfs = "/nonexistent" }, "initramfs: stat /nonexistent"},
		"port":              {func(s *Spec) { s.Ports = []string{"4242"} }, `port "4242": write it as udp/4242 or tcp/4242`},
		"port number":       {func(s *Spec) { s.Ports = []string{"udp/70000"} }, "from 1 to 65535"},
		"port network":      {func(s *Spec) { s.Ports = []string{"sctp/1"} }, "write it as udp/4242"},
		"port twice":        {func(s *Spec) { s.Ports = []string{"udp/1", "udp/1"} }, "udp/1 is listed twice"},
		"memory of no host": {func(s *Spec) { s.Memory = 999_999_999 }, "memory of 999999999 MiB: this host has "},
		"memory":            {func(s *Spec) { s.Memory = -8 }, "memory of -8 MiB: the least is 1, and Debian's kernels take 96"},
		"no processors":     {func(s *Spec) { s.CPUs = -1 }, "-1 processors: a machine of the target x86_64 has 1 to 255"},
		"processors":        {func(s *Spec) { s.Target, s.CPUs = "arm64", 9 }, "9 processors: a machine of the target arm64 has 1 to 8"},
		"memory of no arm":  {func(s *Spec) { s.Target, s.Memory = "arm", 3073 }, "memory of 3073 MiB: a machine of the target arm has at most 3072"},
		"disk":              {func(s *Spec) { s.Disks = []Disk{{}} }, "disk 0: size of 0 MiB: name a file, or a size of at least 1"},
		"accel":             {func(s *Spec) { s.Accel = "magic" }, `unknown acceleration "magic"`},
		"outbound":          {func(s *Spec) { s.Outbound = "world" }, `outbound "world": write "none", "host" or "internet"`},
		"ready":             {func(s *Spec) { s.Ready = "(" }, "ready pattern: error parsing regexp"},
		"crash":             {func(s *Spec) { s.Crashes = []string{"FATAL", "("} }, "crash pattern \"(\": error parsing regexp"},
		"any line a crash":  {func(s *Spec) { s.Crashes = []string{".*"} }, `crash pattern ".*": it matches every line: write what the guest prints only when it crashes`},
		"address":           {func(s *Spec) { s.Cmdline = []string{"guesthouse.ip=192.0.2.300/24"} }, "guesthouse.ip=192.0.2.300/24: write dhcp, none, or an IPv4 address"},
		"no prefix":         {func(s *Spec) { s.Cmdline = []string{"guesthouse.ip=192.0.2.3"} }, "guesthouse.ip=192.0.2.3: write"},
		"IPv6 address":      {func(s *Spec) { s.Cmdline = []string{"guesthouse.ip6=192.0.2.3/24"} }, "write none, or an IPv6 address"},

		"no platform":         {func(s *Spec) { s.Program = "/nonexistent" }, "program /nonexistent: it needs an initramfs that is a platform"},
		"missing program":     {func(s *Spec) { s.Initramfs, s.Program = s.Kernel, "/nonexistent" }, "program /nonexistent: no such file or directory"},
		"program directory":   {func(s *Spec) { s.Initramfs, s.Program = s.Kernel, "/" }, "program /: not a regular file"},
		"program for another": {func(s *Spec) { s.Initramfs, s.Program, s.Target = s.Kernel, "/proc/self/exe", otherTarget() }, "; the target is " + otherTarget()},
		"no one gets them":    {func(s *Spec) { s.Args = []string{"-v"} }, "arguments and environment: the machine has neither a program nor an initramfs"},
		"variable without =":  {func(s *Spec) { s.Initramfs, s.Env = s.Kernel, []string{"K"} }, `variable "K" of the guest program: write KEY=VALUE`},
		"NUL in an argument":  {func(s *Spec) { s.Initramfs, s.Args = s.Kernel, []string{"a\x00b"} }, "holds a NUL byte"},
		"command line too long": {func(s *Spec) { s.Initramfs, s.Args = s.Kernel, []string{strings.Repeat("x", 2047)} },
			"2062 of them for the program's arguments and environment, and the kernel of x86_64 reads 2047: deliver the program with Spec.Program"},
	} {
		t.Run(name, func(t *testing.T) {
			s := minimal(t)
			c.change(&s)
			_, err := Boot(t.Context(), s)
			require.ErrorContains(t, err, c.want)
			require.NotErrorIs(t, err, ErrGuest)
		})
	}
}

// otherTarget returns a target that does not run the programs of this host.
func otherTarget() string {
	if runtime.GOARCH == "arm64" {
		return "x86_64"
	}
	return "arm64"
}

// Init gets the arguments of a program in the initramfs from the kernel's command line, and those of a
// delivered one from the harness.
func TestOnlyABuiltInProgramsArgumentsAreOnTheCommandLine(t *testing.T) {
	s := minimal(t)
	s.Initramfs, s.Args, s.Env = s.Kernel, []string{"-v", "two words"}, []string{"K=V"}
	p, err := s.check()
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(p.qemu.KernelCmdline(), " guesthouse.arg=-v guesthouse.arg=two%20words guesthouse.env=K=V"), p.qemu.KernelCmdline())
	s.Program = "/proc/self/exe"
	p, err = s.plan()
	require.NoError(t, err)
	require.NotContains(t, p.qemu.KernelCmdline(), "guesthouse.arg")
}

func TestQEMUsNetworkFollowsTheGuestsAddress(t *testing.T) {
	for name, c := range map[string]struct {
		cmdline []string
		has     []string
	}{
		"Zephyr's": {nil, []string{"net=192.0.2.0/24,host=192.0.2.2,dns=192.0.2.3,dhcpstart=192.0.2.1", "hostfwd=udp:127.0.0.1:0-192.0.2.1:4242",
			"ipv6-prefix=2001:db8::,ipv6-prefixlen=64,ipv6-host=2001:db8::2"}},
		"dhcp":         {[]string{"guesthouse.ip=dhcp"}, []string{"dhcpstart=192.0.2.1", "0-192.0.2.1:4242"}},
		"none":         {[]string{"guesthouse.ip=none"}, []string{"0-192.0.2.1:4242"}},
		"the host's":   {[]string{"guesthouse.ip=192.0.2.2/24"}, []string{"host=192.0.2.1,dns=192.0.2.3,dhcpstart=192.0.2.2", "0-192.0.2.2:4242"}},
		"another":      {[]string{"quiet guesthouse.ip=10.7.0.9/16"}, []string{"net=10.7.0.0/16,host=10.7.0.1,", "0-10.7.0.9:4242"}},
		"last counts":  {[]string{"guesthouse.ip=10.7.0.9/16", "guesthouse.ip=10.8.0.9/16"}, []string{"net=10.8.0.0/16"}},
		"another IPv6": {[]string{"guesthouse.ip6=fd00::1/64"}, []string{"ipv6-prefix=fd00::,ipv6-prefixlen=64,ipv6-host=fd00::2"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := minimal(t)
			s.Ports, s.Cmdline = []string{"udp/4242"}, c.cmdline
			command, err := s.Command()
			require.NoError(t, err)
			for _, part := range c.has {
				require.Contains(t, strings.Join(command, " "), part)
			}
		})
	}
}

// Without the harness's filter, QEMU can only cut the guest off from the network.
func TestCommandAllowsNoMoreThanTheHarness(t *testing.T) {
	s := minimal(t)
	s.Ports = []string{"tcp/80"}
	for outbound, restricted := range map[Outbound]bool{"": true, OutboundNone: true, OutboundInternet: false} {
		s.Outbound = outbound
		command, err := s.Command()
		require.NoError(t, err)
		require.Equal(t, restricted, strings.Contains(strings.Join(command, " "), ",restrict=on,"), "%q", outbound)
	}
	s.Outbound = OutboundHost
	_, err := s.Command()
	require.ErrorContains(t, err, `"host" needs the harness`)
}

// staticProgram returns the smallest file that passes for a program of x86_64.
func staticProgram(t *testing.T) (file string) {
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: 0x1000, Ehsize: 64}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	var b bytes.Buffer
	require.NoError(t, binary.Write(&b, binary.LittleEndian, h))
	file = filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(file, b.Bytes(), 0o755))
	return file
}

func TestCommandCannotDeliverAProgram(t *testing.T) {
	s := minimal(t)
	s.Initramfs, s.Program = s.Kernel, staticProgram(t)
	_, err := s.Command()
	require.ErrorContains(t, err, "program "+s.Program+": only the harness delivers it: for a QEMU command, build it into the initramfs")
}

func TestQEMUArgsComeLast(t *testing.T) {
	s := minimal(t)
	s.QEMUArgs = []string{"-smp", "2"}
	command, err := s.Command()
	require.NoError(t, err)
	require.Equal(t, "qemu-system-x86_64", command[0])
	require.Equal(t, []string{"-smp", "2"}, command[len(command)-2:])
}

func TestASpecIsTheSameAfterJSON(t *testing.T) {
	s := minimal(t)
	s.Ports, s.Cmdline, s.Memory, s.Crashes = []string{"udp/1"}, []string{"x=1"}, 128, []string{`FATAL\b`}
	s.CPUs, s.Disks = 2, []Disk{{File: "/disk", Format: "raw", Write: true}, {Size: 1}}
	s.Program, s.Args, s.Env = "/program", []string{"-v", ""}, []string{"K=V"}
	s.Origin = &Origin{ProgramSHA256: "12", Guest: "a/guest"}
	text, err := json.Marshal(s)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "spec.json")
	require.NoError(t, os.WriteFile(file, text, 0o644))
	got, err := ReadSpec(file)
	require.NoError(t, err)
	require.Equal(t, s, got)

	require.NoError(t, os.WriteFile(file, []byte(`{"target": "x86_64", "prots": ["udp/1"]}`), 0o644))
	_, err = ReadSpec(file)
	require.ErrorContains(t, err, `unknown field "prots"`, "a misspelt field is not ignored")
}

func TestABoardsMachineIsWhatItsSystemExpects(t *testing.T) {
	s := minimal(t)
	s.Target, s.Board = "", "zephyr/qemu_x86"
	words, err := s.Command()
	require.NoError(t, err)
	command := strings.Join(words, " ")
	require.Contains(t, command, "qemu-system-i386 ")
	require.Contains(t, command, " -machine q35,accel=tcg -cpu qemu32,+nx,+pae -m 32 ")
	require.Contains(t, command, " -device e1000,addr=2,romfile=,netdev=net0 -device isa-debug-exit,iobase=0xf4,iosize=0x04 -kernel "+s.Kernel)
	require.NotContains(t, command, "-append")
	require.NotContains(t, command, "virtio")

	s.Machine, s.CPU, s.Memory, s.NICs = "pc", "max", 48, []NIC{{Model: "e1000e", Bus: "pci.0", Slot: "5", MAC: "52:54:00:12:34:56"}}
	words, err = s.Command()
	require.NoError(t, err)
	command = strings.Join(words, " ")
	require.Contains(t, command, " -machine pc,accel=tcg -cpu max -m 48 ")
	require.Contains(t, command, " -device e1000e,bus=pci.0,addr=5,mac=52:54:00:12:34:56,romfile=,netdev=net0 ")

	s = minimal(t)
	s.Target, s.Board = "", "uboot/qemu_arm64"
	words, err = s.Command()
	require.NoError(t, err)
	require.Contains(t, strings.Join(words, " "), " -bios "+s.Kernel+" ")
}
