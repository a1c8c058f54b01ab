package cli

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/kvm"
)

// The test passes doctor the results of probes that no test host can produce.
func TestDoctorReportsTheAcceleration(t *testing.T) {
	require.Equal(t, finding{Check: "x86_64 acceleration", Says: "kvm: the kernel's first byte came after 0.3 s"},
		acceleration("x86_64", "the kernel's first byte came after 0.3 s", nil))
	require.Equal(t, finding{Check: "x86_64 acceleration",
		Says: "tcg: KVM is present but does not boot a guest: the kernel printed nothing within 10s",
		Hint: "to probe KVM again, remove /cache/1.json"},
		acceleration("x86_64", "", &kvm.Error{Target: "x86_64", What: "KVM is present but does not boot a guest",
			Evidence: "the kernel printed nothing within 10s", Cure: "to probe KVM again, remove /cache/1.json"}))
	require.Equal(t, finding{Check: "x86_64 acceleration", Says: "tcg: KVM could not be tried: no such file"},
		acceleration("x86_64", "", errors.New("no such file")))
}
