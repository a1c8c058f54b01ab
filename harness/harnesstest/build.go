package harnesstest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/images"
	"guesthouse.example/internal/testcache"
)

// builds holds the Spec of each target and guest program, because the sources do not change while a test
// binary runs.
var builds sync.Map // "target guest" → func() (harness.Spec, error)

// Spec builds the guest program for the target and returns a Spec that boots it. The guest
// is an import path, or the path of a directory that begins with a dot. The first build may
// take a minute or two. It reports its progress on standard error, which go test -v shows at once.
//
// The Spec's initramfs is a platform, and its Program is the guest program, so an edit of
// the program costs no boot. With GUESTHOUSE_BUILTIN=1 the program is part of the initramfs.
func Spec(t testing.TB, target, guest string) harness.Spec {
	t.Helper()
	builtIn := readSettings(t).builtIn
	build, _ := builds.LoadOrStore(fmt.Sprint(target, " ", guest, " ", builtIn), sync.OnceValues(func() (harness.Spec, error) {
		return buildSpec(target, guest, builtIn, images.Options{Compiling: expect(t)})
	}))
	return specOf(t, target, guest, build.(func() (harness.Spec, error)))
}

// SpecWith is like Spec, with options for the image: further files, build flags, or your own
// kernel. The build logs to standard error unless the options have a Log.
func SpecWith(t testing.TB, target, guest string, options images.Options) harness.Spec {
	t.Helper()
	builtIn := readSettings(t).builtIn
	if options.Compiling == nil {
		options.Compiling = expect(t)
	}
	return specOf(t, target, guest, func() (harness.Spec, error) { return buildSpec(target, guest, builtIn, options) })
}

// expect returns a function that has the platform restored while the program is compiled. It returns nil if
// machines boot.
func expect(t testing.TB) func(images.Image) {
	if readSettings(t).cold {
		return nil
	}
	return func(platform images.Image) {
		templates().Expect(context.Background(), specFor(platform, images.Executable{}))
	}
}

// BuiltInSpec is like Spec, but the guest program is part of the initramfs, as "guesthouse build" makes it.
// It is for a kernel without virtio_console: such a guest has no agent that could take a program.
func BuiltInSpec(t testing.TB, target, guest string) harness.Spec {
	t.Helper()
	return specOf(t, target, guest, func() (harness.Spec, error) { return buildSpec(target, guest, true, images.Options{}) })
}

// Platform returns a Spec that boots a machine without a guest program, for a test that only runs
// commands in it; see Machine.Output. Its kernel and initramfs are those of Spec.
func Platform(t testing.TB, target string) harness.Spec {
	t.Helper()
	build, _ := builds.LoadOrStore(target+" platform", sync.OnceValues(func() (harness.Spec, error) {
		return buildPlatform(target)
	}))
	return specOf(t, target, "", build.(func() (harness.Spec, error)))
}

func buildPlatform(target string) (harness.Spec, error) {
	defer reportProgress(os.Stderr, building(target, ""))()
	image, err := images.Platform(context.Background(), target, images.Options{Log: os.Stderr})
	spec := specFor(image, images.Executable{})
	spec.Ready = harness.PlatformReady
	return spec, err
}

func specOf(t testing.TB, target, guest string, build func() (harness.Spec, error)) harness.Spec {
	t.Helper()
	Require(t, target)
	t.Cleanup(testcache.Look) // the guest's sources may have been edited meanwhile
	defer beforeDeadline(t, func() { reportTimeout(t, building(target, guest)) })()
	spec, err := build()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { collectCoverage(t) }) // after the Cleanups that end the machines
	spec.CoverDir = coverDir()
	return spec
}

func building(target, guest string) string {
	if guest == "" {
		return target + ": building the platform"
	}
	return fmt.Sprintf("%s: building the guest %s", target, guest)
}

// buildSpec builds the files of a Spec. If builtIn is true, the guest is part of the initramfs.
func buildSpec(target, guest string, builtIn bool, options images.Options) (harness.Spec, error) {
	defer reportProgress(os.Stderr, building(target, guest))()
	options.Log = cmp.Or[io.Writer](options.Log, os.Stderr)
	options.BuildFlags = slices.Concat(coverFlags(), options.BuildFlags)
	if builtIn {
		image, err := images.Build(context.Background(), target, guest, options)
		return specFor(image, images.Executable{}), err
	}
	platform, program, err := images.PlatformAndProgram(context.Background(), target, guest, options)
	return specFor(platform, program), err
}

// specFor returns the Spec of a machine that boots an image. If the image is a platform, the program is
// delivered into it.
func specFor(image images.Image, program images.Executable) harness.Spec {
	return harness.Spec{Target: image.Target, Kernel: image.Kernel, Initramfs: image.Initramfs, Program: program.Path,
		Origin: &harness.Origin{
			KernelSHA256: image.KernelSHA256, KernelPackage: strings.TrimSpace(image.KernelPackage + " " + image.KernelVersion),
			InitramfsSHA256: image.InitramfsSHA256, ProgramSHA256: program.SHA256, Guest: cmp.Or(image.Guest, program.Guest),
		}}
}

const (
	firstReport = 5 * time.Second // from the start of a build to the first report
	reportEvery = 10 * time.Second
)

// reportProgress reports how long a step has been running, at first after firstReport and then
// every reportEvery, until stop is called.
func reportProgress(out io.Writer, step string) (stop func()) {
	began, ended, done := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		reported := false
		for wait := firstReport; ; wait = reportEvery {
			select {
			case <-time.After(wait):
				fmt.Fprintf(out, "guesthouse: %s: %.0f s\n", step, time.Since(began).Seconds())
				reported = true
			case <-ended:
				if reported {
					fmt.Fprintf(out, "guesthouse: %s took %.0f s\n", step, time.Since(began).Seconds())
				}
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}
