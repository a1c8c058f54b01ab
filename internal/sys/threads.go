package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A Thread is a thread of a process, with the times that the kernel's scheduler has counted since
// the thread started.
type Thread struct {
	ID     int
	State  byte          // as in Process; 0 if the thread has just exited
	Ran    time.Duration // on a processor
	Waited time.Duration // ready to run, in the queue for a processor
}

// Threads returns the threads of a process. There are none if the process has exited or if the
// kernel does not count these times. Source: Documentation/scheduler/sched-stats.rst of Linux.
func Threads(pid int) (found []Thread) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name(), "schedstat"))
		if err != nil {
			continue // the thread has exited
		}
		t := Thread{ID: id}
		// RAN WAITED TIMESLICES; the times are in nanoseconds.
		if _, err := fmt.Sscan(string(text), &t.Ran, &t.Waited); err != nil {
			continue
		}
		if stat, ok := readStat(id, filepath.Join(dir, e.Name(), "stat")); ok {
			t.State = stat.State
		}
		found = append(found, t)
	}
	return found
}
