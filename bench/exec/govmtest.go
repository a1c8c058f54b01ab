package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"guesthouse.example/images"
)

// govmtest measures what the empty test of one package takes with github.com/hugelgupf/vmtest's package
// govmtest, beyond the compilation of that test. Its initramfs is there: govmtest.Run builds one at each
// call unless VMTEST_INITRAMFS_OVERRIDE names one, which takes longer than the machine does.
func (b *bench) govmtest(ctx context.Context, target string) (map[string]float64, error) {
	p, err := b.peerMachine(ctx, target)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	compile := exec.CommandContext(ctx, "go", "test", "-gcflags=all=-l", "-ldflags", "-s -w", "-c", emptyPackage, "-o", filepath.Join(b.tmp, "empty.test"))
	compile.Dir, compile.Env = p.dir, append(b.env, p.env...)
	if said, err := compile.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the empty test: %w: %s", err, said)
	}
	compiled := time.Since(began)
	began = time.Now()
	if err := p.run(ctx, b, "TestEmpty", "VMTEST_INITRAMFS_OVERRIDE="+p.initramfs, "BENCH_PACKAGE="+emptyPackage); err != nil {
		return nil, err
	}
	return milliseconds(time.Since(began) - compiled), nil
}

// emptyPackage has an empty test, in the benchmark's module, where govmtest looks for it.
const emptyPackage = "guesthouse.example/bench/exec/govm/empty"

// execPeerKernel is oneTest on the kernel that govmtest boots.
func (b *bench) execPeerKernel(ctx context.Context, target string) (map[string]float64, error) {
	return b.emptyTest(ctx, target, "./p0", "-kernel", peerTargets[target].kernel)
}

// A peerTarget is what a user of vmtest chooses. The kernel has 9p as modules, which govmtest needs.
type peerTarget struct{ arch, qemu, cmdline, kernel string }

var peerTargets = map[string]peerTarget{
	"x86":    {"386", "qemu-system-i386 -m 512", "console=ttyS0", "debian"},
	"x86_64": {"amd64", "qemu-system-x86_64 -m 512", "console=ttyS0", "debian:linux-image-amd64"},
	"arm":    {"arm", "qemu-system-arm -M virt,highmem=off -cpu cortex-a15 -m 512", "console=ttyAMA0", "debian"},
	"arm64":  {"arm64", "qemu-system-aarch64 -M virt -cpu cortex-a57 -m 512", "console=ttyAMA0", "debian:linux-image-arm64"},
}

// A peerMachine is all that govmtest needs for one target.
type peerMachine struct {
	dir       string // of the package whose test calls govmtest
	binary    string // that package's compiled tests
	initramfs string
	env       []string
}

// peerMachine prepares a machine of govmtest, at the first call.
func (b *bench) peerMachine(ctx context.Context, target string) (peerMachine, error) {
	if p, ok := b.peers[target]; ok {
		return p, nil
	}
	chosen := peerTargets[target]
	kernel, err := images.Platform(ctx, target, images.Options{Dir: b.source, Kernel: chosen.kernel, Log: os.Stderr})
	if err != nil {
		return peerMachine{}, err
	}
	modules, err := modulesOf(kernel.Modules, "virtio_pci", "virtio_console", "9pnet_virtio", "9p")
	if err != nil {
		return peerMachine{}, err
	}
	p := peerMachine{
		dir: filepath.Join(b.source, "bench", "exec", "govm"), binary: filepath.Join(b.tmp, "govm.test"), initramfs: filepath.Join(b.tmp, "govm-"+target+".cpio"),
		env: append(architecture(target), "VMTEST_ARCH="+chosen.arch, "VMTEST_QEMU="+chosen.qemu, "VMTEST_KERNEL="+kernel.Kernel,
			"BENCH_CMDLINE="+chosen.cmdline, "BENCH_MODULES="+strings.Join(modules, " ")),
	}
	if _, err := b.goIn(ctx, p.dir, nil, "test", "-c", "-o", p.binary, "."); err != nil {
		return p, err
	}
	if err := p.run(ctx, b, "TestInitramfs", "BENCH_INITRAMFS="+p.initramfs); err != nil {
		return p, err
	}
	b.peers[target] = p
	return p, nil
}

// run runs one of the tests that call govmtest.
func (p peerMachine) run(ctx context.Context, b *bench, test string, env ...string) error {
	cmd := exec.CommandContext(ctx, p.binary, "-test.v", "-test.run=^"+test+"$")
	cmd.Dir, cmd.Env = p.dir, append(append(b.env, "GOWORK=off", "GOFLAGS="), append(p.env, env...)...)
	said, err := cmd.CombinedOutput()
	if err == nil && !strings.Contains(string(said), "--- PASS: "+test) {
		err = fmt.Errorf("%s has not passed", test)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(p.binary), err, said[max(0, len(said)-2000):])
	}
	return nil
}

// modulesOf returns the kernel's modules of these names and those that they need, as uimage.WithFiles takes
// them. U-root's init loads the files /lib/modules/*.ko in the order of their names.
func modulesOf(dir string, names ...string) (files []string, err error) {
	f, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	needs := map[string][]string{} // by a module's name: its file, and then those of the modules that it needs
	for lines := bufio.NewScanner(f); lines.Scan(); {
		file, rest, _ := strings.Cut(lines.Text(), ":")
		name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
		needs[name] = append([]string{file}, strings.Fields(rest)...)
	}
	var ordered []string
	for _, name := range names {
		all := needs[name]
		for i := len(all) - 1; i >= 0; i-- {
			ordered = append(ordered, all[i])
		}
	}
	seen := map[string]bool{}
	for _, file := range ordered {
		if !seen[file] {
			seen[file] = true
			files = append(files, fmt.Sprintf("%s:lib/modules/%02d-%s", filepath.Join(dir, file), len(files), filepath.Base(file)))
		}
	}
	return files, nil
}
