package qemu

import (
	"slices"
	"time"

	"guesthouse.example/internal/sys"
)

// Orphans returns the process IDs of QEMUs that this package started and whose owners have died. There
// should be none, because QEMU dies with its owner. Orphans waits up to 2 s for a QEMU that is about to
// die.
func Orphans() (pids []int, err error) {
	for range 10 {
		all, err := sys.Processes()
		if err != nil {
			return nil, err
		}
		if pids = orphans(all, sys.CommandLine); len(pids) == 0 {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	return pids, nil
}

// orphans returns the processes that have the arguments that connectionArgs returns for every machine, and whose parent is init or
// systemd, which adopt orphans.
func orphans(all []sys.Process, args func(pid int) []string) (pids []int) {
	names := make(map[int]string)
	for _, p := range all {
		names[p.PID] = p.Name
	}
	marks := Machine{Board: true}.connectionArgs()
	for _, p := range all {
		if p.Parent != 1 && names[p.Parent] != "systemd" {
			continue
		}
		list := args(p.PID)
		if at := slices.Index(list, marks[0]); at >= 0 && at+len(marks) <= len(list) && slices.Equal(list[at:at+len(marks)], marks) {
			pids = append(pids, p.PID)
		}
	}
	return pids
}
