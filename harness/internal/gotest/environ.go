package gotest

import (
	"slices"
	"strings"
)

// ofTheHost are the variables that describe the host's file system or the user's session. A guest has its own
// values for them, or none.
var ofTheHost = []string{"HOME", "PATH", "TMPDIR", "SHELL", "USER", "LOGNAME", "MAIL", "HOSTNAME", "OLDPWD", "_", "SHLVL",
	"TERM", "COLORTERM", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_CLIENT",
	"SSH_CONNECTION", "SSH_TTY", "DBUS_SESSION_BUS_ADDRESS"}

// ofTheHostPrefixes begin the names of further such variables.
var ofTheHostPrefixes = []string{"LD_", "XDG_"}

// Environ returns the variables of the host's environment that a program sees in a guest: all but those that
// describe the host's file system or the user's session. PWD is dir, the program's working directory there.
func Environ(environ []string, dir string) (all []string) {
	for _, entry := range environ {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || name == "" || name == "PWD" || slices.Contains(ofTheHost, name) {
			continue
		}
		if slices.ContainsFunc(ofTheHostPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			continue
		}
		all = append(all, entry)
	}
	return append(all, "PWD="+dir)
}
