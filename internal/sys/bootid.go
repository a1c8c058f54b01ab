package sys

import (
	"os"
	"strings"
)

// BootID returns the identity of the host's current boot: a UUID that the kernel draws at random
// when it starts.
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}
