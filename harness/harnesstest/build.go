package harnesstest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/images"
	"guesthouse.example/internal/testcache"
)

// builds holds the image of each target and guest program, because the sources do not
// change while a test binary runs.
var builds sync.Map // "target guest" → func() (images.Image, error)

// Spec builds the guest program for the target and returns a Spec that boots it. The guest
// is an import path, or the path of a directory that begins with a dot. The first build may
// take a minute or two. It reports its progress on standard error, which go test -v shows at once.
func Spec(t testing.TB, target, guest string) harness.Spec {
	t.Helper()
	build, _ := builds.LoadOrStore(target+" "+guest, sync.OnceValues(func() (images.Image, error) {
		return buildImage(target, guest, images.Options{})
	}))
	return specOf(t, target, guest, build.(func() (images.Image, error)))
}

// SpecWith is like Spec, with options for the image: further files, build flags, or your own
// kernel. The build logs to standard error unless the options have a Log.
func SpecWith(t testing.TB, target, guest string, options images.Options) harness.Spec {
	t.Helper()
	return specOf(t, target, guest, func() (images.Image, error) { return buildImage(target, guest, options) })
}

func specOf(t testing.TB, target, guest string, build func() (images.Image, error)) harness.Spec {
	t.Helper()
	Require(t, target)
	t.Cleanup(testcache.Look) // the guest's sources may have been edited meanwhile
	defer beforeDeadline(t, func() { reportTimeout(t, building(target, guest)) })()
	image, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return harness.Spec{Target: target, Kernel: image.Kernel, Initramfs: image.Initramfs, Origin: &harness.Origin{
		KernelSHA256: image.KernelSHA256, KernelPackage: strings.TrimSpace(image.KernelPackage + " " + image.KernelVersion),
		InitramfsSHA256: image.InitramfsSHA256, Guest: image.Guest,
	}}
}

func building(target, guest string) string {
	return fmt.Sprintf("%s: building the guest %s", target, guest)
}

func buildImage(target, guest string, options images.Options) (images.Image, error) {
	defer reportProgress(os.Stderr, building(target, guest))()
	options.Log = cmp.Or[io.Writer](options.Log, os.Stderr)
	return images.Build(context.Background(), target, guest, options)
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
