package harness

import (
	"context"

	"guesthouse.example/harness/internal/template"
	"guesthouse.example/harness/internal/vm"
)

// expected is the beginning of the key of a platform in the pool of prefetched machines. Such a machine is
// kept apart from a prefetched machine without a program.
const expected = "platform "

// Expect tells the cache that a machine of the Spec is about to be started with a program that is not ready
// yet. If the cache has a template of the platform, it restores the platform in the background, and the
// first machine with a new program that is started on that platform takes it. The caller can thus compile
// the program meanwhile. Expect does nothing if c does not prefetch. It ignores the Spec's Program, Args, Env
// and Ready. A failure costs time later and is reported then.
func (c *TemplateCache) Expect(ctx context.Context, s Spec) {
	if !c.Prefetch || len(s.Share) > 0 {
		return
	}
	s.Program, s.Args, s.Env, s.Ready = "", nil, nil, PlatformReady
	p, err := s.prepare(ctx)
	if err != nil || p.noTemplate() != "" {
		return
	}
	cache, err := template.OpenCache(c.Dir)
	if err != nil {
		return
	}
	id, err := p.identity()
	if err != nil {
		return
	}
	platform, err := cachedAs(cache, id, false)
	if err != nil {
		return
	}
	c.prefetched.AddNow(expected+platform.key, p.spec.Memory, func(ctx context.Context) (*vm.VM, error) {
		return platform.prefetch(ctx, p, true)
	})
}
