// Package uboot finds the images of Debian's package u-boot-qemu, for tests. U-Boot is a guest that somebody else has
// made, without an agent.
package uboot

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var images = map[string]struct{ board, file string }{
	"x86":    {"uboot/qemu-x86", "qemu-x86/u-boot.rom"},
	"x86_64": {"uboot/qemu-x86_64", "qemu-x86_64/u-boot.rom"},
	"arm":    {"uboot/qemu_arm", "qemu_arm/u-boot.bin"},
	"arm64":  {"uboot/qemu_arm64", "qemu_arm64/u-boot.bin"},
}

// Image returns the board and the image for a target. make test installs the images where apt-get exists. Where it does
// not, a missing image skips the test; elsewhere it fails the test.
func Image(t testing.TB, target string) (board, file string) {
	t.Helper()
	u := images[target]
	file = filepath.Join("/usr/lib/u-boot", u.file)
	if _, err := os.Stat(file); err != nil {
		if _, noApt := exec.LookPath("apt-get"); noApt != nil {
			t.Skipf("U-Boot is missing, and this host has no apt-get that could install it: %v", err)
		}
		t.Fatalf("install U-Boot with: apt-get install --no-install-recommends u-boot-qemu: %v", err)
	}
	return u.board, file
}
