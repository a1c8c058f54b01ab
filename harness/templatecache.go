package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"guesthouse.example/harness/internal/template"
	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/harness/internal/warmpool"
	"guesthouse.example/internal/store"
)

// A TemplateCache is a [Source] that makes templates itself: the first machine of its kind boots and
// is saved when it is ready; later ones are restored. Any number of processes may share a cache.
//
// Machines are of the same kind if they have the same QEMU binary, QEMU arguments, kernel,
// initramfs and ready pattern. Templates are not used after a restart of the host, so that not even
// a power cut leaves half of one.
type TemplateCache struct {
	// Dir is the directory of the templates. If it is empty, that is
	// guesthouse/templates in the user's cache directory.
	Dir string

	// AnyGuest also saves guests without an agent. When such a guest is
	// restored, its clock is late and its random numbers are those of every
	// other machine from the template; see [Machine.Save]. Without AnyGuest such
	// a guest boots.
	AnyGuest bool

	// Prefetch restores the next machine of a kind when one has been started, as
	// soon as a processor is idle and if the host has memory for it. The machine
	// stands still until this process starts one of its kind; then it gets its
	// record, its ports, new entropy, the clock and an identity. Close ends the
	// machines that wait, and so does the end of the process, even if it is
	// killed. Guests without an agent are not prefetched.
	Prefetch bool

	prefetched warmpool.Pool[*vm.VM]
}

// Close ends the machines that wait. Machines that were started go on, and the cache can still be
// used.
func (c *TemplateCache) Close() { c.prefetched.Close() }

// Waiting restores at once the machines that Prefetch would restore when a processor is idle, and
// returns how many machines wait then. A benchmark of prefetched machines calls it before it starts
// its clock.
func (c *TemplateCache) Waiting(ctx context.Context) (int, error) { return c.prefetched.Fill(ctx) }

// Clear removes all templates from the cache. Machines that run from them go on. Machines that wait
// in this process end. Templates that are being made are not touched.
func (c *TemplateCache) Clear() error {
	c.prefetched.Close()
	cache, err := template.OpenCache(c.Dir)
	if err == nil {
		err = cache.Clear()
	}
	if err != nil {
		return fmt.Errorf("clear templates: %w", err)
	}
	return nil
}

// A cached is the template of a plan's machine in a cache. It need not exist.
type cached struct {
	cache *template.Cache
	key   string
	id    template.Identity
}

// start restores the machine from the cache's template if there is one. If another process is making
// the template, start waits for it. A machine that is the first of its kind boots, and WaitReady
// saves it. Whatever is wrong with a template or the cache, the machine boots, and its Result says why.
func (c *TemplateCache) start(ctx context.Context, p *plan) (*Machine, error) {
	cold := func(why string) (*Machine, error) { return p.launch(ctx, nil, why) }
	if why := p.noTemplate(); why != "" {
		return cold(why)
	}
	cache, err := template.OpenCache(c.Dir)
	if err != nil {
		return cold("no template cache: " + oneLine(err))
	}
	id, err := p.identity()
	if err != nil {
		return cold("no template: " + oneLine(err))
	}
	key, err := template.Key(id, c.AnyGuest)
	if err != nil {
		return cold("no template: " + oneLine(err))
	}
	entry := cached{cache, key, id}

	prefetchNext := func() {
		if c.Prefetch {
			c.prefetched.Add(key, p.spec.Memory, func(ctx context.Context) (*vm.VM, error) { return entry.prefetch(ctx, p) })
		}
	}
	v, slower := c.takePrefetched(ctx, p, key)
	if v != nil {
		m, err := p.adopt(ctx, v)
		if err == nil {
			prefetchNext()
			return m, nil
		}
		unusable, ok := errors.AsType[unusableError](err)
		if !ok {
			return nil, err
		}
		slower = unusable.Error()
	}
	restore := func() (m *Machine, why string, err error) {
		if m, why, err = entry.restore(ctx, p, slower); m != nil {
			prefetchNext()
		}
		return m, why, err
	}
	m, why, err := restore()
	if m != nil || err != nil {
		return m, err
	}
	if why != "" {
		return cold(why)
	}
	build, err := cache.Build(ctx, key)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("boot %s: wait for its template: %w", p.spec.Target, context.Cause(ctx))
	}
	if err != nil {
		return cold("no template: " + oneLine(err))
	}
	if build.Waited {
		defer build.Close()
		m, why, err := restore()
		if m != nil || err != nil {
			return m, err
		}
		if why == "" {
			// If each waiting process tried in turn, a guest that never
			// gets ready would keep them waiting for minutes.
			why = "no template: another boot that was to be saved was not"
		}
		return cold(why)
	}
	m, err = cold("the first boot of its kind")
	if err != nil {
		build.Close()
		return nil, err
	}
	m.template.Store(&making{Build: build, entry: entry, anyGuest: c.AnyGuest, saved: prefetchNext})
	return m, nil
}

// takePrefetched takes a prefetched VM, if there is one that fits the plan. Otherwise it says why not.
func (c *TemplateCache) takePrefetched(ctx context.Context, p *plan, key string) (v *vm.VM, why string) {
	if p.spec.Savable {
		return nil, "a prefetched machine cannot be saved"
	}
	return c.prefetched.Take(ctx, key)
}

// restore restores a machine from the cached template. If it returns no machine and no error, the
// machine has to boot: why is empty if the template can be made, and otherwise says why not. A
// template that is at fault is removed. slower is the reason why the machine is not a prefetched one.
func (c cached) restore(ctx context.Context, p *plan, slower string) (m *Machine, why string, err error) {
	t, why, err := c.cache.Lookup(c.key)
	if err == nil {
		if t == nil {
			return nil, why, nil
		}
		if m, err = p.restored(ctx, t, c.id, slower); err == nil {
			return m, "", nil
		}
	}
	if ctx.Err() != nil {
		return nil, "", err
	}
	if template.IsFault(err) {
		_ = c.cache.Remove(c.key) // If that fails, the next machine boots too.
	}
	return nil, oneLine(err), nil
}

// prefetch restores a vm from the cached template before a machine is started. It returns nothing if
// the template was removed meanwhile: the next machine that is started makes it again.
func (c cached) prefetch(ctx context.Context, p *plan) (*vm.VM, error) {
	t, _, err := c.cache.Lookup(c.key)
	if t == nil {
		return nil, err
	}
	v, err := p.prefetch(ctx, t)
	if template.IsFault(err) && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return v, err
}

// A making is the template that a machine becomes when it is ready.
type making struct {
	*store.Build
	entry    cached
	anyGuest bool
	saved    func() // called after the template was published
}

// finish saves the machine and returns how that went, for the machine's Result. An error is one of
// the machine.
func (t *making) finish(ctx context.Context, m *Machine) (why string, err error) {
	err = m.vm.Save(ctx, t.Path(""), t.entry.id, t.anyGuest)
	if err == nil {
		err = t.entry.cache.Publish(t.Build, t.entry.key)
	}
	switch {
	case err == nil:
		t.saved()
		return "the first boot of its kind, saved for the next", nil
	case errors.Is(err, vm.ErrStillStopped), ctx.Err() != nil:
		return "", err
	}
	why = "it could not be saved: " + oneLine(err)
	if errors.Is(err, vm.ErrNoAgent) {
		t.entry.cache.Note(t.entry.key, why)
	}
	return why, nil
}
