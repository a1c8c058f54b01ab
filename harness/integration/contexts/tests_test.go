package contexts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// ofTests are the methods of a test's machine. They take no context and end by themselves, within
// harnesstest.Within of the machine's time.
var ofTests = []row[*harnesstest.Machine]{
	{name: "harnesstest.Machine.Dial", call: with(func(m *harnesstest.Machine) { m.Dial("tcp", 4242) }), atOnce: map[string]string{deaf: ""}},
	{name: "harnesstest.Machine.Expect", call: with(func(m *harnesstest.Machine) { m.Expect("never said") })},
	{name: "harnesstest.Machine.ExpectAll", call: with(func(m *harnesstest.Machine) { m.ExpectAll("never said", "nor this") })},
	{name: "harnesstest.Machine.Send", call: with(func(m *harnesstest.Machine) { m.Send(strings.Repeat("x", 1<<20)) })},
	{name: "harnesstest.Machine.Event", call: with(func(m *harnesstest.Machine) { m.Event() }), atOnce: map[string]string{deaf: noAgent}},
	{name: "harnesstest.Cmd.Run", call: with(func(m *harnesstest.Machine) { m.Command("true").Run() }), atOnce: map[string]string{deaf: noAgent}},
	{name: "harnesstest.Cmd.Output", call: with(func(m *harnesstest.Machine) { m.Output("true") }), atOnce: map[string]string{deaf: noAgent}},
	{name: "harnesstest.Cmd.CombinedOutput", call: with(func(m *harnesstest.Machine) { m.Command("true").CombinedOutput() }), atOnce: map[string]string{deaf: noAgent}},
	{name: "harnesstest.Cmd.Start", call: with(func(m *harnesstest.Machine) { m.Command("true").Start() }), atOnce: map[string]string{deaf: noAgent}},
	{name: "harnesstest.Cmd.Wait", call: with(func(m *harnesstest.Machine) { m.Command("true").Wait() }), atOnce: map[string]string{deaf: notStarted}},
	{name: "harnesstest.Cmd.Signal", call: with(func(m *harnesstest.Machine) { m.Command("true").Signal(os.Interrupt) }), atOnce: map[string]string{deaf: notStarted}},
	{name: "harnesstest.Cmd.Resize", call: with(func(m *harnesstest.Machine) { m.Command("true").Resize(harness.TerminalSize{}) }), atOnce: map[string]string{deaf: notStarted}},
	{name: "harnesstest.Machine.Type", call: with(func(m *harnesstest.Machine) { m.Type(strings.Repeat("x", 1<<20)) })},
	{name: "harnesstest.Machine.Stats", call: with(func(m *harnesstest.Machine) { m.Stats() }), atOnce: map[string]string{deaf: noAgent}},
	{name: "harnesstest.Machine.SetLink", call: with(func(m *harnesstest.Machine) { m.SetLink(true) }), atOnce: map[string]string{deaf: ""}},
	{name: "harnesstest.Machine.Save", call: with(func(m *harnesstest.Machine) {
		dir, err := os.MkdirTemp("", "")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		m.Save(filepath.Join(dir, "template"))
	}), atOnce: map[string]string{deaf: ""}},
	{name: "harnesstest.Machine.Wait", call: with(func(m *harnesstest.Machine) { m.Wait() })},
	{name: "harnesstest.Machine.WaitExit", call: with(func(m *harnesstest.Machine) { m.WaitExit(3) })},
	{name: "harnesstest.Machine.Shutdown", call: with(func(m *harnesstest.Machine) { m.Shutdown() })},
}

const notStarted = "it was not started"

func with(f func(*harnesstest.Machine)) func(context.Context, *harnesstest.Machine) error {
	return func(_ context.Context, m *harnesstest.Machine) error { f(m); return nil }
}

// A failing is a testing.TB that keeps the errors with which its machine fails it, and continues.
type failing struct {
	testing.TB
	mu   sync.Mutex
	said string
}

func (f *failing) Error(args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said += fmt.Sprint(args...)
}

func (f *failing) FailNow() { runtime.Goexit() } // ends the call

func TestTheCallsOfATestsMachineEndByThemselves(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for _, r := range ofTests {
		test := &failing{TB: t}
		m := harnesstest.Boot(test, bareMetal(t, "no kernel here", "^no kernel here$"))
		all.Go(func() {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				r.call(t.Context(), m)
			}()
			select {
			case <-ended:
			case <-time.After(10*harnesstest.Within + margin): // 30 s of the machine's time take that long at most on a busy host
				t.Errorf("%s does not end", r.name)
				return
			}
			test.mu.Lock()
			defer test.mu.Unlock()
			says, atOnce := r.atOnce[deaf]
			switch {
			case !atOnce:
				assert.Contains(t, test.said, "not within 30s of the machine's time", r.name)
			case says == "":
				assert.Empty(t, test.said, r.name)
			default:
				assert.Contains(t, test.said, says, r.name)
			}
		})
	}
	all.Wait()
}
