package warmpool

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A fake is a machine in a test's pool.
type fake struct{ ended atomic.Bool }

func (f *fake) Discard() { f.ended.Store(true) }

func newPool() *Pool[*fake] { return &Pool[*fake]{room: func(int) bool { return true }} }

// addAndWait adds machines to the pool and returns them when they are restored.
func addAndWait(t *testing.T, p *Pool[*fake], keys ...string) (all []*fake) {
	for _, key := range keys {
		p.Add(key, 1, func(context.Context) (*fake, error) {
			m := new(fake)
			all = append(all, m) // the limiter lets one restore run at a time
			return m, nil
		})
	}
	_, err := p.Fill(t.Context())
	require.NoError(t, err)
	return all
}

func waiting(t *testing.T, p *Pool[*fake]) int {
	n, err := p.Fill(t.Context())
	require.NoError(t, err)
	return n
}

// takeMachine takes the machine of a key that has not failed.
func takeMachine(t *testing.T, p *Pool[*fake], key string) *fake {
	t.Helper()
	m, why := p.Take(t.Context(), key)
	require.Empty(t, why)
	return m
}

func TestAPoolKeepsOneMachineOfAKey(t *testing.T) {
	p := newPool()
	defer p.Close()
	first := addAndWait(t, p, "a")
	require.Len(t, first, 1)
	require.Empty(t, addAndWait(t, p, "a"), "the pool has one")
	require.Nil(t, takeMachine(t, p, "b"))
	m := takeMachine(t, p, "a")
	require.Same(t, first[0], m)
	require.False(t, m.ended.Load())
	defer m.Discard()
	require.Nil(t, takeMachine(t, p, "a"))

	second := addAndWait(t, p, "a", "b")
	require.Equal(t, 2, waiting(t, p))
	p.Close()
	require.True(t, second[0].ended.Load())
	require.True(t, second[1].ended.Load())
	require.False(t, m.ended.Load(), "the test has taken it")
	require.Zero(t, waiting(t, p))
}

func TestAMachineThatIsNeededNowWaitsForNoIdleProcessor(t *testing.T) {
	p := newPool()
	defer p.Close()
	never := make(chan struct{})
	p.idle = func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-never:
		}
	}
	p.Add("later", 1, func(context.Context) (*fake, error) { return new(fake), nil })
	begun, proceed := make(chan struct{}), make(chan struct{})
	p.AddNow("now", 1, func(context.Context) (*fake, error) {
		close(begun)
		<-proceed
		return new(fake), nil
	})
	<-begun // while the other machine has the limiter
	close(proceed)
	m := takeMachine(t, p, "now")
	require.NotNil(t, m)
	require.Nil(t, takeMachine(t, p, "later"))
}

func TestAPoolKeepsAtMostLimitMachines(t *testing.T) {
	p := newPool()
	defer p.Close()
	var all []*fake
	for i := range limit() + 1 {
		all = append(all, addAndWait(t, p, fmt.Sprint(i))...)
	}
	require.Equal(t, limit(), waiting(t, p))
	require.True(t, all[0].ended.Load(), "the oldest machine is ended")
	require.Nil(t, takeMachine(t, p, "0"))
	require.False(t, all[1].ended.Load())
}

func TestAPoolIsEmptiedWhenMemoryIsShort(t *testing.T) {
	short := false
	var asked int
	p := &Pool[*fake]{room: func(mib int) bool { asked = mib; return !short }}
	defer p.Close()
	before := addAndWait(t, p, "a")
	short = true
	require.Empty(t, addAndWait(t, p, "b"))
	require.Equal(t, 1, asked)
	require.Zero(t, waiting(t, p))
	require.True(t, before[0].ended.Load(), "a machine in the pool is ended")

	require.False(t, isEnough(1000<<20, 4000<<20, 1))
	require.True(t, isEnough(1001<<20, 4000<<20, 1))
	require.False(t, isEnough(1200<<20, 4000<<20, 256))
}

func TestAKeyThatFailedIsNotTriedAgain(t *testing.T) {
	p := newPool()
	defer p.Close()
	tries := 0
	for range 3 {
		p.Add("a", 1, func(context.Context) (*fake, error) {
			tries++
			return nil, errors.New("broken")
		})
		require.Zero(t, waiting(t, p))
	}
	require.Equal(t, 1, tries)
	m, why := p.Take(t.Context(), "a")
	require.Nil(t, m)
	require.Equal(t, "it cannot be prefetched: broken", why)
	require.Len(t, addAndWait(t, p, "b"), 1, "another may work")
}

// Take waits for a machine whose restore has begun, and for no other.
func TestTakeWaitsForARestoreThatHasBegun(t *testing.T) {
	p := newPool()
	defer p.Close()
	begun, finish := make(chan struct{}), make(chan struct{})
	p.Add("a", 1, func(context.Context) (*fake, error) {
		close(begun)
		<-finish
		return new(fake), nil
	})
	p.entries[0].hurry()
	<-begun
	p.Add("b", 1, func(context.Context) (*fake, error) { return nil, errors.New("the machine must not be restored") })
	p.entries[1].hurry()
	require.Nil(t, takeMachine(t, p, "b"))
	gone, cancel := context.WithCancel(t.Context())
	taken := make(chan *fake)
	go func() {
		m, _ := p.Take(gone, "a")
		taken <- m
	}()
	close(finish)
	m := <-taken
	require.NotNil(t, m)
	m.Discard()
	require.Empty(t, p.failed)

	// The machine ends if the context of Take ends.
	begun = make(chan struct{})
	var late *fake
	p.Add("c", 1, func(ctx context.Context) (*fake, error) {
		close(begun)
		<-ctx.Done()
		late = new(fake)
		return late, nil
	})
	p.entries[0].hurry()
	<-begun
	cancel()
	m, why := p.Take(gone, "c")
	require.Nil(t, m)
	require.Empty(t, why)
	require.True(t, late.ended.Load())
	require.Empty(t, p.failed)
}

func TestAMachineIsRestoredWhenAProcessorIsIdle(t *testing.T) {
	idle := make(chan struct{})
	p := &Pool[*fake]{room: func(int) bool { return true }, idle: func(ctx context.Context) {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}}
	defer p.Close()
	restored := make(chan string, 2)
	want := func(key string) *entry[*fake] {
		p.Add(key, 1, func(context.Context) (*fake, error) {
			restored <- key
			return new(fake), nil
		})
		return p.entries[0]
	}
	want("a")
	require.Nil(t, takeMachine(t, p, "a"), "no processor was idle")
	f := want("b")
	close(idle)
	<-f.done
	require.Equal(t, "b", <-restored)
	require.Empty(t, restored)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	awaitIdle(ended) // returns, however busy this host is
}
