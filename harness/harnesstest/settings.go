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

// The environment variables of this package. One that is empty is not set.
const (
	targetsVariable  = "GUESTHOUSE_TARGETS"  // a list: EachTarget leaves the others out
	requireVariable  = "GUESTHOUSE_REQUIRE"  // a list: a missing QEMU of these fails
	coldVariable     = "GUESTHOUSE_COLD"     // a switch: machines boot and are not restored
	prefetchVariable = "GUESTHOUSE_PREFETCH" // a switch, on where it is not set: the next machine waits
)

// settings are what the environment asks for.
type settings struct {
	targets  []string // nil for all
	required []string
	cold     bool
	prefetch bool
}

// asked reads the environment, and fails the test where that has something that it does not
// understand: a setting that is passed over is found out late.
func asked(t testing.TB) (s settings) {
	t.Helper()
	var errs [5]error
	s.targets, errs[0] = listed(targetsVariable)
	s.required, errs[1] = listed(requireVariable)
	s.cold, errs[2] = switched(coldVariable, false)
	s.prefetch, errs[3] = switched(prefetchVariable, true)
	errs[4] = unknownVariable(os.Environ())
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// listed returns the targets that an environment variable lists, nil if it is
// not set.
func listed(variable string) ([]string, error) {
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

// switched returns what an environment variable says, or unset.
func switched(variable string, unset bool) (bool, error) {
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

// unknownVariable refuses a variable that has our name and that nobody reads.
func unknownVariable(environ []string) error {
	known := []string{targetsVariable, requireVariable, coldVariable, prefetchVariable}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "GUESTHOUSE_") || value == "" || slices.Contains(known, name) ||
			strings.HasPrefix(name, "GUESTHOUSE_TEST_") { // of guesthouse's own tests
			continue
		}
		return fmt.Errorf("%s=%s: there is no such variable; there are %s", name, value, strings.Join(known, ", "))
	}
	return nil
}
