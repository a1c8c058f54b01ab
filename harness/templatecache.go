package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"guesthouse.example/harness/internal/warmpool"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/sys"
)

// A TemplateCache boots machines from templates that it makes itself: the first
// machine of its kind boots and is saved when it is ready, and whoever boots the
// same again has it restored. Any number of processes may share a cache.
//
// Which machines are the same is decided by a hash of QEMU's binary, its
// arguments, kernel, initramfs and ready pattern, and by the host's boot:
// templates are not kept over a restart of the host, so that not even a power cut
// leaves half of one.
type TemplateCache struct {
	// Dir is where the templates are; empty is guesthouse/templates in the
	// user's cache directory.
	Dir string

	// AnyGuest also saves guests without an agent, which draw the same random
	// numbers when they are restored and whose clock is late; see [Machine.Save].
	// Without it they boot.
	AnyGuest bool

	// Prefetch restores, when a machine is handed out, the next one of its kind, as
	// soon as a processor is idle and where memory carries it. It stands still until
	// somebody in this process asks for it, and gets its record, its ports, new
	// entropy, the clock and an identity then. Close ends those that wait, and so
	// does the end of the process, whatever that is. Guests without an agent are
	// not prefetched.
	Prefetch bool

	prefetched warmpool.Pool[*vm]
}

// Close ends the machines that wait. Those that were handed out go on, and so may
// the cache be used.
func (c *TemplateCache) Close() { c.prefetched.Close() }

// Waiting has the machines restored at once that Prefetch would restore when a processor
// is idle, and returns how many wait then.
func (c *TemplateCache) Waiting(ctx context.Context) (int, error) { return c.prefetched.Fill(ctx) }

// The cache holds no more than this, and no more than its part of what the disk
// has (sys.CacheLimit); what was used least recently goes first. A template that goes while
// machines run from it stays until the last has ended.
const (
	keepTemplates     = 64
	keepTemplateBytes = 8 << 30
)

// The directory of a cache:
//
//	KEY/       a template, whole
//	KEY.cold   why machines of this kind have none
//	locks/     what is locked while a template is made
//	tmp/KEY/   one that is being made
//	tmp/gone-* one that is being removed
func (c *TemplateCache) open() (cacheDir, error) {
	dir := c.Dir
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(base, "guesthouse", "templates")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, sub := range []string{"locks", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return "", err
		}
	}
	return cacheDir(dir), nil
}

// start restores the machine from the cache's template if there is one. If another process is making
// the template, start waits for it. A machine that is the first of its kind boots, and WaitReady
// saves it. Whatever is wrong with a template or the cache, the machine boots, and its Result says why.
func (c *TemplateCache) start(ctx context.Context, p *plan) (*Machine, error) {
	cold := func(why string) (*Machine, error) { return p.launch(ctx, nil, why) }
	if why := p.noTemplate(); why != "" {
		return cold(why)
	}
	dir, err := c.open()
	if err != nil {
		return cold("no template cache: " + oneLine(err))
	}
	id, err := p.identity()
	if err != nil {
		return cold("no template: " + oneLine(err))
	}
	key, err := c.key(id)
	if err != nil {
		return cold("no template: " + oneLine(err))
	}

	next := func() {
		if c.Prefetch {
			c.prefetched.Add(key, p.spec.Memory, func(ctx context.Context) (*vm, error) {
				return dir.prefetch(ctx, p, key)
			})
		}
	}
	v, slower := c.prefetched.Take(ctx, key)
	if v != nil {
		m, err := p.adopt(ctx, v)
		if err == nil {
			next()
			return m, nil
		}
		unusable, ok := errors.AsType[unusableError](err)
		if !ok {
			return nil, err
		}
		slower = unusable.Error()
	}
	m, why, err := dir.restore(ctx, p, key, slower)
	if m != nil {
		next()
	}
	if m != nil || err != nil {
		return m, err
	}
	if why != "" {
		return cold(why)
	}
	w, waited, err := dir.workshop(ctx, key)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("boot %s: wait for its template: %w", p.spec.Target, context.Cause(ctx))
	}
	if err != nil {
		return cold("no template: " + oneLine(err))
	}
	if waited {
		defer w.close()
		m, why, err := dir.restore(ctx, p, key, slower)
		if m != nil {
			next()
		}
		if m != nil || err != nil {
			return m, err
		}
		if why == "" {
			// Had everybody a try in turn, a guest that never gets
			// ready would keep them waiting for minutes.
			why = "no template: another boot that was to be saved was not"
		}
		return cold(why)
	}
	m, err = cold("the first boot of its kind")
	if err != nil {
		w.close()
		return nil, err
	}
	m.template.Store(&making{templateWorkshop: w, dir: dir, key: key, anyGuest: c.AnyGuest, saved: next})
	return m, nil
}

func (c *TemplateCache) key(id identity) (string, error) {
	boot, err := sys.BootID()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(id)
	if err != nil {
		return "", err
	}
	if c.AnyGuest { // nobody who did not ask for such a template gets it
		text = append(text, "any guest"...)
	}
	sum := sha256.Sum256(append(text, boot...))
	return hex.EncodeToString(sum[:16]), nil
}

type cacheDir string

func (d cacheDir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// restore restores a template of the cache. Without one it returns nothing, or
// why there is none. A template that is at fault itself is removed. The machine's record says why it is slower than a prefetched one.
func (d cacheDir) restore(ctx context.Context, p *plan, key, slower string) (m *Machine, why string, err error) {
	if reason, err := regular.ReadFile(d.path(key + ".cold")); err == nil {
		return nil, string(reason), nil
	}
	t, err := openTemplate(d.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(d.path(key)); errors.Is(err, fs.ErrNotExist) {
			return nil, "", nil
		}
	}
	if err == nil {
		t.used()
		if m, err = p.restored(ctx, t, slower); err == nil {
			return m, "", nil
		}
	}
	if ctx.Err() != nil {
		return nil, "", err
	}
	if isTemplateFault(err) {
		_ = d.remove(key) // one that cannot be removed fails again, and the machine boots again
	}
	return nil, oneLine(err), nil
}

// prefetch restores a machine from a template of the cache before it is asked for. It
// returns nothing where somebody has removed the template: who asks makes another one.
func (d cacheDir) prefetch(ctx context.Context, p *plan, key string) (*vm, error) {
	t, err := openTemplate(d.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t.used()
	return p.prefetch(ctx, t)
}

// used keeps the template in the cache for longer.
func (t *Template) used() {
	now := time.Now()
	_ = os.Chtimes(t.dir, now, now) // only decides what goes first
}

// A templateWorkshop is the exclusive right to make a template, and a directory to make
// it in.
type templateWorkshop struct {
	tmp  string
	lock *flock.Flock
}

func (d cacheDir) lock(key string) *flock.Flock {
	// Two keys that share a lock wait for each other once; lock files cannot
	// be removed.
	return flock.New(d.path("locks", key[:2]))
}

// workshop waits for the right to make a template; waited says that another had it.
func (d cacheDir) workshop(ctx context.Context, key string) (w *templateWorkshop, waited bool, err error) {
	w = &templateWorkshop{tmp: d.path("tmp", key), lock: d.lock(key)}
	ok, err := w.lock.TryLock()
	if err == nil && !ok {
		waited = true
		_, err = w.lock.TryLockContext(ctx, 10*time.Millisecond)
	}
	if err != nil {
		return nil, waited, fmt.Errorf("lock: %w", err)
	}
	// What a maker that was killed has left.
	if err = os.RemoveAll(w.tmp); err == nil {
		err = os.Mkdir(w.tmp, 0o700)
	}
	if err != nil {
		w.close()
		return nil, waited, err
	}
	return w, waited, nil
}

func (w *templateWorkshop) close() {
	// What cannot be removed now is swept by the next maker.
	_ = os.RemoveAll(w.tmp)
	_ = w.lock.Unlock()
}

// making is the template that a machine becomes when it is ready.
type making struct {
	*templateWorkshop
	dir      cacheDir
	key      string
	anyGuest bool
	saved    func() // called then
}

// finish saves the machine and says how that went. An error is the machine's.
func (t *making) finish(ctx context.Context, m *Machine) (why string, err error) {
	err = m.save(ctx, t.tmp, t.anyGuest)
	if err == nil {
		err = os.Rename(t.tmp, t.dir.path(t.key))
	}
	switch {
	case err == nil:
		t.dir.prune(keepTemplates, t.dir.room())
		t.saved()
		return "the first boot of its kind, saved for the next", nil
	case errors.Is(err, errStands), ctx.Err() != nil:
		return "", err
	}
	why = "it could not be saved: " + oneLine(err)
	if errors.Is(err, errNoAgent) {
		// So it is every time, and nobody has to wait to find out.
		_ = os.WriteFile(t.dir.path(t.key+".cold"), []byte(why), 0o600)
	}
	return why, nil
}

// remove removes a template, for readers at once.
func (d cacheDir) remove(name string) error {
	gone, err := os.MkdirTemp(d.path("tmp"), "gone-")
	if err != nil {
		return err
	}
	if err := os.Rename(d.path(name), filepath.Join(gone, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// room returns how many bytes the cache may hold.
func (d cacheDir) room() (bytes int64) {
	for _, t := range d.list() {
		bytes += t.Bytes
	}
	return sys.CacheLimit(string(d), bytes, keepTemplateBytes)
}

// prune removes what the cache has too much of, and what killed processes have
// left.
func (d cacheDir) prune(number int, size int64) {
	var bytes int64
	for i, t := range d.list() {
		if bytes += t.Bytes; i >= number || bytes > size {
			_ = d.remove(t.Key)
		}
	}
	left, _ := os.ReadDir(d.path("tmp"))
	for _, e := range left {
		if strings.HasPrefix(e.Name(), "gone-") {
			_ = os.RemoveAll(d.path("tmp", e.Name()))
			continue
		}
		if len(e.Name()) < 2 {
			continue
		}
		lock := d.lock(e.Name())
		if ok, err := lock.TryLock(); ok && err == nil {
			_ = os.RemoveAll(d.path("tmp", e.Name()))
			_ = lock.Unlock()
		}
	}
	notes, _ := filepath.Glob(d.path("*.cold"))
	for _, note := range notes {
		if info, err := os.Stat(note); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.Remove(note)
		}
	}
}

// A CachedTemplate is one of a cache's templates.
type CachedTemplate struct {
	Key    string
	Target string
	Bytes  int64     // on the disk
	Used   time.Time // when a machine was last saved or restored
}

// list returns the templates, the last used first.
func (d cacheDir) list() (all []CachedTemplate) {
	dirs, _ := os.ReadDir(string(d))
	for _, e := range dirs {
		info, err := e.Info()
		if err != nil || !info.IsDir() || e.Name() == "locks" || e.Name() == "tmp" {
			continue
		}
		t := CachedTemplate{Key: e.Name(), Target: "?", Bytes: sys.DiskUsage(d.path(e.Name())), Used: info.ModTime()}
		var file templateFile
		if text, err := regular.ReadFile(d.path(e.Name(), templateName)); err == nil && json.Unmarshal(text, &file) == nil {
			t.Target = file.Of.Target
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b CachedTemplate) int { return b.Used.Compare(a.Used) })
	return all
}

// List returns the cache's templates, the last used first.
func (c *TemplateCache) List() ([]CachedTemplate, error) {
	d, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	return d.list(), nil
}

// Clear empties the cache. Machines that run from its templates go on, those that wait
// in this process end, and what is being made is not touched.
func (c *TemplateCache) Clear() error {
	c.prefetched.Close()
	d, err := c.open()
	if err != nil {
		return fmt.Errorf("clear templates: %w", err)
	}
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		if e.Name() != "locks" && e.Name() != "tmp" {
			err = errors.Join(err, d.remove(e.Name()))
		}
	}
	d.prune(keepTemplates, d.room())
	if err != nil {
		return fmt.Errorf("clear templates: %w", err)
	}
	return nil
}
