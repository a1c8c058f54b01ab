package main

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

const uboot = "/usr/lib/u-boot/qemu_arm64/u-boot.bin" // of Debian's package u-boot-qemu

// The program tries any image, so it is tried itself with one that make test installs.
func TestRunTriesUBoot(t *testing.T) {
	harnesstest.Require(t, "arm64")
	if _, err := os.Stat(uboot); err != nil {
		if _, noApt := exec.LookPath("apt-get"); noApt != nil {
			t.Skipf("U-Boot is missing, and this host has no apt-get that could install it: %v", err)
		}
		t.Fatalf("install U-Boot with: apt-get install --no-install-recommends u-boot-qemu: %v", err)
	}
	var out, errs bytes.Buffer
	status := run(t.Context(), []string{"-board", "uboot/qemu_arm64", "-elf", uboot, "-command", "version", "-answer", `^U-Boot 20\d\d\.\d\d`,
		"-crash", "md.l f000000000000000"}, &out, &errs)
	require.Zero(t, status, "%s%s", &out, &errs)
	for _, line := range []string{
		`boot, cold +ready after `, `boot, restored +ready after `, `console, version +U-Boot 20`, `shutdown +ended`, `3 machines at once +3 restored`,
		`crash, md\.l f000000000000000 +"Synchronous Abort" handler, esr 0x96000004`,
	} {
		require.Regexp(t, `(?m)^`+line, out.String())
	}
	require.NotContains(t, out.String(), "BROKEN")
}

func TestRunRefusesAWrongCommandLine(t *testing.T) {
	for _, args := range [][]string{{}, {"-board", "uboot/qemu_arm64"}, {"-board", "b", "-elf", "f", "-command", "version"}, {"-board", "b", "-elf", "f", "-echo", "of whom"}} {
		var out, errs bytes.Buffer
		require.Equal(t, 2, run(t.Context(), args, &out, &errs))
		require.Contains(t, errs.String(), "rtos: give -board and -elf")
	}
	var out, errs bytes.Buffer
	require.Equal(t, 1, run(t.Context(), []string{"-board", "zephyr/vax", "-elf", uboot}, &out, &errs))
	require.Contains(t, out.String(), `BROKEN: boot: unknown board "zephyr/vax"`)
}
