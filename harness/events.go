package harness

import (
	"context"
	"fmt"
	"slices"
)

// An eventLog keeps what a guest tells with guest.Event, in order, for Machine.Event and for
// templates. A guest may tell without end, so that only the newest is kept.
type eventLog struct {
	texts []string
	base  int // events that were dropped before texts[0]
	bytes int // of texts
	taken int // events that were taken or reported as dropped
}

const (
	mostEvents     = 64 << 10
	mostEventBytes = 8 << 20
)

// add appends an event, and drops the oldest ones that are too much.
func (l *eventLog) add(text string) {
	l.texts = append(l.texts, text)
	l.bytes += len(text)
	for len(l.texts) > mostEvents || l.bytes > mostEventBytes {
		l.bytes -= len(l.texts[0])
		l.texts[0] = ""
		l.texts = l.texts[1:]
		l.base++
	}
}

// next takes the next event. Where there were some between the last one that was taken and the
// oldest one that is kept, it returns how many instead, once.
func (l *eventLog) next() (text string, dropped int, ok bool) {
	if dropped = l.base - l.taken; dropped > 0 {
		l.taken = l.base
		return "", dropped, true
	}
	at := l.taken - l.base
	if at == len(l.texts) {
		return "", 0, false
	}
	l.taken++
	return l.texts[at], 0, true
}

// savedEvents returns the events of a template, none of which is taken.
func savedEvents(s *savedAgent) eventLog {
	l := eventLog{texts: slices.Clone(s.Events), base: s.Dropped}
	for _, text := range l.texts {
		l.bytes += len(text)
	}
	return l
}

// Event returns the next of what the guest tells unasked, with guest.Event, in the order
// in which it told it. It waits for that until ctx ends, the machine does or its guest
// crashes, and fails at once where the guest has no agent. A machine that was restored begins with what the
// saved one had told.
//
// The newest 65,536 events and 8 MiB of their texts are kept. Where older ones were dropped before
// they were taken, Event fails once and says how many, and the next call returns the oldest
// event that is kept.
func (m *Machine) Event(ctx context.Context) (string, error) {
	ctx, cancel := m.unlessCrashed(ctx)
	defer cancel()
	for here := false; ; {
		text, dropped, ok, told := m.agent.next()
		switch {
		case dropped > 0:
			return "", fmt.Errorf("event of %s: %d events were dropped, because the guest told them faster than they were taken", m.plan.spec.Target, dropped)
		case ok:
			return text, nil
		}
		if !here {
			if err := m.agentHere(ctx); err != nil {
				return "", fmt.Errorf("event of %s: %w", m.plan.spec.Target, err)
			}
			here = true
			continue
		}
		select {
		case <-told:
		case <-m.agent.ended:
			select {
			case <-told: // the last before it ended
			default:
				return "", fmt.Errorf("event of %s: %w", m.plan.spec.Target, m.orCrash(ctx, m.agent.err))
			}
		case <-ctx.Done():
			return "", fmt.Errorf("event of %s: none was told: %w", m.plan.spec.Target, context.Cause(ctx))
		}
	}
}

// next takes the next event. Without one, told is closed when there is.
func (a *agent) next() (text string, dropped int, ok bool, told <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	text, dropped, ok = a.events.next()
	return text, dropped, ok, a.told
}
