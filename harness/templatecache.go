package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"guesthouse.example/harness/internal/template"
	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/harness/internal/warmpool"
	"guesthouse.example/internal/store"
)

// A TemplateCache is a [Source] that makes templates itself: the first machine of a kind boots and is
// saved when it is ready, and later machines of that kind are restored. Any number of processes may
// share a cache.
//
// Machines are of the same kind if they have the same QEMU binary, QEMU arguments, kernel, initramfs,
// program with arguments and environment, ready pattern, Disks (with unchanged files) and Outbound. With a Program, the cache also
// saves the platform before the program is delivered, for all programs and shares: the first machine of another
// program is restored from the platform's template, and the program is delivered into it. Templates are
// not used after the host has booted again, because a power cut may have left an incomplete one.
type TemplateCache struct {
	// Dir is the directory of the templates. If it is empty, the templates are in
	// guesthouse/templates in the user's cache directory.
	Dir string

	// AnyGuest also saves guests without an agent on targets, as the cache always does on
	// boards. When such a guest is
	// restored, its clock is late and its random numbers are those of every
	// other machine from the template; see [Machine.Save]. Without AnyGuest such
	// a guest boots.
	AnyGuest bool

	// Prefetch restores another machine of a kind after one has been started, as
	// soon as a processor is idle, if the host has memory for it. The prefetched
	// machine stands still until this process starts a machine of its kind. It
	// then gets its record, its ports, new entropy, the host's clock and a boot
	// identity. Close ends the prefetched machines; they also end when this
	// process ends, even if a signal kills it.
	Prefetch bool

	prefetched warmpool.Pool[*vm.VM]
}

// Close ends the prefetched machines. Machines that were started go on, and the cache can still be
// used.
func (c *TemplateCache) Close() { c.prefetched.Close() }

// Waiting restores the machines that are due to be prefetched, without waiting for an idle processor, and
// returns the number of prefetched machines. A benchmark of prefetched machines calls it before it starts
// its clock. The error is the cause of ctx.
func (c *TemplateCache) Waiting(ctx context.Context) (int, error) { return c.prefetched.Fill(ctx) }

// Clear removes all templates from the cache and ends the prefetched machines of this process. Machines
// that run from a removed template go on. Clear does not touch templates that are being made.
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

// A cached is an entry of a cache, with or without a template.
type cached struct {
	cache *template.Cache
	key   string
	id    template.Identity
}

// cachedAs returns the entry of machines with an identity.
func cachedAs(cache *template.Cache, id template.Identity, anyGuest bool) (cached, error) {
	key, err := template.Key(id, anyGuest)
	return cached{cache, key, id}, err
}

const (
	firstOfItsKind = "the first boot of its kind"
	firstRun       = "the first run of its program"
)

// start restores the machine from the cache's template if there is one. If another process is making
// the template, start waits for that process. The first machine of a kind starts in another way, and
// WaitReady saves it. If the template or the cache cannot be used, the machine boots, and its Result says
// why.
//
// The first machine of a program starts from the template of its platform, in the same way: the first one
// on a platform boots and is saved when the platform is ready. A machine that saves its platform holds two
// build locks. It has taken the program's first, and no machine that holds the lock of a platform waits for
// another lock, so machines cannot wait for each other.
func (c *TemplateCache) start(ctx context.Context, p *plan) (*Machine, error) {
	cold := func(why string) (*Machine, error) { return p.launch(ctx, how{why: why}) }
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
	anyGuest := c.AnyGuest || p.board != nil // a board never has an agent, so its user expects none
	entry, err := cachedAs(cache, id, anyGuest)
	if err != nil {
		return cold("no template: " + oneLine(err))
	}

	if p.spec.Program != "" && len(p.spec.Share) > 0 {
		return c.onPlatform(ctx, p, cache, id, "its program starts after its shares are mounted")
	}

	prefetchNext := func() {
		if c.Prefetch && !p.qemu.Capture {
			c.prefetched.Add(entry.key, p.spec.Memory, func(ctx context.Context) (*vm.VM, error) { return entry.prefetch(ctx, p, false) })
		}
	}
	v, slower := c.takePrefetched(ctx, p, entry.key)
	if v != nil {
		m, err := p.adopt(ctx, v, BootPrefetched, "")
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
		if m, why, err = entry.restore(ctx, p, how{why: slower}); m != nil {
			prefetchNext()
		}
		return m, why, err
	}
	first := func(why string) (*Machine, error) { return cold(cmp.Or(why, firstOfItsKind)) }
	if p.spec.Program != "" {
		first = func(why string) (*Machine, error) { return c.onPlatform(ctx, p, cache, id, why) }
	}
	m, build, err := entry.obtain(ctx, p, restore, first)
	if build != nil {
		t := newPendingTemplate(build, entry, p.spec.guestName(), prefetchNext)
		t.anyGuest = anyGuest
		m.vm.BeginSave(t.writer)
		m.template.Store(t)
	}
	return m, err
}

// onPlatform starts a machine whose program is then delivered: it restores the platform, or boots it and
// lets it be saved. why says why there is no template of the program; it is empty if the machine is the
// first of its kind, which is to be saved.
func (c *TemplateCache) onPlatform(ctx context.Context, p *plan, cache *template.Cache, id template.Identity, why string) (*Machine, error) {
	platform, err := cachedAs(cache, id.Platform(PlatformReady), false)
	if err != nil {
		return p.launch(ctx, how{why: "no template: " + oneLine(err)})
	}
	restore := func() (*Machine, string, error) {
		if v := c.takeExpected(ctx, p, platform.key); v != nil {
			if m, err := p.adopt(ctx, v, BootDelivered, cmp.Or(why, firstRun)); err == nil || ctx.Err() != nil {
				return m, "", err
			}
		}
		return platform.restore(ctx, p, how{why: cmp.Or(why, firstRun), savable: why == ""})
	}
	m, build, err := platform.obtain(ctx, p, restore, func(slower string) (*Machine, error) {
		return p.launch(ctx, how{why: cmp.Or(slower, why, firstOfItsKind)})
	})
	if build != nil {
		m.delivery.platform = newPendingTemplate(build, platform, platformName, func() {})
	}
	return m, err
}

// obtain calls restore, which restores a machine from the entry's template. If there is none, obtain waits
// for the entry's build lock and calls restore again, or calls first, which starts the first machine of its
// kind. If build is not nil, that machine is to be saved and build is to be closed. The argument of first
// says why the machine is not to be saved; it is empty if it is to be saved.
func (c cached) obtain(ctx context.Context, p *plan, restore func() (m *Machine, why string, err error), first func(why string) (*Machine, error)) (m *Machine, build *store.Build, err error) {
	m, why, err := restore()
	if m != nil || err != nil {
		return m, nil, err
	}
	if why != "" {
		m, err = first(why)
		return m, nil, err
	}
	build, err = c.cache.Build(ctx, c.key, c.id.Program != nil)
	if err != nil && ctx.Err() != nil {
		return nil, nil, fmt.Errorf("boot %s: wait for its template: %w", p.name(), context.Cause(ctx))
	}
	if err != nil {
		m, err = first("no template: " + oneLine(err))
		return m, nil, err
	}
	if build.Waited {
		defer build.Close()
		m, why, err := restore()
		if m != nil || err != nil {
			return m, nil, err
		}
		if why == "" {
			// If each waiting process made the template in turn, a guest that is
			// never ready would keep the last of them waiting for minutes.
			why = "no template: another machine has booted to be saved, and was not saved"
		}
		m, err = first(why)
		return m, nil, err
	}
	if m, err = first(""); err != nil {
		build.Close()
		return nil, nil, err
	}
	return m, build, nil
}

// takePrefetched takes a prefetched VM of the plan's kind, or returns nil and the reason if it is known.
func (c *TemplateCache) takePrefetched(ctx context.Context, p *plan, key string) (v *vm.VM, why string) {
	switch {
	case p.spec.Savable:
		return nil, "a prefetched machine cannot be saved"
	case p.qemu.Capture:
		return nil, "a prefetched machine captures no frames"
	}
	return c.prefetched.Take(ctx, key)
}

// takeExpected takes the platform that Expect has restored, or returns nil.
func (c *TemplateCache) takeExpected(ctx context.Context, p *plan, key string) *vm.VM {
	if p.qemu.Capture {
		return nil // it captures no frames
	}
	v, _ := c.prefetched.Take(ctx, expected+key)
	return v
}

// restore restores a machine from the cached template, which it adds to h. If it returns neither a machine
// nor an error, the machine must start in another way: why is empty if the template can be made, and
// otherwise says why not. restore removes a template with a Fault.
func (c cached) restore(ctx context.Context, p *plan, h how) (m *Machine, why string, err error) {
	t, why, err := c.cache.Lookup(c.key)
	if err == nil {
		if t == nil {
			return nil, why, nil
		}
		h.from = t
		if m, err = p.restored(ctx, h, c.id); err == nil {
			return m, "", nil
		}
	}
	if ctx.Err() != nil {
		return nil, "", err
	}
	if template.IsFault(err) {
		_ = c.cache.Remove(c.key) // If Remove fails, the next machine boots too.
	}
	return nil, oneLine(err), nil
}

// prefetch restores a VM from the cached template before a machine is started. It returns nil if the
// template has been removed: the next machine that is started makes the template again.
func (c cached) prefetch(ctx context.Context, p *plan, delivery bool) (*vm.VM, error) {
	t, _, err := c.cache.Lookup(c.key)
	if t == nil {
		return nil, err
	}
	v, err := p.prefetch(ctx, t, delivery)
	if template.IsFault(err) && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return v, err
}

// A pendingTemplate is a template that is saved when its machine is ready.
type pendingTemplate struct {
	*store.Build
	writer   *template.Writer
	entry    cached
	guest    string // the name of the guest program, for people
	anyGuest bool
	saved    func() // called when the template has been published
}

func newPendingTemplate(build *store.Build, entry cached, guest string, saved func()) *pendingTemplate {
	return &pendingTemplate{Build: build, writer: template.NewWriter(build.Path("")), entry: entry, guest: guest, saved: saved}
}

// Close frees what the template needed while it was made, and removes it if it was not published.
func (t *pendingTemplate) Close() {
	t.writer.Stop()
	t.Build.Close()
}

// finish saves the machine. It returns why the machine could not be saved, or "". The error is not nil only
// if the machine cannot go on or ctx has ended.
func (t *pendingTemplate) finish(ctx context.Context, m *Machine) (why string, err error) {
	err = m.plan.disksUnchanged()
	if err == nil {
		err = m.vm.Save(ctx, t.writer, t.entry.id, t.guest, t.anyGuest)
	}
	if err == nil {
		err = t.entry.cache.Publish(t.Build, t.entry.key)
	}
	switch {
	case err == nil:
		t.saved()
		return "", nil
	case errors.Is(err, vm.ErrStillStopped), ctx.Err() != nil:
		return "", err
	}
	why = "it could not be saved: " + oneLine(err)
	if errors.Is(err, vm.ErrNoAgent) {
		t.entry.cache.Note(t.entry.key, why)
	}
	return why, nil
}
