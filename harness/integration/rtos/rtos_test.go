package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/uboot"
)

// The program tries any image, so it is tried itself with one that make test installs.
func TestRunTriesUBoot(t *testing.T) {
	harnesstest.Require(t, "arm64")
	board, image := uboot.Image(t, "arm64")
	var out, errs bytes.Buffer
	status := run(t.Context(), []string{"-board", board, "-elf", image, "-command", "version", "-answer", `^U-Boot 20\d\d\.\d\d`,
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
	require.Equal(t, 1, run(t.Context(), []string{"-board", "zephyr/vax", "-elf", "u-boot.bin"}, &out, &errs))
	require.Contains(t, out.String(), `BROKEN: boot: unknown board "zephyr/vax"`)
}
