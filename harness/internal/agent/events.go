package agent

import "slices"

// The limits of an eventLog. A guest may send events without end.
const (
	maxEvents     = 64 << 10
	maxEventBytes = 8 << 20
)

// An eventLog keeps the newest events in their order.
type eventLog struct {
	texts []string
	base  int // the number of events dropped before texts[0]
	bytes int // the total length of texts
	taken int // the number of events taken or reported as dropped
}

// newEventLog returns the log of a restored machine: it has the events of the template, none of them
// taken.
func newEventLog(s *Saved) eventLog {
	l := eventLog{texts: slices.Clone(s.Events), base: s.Dropped}
	for _, text := range l.texts {
		l.bytes += len(text)
	}
	return l
}

// add appends an event and drops the oldest ones that exceed the limits.
func (l *eventLog) add(text string) {
	l.texts = append(l.texts, text)
	l.bytes += len(text)
	for len(l.texts) > maxEvents || l.bytes > maxEventBytes {
		l.bytes -= len(l.texts[0])
		l.texts[0] = ""
		l.texts = l.texts[1:]
		l.base++
	}
}

// next takes the next event. If events were dropped before it, next returns their number instead,
// once.
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

// NextEvent takes the next event. If events were dropped before it, because the guest sent them faster
// than they were taken, NextEvent returns their number instead, once. If there is no event, ok is false,
// and told is closed when the guest sends one.
func (c *Client) NextEvent() (text string, dropped int, ok bool, told <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, dropped, ok = c.events.next()
	return text, dropped, ok, c.told
}
