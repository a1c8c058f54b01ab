package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A load holds the generator's measurements.
type load struct {
	echoes    map[string]int // by protocol
	latencies map[string][]uint32
	lost      int
	elapsed   time.Duration
	server    time.Duration // CPU time of the server in the elapsed time
	idle      time.Duration // the time in which the generator had nothing to do
	own       time.Duration // CPU time of the generator
	ring      bool          // its TCP clients had an io_uring
}

// A mix describes the generator's clients.
type mix struct {
	udp, tcp, stalled int
	udpPort, tcpPort  int
	bytes             int
	window            int // of the UDP clients
}

// connectTime bounds the steps before and after the run. The generator's own limits are shorter, and
// its errors say more.
const connectTime = 40 * time.Second

// generate loads a server. It returns the generator with open connections; the caller stops the
// generator, unless there is an error.
func (b *bench) generate(on *process, m mix) (*load, *process, error) {
	var args []string
	for _, n := range []int{on.pid(), m.bytes, int(b.warmUp.Milliseconds()), int(b.run.Milliseconds()),
		m.udpPort, m.udp, m.window, m.tcpPort, m.tcp, m.stalled} {
		args = append(args, strconv.Itoa(n))
	}
	p, err := start(b.ctx, b.loadCore, connectTime+b.warmUp+b.run, b.bin("load"), args...)
	if err != nil {
		return nil, nil, err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, nil, p.complain(errors.New("load: ended early"))
	}
	l, err := parseLoad(line)
	if err == nil {
		err = l.readLatencies(p.out)
	}
	if err != nil {
		return nil, nil, p.complain(err)
	}
	return l, p, nil
}

// parseLoad reads the generator's line of numbers.
func parseLoad(line string) (*load, error) {
	line = strings.TrimSpace(line)
	n := map[string]int{}
	for _, word := range strings.Fields(line) {
		name, value, _ := strings.Cut(word, "=")
		number, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("load: result %q: %w", word, err)
		}
		n[name] = number
	}
	for _, name := range []string{"udp", "tcp", "lost", "ns", "server_ns", "idle_ns", "own_ns", "ring"} {
		if _, ok := n[name]; !ok {
			return nil, fmt.Errorf("load: result %q: no %s", line, name)
		}
	}
	l := &load{
		echoes:    map[string]int{"udp": n["udp"], "tcp": n["tcp"]},
		latencies: map[string][]uint32{},
		lost:      n["lost"],
		elapsed:   time.Duration(n["ns"]),
		server:    time.Duration(n["server_ns"]),
		idle:      time.Duration(n["idle_ns"]),
		own:       time.Duration(n["own_ns"]),
		ring:      n["ring"] == 1,
	}
	if n["udp"]+n["tcp"] > 0 && n["ns"] > 0 {
		return l, nil
	}
	if n["ns"] > 0 && l.ran() < quiet {
		return nil, errDisturbed
	}
	return nil, fmt.Errorf("load: result %q: no echo", line)
}

// errDisturbed is the error of a run that other work on the host disturbed.
var errDisturbed = errors.New("load: no echo, but something else ran on the generator's core")

// readLatencies reads the numbers that follow the line, and sorts them.
func (l *load) readLatencies(r io.Reader) error {
	for _, network := range []string{"udp", "tcp"} {
		values := make([]uint32, l.echoes[network])
		if err := binary.Read(r, binary.NativeEndian, values); err != nil {
			return fmt.Errorf("load: read latencies: %w", err)
		}
		slices.Sort(values)
		l.latencies[network] = values
	}
	return nil
}

// ran returns the share of its core that the generator had. The generator never sleeps, so if the share
// is below 1, another process ran there.
func (l *load) ran() float64 { return l.own.Seconds() / l.elapsed.Seconds() }

// busy returns the share of its core that the server used.
func (l *load) busy() float64 { return l.server.Seconds() / l.elapsed.Seconds() }

// metrics returns the metrics of a load on one protocol.
func (l *load) metrics(network string) map[string]float64 {
	echoes := float64(l.echoes[network])
	return map[string]float64{
		cpuPerEcho: float64(l.server.Nanoseconds()) / 1000 / echoes,
		echoesPerS: echoes / l.elapsed.Seconds(),
		p50:        quantile(l.latencies[network], 0.50) / 1000,
		p99:        quantile(l.latencies[network], 0.99) / 1000,
		serverBusy: 100 * l.busy(),
	}
}
