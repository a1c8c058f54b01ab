package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/qemu"
)

func TestATemplateFitsOnlyTheSameMachine(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "qemu")
	require.NoError(t, os.WriteFile(binary, []byte("one"), 0o755))
	base := minimal(t)
	base.Initramfs = base.Kernel
	identify := func(s Spec) identity {
		p, err := s.check()
		require.NoError(t, err)
		p.qemu.Binary = binary
		id, err := p.identity()
		require.NoError(t, err)
		return id
	}
	original := identify(base)
	require.Empty(t, original.differs(identify(base)))

	for what, change := range map[string]func(*Spec){
		"target": func(s *Spec) { s.Target = "arm" },
		"kernel": func(s *Spec) {
			s.Kernel = filepath.Join(t.TempDir(), "kernel")
			require.NoError(t, os.WriteFile(s.Kernel, []byte("another"), 0o644))
		},
		"initramfs":                            func(s *Spec) { s.Initramfs = "" },
		"ready pattern":                        func(s *Spec) { s.Ready = "login:" },
		"choice of what it reaches (Outbound)": func(s *Spec) { s.Outbound = OutboundInternet },
	} {
		s := base
		change(&s)
		require.Equal(t, what, original.differs(identify(s)))
	}
	for what, change := range map[string]func(*Spec){
		"memory":       func(s *Spec) { s.Memory = 512 },
		"command line": func(s *Spec) { s.Cmdline = []string{"loglevel=7"} },
		"address":      func(s *Spec) { s.Cmdline = []string{"guesthouse.ip=10.0.0.2/24"} },
	} {
		s := base
		change(&s)
		require.Equal(t, "memory, devices, network or command line", original.differs(identify(s)), what)
	}

	s := base
	s.Ports = []string{"tcp/80"}
	s.Kernel = filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.WriteFile(s.Kernel, []byte("anything"), 0o644))
	require.Empty(t, original.differs(identify(s)), "neither ports nor where a kernel lies matter")

	require.NoError(t, os.WriteFile(binary, []byte("another"), 0o755))
	require.Equal(t, "QEMU", original.differs(identify(base)))
}

func TestWhatIsRestoredReadsNoKernel(t *testing.T) {
	s := minimal(t)
	s.Initramfs = s.Kernel
	p, err := s.check()
	require.NoError(t, err)
	require.Contains(t, p.qemu.Args(qemu.SharedRAM), p.qemu.Kernel)
	require.NotContains(t, p.qemu.Args(qemu.RestoredRAM), p.qemu.Kernel)
	require.NotContains(t, p.qemu.Args(qemu.ReadOnlyRAM), p.qemu.Kernel)
}

func TestWhatHasNoTemplate(t *testing.T) {
	for why, change := range map[string]func(*Spec){
		"":                                 func(s *Spec) {},
		"it has QEMU arguments of its own": func(s *Spec) { s.QEMUArgs = []string{"-pidfile", "pid"} },
		"templates are for tcg":            func(s *Spec) { s.Accel = KVM },
	} {
		s := minimal(t)
		change(&s)
		p, err := s.plan()
		require.NoError(t, err)
		require.Equal(t, why, p.noTemplate())
	}
}

func TestASpecThatIsColdSurvivesItsJSON(t *testing.T) {
	s := minimal(t)
	s.From = Cold
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.Contains(t, string(text), `"cold":true`)
	got, err := DecodeSpec(text)
	require.NoError(t, err)
	require.Equal(t, s, got)
	s.From = &Template{}
	text, err = json.Marshal(s)
	require.NoError(t, err)
	got, err = DecodeSpec(text)
	require.NoError(t, err)
	require.Nil(t, got.From, "a record does not name a template")
}

func TestMemoryIsCopiedWithItsHoles(t *testing.T) {
	ram, err := qemu.NewRAM(4)
	require.NoError(t, err)
	defer ram.Close()
	for _, at := range []int64{0, 12345, 1 << 20, 4<<20 - 1} {
		_, err := ram.WriteAt([]byte{byte(at) | 1}, at)
		require.NoError(t, err)
	}
	_, err = ram.WriteAt(make([]byte, blockSize), 2<<20) // there, and zero
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), ramName)
	saved, err := copyRAM(t.Context(), file, ram)
	require.NoError(t, err)
	require.EqualValues(t, 4<<20, saved.Size)

	want := make([]byte, 4<<20)
	_, err = ram.ReadAt(want, 0)
	require.NoError(t, err)
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, string(want) == string(got), "every byte is the same")

	again, err := os.Open(file)
	require.NoError(t, err)
	defer again.Close()
	var blocks []int64
	require.NoError(t, dataBlocks(again, saved.Size, func(at int64, _ []byte) error {
		blocks = append(blocks, at)
		return nil
	}))
	require.Equal(t, []int64{0, 1 << 20, 4<<20 - blockSize}, blocks)
	sum, err := hashRAM(again, saved.Size)
	require.NoError(t, err)
	require.Equal(t, saved.SHA256, sum)
}

// QEMU opens a template's memory for reading alone where it can map it all the same.
func TestATemplatesMemoryIsOpenedForReadingAloneWhereQEMUCan(t *testing.T) {
	for version, want := range map[string]qemu.RAM{
		"7.2.22 Debian 1:7.2+dfsg-7+deb12u18": qemu.RestoredRAM,
		"8.1.5":                               qemu.RestoredRAM,
		"8.2.0":                               qemu.ReadOnlyRAM,
		"10.0.13 Debian 1:10.0.13+ds-0":       qemu.ReadOnlyRAM,
		"":                                    qemu.RestoredRAM,
	} {
		require.Equal(t, want, qemu.RestoreRAM(version), version)
	}
	p, err := minimal(t).plan()
	require.NoError(t, err)
	require.Contains(t, strings.Join(p.qemu.Args(qemu.ReadOnlyRAM), " "), ",share=off,readonly=on,rom=off")
	require.NotContains(t, strings.Join(p.qemu.Args(qemu.RestoredRAM), " "), "readonly=on")
}
