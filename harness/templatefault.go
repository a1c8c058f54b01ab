package harness

import (
	"errors"
	"fmt"
	"io/fs"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/qmp"
)

// A templateFault is an error whose cause is the template itself: its files are damaged or
// missing, it belongs to another machine, QEMU cannot load it, or the guest in it does not come
// to life. A cache removes such a template. Every other error of a restore, as of a record that
// cannot be written or a QEMU that somebody kills, says nothing about the template and leaves it
// in place.
type templateFault struct{ err error }

func (e templateFault) Error() string { return e.err.Error() }
func (e templateFault) Unwrap() error { return e.err }

// isTemplateFault reports whether an error of a restore is the template's.
func isTemplateFault(err error) bool {
	_, ok := errors.AsType[templateFault](err)
	return ok
}

// missing returns the error of opening a template's file, as a fault if the file is not there.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return templateFault{err}
	}
	return err
}

// loadFailed returns the error of loading the template's state, as a fault if QEMU refused the
// state: it reports a failed migration, or exits with a status. A QEMU that a signal ended was
// ended by somebody else.
func (v *vm) loadFailed(err error) error {
	switch {
	case errors.Is(err, errMigrationFailed):
		return templateFault{err}
	case errors.Is(err, qmp.ErrClosed), errors.Is(err, errEndedInMigration):
		<-v.proc.Done
		if v.proc.Exited() {
			return templateFault{fmt.Errorf("QEMU did not take the saved state: %w", v.proc.Describe())}
		}
	}
	return err
}

// wakeFailed returns the error of the restored guest's agent, as a fault if the guest is to
// blame: QEMU runs and the agent is silent or talks nonsense, or the guest has crashed.
func (v *vm) wakeFailed(err error) error {
	if errors.Is(err, agent.ErrLineEnded) {
		<-v.proc.Done // only QEMU's end ends the line
		if !v.proc.Exited() {
			return err
		}
	}
	return templateFault{err}
}
