package qemu

import (
	"slices"
	"time"

	"guesthouse.example/internal/sys"
)

// Orphans returns the process numbers of QEMUs that this package started and whose owner is gone. There should be
// none, because QEMU dies with its owner. Orphans gives a QEMU whose owner has just died 2 s to follow.
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

// orphans finds the QEMUs that have the connections that only this package gives them, and whose parent is init
// or systemd, which adopt orphans.
func orphans(all []sys.Process, args func(pid int) []string) (pids []int) {
	names := make(map[int]string)
	for _, p := range all {
		names[p.PID] = p.Name
	}
	ours := connectionArgs()
	for _, p := range all {
		if p.Parent != 1 && names[p.Parent] != "systemd" {
			continue
		}
		has := args(p.PID)
		if at := slices.Index(has, ours[0]); at >= 0 && at+len(ours) <= len(has) && slices.Equal(has[at:at+len(ours)], ours) {
			pids = append(pids, p.PID)
		}
	}
	return pids
}
