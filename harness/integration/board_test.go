package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/console"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/baremetal"
	"guesthouse.example/harness/internal/uboot"
)

// ubootCrashes are lines that crash U-Boot, and the words of its crash. The keys are targets.
var ubootCrashes = map[string]struct{ types, says string }{
	"x86":    {"mw.l 2000000 0b0f0b0f\ngo 2000000", "### ERROR ### Please RESET the board ###"},
	"x86_64": {"mw.l 2000000 0b0f0b0f\ngo 2000000", "it restarted"},
	"arm":    {"md.l e0000000", "data abort"},
	"arm64":  {"md.l f000000000000000", `"Synchronous Abort" handler, esr 0x96000004`},
}

// ubootSpec returns the Spec of a machine that runs U-Boot.
func ubootSpec(t *testing.T, target string) harness.Spec {
	board, image := uboot.Image(t, target)
	return harness.Spec{Board: board, Kernel: image}
}

// A foreign guest without an agent boots, is saved and restored, and has a network, on a board of every target.
func TestUBootIsBootedAndRestored(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := ubootSpec(t, target)
		cache := &harness.TemplateCache{Dir: t.TempDir()}
		spec.From = cache
		for _, want := range []harness.BootMode{harness.BootCold, harness.BootRestored} {
			m := harnesstest.Boot(t, spec)
			r := m.Result()
			require.Equal(t, want, r.Boot, r.Why)
			require.Equal(t, spec.Board, r.Board)
			require.Equal(t, target, r.Target)
			require.Equal(t, want == harness.BootRestored, r.Unseeded)
			require.Equal(t, want == harness.BootRestored, r.ClockLate > 0)
			m.Send("version")
			m.Expect(`^U-Boot 20\d\d`)
			m.Expect(`^=> `)
			m.Send("setenv ipaddr 192.0.2.1; ping 192.0.2.2")
			m.Expect(`^host 192\.0\.2\.2 is alive`)
			m.Expect(`^=> `)
			m.Shutdown()
			require.Equal(t, harness.StateEnded, m.Result().State)
		}
		all := templates(t, cache)
		require.Len(t, all, 1)
		require.Equal(t, spec.Board, all[0].Target)
		if target != oneTarget(t) {
			return
		}
		spec.CPU = map[string]string{"x86": "qemu64", "x86_64": "max", "arm": "cortex-a7", "arm64": "cortex-a53"}[target]
		m := harnesstest.Boot(t, spec)
		require.Equal(t, "cold: the first boot of its kind, saved for the next", string(m.Result().Boot)+": "+m.Result().Why, "another processor is another kind")
		m.Close()
	})
}

// The harness sees what a foreign guest prints when it crashes, without being told.
func TestACrashOfUBootIsReported(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		m, err := harness.Boot(t.Context(), ubootSpec(t, target))
		require.NoError(t, err)
		defer m.Close()
		for i, line := range strings.Split(ubootCrashes[target].types, "\n") {
			if i > 0 {
				ctx, cancel := m.Within(t.Context(), harnesstest.Within)
				_, err := m.Console().Expect(ctx, `^=> $`) // U-Boot loses keys that are typed before its prompt
				cancel()
				require.NoError(t, err)
			}
			require.NoError(t, m.Console().Send(t.Context(), line))
		}
		err = m.Wait(t.Context())
		require.ErrorIs(t, err, harness.ErrGuest)
		require.ErrorContains(t, err, ubootCrashes[target].says)
	})
}

// The status that a guest gives to isa-debug-exit is its exit status.
func TestDebugExitIsTheExitStatus(t *testing.T) {
	t.Parallel()
	for status, command := range map[int]string{0: "iow.l f4 0", 3: "iow.l f4 3"} {
		harnesstest.Require(t, "x86")
		m, err := harness.Boot(t.Context(), ubootSpec(t, "x86"))
		require.NoError(t, err)
		defer m.Close()
		require.NoError(t, m.Console().Send(t.Context(), command))
		require.NoError(t, m.WaitExit(t.Context(), status))
		require.Equal(t, &harness.Exit{Status: status, Why: "isa-debug-exit"}, m.Result().Exit)
	}
}

// A status that a guest of ARM gives to semihosting is its exit status. Semihosting gives it no file of the host.
func TestSemihostingEndsTheGuestAndOpensNoFile(t *testing.T) {
	t.Parallel()
	for target, board := range map[string]string{"arm": "zephyr/qemu_cortex_a7", "arm64": "zephyr/qemu_cortex_a53"} {
		harnesstest.Require(t, target)
		dir := t.TempDir()
		kernel, file := filepath.Join(dir, "kernel"), filepath.Join(dir, "file")
		guest, err := baremetal.Semihosting(target, bareMetalSays, file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(kernel, guest, 0o644))
		require.NoError(t, os.WriteFile(file, []byte("the host's"), 0o644))
		spec := harness.Spec{Board: board, Kernel: kernel, Ready: "^" + bareMetalSays + "$", From: &harness.TemplateCache{Dir: t.TempDir()}}
		for _, status := range []int{0, 1, 37} { // the first machine boots, and the others are restored
			m, err := harness.Boot(t.Context(), spec)
			require.NoError(t, err)
			defer m.Close()
			if err := m.Console().Type(t.Context(), []byte{byte(status)}); err != nil {
				require.ErrorIs(t, err, console.ErrEnded, "the guest ends at once")
			}
			require.NoError(t, m.WaitExit(t.Context(), status))
			require.Equal(t, &harness.Exit{Status: status, Why: "semihosting"}, m.Result().Exit)
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, "the host's", string(content))
		}
	}
}

// A foreign guest gets its address from QEMU's network. A reset ends its machine, because a test would otherwise
// talk to a guest that has forgotten what it was told.
func TestUBootAsksForItsAddressAndIsReset(t *testing.T) {
	t.Parallel()
	m, err := harness.Boot(t.Context(), ubootSpec(t, oneTarget(t)))
	require.NoError(t, err)
	defer m.Close()
	for _, step := range []struct{ types, shows string }{
		{"setenv autoload no; dhcp", `^DHCP client bound to address 192\.0\.2\.1 `},
		{"printenv ipaddr gatewayip", `^ipaddr=192\.0\.2\.1$`},
	} {
		require.NoError(t, m.Console().Send(t.Context(), step.types))
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		_, err := m.Console().Expect(ctx, step.shows)
		require.NoError(t, err)
		_, err = m.Console().Expect(ctx, `^=> $`) // U-Boot loses keys that are typed before its prompt
		require.NoError(t, err)
		cancel()
	}
	require.NoError(t, m.Console().Send(t.Context(), "reset"))
	err = m.Wait(t.Context())
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "it restarted")
}

// A board's machine without a power-off command is ended by force, which is no failure.
func TestABoardWithoutPowerOffIsEnded(t *testing.T) {
	t.Parallel()
	for target, board := range map[string]string{"x86": "zephyr/qemu_x86", "arm64": "zephyr/qemu_cortex_a53"} {
		harnesstest.Require(t, target)
		file := filepath.Join(t.TempDir(), target)
		guest, err := baremetal.ELF(target, bareMetalSays)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, guest, 0o644))
		spec := harness.Spec{Board: board, Kernel: file, Ready: "^" + bareMetalSays + "$", From: &harness.TemplateCache{Dir: t.TempDir()}}
		for _, want := range []harness.BootMode{harness.BootCold, harness.BootRestored} {
			m, err := harness.Boot(t.Context(), spec)
			require.NoError(t, err)
			require.Equal(t, want, m.Result().Boot, m.Result().Why)
			require.NoError(t, m.Shutdown(t.Context()))
			require.Equal(t, harness.StateEnded, m.Result().State)
		}
	}
}

// A board's machine is prefetched as any other.
func TestABoardIsPrefetched(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := ubootSpec(t, target)
	cache := &harness.TemplateCache{Dir: t.TempDir(), Prefetch: true}
	t.Cleanup(cache.Close)
	waits(t, cache, spec)
	spec.From = cache
	m := harnesstest.Boot(t, spec)
	require.Equal(t, harness.BootPrefetched, m.Result().Boot, m.Result().Why)
	require.True(t, m.Result().Unseeded)
	m.Send("version")
	m.Expect(`^U-Boot 20\d\d`)
}

// A guest that its processor does not suit often restarts before it prints anything.
func TestARestartBeforeTheFirstByteNamesTheHardware(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, "x86")
	guest, err := baremetal.ELF("x86", bareMetalSays)
	require.NoError(t, err)
	code := bytes.Index(guest, []byte{0xfc, 0xbe}) // cld; mov esi
	require.Positive(t, code)
	copy(guest[code:], []byte{0x0f, 0x0b}) // ud2: without handlers, an exception resets the processor
	file := filepath.Join(t.TempDir(), "guest")
	require.NoError(t, os.WriteFile(file, guest, 0o644))
	_, err = harness.Boot(t.Context(), harness.Spec{Board: "zephyr/qemu_x86", Kernel: file, Ready: bareMetalSays})
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "boot zephyr/qemu_x86: the guest failed: it restarted before it printed anything: "+
		"the image may be for another board, or need another processor than -cpu qemu32,+nx,+pae, another machine than -machine q35, or more than 32 MiB of memory")
}

// QEMU puts the file of a loader into memory, and another content of the file is another kind of machine.
func TestALoaderPutsAFileIntoMemory(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, "x86")
	dir := t.TempDir()
	kernel, text := filepath.Join(dir, "kernel"), filepath.Join(dir, "a text, with a comma")
	require.NoError(t, os.WriteFile(kernel, baremetal.Prints(0x200000), 0o644))
	spec := harness.Spec{Board: "zephyr/qemu_x86", Kernel: kernel, Ready: "^loaded: .*!$", From: &harness.TemplateCache{Dir: t.TempDir()},
		Loaders: []harness.Loader{{File: text, Addr: 0x200000}}}
	for _, c := range []struct {
		says string
		boot harness.BootMode
	}{{"loaded: one!", harness.BootCold}, {"loaded: one!", harness.BootRestored}, {"loaded: two!", harness.BootCold}} {
		require.NoError(t, os.WriteFile(text, []byte(c.says+"\r\n\x00"), 0o644))
		m := harnesstest.Boot(t, spec)
		require.Equal(t, c.boot, m.Result().Boot, m.Result().Why)
		if c.boot == harness.BootCold { // a restored machine prints no boot
			require.Contains(t, m.Console().Text(), c.says)
		}
		m.Close()
		sum := sha256.Sum256([]byte(c.says + "\r\n\x00"))
		require.Equal(t, []string{hex.EncodeToString(sum[:])}, m.Result().LoaderSHA256)
	}
}
