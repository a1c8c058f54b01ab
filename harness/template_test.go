package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/template"
)

func TestATemplateFitsOnlyTheSameMachine(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "qemu")
	require.NoError(t, os.WriteFile(binary, []byte("one"), 0o755))
	base := minimal(t)
	base.Initramfs = base.Kernel
	identify := func(s Spec) template.Identity {
		p, err := s.plan()
		require.NoError(t, err)
		p.qemu.Binary = binary
		id, err := p.identity()
		require.NoError(t, err)
		return id
	}
	saved := &template.Template{Description: template.Description{Of: identify(base)}}
	require.NoError(t, saved.Fits(identify(base)))

	// The templates of a platform serve all programs.
	program := base
	program.Program, program.Args = "/proc/self/exe", []string{"-v"}
	delivered := identify(program)
	platform := base
	platform.Ready = PlatformReady
	for what, change := range map[string]func(*Spec){
		"program": func(s *Spec) { s.Program = "/bin/true" },
		"argument or environment variable of the program": func(s *Spec) { s.Args = []string{"-q"} },
		"ready pattern": func(s *Spec) { s.Ready = "login:" },
	} {
		s := program
		change(&s)
		other := identify(s)
		require.EqualError(t, (&template.Template{Description: template.Description{Of: delivered}}).Fits(other), "the template was saved with another "+what)
		require.Equal(t, identify(platform), other.Platform(PlatformReady))
	}

	for what, change := range map[string]func(*Spec){
		"target": func(s *Spec) { s.Target = "arm" },
		"kernel": func(s *Spec) {
			s.Kernel = filepath.Join(t.TempDir(), "kernel")
			require.NoError(t, os.WriteFile(s.Kernel, []byte("another"), 0o644))
		},
		"initramfs":     func(s *Spec) { s.Initramfs = "" },
		"ready pattern": func(s *Spec) { s.Ready = "login:" },
		"Outbound":      func(s *Spec) { s.Outbound = OutboundInternet },
	} {
		s := base
		change(&s)
		require.EqualError(t, saved.Fits(identify(s)), "the template was saved with another "+what)
	}
	for what, change := range map[string]func(*Spec){
		"memory":       func(s *Spec) { s.Memory = 512 },
		"command line": func(s *Spec) { s.Cmdline = []string{"loglevel=7"} },
		"address":      func(s *Spec) { s.Cmdline = []string{"guesthouse.ip=10.0.0.2/24"} },
	} {
		s := base
		change(&s)
		require.EqualError(t, saved.Fits(identify(s)), "the template was saved with another memory, processors, devices, network or command line", what)
	}

	s := base
	s.Ports = []string{"tcp/80"}
	s.Kernel = filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.WriteFile(s.Kernel, []byte("anything"), 0o644))
	require.NoError(t, saved.Fits(identify(s)), "the ports and the kernel's path do not matter")

	require.NoError(t, os.WriteFile(binary, []byte("another"), 0o755))
	require.EqualError(t, saved.Fits(identify(base)), "the template was saved with another QEMU")
}

func TestARestoredMachineReadsNoKernel(t *testing.T) {
	s := minimal(t)
	s.Initramfs = s.Kernel
	p, err := s.check()
	require.NoError(t, err)
	require.Contains(t, p.qemu.Args(qemu.SharedRAM, nil), p.qemu.Kernel)
	require.NotContains(t, p.qemu.Args(qemu.RestoredRAM, nil), p.qemu.Kernel)
	require.NotContains(t, p.qemu.Args(qemu.ReadOnlyRAM, nil), p.qemu.Kernel)
}

func TestNoTemplateSaysWhyAMachineHasNone(t *testing.T) {
	for why, change := range map[string]func(*Spec){
		"":                                 func(s *Spec) {},
		"it has QEMU arguments of its own": func(s *Spec) { s.QEMUArgs = []string{"-pidfile", "pid"} },
		"KVM has restored no machine on this host: KVM was not probed": func(s *Spec) { s.Accel = KVM },
	} {
		s := minimal(t)
		change(&s)
		p, err := s.plan()
		require.NoError(t, err)
		require.Equal(t, why, p.noTemplate())
	}
}

func TestColdIsTheSameAfterJSON(t *testing.T) {
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

func TestQEMUOpensATemplatesMemoryReadOnlyFromVersion82(t *testing.T) {
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
	require.Contains(t, strings.Join(p.qemu.Args(qemu.ReadOnlyRAM, nil), " "), ",share=off,readonly=on,rom=off")
	require.NotContains(t, strings.Join(p.qemu.Args(qemu.RestoredRAM, nil), " "), "readonly=on")
}
