package harnesstest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"guesthouse.example/internal/target"
)

// The environment variables of this package. An empty one counts as unset.
const (
	targetsVariable       = "GUESTHOUSE_TARGETS"  // a list: EachTarget runs only these
	requireVariable       = "GUESTHOUSE_REQUIRE"  // a list: a test on one of these fails if the target's QEMU is missing
	coldVariable          = "GUESTHOUSE_COLD"     // a switch, off by default: boot and do not restore machines
	prefetchVariable      = "GUESTHOUSE_PREFETCH" // a switch, on by default: restore the next machine in advance
	coverPackagesVariable = "GUESTHOUSE_COVERPKG" // a list of patterns, as go build -coverpkg has it: the packages whose code is counted in guests
	builtInVariable       = "GUESTHOUSE_BUILTIN"  // a switch, off by default: build guest programs into their initramfs
)

// settings are the values of the environment variables.
type settings struct {
	targets  []string // nil for all
	required []string
	cold     bool
	prefetch bool
	builtIn  bool
}

// readSettings reads the environment. It fails the test if a variable is unknown or has a wrong
// value, because users notice an ignored setting late.
func readSettings(t testing.TB) (s settings) {
	t.Helper()
	var errs [6]error
	s.targets, errs[0] = targetList(targetsVariable)
	s.required, errs[1] = targetList(requireVariable)
	s.cold, errs[2] = switchValue(coldVariable, false)
	s.prefetch, errs[3] = switchValue(prefetchVariable, true)
	s.builtIn, errs[4] = switchValue(builtInVariable, false)
	errs[5] = unknownVariable(os.Environ())
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// targetList returns the targets that an environment variable lists, or nil if it is unset.
func targetList(variable string) ([]string, error) {
	list := os.Getenv(variable)
	if list == "" {
		return nil, nil
	}
	names := strings.Split(list, ",")
	for _, name := range names {
		if _, err := target.Lookup(name); err != nil {
			return nil, fmt.Errorf("%s=%s: %w", variable, list, err)
		}
	}
	return names, nil
}

// switchValue returns whether an environment variable switches something on. If the variable is
// unset, it returns the argument unset.
func switchValue(variable string, unset bool) (bool, error) {
	text := os.Getenv(variable)
	switch strings.ToLower(text) {
	case "":
		return unset, nil
	case "yes", "on":
		return true, nil
	case "no", "off":
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s=%s: write 1, true, yes or on, or 0, false, no or off", variable, text)
	}
	return on, nil
}

// unknownVariable returns an error if the environment has an unknown GUESTHOUSE_ variable, such as
// a misspelt one.
func unknownVariable(environ []string) error {
	known := []string{targetsVariable, requireVariable, coldVariable, prefetchVariable, builtInVariable, coverPackagesVariable}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "GUESTHOUSE_") || value == "" || slices.Contains(known, name) ||
			strings.HasPrefix(name, "GUESTHOUSE_TEST_") { // for guesthouse's own tests
			continue
		}
		return fmt.Errorf("%s=%s: unknown variable: the variables are %s", name, value, strings.Join(known, ", "))
	}
	return nil
}
