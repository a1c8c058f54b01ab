package main

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 3, 2}))
	require.Equal(t, 7.0, median([]float64{7}))
	values := []float64{3, 1, 2}
	median(values)
	require.Equal(t, []float64{3, 1, 2}, values, "the order of the runs is kept")
}

func TestQuantileIsTheLeastValueThatTheShareDoesNotExceed(t *testing.T) {
	hundred := make([]uint32, 100)
	for i := range hundred {
		hundred[i] = uint32(i + 1)
	}
	require.Equal(t, 50.0, quantile(hundred, 0.50))
	require.Equal(t, 99.0, quantile(hundred, 0.99))
	require.Equal(t, 100.0, quantile(hundred, 1))
	require.Equal(t, 1.0, quantile(hundred, 0))
	require.Equal(t, 5.0, quantile([]uint32{5}, 0.99))
	require.Equal(t, 0.0, quantile(nil, 0.5))
}

func TestRowsHaveTheFormOfSocketJSON(t *testing.T) {
	r := newResults()
	k := key{benchCase{"udp", 16, 64}.String(), ours, cpuPerEcho}
	for _, v := range []float64{4.6, 4, 4.2} {
		r.add(k, v)
	}
	text, err := json.Marshal(r.rows())
	require.NoError(t, err)
	require.JSONEq(t, `[{"case":"udp/16/64","server":"guesthouse","metric":"cpu_us_per_echo",
		"median":4.2,"min":4,"max":4.6,"runs":3}]`, string(text))
}

func TestAServerThatFailsHasARowWithItsMessageAndNoNumber(t *testing.T) {
	r := newResults()
	k := key{"tcp/16/64", "evio", p99}
	r.fail(k, errors.New("start server evio: ended early"))
	r.fail(k, errors.New("another"))
	text, err := json.Marshal(r.rows())
	require.NoError(t, err)
	require.JSONEq(t, `[{"case":"tcp/16/64","server":"evio","metric":"p99_us","median":null,"min":null,
		"max":null,"runs":0,"failed":"start server evio: ended early"}]`, string(text))

	r.add(k, 12)
	row := r.rows()[0]
	require.Equal(t, 1, row.Runs)
	require.Equal(t, 12.0, *row.Median)
	require.Equal(t, "start server evio: ended early", row.Failed, "one run that succeeds does not hide the other")
}

func TestRoundHasNoNegativeZero(t *testing.T) {
	text, err := json.Marshal(round(-0.0001))
	require.NoError(t, err)
	require.Equal(t, "0", string(text))
	require.Equal(t, 4.123, round(4.1234))
}

func TestNoResultsAreAnEmptyArray(t *testing.T) {
	text, err := json.Marshal(newResults().rows())
	require.NoError(t, err)
	require.Equal(t, "[]", string(text))
}
