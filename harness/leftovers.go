package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Leftovers returns the process numbers of QEMUs that this package started and
// whose owner is gone. There should be none: QEMU dies with its owner.
// One whose owner died a moment ago is given 2 s to follow it.
func Leftovers() (pids []int, err error) {
	for range 10 {
		if pids, err = leftovers("/proc"); err != nil || len(pids) == 0 {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	return pids, err
}

// leftovers finds QEMUs with the connections that only we give them, and of these
// those that have been handed to init or to systemd, as orphans are.
func leftovers(proc string) (pids []int, err error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	ours := connectionArgs()
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		var args []string
		for arg := range bytes.SplitSeq(cmdline, []byte{0}) {
			args = append(args, string(arg))
		}
		if at := slices.Index(args, ours[0]); at < 0 || at+len(ours) > len(args) || !slices.Equal(args[at:at+len(ours)], ours) {
			continue
		}
		_, fields, ok := procStat(proc, pid)
		if !ok || len(fields) < 2 {
			continue
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			continue
		}
		if name, _, _ := procStat(proc, parent); parent == 1 || name == "systemd" {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// procStat reads a process's name and the fields behind it: its state, its
// parent and so on. The name may hold anything.
func procStat(proc string, pid int) (name string, fields []string, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("%s/%d/stat", proc, pid))
	from, to := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if err != nil || from < 0 || to < from {
		return "", nil, false
	}
	return string(text[from+1 : to]), strings.Fields(string(text[to+1:])), true
}
