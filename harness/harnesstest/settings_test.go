package harnesstest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASwitchAcceptsTheUsualSpellings(t *testing.T) {
	for _, variable := range []string{coldVariable, prefetchVariable} {
		for text, want := range map[string]bool{
			"1": true, "true": true, "TRUE": true, "yes": true, "Yes": true, "on": true, "t": true,
			"0": false, "false": false, "no": false, "off": false, "OFF": false, "f": false,
		} {
			t.Setenv(variable, text)
			got, err := switchValue(variable, !want)
			require.NoError(t, err, text)
			require.Equal(t, want, got, text)
		}
		t.Setenv(variable, "")
		for _, unset := range []bool{true, false} {
			got, err := switchValue(variable, unset)
			require.NoError(t, err)
			require.Equal(t, unset, got)
		}
		t.Setenv(variable, "please")
		_, err := switchValue(variable, false)
		require.EqualError(t, err, variable+"=please: write 1, true, yes or on, or 0, false, no or off")
	}
}

// A user would notice an ignored setting late.
func TestAnInvalidSettingFailsTheTest(t *testing.T) {
	Require(t, "arm64")
	for setting, says := range map[string]string{
		"GUESTHOUSE_COLD=maybe":     "GUESTHOUSE_COLD=maybe: write 1, true, yes or on, or 0, false, no or off",
		"GUESTHOUSE_PREFETCH=never": "GUESTHOUSE_PREFETCH=never: write 1,",
		"GUESTHOUSE_TARGET=arm64":   "GUESTHOUSE_TARGET=arm64: unknown variable: the variables are GUESTHOUSE_TARGETS, GUESTHOUSE_REQUIRE, GUESTHOUSE_COLD, GUESTHOUSE_PREFETCH",
		"GUESTHOUSE_TARGETS=arm65":  `GUESTHOUSE_TARGETS=arm65: unknown target "arm65"`,
	} {
		for _, test := range []string{"each target", "pass"} {
			out, ok := run(t, test, []string{setting})
			require.False(t, ok, "%s: %s", setting, out)
			require.Contains(t, out, says)
		}
	}
}

func TestTheColdSwitchBootsWithoutATemplate(t *testing.T) {
	t.Parallel()
	Require(t, "arm64")
	out, ok := run(t, "how", []string{"GUESTHOUSE_COLD=yes"})
	require.True(t, ok, out)
	require.Contains(t, out, "the machine is cold: ")
}
