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

// What the heap and its runtime may differ by from one moment to another; 16 MiB
// is one console that is not let go.
const rssMost = 16 << 10 // KiB

// leaks is what there is more of than at an earlier moment, or at one moment.
type leaks struct {
	Processes  int `json:"leaked_processes"` // children
	FDs        int `json:"leaked_fds"`
	Files      int `json:"leaked_files"` // in the directories for temporary ones
	Goroutines int `json:"leaked_goroutines"`
	RSS        int `json:"rss_growth_kib"` // after a garbage collection
}

func (l leaks) any() bool {
	return l.Processes > 0 || l.FDs > 0 || l.Files > 0 || l.Goroutines > 0 || l.RSS > rssMost
}

// measure counts what this process has now, without the busy processes.
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

// settled returns what there is more of than base, when that is nothing or stays:
// a goroutine that has said its last word takes a moment to be gone.
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

// busyVariable in the environment makes this program a busy process.
const busyVariable = "GUESTHOUSE_SOAK_BUSY"

// busy is the load: copies of this program that compute for ever.
type busy []*busyProcess

type busyProcess struct {
	cmd   *exec.Cmd
	ended <-chan error
}

// startBusy starts n of them, which die with us.
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
