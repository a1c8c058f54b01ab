package images

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/term"

	"guesthouse.example/internal/printable"
)

// The builds of this process share the last line of the terminal. The first long
// step owns it until it ends; other steps show no progress meanwhile.
var lastLine struct {
	sync.Mutex
	owner *meter
}

type meter struct {
	f    *os.File
	stop chan struct{}
	done chan struct{}
}

const eraseLine = "\r\x1b[K"

// progress shows a label and the text of detail, and updates them several times a
// second. The function stop ends that and erases the line.
func (o Options) progress(label string, detail func(elapsed time.Duration) string) (stop func()) {
	if o.Progress == nil || !term.IsTerminal(int(o.Progress.Fd())) {
		return func() {}
	}
	m := &meter{f: o.Progress, stop: make(chan struct{}), done: make(chan struct{})}
	lastLine.Lock()
	defer lastLine.Unlock()
	if lastLine.owner != nil {
		return func() {}
	}
	lastLine.owner = m
	go m.run(label, detail)
	return sync.OnceFunc(func() {
		close(m.stop)
		<-m.done
		lastLine.Lock()
		defer lastLine.Unlock()
		lastLine.owner = nil
		fmt.Fprint(m.f, eraseLine)
	})
}

func (m *meter) run(label string, detail func(time.Duration) string) {
	defer close(m.done)
	start := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		text := []rune(label + ": " + detail(time.Since(start)))
		// A line that wraps cannot be erased.
		if w, _, err := term.GetSize(int(m.f.Fd())); err == nil && w > 0 && len(text) >= w {
			text = text[:w-1]
		}
		lastLine.Lock()
		fmt.Fprint(m.f, eraseLine+string(text))
		lastLine.Unlock()
		select {
		case <-m.stop:
			return
		case <-tick.C:
		}
	}
}

// notice writes one line to the log, above the progress line if there is one.
func (o Options) notice(format string, args ...any) {
	if o.Log == nil {
		return
	}
	lastLine.Lock()
	defer lastLine.Unlock()
	if lastLine.owner != nil {
		fmt.Fprint(lastLine.owner.f, eraseLine)
	}
	io.WriteString(o.Log, printable.Text(fmt.Sprintf("guesthouse: "+format+"\n", args...)))
}

// elapsed is the detail of a step whose length is unknown.
func elapsed(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }

// growing returns the detail of a download into a directory. A total of 0 means that
// the size is unknown.
func growing(dir string, total int64) func(time.Duration) string {
	return func(time.Duration) string {
		var size int64
		// A file that vanishes during the walk was renamed. The next walk counts it.
		_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if info, err := d.Info(); err == nil {
					size += info.Size()
				}
			}
			return nil
		})
		if total <= 0 {
			return megabytes(size) + " MB"
		}
		return megabytes(size) + " of " + megabytes(total) + " MB"
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }
