package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"guesthouse.example/internal/sys"
)

// An Identity is everything that a machine and its template must have in common.
type Identity struct {
	Format    int      `json:"format"`
	Target    string   `json:"target"`
	QEMU      string   `json:"qemu"`                // the binary's path, size and time of change
	Args      []string `json:"args"`                // QEMU's arguments, without those that differ from run to run
	Kernel    string   `json:"kernel"`              // SHA-256
	Initramfs string   `json:"initramfs,omitempty"` // SHA-256
	Loaders   string   `json:"loaders,omitempty"`   // SHA-256 of each, separated by spaces
	Ready     string   `json:"ready"`

	Disks []DiskIdentity `json:"disks,omitempty"`

	Host string `json:"host,omitempty"` // the boot of the host under KVM; empty under TCG

	Outbound string `json:"outbound"` // the filter runs in a prefetched machine before a Spec is known

	// Program is the program that was delivered into the machine; nil if none was.
	Program *Program `json:"program,omitempty"`
}

// A Program is a program that was delivered into a platform.
type Program struct {
	SHA256 string   `json:"sha256"`
	Args   []string `json:"args,omitempty"`
	Env    []string `json:"env,omitempty"`
}

// Platform returns the identity of the machine before a program was delivered into it. A platform is ready
// when its console matches the pattern ready.
func (id Identity) Platform(ready string) Identity {
	id.Program, id.Ready = nil, ready
	return id
}

// programSum returns the hash of the delivered program, or "".
func (id Identity) programSum() string {
	if id.Program == nil {
		return ""
	}
	return id.Program.SHA256
}

// programArgs returns a text that differs with the arguments and the environment of the program.
func (id Identity) programArgs() string {
	if id.Program == nil {
		return ""
	}
	return fmt.Sprintf("%q %q", id.Program.Args, id.Program.Env)
}

// Format is the current format of templates. Increase it with every change after which older templates
// cannot be used.
const Format = 6

// difference returns the name of the first part in which two identities differ, or "".
func (id Identity) difference(other Identity) string {
	for _, part := range []struct {
		name string
		a, b any
	}{
		{"format", id.Format, other.Format},
		{"target", id.Target, other.Target},
		{"host, or in another boot of it", id.Host, other.Host},
		{"QEMU", id.QEMU, other.QEMU},
		{"kernel", id.Kernel, other.Kernel},
		{"initramfs", id.Initramfs, other.Initramfs},
		{"file of a loader", id.Loaders, other.Loaders},
		{"program", id.programSum(), other.programSum()},
		{"argument or environment variable of the program", id.programArgs(), other.programArgs()},
		{"ready pattern", id.Ready, other.Ready},
		{"disk, or another content of a disk's file", diskText(id.Disks), diskText(other.Disks)},
		{"Outbound", id.Outbound, other.Outbound},
		{"memory, processors, devices, network or command line", strings.Join(id.Args, "\n"), strings.Join(other.Args, "\n")},
	} {
		if part.a != part.b {
			return part.name
		}
	}
	return ""
}

// diskText returns a text that is the same for equal disks.
func diskText(disks []DiskIdentity) string {
	text, _ := json.Marshal(disks) // numbers and texts
	return string(text)
}

// Fits returns a Fault if the template was not saved from a machine with this identity.
func (t *Template) Fits(id Identity) error {
	if part := t.Of.difference(id); part != "" {
		return Fault{fmt.Errorf("the template was saved with another %s", part)}
	}
	return nil
}

// Key returns the name that a cache gives to the template of machines with an identity. The name is
// different after each boot of the host. It is also different with anyGuest: such a template may be of
// a guest without an agent, and only a caller that accepts such a guest must find it.
func Key(id Identity, anyGuest bool) (string, error) {
	boot, err := sys.BootID()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(id)
	if err != nil {
		return "", err
	}
	if anyGuest {
		text = append(text, "any guest"...)
	}
	sum := sha256.Sum256(append(text, boot...))
	return hex.EncodeToString(sum[:16]), nil
}
