package sys

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory returns how many bytes can be used without swapping, and how many there are:
// of the host, or of a control group that bounds this process where that is less.
// It is not ok where the kernel does not tell.
func Memory() (free, total int64, ok bool) {
	own, _ := os.ReadFile("/proc/self/cgroup") // without it there is no group
	return memory("/proc/meminfo", own, "/sys/fs/cgroup")
}

func memory(meminfo string, own []byte, root string) (free, total int64, ok bool) {
	host, err := os.ReadFile(meminfo)
	if err != nil {
		return 0, 0, false
	}
	free, ok1 := field(host, "MemAvailable:")
	total, ok2 := field(host, "MemTotal:")
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	free, total = free<<10, total<<10 // they are in KiB
	for line := range strings.Lines(string(own)) {
		// 0::/path, and of a kernel with the older hierarchies 4:memory:/path
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var v hierarchy
		switch f[1] {
		case "":
			v = unified
		case "memory":
			v = legacy
		default:
			continue
		}
		// Each group on the way up bounds those below it. Where a container sees only
		// its own group, that one is the root.
		for group := filepath.Join("/", f[2]); ; group = filepath.Dir(group) {
			if groupFree, most, ok := v.read(filepath.Join(root, v.dir, group)); ok {
				free, total = min(free, groupFree), min(total, most)
			}
			if group == "/" {
				break
			}
		}
	}
	return max(free, 0), total, true
}

// A hierarchy says how control groups of one kind name their files.
type hierarchy struct{ dir, most, used, active, inactive string }

var (
	unified = hierarchy{"", "memory.max", "memory.current", "active_file", "inactive_file"}
	legacy  = hierarchy{"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file"}
)

// read is not ok where nothing bounds the group.
func (h hierarchy) read(group string) (free, most int64, ok bool) {
	most, err1 := number(filepath.Join(group, h.most)) // or "max"
	used, err2 := number(filepath.Join(group, h.used))
	stat, err3 := os.ReadFile(filepath.Join(group, "memory.stat"))
	if err1 != nil || err2 != nil || err3 != nil {
		return 0, 0, false
	}
	// Files that are cached count as used, and give way.
	active, _ := field(stat, h.active)
	inactive, _ := field(stat, h.inactive)
	return most - used + active + inactive, most, true
}

func number(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// field finds the number behind a name at the start of a line.
func field(text []byte, name string) (int64, bool) {
	for line := range bytes.Lines(text) {
		if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == name {
			n, err := strconv.ParseInt(string(f[1]), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
