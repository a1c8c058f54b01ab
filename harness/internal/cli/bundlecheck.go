package cli

import (
	"fmt"

	"guesthouse.example/harness"
	"guesthouse.example/internal/board"
	"guesthouse.example/internal/target"
)

// unpackHint is what a user can do with a bundle that run refuses, after a look at what it asks for.
const unpackHint = "unpack the bundle with tar, check its spec.json, and give that file to run -spec there"

// checkBundled refuses the Spec of a bundle that would run a program of this host or open a file of this host. A
// bundle may come from anybody. It may choose what its machine boots, and its own files alone.
func checkBundled(spec harness.Spec) error {
	if !isUsualQEMU(spec) || len(spec.QEMUArgs) > 0 {
		return fmt.Errorf("the recorded run chose its own QEMU program or arguments (%q %q), which can access anything on this host: %s", spec.QEMU, spec.QEMUArgs, unpackHint)
	}
	if what := notBundled(spec); what != "" {
		return fmt.Errorf("the recorded run had %s, which is not in the bundle, and a bundle opens no file of this host: %s", what, unpackHint)
	}
	return nil
}

// notBundled names the first thing of the host that a machine of the Spec has and a bundle does not contain. It is
// empty if there is none.
func notBundled(spec harness.Spec) string {
	for _, d := range spec.Disks {
		if d.File != "" {
			return fmt.Sprintf("a disk with the file %q", d.File)
		}
	}
	for _, s := range spec.Share {
		return fmt.Sprintf("the directory %q of its host", s.Host)
	}
	// The files that a board has beside its image are loaders in every record. Without them, they would be files
	// of the cache, in which the bundle's image lies.
	if beside := boardOf(spec).Beside; len(beside) > 0 && len(spec.Loaders) == 0 {
		return fmt.Sprintf("the file %q beside its image", beside[0])
	}
	return ""
}

// boardOf returns the board of a Spec, or an empty one.
func boardOf(spec harness.Spec) board.Board {
	if spec.CustomBoard != nil {
		return *spec.CustomBoard
	}
	b, err := board.Lookup(spec.Board)
	if err != nil {
		return board.Board{}
	}
	return b
}

// isUsualQEMU reports whether a Spec runs the target's QEMU from PATH.
func isUsualQEMU(s harness.Spec) bool {
	t, err := target.Lookup(s.Target)
	return s.QEMU == "" || err == nil && s.QEMU == t.QEMU
}
