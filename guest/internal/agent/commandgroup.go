package agent

import "strconv"

// maxSpare is how many empty control groups are kept.
const maxSpare = 8

// makeSpare makes a control group ahead of time. In a restored machine all code is slow at first, and that of a new
// group takes longer than the rest of the agent's work for a command.
func (a *Agent) makeSpare() error {
	if a.programs == nil {
		return nil
	}
	c := &a.commands
	c.mu.Lock()
	defer c.mu.Unlock()
	c.groups++
	g, err := newGroup("command-"+strconv.Itoa(c.groups), a.programs)
	if err == nil {
		c.spare = append(c.spare, g)
	}
	return err
}

// group returns an empty control group, or nil in a kernel without them. Without a group of its own a command runs
// in the program's group.
func (a *Agent) group() *group {
	c := &a.commands
	for range 2 {
		c.mu.Lock()
		if last := len(c.spare) - 1; last >= 0 {
			g := c.spare[last]
			c.spare = c.spare[:last]
			c.mu.Unlock()
			return g
		}
		c.mu.Unlock()
		if err := a.makeSpare(); err != nil {
			a.remark(err.Error())
			break
		}
	}
	return nil
}

// giveBack keeps a group for the next command, or removes it. A group with processes that a command has left
// behind stays.
func (a *Agent) giveBack(g *group) {
	if g == nil {
		return
	}
	c := &a.commands
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spare) < maxSpare && g.empty() {
		c.spare = append(c.spare, g)
	} else {
		g.remove()
	}
}
