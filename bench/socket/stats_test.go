package main

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

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
		r.Add(k, v)
	}
	text, err := json.Marshal(rows(r))
	require.NoError(t, err)
	require.JSONEq(t, `[{"case":"udp/16/64","server":"guesthouse","metric":"cpu_us_per_echo",
		"median":4.2,"min":4,"max":4.6,"runs":3}]`, string(text))
}

func TestAServerThatFailsHasARowWithItsMessageAndNoNumber(t *testing.T) {
	r := newResults()
	k := key{"tcp/16/64", "evio", p99}
	r.Fail(k, errors.New("start server evio: ended early"))
	r.Fail(k, errors.New("another"))
	text, err := json.Marshal(rows(r))
	require.NoError(t, err)
	require.JSONEq(t, `[{"case":"tcp/16/64","server":"evio","metric":"p99_us","median":null,"min":null,
		"max":null,"runs":0,"failed":"start server evio: ended early"}]`, string(text))
}

func TestNoResultsAreAnEmptyArray(t *testing.T) {
	text, err := json.Marshal(rows(newResults()))
	require.NoError(t, err)
	require.Equal(t, "[]", string(text))
}
