package results

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, Median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, Median([]float64{4, 1, 3, 2}))
	require.Equal(t, 7.0, Median([]float64{7}))
	require.True(t, math.IsNaN(Median(nil)))
	values := []float64{3, 1, 2}
	Median(values)
	require.Equal(t, []float64{3, 1, 2}, values, "the order of the runs is kept")
}

func TestAKeyThatFailsHasItsFirstMessageAndNoNumber(t *testing.T) {
	r := New[string](1)
	r.Fail("evio", errors.New("ended early"))
	r.Fail("evio", errors.New("another"))
	r.Add("gnet", 4.66)
	summaries := func() (all []string) {
		for k, s := range r.All() {
			text, err := json.Marshal(s)
			require.NoError(t, err)
			all = append(all, k+string(text))
		}
		return all
	}
	require.Equal(t, []string{`evio{"median":null,"min":null,"max":null,"runs":0,"failed":"ended early"}`,
		`gnet{"median":4.7,"min":4.7,"max":4.7,"runs":1}`}, summaries())
	r.Add("evio", 12)
	require.Equal(t, `evio{"median":12,"min":12,"max":12,"runs":1,"failed":"ended early"}`, summaries()[0],
		"one run that succeeds does not hide the other")
}

func TestRoundHasNoNegativeZero(t *testing.T) {
	r := New[string](3)
	text, err := json.Marshal(r.round(-0.0001))
	require.NoError(t, err)
	require.Equal(t, "0", string(text))
	require.Equal(t, 4.123, r.round(4.1234))
}

func TestTheMachineIsNamed(t *testing.T) {
	require.Regexp(t, `^.+, \d+ cores, Linux \d+\.\S+, go\d\S*$`, Machine())
}
