package harness

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/sys"
)

// A verdict says whether a kernel booted under KVM.
type verdict struct {
	Boots    bool   `json:"boots"`
	Evidence string `json:"evidence"`

	file string // that holds it, if one does
}

// verdictFormat changes with what a verdict means.
const verdictFormat = 2

// A verdictKey is all on which a verdict depends.
type verdictKey struct {
	Format  int    `json:"format"`
	Host    string `json:"host"` // the boot of it
	Target  string `json:"target"`
	QEMU    string `json:"qemu"` // path, size and time of change of the binary
	Machine string `json:"machine"`
	CPU     string `json:"cpu"`
	Kernel  string `json:"kernel"`
}

// verdictFile is what the cache holds.
type verdictFile struct {
	Of verdictKey `json:"of"`
	verdict
}

func (p *plan) verdictKey() (key verdictKey, err error) {
	q := p.qemu
	q.KVM = true
	key.Format, key.Target = verdictFormat, p.spec.Target
	key.Machine, key.CPU = q.Model()
	if key.Host, err = sys.BootID(); err != nil {
		return key, err
	}
	if key.QEMU, err = qemu.Identity(q.Binary); err == nil {
		key.Kernel, err = regular.SHA256(q.Kernel)
	}
	return key, err
}

// verdict returns what is known of a key; what is not known is found out, by one
// process at a time. A cache that cannot be written only means that the next
// process finds out again.
func (l *ladder) verdict(ctx context.Context, key verdictKey, doubt bool, find func() (verdict, error)) (v verdict, err error) {
	if v, known := l.known(key, doubt); known {
		return v, nil
	}
	dir, err := l.cache()
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	cached := err == nil
	if cached {
		lock := flock.New(filepath.Join(dir, key.Target+".lock"))
		defer lock.Close()
		_, err = lock.TryLockContext(ctx, 25*time.Millisecond)
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		cached = err == nil
		l.load(dir, key.Host)
	}
	if v, known := l.known(key, doubt); known {
		return v, nil
	}
	if v, err = find(); err != nil {
		return v, err
	}
	if cached {
		v.file = writeVerdict(dir, verdictFile{key, v})
	}
	l.remember(key, v)
	return v, nil
}

// known returns the verdict of a key. If doubt will do it is also that of another
// kernel, when none of that machine has ever booted here.
func (l *ladder) known(key verdictKey, doubt bool) (v verdict, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, known = l.verdicts[key]; known || !doubt {
		return v, known
	}
	for other, of := range l.verdicts {
		other.Kernel = key.Kernel
		if other != key {
			continue
		}
		if of.Boots {
			return verdict{}, false
		}
		v, known = of, true
	}
	v.Evidence = "of another kernel: " + v.Evidence
	return v, known
}

func (l *ladder) remember(key verdictKey, v verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.verdicts == nil {
		l.verdicts = make(map[verdictKey]verdict)
	}
	l.verdicts[key] = v
}

// keepVerdicts is how long those of earlier boots stay: hosts may share the
// directory, so nobody knows which boots are over.
const keepVerdicts = 30 * 24 * time.Hour

// load remembers what the cache knows of this boot of the host.
func (l *ladder) load(dir, host string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.json*")) // also what a writer that was killed has left
	for _, file := range files {
		var saved verdictFile
		text, err := regular.ReadFile(file)
		whole := err == nil && json.Unmarshal(text, &saved) == nil && strings.HasSuffix(file, ".json")
		if whole && saved.Of.Host == host {
			saved.file = file
			l.remember(saved.Of, saved.verdict)
		} else if info, err := os.Stat(file); err == nil && time.Since(info.ModTime()) > keepVerdicts {
			_ = os.Remove(file)
		}
	}
}

// writeVerdict writes a file at once and returns its name, "" if it cannot be
// written. The lock of the target is held.
func writeVerdict(dir string, v verdictFile) string {
	key, err := json.Marshal(v.Of)
	if err != nil {
		return ""
	}
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return ""
	}
	file := filepath.Join(dir, fmt.Sprintf("%x.json", sha256.Sum256(key)))
	if os.WriteFile(file+".new", append(text, '\n'), 0o600) != nil || os.Rename(file+".new", file) != nil {
		return ""
	}
	return file
}
