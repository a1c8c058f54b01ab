package sys

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory returns how many bytes this process could still use without swapping, and the total size.
// Both are the host's, or those of a control group that limits this process further.
func Memory() (available, total int64, ok bool) {
	groups, _ := os.ReadFile("/proc/self/cgroup") // a kernel without control groups has no such file
	return memory("/proc/meminfo", groups, "/sys/fs/cgroup")
}

func memory(meminfo string, groups []byte, root string) (available, total int64, ok bool) {
	host, err := os.ReadFile(meminfo)
	if err != nil {
		return 0, 0, false
	}
	available, ok1 := field(host, "MemAvailable:")
	total, ok2 := field(host, "MemTotal:")
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	available, total = available<<10, total<<10 // meminfo counts in KiB
	for line := range strings.Lines(string(groups)) {
		// "0::/path" in version 2 of control groups, "4:memory:/path" in version 1.
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var v cgroupVersion
		switch f[1] {
		case "":
			v = cgroup2
		case "memory":
			v = cgroup1
		default:
			continue
		}
		// The limit of a group holds for all groups below it. A container may see its own
		// group as the root.
		for group := filepath.Join("/", f[2]); ; group = filepath.Dir(group) {
			if left, limit, ok := v.memory(filepath.Join(root, v.dir, group)); ok {
				available, total = min(available, left), min(total, limit)
			}
			if group == "/" {
				break
			}
		}
	}
	return max(available, 0), total, true
}

// A cgroupVersion names the files, and the fields of memory.stat, in which a version of control
// groups reports memory.
type cgroupVersion struct{ dir, limit, usage, activeFile, inactiveFile string }

var (
	cgroup2 = cgroupVersion{"", "memory.max", "memory.current", "active_file", "inactive_file"}
	cgroup1 = cgroupVersion{"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file"}
)

// memory returns how many bytes a group has left of its limit. It is not ok if the group has no
// limit.
func (v cgroupVersion) memory(group string) (left, limit int64, ok bool) {
	limit, err1 := readNumber(filepath.Join(group, v.limit)) // fails for "max", which is no limit
	usage, err2 := readNumber(filepath.Join(group, v.usage))
	stat, err3 := os.ReadFile(filepath.Join(group, "memory.stat"))
	if err1 != nil || err2 != nil || err3 != nil {
		return 0, 0, false
	}
	// The page cache counts as usage, but the kernel reclaims it on demand.
	active, _ := field(stat, v.activeFile)
	inactive, _ := field(stat, v.inactiveFile)
	return limit - usage + active + inactive, limit, true
}

// readNumber reads a file that holds one number.
func readNumber(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// field returns the number that follows a name at the start of a line.
func field(text []byte, name string) (int64, bool) {
	for line := range bytes.Lines(text) {
		if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == name {
			n, err := strconv.ParseInt(string(f[1]), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
