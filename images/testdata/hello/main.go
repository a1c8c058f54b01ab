// Hello is the guest of the tests of package images. It prints what it finds and
// powers the machine off.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/u-root/u-root/pkg/kmodule"
	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() == 1 {
		fmt.Println("hello: not meant to be init")
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		fmt.Println("hello: uname:", err)
	}
	fmt.Println("hello from", runtime.GOARCH, unix.ByteSliceToString(u.Release[:]))
	conf, err := os.ReadFile("/etc/modules-load.d/guesthouse.conf")
	if err != nil {
		fmt.Println("hello:", err)
	}
	for _, name := range strings.Split(string(conf), "\n") {
		if name = strings.TrimSpace(name); name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if err := kmodule.Probe(name, ""); err != nil {
			fmt.Println("hello: load", name, err)
		}
	}
	loaded, _ := os.ReadFile("/proc/modules")
	fmt.Printf("hello: modules:\n%s", loaded)
	links, _ := os.ReadDir("/sys/class/net")
	for _, l := range links {
		fmt.Println("hello: link", l.Name())
	}
	fmt.Println("hello: done")
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
