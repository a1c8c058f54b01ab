package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"guesthouse.example/internal/sys"
	"guesthouse.example/internal/tied"
)

// maxGrowth bounds the normal fluctuation of the heap. One leaked console is 16 MiB.
const maxGrowth = 16 << 10 // KiB

// leaks holds the counts at one moment, or their growth since an earlier moment.
type leaks struct {
	Processes  int `json:"leaked_processes"` // children
	FDs        int `json:"leaked_fds"`
	Files      int `json:"leaked_files"` // in the temporary directories
	Goroutines int `json:"leaked_goroutines"`
	RSS        int `json:"rss_growth_kib"` // after a garbage collection
}

func (l leaks) any() bool {
	return l.Processes > 0 || l.FDs > 0 || l.Files > 0 || l.Goroutines > 0 || l.RSS > maxGrowth
}

// measure counts what this process has now, except for its busy processes.
func measure(tmp []string, busy busy) (l leaks) {
	debug.FreeOSMemory()
	l.Processes = len(sys.Children(os.Getpid())) - len(busy)
	fds, _ := os.ReadDir("/proc/self/fd")
	l.FDs = len(fds)
	l.Goroutines = runtime.NumGoroutine()
	for _, dir := range tmp {
		filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if path != dir && err == nil {
				l.Files++
			}
			return nil
		})
	}
	// The kernel decides how many pages of files, such as the program itself, stay in memory.
	if m, err := sys.MemoryOf(os.Getpid()); err == nil {
		l.RSS = int(m.Anonymous >> 10)
	}
	return l
}

// settled returns the growth since base. It waits until nothing has grown or patience is over, because
// the last goroutines take a moment to end.
func settled(base leaks, tmp []string, busy busy, patience time.Duration) leaks {
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		l := measure(tmp, busy)
		l.Processes -= base.Processes
		l.FDs -= base.FDs
		l.Goroutines -= base.Goroutines
		l.RSS -= base.RSS
		if !l.any() || time.Now().After(end) {
			return l
		}
	}
}

// busyVariable makes this program a busy process if it is set in the environment.
const busyVariable = "GUESTHOUSE_SOAK_BUSY"

// busy is the load on the host: copies of this program that compute forever.
type busy []*busyProcess

type busyProcess struct {
	cmd   *exec.Cmd
	ended <-chan error
}

// startBusy starts n busy processes, which die with this one.
func startBusy(n int) (busy, error) {
	var all busy
	for range n {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), busyVariable+"=1", "GOMAXPROCS=1")
		ended, err := tied.Start(cmd)
		if err != nil {
			return all, err
		}
		all = append(all, &busyProcess{cmd, ended})
	}
	return all, nil
}

func (b busy) stop() {
	for _, p := range b {
		p.cmd.Process.Kill()
		<-p.ended
	}
}
