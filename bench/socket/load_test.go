package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const goodLine = "udp=2 tcp=3 lost=1 late=0 ns=1000000000 server_ns=20000 own_ns=7 idle_ns=8 ring=1\n"

func TestParseLoad(t *testing.T) {
	l, err := parseLoad(goodLine)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"udp": 2, "tcp": 3}, l.echoes)
	require.Equal(t, time.Second, l.elapsed)
	require.Equal(t, 20*time.Microsecond, l.server)
	require.Equal(t, 1, l.lost)
	require.True(t, l.ring)
}

func TestParseLoadRefusesMalformedResults(t *testing.T) {
	for name, line := range map[string]string{
		"nothing":         "",
		"a missing value": "udp=1 tcp=0 lost=0 ns=1",
		"no number":       "udp=x",
		"no echo":         "udp=0 tcp=0 lost=0 late=0 ns=1000000000 server_ns=20000 own_ns=999000000 idle_ns=8 ring=1",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseLoad(line)
			require.Error(t, err)
			require.NotErrorIs(t, err, errDisturbed)
		})
	}
}

func TestNoEchoIsNotTheServersFaultWhereTheGeneratorWasDisturbed(t *testing.T) {
	_, err := parseLoad("udp=0 tcp=0 lost=16 late=0 ns=1000000000 server_ns=0 own_ns=300000000 idle_ns=0 ring=0")
	require.ErrorIs(t, err, errDisturbed)
}

func TestAnUnfitRunIsRepeatedAndAFailedRunIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		fit   bool
		err   error
		spare time.Duration
		calls int
	}{
		"fit":               {true, nil, time.Hour, 1},
		"not fit":           {false, nil, time.Hour, 3},
		"disturbed, silent": {false, fmt.Errorf("server: %w", errDisturbed), time.Hour, 3},
		"failed":            {false, errors.New("refused"), time.Hour, 1},
		"no time to spare":  {false, nil, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{plan: plan{spare: c.spare}}
			calls := 0
			b.repeat(func() (bool, error) {
				calls++
				return c.fit, c.err
			})
			require.Equal(t, c.calls, calls)
		})
	}
}

func TestLatenciesAreReadByProtocolAndSorted(t *testing.T) {
	l, err := parseLoad(goodLine)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, binary.Write(&out, binary.NativeEndian, []uint32{9000, 1000, 7000, 8000, 6000}))
	require.NoError(t, l.readLatencies(&out))
	require.Equal(t, []uint32{1000, 9000}, l.latencies["udp"])
	require.Equal(t, []uint32{6000, 7000, 8000}, l.latencies["tcp"])

	m := l.metrics("udp")
	require.Equal(t, 10.0, m[cpuPerEcho])
	require.Equal(t, 2.0, m[echoesPerS])
	require.Equal(t, 1.0, m[p50])
	require.Equal(t, 9.0, m[p99])
	require.Equal(t, 0.002, m[serverBusy])

	require.ErrorContains(t, l.readLatencies(bytes.NewReader([]byte{1, 2})), "read latencies")
}

func TestReadMemoryOfThisProcess(t *testing.T) {
	m, err := readMemory(selfPID())
	require.NoError(t, err)
	require.Greater(t, m.resident, m.private)
	require.Positive(t, m.private)
	require.Positive(t, m.threads)
}
