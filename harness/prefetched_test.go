package harness

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/records"
)

// stands returns a machine that does nothing, with a process that is no QEMU.
func stands(t *testing.T) *vm { return spawned(t, "exec sleep 1000") }

// spawned returns a machine with a shell's script in place of QEMU. The script's descriptor 3 is the
// console.
func spawned(t *testing.T, script string) *vm {
	p, err := Spec{Target: "x86_64"}.plan()
	require.NoError(t, err)
	p.qemu.Binary = "sh"
	m, err := p.start([]string{"-c", script}, records.New(), nil, nil, nil)
	require.NoError(t, err)
	return m
}

func hasEnded(m *vm) bool {
	select {
	case <-m.proc.Done:
		return true
	default:
		return false
	}
}

// wants asks for machines and returns them when they wait.
func wants(t *testing.T, a *prefetched, keys ...string) (all []*vm) {
	for _, key := range keys {
		a.want(key, 1, func(context.Context) (*vm, error) {
			m := stands(t)
			all = append(all, m) // one is made after the other
			return m, nil
		})
	}
	_, err := a.count(t.Context())
	require.NoError(t, err)
	return all
}

func waiting(t *testing.T, a *prefetched) int {
	n, err := a.count(t.Context())
	require.NoError(t, err)
	return n
}

// takes takes a machine where nothing was wrong with any.
func takes(t *testing.T, a *prefetched, key string) *vm {
	t.Helper()
	m, why := a.take(t.Context(), key)
	require.Empty(t, why)
	return m
}

func TestOneMachineOfAKindWaits(t *testing.T) {
	a := &prefetched{room: func(int) bool { return true }}
	defer a.close()
	first := wants(t, a, "a")
	require.Len(t, first, 1)
	require.Empty(t, wants(t, a, "a"), "there is one")
	require.Nil(t, takes(t, a, "b"))
	m := takes(t, a, "a")
	require.Same(t, first[0], m)
	require.False(t, hasEnded(m))
	defer m.discard()
	require.Nil(t, takes(t, a, "a"))

	second := wants(t, a, "a", "b")
	require.Equal(t, 2, waiting(t, a))
	a.close()
	require.True(t, hasEnded(second[0]))
	require.True(t, hasEnded(second[1]))
	require.False(t, hasEnded(m), "it is its owner's")
	require.Zero(t, waiting(t, a))
}

func TestNoMoreMachinesWaitThanTheProcessorsCarry(t *testing.T) {
	a := &prefetched{room: func(int) bool { return true }}
	defer a.close()
	var all []*vm
	for i := range mostWaiting() + 1 {
		all = append(all, wants(t, a, fmt.Sprint(i))...)
	}
	require.Equal(t, mostWaiting(), waiting(t, a))
	require.True(t, hasEnded(all[0]), "the oldest makes room")
	require.Nil(t, takes(t, a, "0"))
	require.False(t, hasEnded(all[1]))
}

func TestNoMachineWaitsWhereMemoryIsShort(t *testing.T) {
	short := false
	var asked int
	a := &prefetched{room: func(mib int) bool { asked = mib; return !short }}
	defer a.close()
	before := wants(t, a, "a")
	short = true
	require.Empty(t, wants(t, a, "b"))
	require.Equal(t, 1, asked)
	require.Zero(t, waiting(t, a))
	require.True(t, hasEnded(before[0]), "what waits is spared first")

	require.False(t, enough(1000<<20, 4000<<20, 1))
	require.True(t, enough(1001<<20, 4000<<20, 1))
	require.False(t, enough(1200<<20, 4000<<20, 256))
}

func TestWhatCannotBePrefetchedIsNotTriedAgain(t *testing.T) {
	a := &prefetched{room: func(int) bool { return true }}
	defer a.close()
	tries := 0
	for range 3 {
		a.want("a", 1, func(context.Context) (*vm, error) {
			tries++
			return nil, errors.New("broken")
		})
		require.Zero(t, waiting(t, a))
	}
	require.Equal(t, 1, tries)
	m, why := a.take(t.Context(), "a")
	require.Nil(t, m)
	require.Equal(t, "it cannot be prefetched: broken", why)
	require.Len(t, wants(t, a, "b"), 1, "another may work")
}

// Whoever asks gets the machine that is just being restored, and does not wait for one
// that is not.
func TestAMachineIsTakenWhileItIsMade(t *testing.T) {
	a := &prefetched{room: func(int) bool { return true }}
	defer a.close()
	begun, finish := make(chan struct{}), make(chan struct{})
	a.want("a", 1, func(context.Context) (*vm, error) {
		close(begun)
		<-finish
		return stands(t), nil
	})
	a.all[0].hurry()
	<-begun
	a.want("b", 1, func(context.Context) (*vm, error) { return nil, errors.New("it was not to be made") })
	a.all[1].hurry()
	require.Nil(t, takes(t, a, "b"))
	gone, cancel := context.WithCancel(t.Context())
	taken := make(chan *vm)
	go func() {
		m, _ := a.take(gone, "a")
		taken <- m
	}()
	close(finish)
	m := <-taken
	require.NotNil(t, m)
	m.discard()
	require.Empty(t, a.failed)

	// It ends when nobody waits for it any more.
	begun = make(chan struct{})
	var late *vm
	a.want("c", 1, func(ctx context.Context) (*vm, error) {
		close(begun)
		<-ctx.Done()
		late = stands(t)
		return late, nil
	})
	a.all[0].hurry()
	<-begun
	cancel()
	m, why := a.take(gone, "c")
	require.Nil(t, m)
	require.Empty(t, why)
	require.True(t, hasEnded(late))
	require.Empty(t, a.failed)
}

func TestAMachineIsRestoredWhenAProcessorIsIdle(t *testing.T) {
	idle := make(chan struct{})
	a := &prefetched{room: func(int) bool { return true }, idle: func(ctx context.Context) {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}}
	defer a.close()
	restored := make(chan string, 2)
	want := func(key string) *prefetch {
		a.want(key, 1, func(context.Context) (*vm, error) {
			restored <- key
			return stands(t), nil
		})
		return a.all[0]
	}
	want("a")
	require.Nil(t, takes(t, a, "a"), "no processor was idle")
	f := want("b")
	close(idle)
	<-f.done
	require.Equal(t, "b", <-restored)
	require.Empty(t, restored)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	awaitIdle(ended) // returns, however busy this host is
}

func TestAVMThatIsGoneBecomesNobodysMachine(t *testing.T) {
	p, err := minimal(t).check()
	require.NoError(t, err)
	adopt := func(v *vm) string {
		_, err := p.adopt(t.Context(), v)
		require.True(t, hasEnded(v))
		require.ErrorAs(t, err, new(unusableError))
		return err.Error()
	}
	killed := stands(t)
	require.NoError(t, killed.gone())
	killed.proc.Kill()
	require.Contains(t, adopt(killed), "the machine that waited was of no use: ")
	crashed := spawned(t, "echo 'Kernel panic - not syncing: gone' >&3; exec sleep 1000")
	<-crashed.console.Crashed()
	require.Equal(t, "the machine that waited was of no use: Kernel panic - not syncing: gone", adopt(crashed))
}
