package sys

import (
	"fmt"
	"os"
)

// ProcessMemory is how much RAM a process occupies, in bytes.
type ProcessMemory struct {
	Resident     int64
	Proportional int64 // as Resident, with each shared page divided by the number of processes that share it
	Anonymous    int64 // as Resident, without the pages of files, such as the program itself
}

// MemoryOf returns the memory of a process. Source: Documentation/filesystems/proc.rst of Linux.
func MemoryOf(pid int) (m ProcessMemory, err error) {
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	text, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	for name, bytes := range map[string]*int64{"Rss:": &m.Resident, "Pss:": &m.Proportional, "Anonymous:": &m.Anonymous} {
		kib, ok := field(text, name)
		if !ok {
			return m, fmt.Errorf("%s has no number %s", file, name)
		}
		*bytes = kib << 10
	}
	return m, nil
}
