package harness

import (
	"slices"
	"time"

	"guesthouse.example/internal/procs"
)

// Leftovers returns the process numbers of QEMUs that this package started and
// whose owner is gone. There should be none: QEMU dies with its owner.
// One whose owner died a moment ago is given 2 s to follow it.
func Leftovers() (pids []int, err error) {
	for range 10 {
		all, err := procs.All()
		if err != nil {
			return nil, err
		}
		if pids = leftovers(all, procs.Args); len(pids) == 0 {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	return pids, nil
}

// leftovers finds those that have been handed to init or to systemd, as orphans are, and of
// these QEMUs with the connections that only we give them.
func leftovers(all []procs.Process, args func(pid int) []string) (pids []int) {
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
