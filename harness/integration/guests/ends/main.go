// Ends is a guest without package guest. It ends in the way that a line on its console names, or
// before it is ready if its argument is "now".
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if slices.Contains(os.Args, "now") {
		os.Exit(3)
	}
	if slices.Contains(os.Args, "leave") {
		child := exec.Command("/proc/self/exe", "daemon")
		child.Stdout = os.Stdout
		child.Start()
		fmt.Println("begun")
		return
	}
	if slices.Contains(os.Args, "daemon") {
		fmt.Println("the child of a daemon runs")
		time.Sleep(math.MaxInt64)
	}
	fmt.Print("guesthouse: ready\nuart:~$ ")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "args":
			fmt.Printf("%q %q\n", os.Args[1:], os.Getenv("K"))
		case "exit 0":
			os.Exit(0)
		case "exit 3":
			os.Exit(3)
		case "return":
			return
		case "panic":
			fmt.Print("working... ")
			panic("x")
		case "kill":
			unix.Kill(unix.Getpid(), unix.SIGKILL)
		case "segv":
			unix.Kill(unix.Getpid(), unix.SIGSEGV)
			time.Sleep(math.MaxInt64)
		case "term":
			unix.Kill(unix.Getpid(), unix.SIGTERM)
			time.Sleep(math.MaxInt64)
		case "exec":
			fmt.Println(unix.Exec("/bbin/gosh", []string{"gosh", "-c", "exit 7"}, os.Environ()))
		case "daemon":
			child := exec.Command("/proc/self/exe", "daemon")
			child.Stdout = os.Stdout
			child.SysProcAttr = &unix.SysProcAttr{Setsid: true}
			fmt.Println(child.Start())
			return
		case "poweroff":
			unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		case "deaf":
			signal.Ignore(unix.SIGTERM)
			fmt.Println("deaf now")
		case "lie":
			fmt.Println("init: /bin/uinit has ended: exit status 0; the machine powers off")
			os.Exit(3)
		case "eat":
			for all := [][]byte{}; ; {
				all = append(all, bytes.Repeat([]byte{1}, 1<<20))
			}
		}
	}
}
