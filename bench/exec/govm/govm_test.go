package govm

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/vmtest/govmtest"
	"github.com/hugelgupf/vmtest/qemu"
	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"
)

// The benchmark compiles this package's tests, and sets these variables and those of vmtest.
const (
	modules = "BENCH_MODULES"   // the kernel's modules that the guest loads, as uimage.WithFiles takes them
	cmdline = "BENCH_CMDLINE"   // added to the kernel's command line
	output  = "BENCH_INITRAMFS" // the file that TestInitramfs writes
	empty   = "BENCH_PACKAGE"   // the package whose test TestEmpty runs
	skipped = "only the benchmark runs this test"
)

// TestInitramfs builds the initramfs that govmtest.Run would build at each call.
func TestInitramfs(t *testing.T) {
	if os.Getenv(output) == "" {
		t.Skip(skipped)
	}
	err := uimage.Create(llog.Test(t),
		uimage.WithEnv(golang.DisableCGO(), golang.WithGOARCH(string(qemu.GuestArch()))),
		uimage.WithCPIOOutput(os.Getenv(output)), uimage.WithTempDir(t.TempDir()),
		uimage.WithBusyboxCommands(
			"github.com/u-root/u-root/cmds/core/init",
			"github.com/hugelgupf/vmtest/vminit/shutdownafter",
			"github.com/hugelgupf/vmtest/vminit/vmmount",
			"github.com/hugelgupf/vmtest/vminit/gouinit"),
		uimage.WithBinaryCommands("cmd/test2json"),
		uimage.WithInit("init"),
		uimage.WithUinit("shutdownafter", "--", "vmmount", "--", "gouinit"),
		uimage.WithFiles(strings.Fields(os.Getenv(modules))...))
	if err != nil {
		t.Fatal(err)
	}
}

// TestEmpty runs an empty test with govmtest.
func TestEmpty(t *testing.T) {
	if os.Getenv(empty) == "" {
		t.Skip(skipped)
	}
	govmtest.Run(t, "vm", govmtest.WithPackageToTest(os.Getenv(empty)),
		govmtest.WithQEMUFn(qemu.WithAppendKernel(os.Getenv(cmdline)), qemu.WithVMTimeout(time.Minute),
			qemu.LogSerialByLine(qemu.DefaultPrint("vm", t.Logf))))
}
