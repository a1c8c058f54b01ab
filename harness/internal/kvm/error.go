package kvm

import "fmt"

// An Error tells why a machine does not run under KVM. harness.KVMError has its fields.
type Error struct {
	Target   string
	What     string // what is wrong
	Evidence string // the observation that shows it
	Cure     string // what may make KVM work; empty if nothing is known
}

func (e *Error) Error() string { return e.Cause() + "; " + e.Hint() }

// Cause returns the error without its hint.
func (e *Error) Cause() string {
	return fmt.Sprintf("kvm for %s: %s: %s", e.Target, e.What, e.Evidence)
}

// Hint returns what the user can do about the error.
func (e *Error) Hint() string {
	const withoutKVM = `ask for no acceleration, or for "tcg"`
	if e.Cure == "" {
		return withoutKVM
	}
	return e.Cure + "; or " + withoutKVM
}
