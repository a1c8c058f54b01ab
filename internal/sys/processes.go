package sys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A Process is one at the moment of the look. One that has ended and that its parent
// has not waited for is one too.
type Process struct {
	PID     int
	Name    string // at most 15 bytes
	State   byte   // 'R' runs, 'S' sleeps, 'T' was stopped by a signal, … Source: proc_stat(5).
	Parent  int
	Group   int
	Exiting bool // or has ended: it runs no code of its own any more
}

func (p Process) String() string { return fmt.Sprintf("%d (%s)", p.PID, p.Name) }

// Processes returns all processes, and an error where /proc does not tell. It may miss one that
// starts meanwhile.
func Processes() (found []Process, err error) {
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := LookupProcess(pid); ok {
			found = append(found, p)
		}
	}
	if err == nil && len(found) == 0 { // where we should be ourselves
		err = errors.New("/proc has no processes")
	}
	return found, err
}

// LookupProcess returns the process of that number; false if there is none.
func LookupProcess(pid int) (p Process, ok bool) {
	return readStat(pid, fmt.Sprintf("/proc/%d/stat", pid))
}

// readStat reads the file stat of a process or of a thread.
func readStat(id int, file string) (p Process, ok bool) {
	stat, err := os.ReadFile(file)
	if err != nil {
		return p, false // gone by now
	}
	return parseStat(id, stat)
}

// parseStat parses the file stat of a process, or of one of its threads: "PID (NAME) STATE PARENT GROUP …".
// NAME may hold anything.
func parseStat(pid int, stat []byte) (p Process, ok bool) {
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
	p = Process{PID: pid, Name: string(stat[from+1 : to]), State: fields[0][0], Parent: parent, Group: group}
	if len(fields) > 6 {
		flags, _ := strconv.ParseUint(fields[6], 10, 64)
		p.Exiting = flags&pfExiting != 0
	}
	return p, err1 == nil && err2 == nil
}

// pfExiting is the flag that a process gets before it closes its files. Source:
// include/linux/sched.h of Linux, and proc_stat(5).
const pfExiting = 0x4

// CommandLine returns the command line of a process; none of one that has ended.
func CommandLine(pid int) []string { return list(pid, "cmdline") }

// list reads a file of a process whose strings end with zeros.
func list(pid int, file string) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// Children returns the processes whose parent is pid.
func Children(pid int) []Process {
	all, _ := Processes()
	return slices.DeleteFunc(all, func(p Process) bool { return p.Parent != pid })
}

// Descendants returns the children of pid, theirs and so on.
func Descendants(pid int) (found []Process) {
	children := make(map[int][]Process)
	all, _ := Processes()
	for _, p := range all {
		children[p.Parent] = append(children[p.Parent], p)
	}
	for below := children[pid]; len(below) > 0; {
		p := below[0]
		found = append(found, p)
		below = append(below[1:], children[p.PID]...)
	}
	return found
}

// ProcessesWithEnv returns the processes that were started with an environment that has mark,
// "NAME=value". So it finds what somebody has started, whoever its parent is by now. Of one
// that has ended there is no environment.
func ProcessesWithEnv(mark string) []Process {
	all, _ := Processes()
	return slices.DeleteFunc(all, func(p Process) bool { return !slices.Contains(list(p.PID, "environ"), mark) })
}
