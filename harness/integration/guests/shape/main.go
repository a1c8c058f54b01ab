// Shape is a guest without package guest that says which shape its machine has. A line on its console asks.
package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	fmt.Print("guesthouse: ready\nuart:~$ ")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "cpus":
			cpus()
		case "fill":
			fmt.Println(fill())
		}
	}
}

// cpus runs a thread on each processor at the same time, and prints where the threads ran.
func cpus() {
	n := runtime.NumCPU()
	ran := make([]int, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			runtime.LockOSThread() // the thread ends with the goroutine
			var set unix.CPUSet
			set.Set(i)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				fmt.Println(err)
			}
			for start := time.Now(); time.Since(start) < 20*time.Millisecond; {
			}
			ran[i] = current()
		})
	}
	all.Wait()
	fmt.Printf("%d processors, GOMAXPROCS is %d, threads ran on %v\n", n, runtime.GOMAXPROCS(0), ran)
}

// current returns the number of the processor that runs the calling thread.
func current() int {
	var cpu uint32
	if _, _, errno := unix.Syscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return -1
	}
	return int(cpu)
}

// fill writes random bytes to the first disk, past the cache, until a write fails, and says how far it came.
func fill() string {
	disk, err := os.OpenFile("/dev/vda", os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		return err.Error()
	}
	defer disk.Close()
	block := make([]byte, 64<<10)
	rand.Read(block)
	for i := 0; ; i++ {
		if _, err := disk.Write(block); err != nil {
			return fmt.Sprintf("block %d: %v", i, err)
		}
	}
}
