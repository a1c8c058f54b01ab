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

// A Process is the state of a process at the time of the call that returned it. A process that has
// exited still exists until its parent has waited for it.
type Process struct {
	PID     int
	Name    string // at most 15 bytes
	State   byte   // 'R': running, 'S': sleeping, 'T': stopped by a signal, … Source: proc_stat(5).
	Parent  int
	Group   int
	Exiting bool // the process no longer runs code of its own
	Threads int
}

func (p Process) String() string { return fmt.Sprintf("%d (%s)", p.PID, p.Name) }

// Processes returns all processes. It may miss one that starts during the call.
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
	if err == nil && len(found) == 0 { // not even this process
		err = errors.New("/proc has no processes")
	}
	return found, err
}

// LookupProcess returns the process with a process ID, and false if there is none.
func LookupProcess(pid int) (p Process, ok bool) {
	return readStat(pid, fmt.Sprintf("/proc/%d/stat", pid))
}

// readStat reads the file stat of a process or of a thread.
func readStat(id int, file string) (p Process, ok bool) {
	stat, err := os.ReadFile(file)
	if err != nil {
		return p, false // it has exited
	}
	return parseStat(id, stat)
}

// parseStat parses "PID (NAME) STATE PARENT GROUP …". NAME may hold any byte but zero.
func parseStat(id int, stat []byte) (p Process, ok bool) {
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
	p = Process{PID: id, Name: string(stat[from+1 : to]), State: fields[0][0], Parent: parent, Group: group}
	if len(fields) > 6 {
		flags, _ := strconv.ParseUint(fields[6], 10, 64)
		p.Exiting = flags&pfExiting != 0
	}
	if len(fields) > 17 {
		p.Threads, _ = strconv.Atoi(fields[17])
	}
	return p, err1 == nil && err2 == nil
}

// pfExiting is the flag that the kernel sets before it closes the files of a process that exits.
// Source: include/linux/sched.h of Linux, and proc_stat(5).
const pfExiting = 0x4

// CommandLine returns the arguments of a process. They are nil if the process has exited.
func CommandLine(pid int) []string { return readStrings(pid, "cmdline") }

// readStrings reads a file of a process that holds strings, each with a zero byte at its end.
func readStrings(pid int, file string) []string {
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

// Descendants returns the children of pid, their children, and so on.
func Descendants(pid int) (found []Process) {
	children := make(map[int][]Process)
	all, _ := Processes()
	for _, p := range all {
		children[p.Parent] = append(children[p.Parent], p)
	}
	for queue := children[pid]; len(queue) > 0; {
		p := queue[0]
		found = append(found, p)
		queue = append(queue[1:], children[p.PID]...)
	}
	return found
}

// ProcessesWithEnv returns the processes that were started with an environment variable, given as
// "NAME=value". A child inherits the variable, so a caller that sets it finds every process that
// it caused to start, even one that has another parent by now. A process that has exited has no
// environment.
func ProcessesWithEnv(variable string) []Process {
	all, _ := Processes()
	return slices.DeleteFunc(all, func(p Process) bool { return !slices.Contains(readStrings(p.PID, "environ"), variable) })
}
