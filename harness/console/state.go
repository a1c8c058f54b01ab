package console

import (
	"bytes"
	"slices"

	"guesthouse.example/harness/internal/termtext"
)

// A State is the log of a console and what the console knows about it. Package encoding/json encodes
// it, so that a console in another process can continue from it: see [Options.State].
type State struct{ state }

// state has the fields for package encoding/json, which State promotes.
type state struct {
	Log      []byte          `json:"log"`
	LogBase  int64           `json:"log_base,omitempty"` // bytes before Log that are not kept
	HeldCR   bool            `json:"cr,omitempty"`
	Text     []byte          `json:"text"`
	TextBase int64           `json:"text_base,omitempty"` // bytes before Text that are not kept
	Filter   termtext.Filter `json:"filter"`
	Echoes   []span          `json:"echoes,omitempty"` // the complete echoes
}

// State returns the console's state. The state does not include where the next Expect begins, nor the
// parts of an incomplete echo.
func (c *Console) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	filter := c.filter
	filter.Held = bytes.Clone(filter.Held)
	c.echoes.look(&c.text)
	return State{state{
		Log: bytes.Clone(c.log.bytes), LogBase: c.log.base, HeldCR: c.heldCR,
		Text: bytes.Clone(c.text.bytes), TextBase: c.text.base, Filter: filter,
		Echoes: slices.Clone(c.echoes.found),
	}}
}

// restore gives a new console a state.
func (c *Console) restore(s *State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log, c.heldCR = buffer{bytes.Clone(s.Log), s.LogBase}, s.HeldCR
	c.text, c.filter = buffer{bytes.Clone(s.Text), s.TextBase}, s.Filter
	c.filter.Held = bytes.Clone(s.Filter.Held)
	c.echoes.found = slices.Clone(s.Echoes)
	c.publish(c.log.bytes, c.text.bytes)
}
