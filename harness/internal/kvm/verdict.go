package kvm

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/sys"
)

// A verdict tells whether a kernel booted under KVM.
type verdict struct {
	Boots    bool   `json:"boots"`
	Evidence string `json:"evidence"`

	// NotRestored says why a machine that was saved under KVM could not be restored. It is empty if it
	// could, or if the kernel does not boot.
	NotRestored string `json:"not_restored,omitempty"`

	file string // the file that holds it; empty if the cache does not
}

// format is the format of cached verdicts. Increase it when the meaning of a verdict changes.
const format = 3

// A key is everything that a verdict depends on.
type key struct {
	Format  int    `json:"format"`
	Host    string `json:"host"` // the identity of the host's boot
	Target  string `json:"target"`
	QEMU    string `json:"qemu"` // the identity of the binary
	Machine string `json:"machine"`
	CPU     string `json:"cpu"`
	Kernel  string `json:"kernel"` // its SHA-256
}

// A cachedVerdict is the content of a file in the cache.
type cachedVerdict struct {
	Of key `json:"of"`
	verdict
}

func keyOf(m qemu.Machine) (k key, err error) {
	m.KVM = true
	k.Format, k.Target = format, m.Target.Name
	k.Machine, k.CPU = m.Model()
	if k.Host, err = sys.BootID(); err != nil {
		return k, err
	}
	if k.QEMU, err = qemu.Identity(m.Binary); err != nil {
		return k, err
	}
	k.Kernel, err = regular.SHA256(m.Kernel)
	return k, err
}

// verdict returns the verdict for a key. If there is none yet, it calls find, in one process at a time.
// If the cache cannot be written, each process calls find.
func (p *Prober) verdict(ctx context.Context, k key, presume bool, find func() (verdict, error)) (v verdict, err error) {
	if v, known := p.known(k, presume); known {
		return v, nil
	}
	cache, build := p.openCache(ctx, k)
	if build != nil {
		defer build.Close()
	}
	if ctx.Err() != nil {
		return v, context.Cause(ctx)
	}
	if v, known := p.known(k, presume); known {
		return v, nil
	}
	if v, err = find(); err != nil {
		return v, err
	}
	if build != nil {
		v.file = save(cache, build, cachedVerdict{k, v})
	}
	p.remember(k, v)
	return v, nil
}

// known returns the verdict for a key. If there is none and presume is true, it returns the failure of
// another kernel on the same machine, unless a kernel has booted there.
func (p *Prober) known(k key, presume bool) (v verdict, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, known = p.verdicts[k]; known || !presume {
		return v, known
	}
	for other, found := range p.verdicts {
		other.Kernel = k.Kernel
		if other != k {
			continue
		}
		if found.Boots {
			return verdict{}, false
		}
		v, known = found, true
	}
	v.Evidence = "with another kernel: " + v.Evidence
	return v, known
}

func (p *Prober) remember(k key, v verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.verdicts == nil {
		p.verdicts = make(map[key]verdict)
	}
	p.verdicts[k] = v
}

// openCache opens the cache, loads its verdicts, and locks the build of new ones for a target. It waits
// for another process that holds the lock. It returns no build if the cache cannot be written.
func (p *Prober) openCache(ctx context.Context, k key) (cache *store.Store, build *store.Build) {
	dir, err := p.CacheDir()
	if err != nil {
		return nil, nil
	}
	if cache, err = store.Open(dir, store.Options{Private: true}); err != nil {
		return nil, nil
	}
	build, err = cache.Build(ctx, k.Target)
	p.load(cache, k.Host)
	if err != nil {
		return nil, nil
	}
	return cache, build
}

// keepStale is how long verdicts of other boots stay in the cache. Hosts may share the directory, so
// such a boot may be the current boot of another host.
const keepStale = 30 * 24 * time.Hour

// load loads the cached verdicts of this boot of the host, and removes old verdicts of other boots.
func (p *Prober) load(cache *store.Store, host string) {
	var stale []store.Entry
	for _, e := range cache.Entries("") {
		var c cachedVerdict
		text, err := regular.ReadFile(e.Path)
		if err == nil && json.Unmarshal(text, &c) == nil && c.Of.Host == host {
			c.file = e.Path
			p.remember(c.Of, c.verdict)
		} else {
			stale = append(stale, e)
		}
	}
	cache.Prune(stale, store.Limits{Keep: keepStale})
}

// save adds a verdict to the cache and returns its file, or "" if the file cannot be written.
func save(cache *store.Store, build *store.Build, c cachedVerdict) (file string) {
	k, err := json.Marshal(c.Of)
	if err != nil {
		return ""
	}
	text, err := json.MarshalIndent(c, "", "\t")
	if err != nil {
		return ""
	}
	name := fmt.Sprintf("%x.json", sha256.Sum256(k))
	if err := os.WriteFile(build.Path(name), append(text, '\n'), 0o600); err != nil {
		return ""
	}
	file = cache.Path(name)
	if err := build.Publish(name, file); err != nil {
		return ""
	}
	return file
}
