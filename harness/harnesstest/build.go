package harnesstest

import (
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

// builds holds one image a target and guest: the sources do not change while a
// test binary runs.
var builds sync.Map // of "target guest" to func() (images.Image, error)

// Spec builds the guest program (an import path, or a directory that begins with
// a dot) for the target and returns a Spec that boots it. A first build, which may take
// a minute or two, says on standard error what it does and that it goes on; go test -v
// shows it meanwhile.
func Spec(t testing.TB, target, guest string) harness.Spec {
	t.Helper()
	Require(t, target)
	t.Cleanup(testcache.Look) // somebody may have edited the guest meanwhile
	doing := fmt.Sprintf("%s: building the guest %s", target, guest)
	build, _ := builds.LoadOrStore(target+" "+guest, sync.OnceValues(func() (images.Image, error) {
		defer progress(os.Stderr, doing)()
		return images.Build(context.Background(), target, guest, images.Options{Log: os.Stderr})
	}))
	defer beforeDeadline(t, func() { sayTimeout(t, doing) })()
	image, err := build.(func() (images.Image, error))()
	if err != nil {
		t.Fatal(err)
	}
	return harness.Spec{Target: target, Kernel: image.Kernel, Initramfs: image.Initramfs, Origin: &harness.Origin{
		KernelSHA256: image.KernelSHA256, KernelPackage: strings.TrimSpace(image.KernelPackage + " " + image.KernelVersion),
		InitramfsSHA256: image.InitramfsSHA256, Guest: image.Guest,
	}}
}

const (
	silentFor  = 5 * time.Second  // after which a build says that it goes on
	sayingEach = 10 * time.Second // how often it does then
)

// progress says that something goes on which takes long, until stop is called.
func progress(out io.Writer, doing string) (stop func()) {
	began, ended, told := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		said := false
		for wait := silentFor; ; wait = sayingEach {
			select {
			case <-time.After(wait):
				fmt.Fprintf(out, "guesthouse: %s: %.0f s\n", doing, time.Since(began).Seconds())
				said = true
			case <-ended:
				if said {
					fmt.Fprintf(out, "guesthouse: %s took %.0f s\n", doing, time.Since(began).Seconds())
				}
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-told
	}
}
