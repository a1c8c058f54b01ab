// Package procs reads which processes there are, from /proc.
package procs

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A Process is one at the moment of the look. One that has ended and that its parent
// has not waited for is one too.
type Process struct {
	PID    int
	Name   string // at most 15 bytes
	Parent int
	Group  int
}

func (p Process) String() string { return fmt.Sprintf("%d (%s)", p.PID, p.Name) }

// All returns all processes. It may miss one that starts meanwhile.
func All() (found []Process) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // gone by now
		}
		if p, ok := parse(pid, stat); ok {
			found = append(found, p)
		}
	}
	return found
}

// parse reads "PID (NAME) STATE PARENT GROUP …". NAME may hold anything.
func parse(pid int, stat []byte) (p Process, ok bool) {
	from, to := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if from < 0 || to < from {
		return p, false
	}
	fields := strings.Fields(string(stat[to+1:]))
	if len(fields) < 3 {
		return p, false
	}
	parent, err1 := strconv.Atoi(fields[1])
	group, err2 := strconv.Atoi(fields[2])
	return Process{pid, string(stat[from+1 : to]), parent, group}, err1 == nil && err2 == nil
}

// Children returns the processes whose parent is pid.
func Children(pid int) []Process {
	return slices.DeleteFunc(All(), func(p Process) bool { return p.Parent != pid })
}

// Descendants returns the children of pid, theirs and so on.
func Descendants(pid int) (found []Process) {
	children := make(map[int][]Process)
	for _, p := range All() {
		children[p.Parent] = append(children[p.Parent], p)
	}
	for below := children[pid]; len(below) > 0; {
		p := below[0]
		found = append(found, p)
		below = append(below[1:], children[p.PID]...)
	}
	return found
}

// Marked returns the processes that were started with an environment that has mark,
// "NAME=value". So it finds what somebody has started, whoever its parent is by now. Of one
// that has ended there is no environment.
func Marked(mark string) []Process {
	return slices.DeleteFunc(All(), func(p Process) bool {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		return !slices.Contains(strings.Split(string(env), "\x00"), mark)
	})
}
