package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"guesthouse.example/bench/internal/echoguest"
	"guesthouse.example/bench/internal/suite"
	"guesthouse.example/harness"
	"guesthouse.example/internal/sys"
)

// Metrics.
const (
	us        = "us" // of a round trip
	ms        = "ms" // of the whole measurement
	perSecond = "echoes_per_s"
	megabytes = "mb_per_s"
	cpu       = "cpu_ms" // processor time of this process, of QEMU and of passt during the measurement
)

const (
	trips     = 1000     // round trips of a measurement
	datagrams = 10_000   // echoes of a measurement
	bulk      = 64 << 20 // bytes of a stream
	between   = 32 << 20 // bytes of a stream from guest to guest
	warmUp    = 50       // round trips before a measurement
)

// within bounds a measurement, so that a network that stalls does not hold up the others.
const within = 30 * time.Second

// A measurement uses the guests, which have answered before. It returns the values of the case's own metrics.
type measurement func(ctx context.Context, w *wire, m []*harness.Machine) (map[string]float64, error)

// A kind is a case on any network.
type kind struct {
	name    string
	title   string
	speed   string // the title of its speed, which is its second metric
	guests  int
	metrics []string
	measure measurement // nil measures the first echo
	goal    float64     // how many times slirp's time lan is to take at most; 0 if there is no goal
}

// heading is the title with the unit of the time that the case takes.
func (k kind) heading() string {
	return k.title + ", " + map[string]string{us: "µs", ms: "ms"}[cost(k)]
}

var kinds = []kind{
	{"first-echo-udp", "restore to first echo, UDP", "", 1, []string{ms}, nil, 1.05},
	{"first-echo-tcp", "restore to first echo, TCP", "", 1, []string{ms}, nil, 1.05},
	{"trip-udp", "round trip, UDP", "", 1, []string{us, cpu}, trip("udp"), 1.1},
	{"trip-tcp", "round trip, TCP", "", 1, []string{us, cpu}, trip("tcp"), 1.1},
	{"echoes-udp", "10,000 UDP echoes, 16 in flight", "UDP echoes a second, 16 in flight", 1, []string{ms, perSecond, cpu}, many, 0},
	{"bulk-in", "64 MiB to the guest, TCP", "TCP to the guest, MB/s", 1, []string{ms, megabytes, cpu}, stream(sinkPort, bulkIn), 1 / 0.9},
	{"bulk-out", "64 MiB from the guest, TCP", "TCP from the guest, MB/s", 1, []string{ms, megabytes, cpu}, stream(sourcePort, bulkOut), 1 / 0.9},
	{"guests-udp", "guest to guest, round trip, UDP", "", 2, []string{us, cpu}, tripBetween, 0},
	{"guests-bulk", "32 MiB from guest to guest, TCP", "TCP from guest to guest, MB/s", 2, []string{ms, megabytes, cpu}, bulkBetween, 0},
}

// cases returns the cases of some networks.
func (b *bench) cases(networks []string) (all []suite.Case) {
	for _, k := range kinds {
		for _, network := range networks {
			all = append(all, suite.Case{Name: k.name, Harness: network, Metrics: k.metrics, Run: func(ctx context.Context) (map[string]float64, error) {
				return b.run(ctx, k, network)
			}})
		}
	}
	return all
}

func (b *bench) run(ctx context.Context, k kind, network string) (map[string]float64, error) {
	if _, err := b.saved(ctx, network); err != nil { // the first run of a network boots its guest
		return nil, err
	}
	w, err := newWire(network)
	if err != nil {
		return nil, err
	}
	defer w.close()
	began := time.Now()
	machines, err := b.start(ctx, w, k.guests)
	if err != nil {
		return nil, err
	}
	defer end(machines)
	if k.measure == nil {
		err := answers(ctx, machines[0], k.name[len("first-echo-"):])
		return map[string]float64{ms: milliseconds(time.Since(began))}, err
	}
	for _, m := range machines {
		if err := answers(ctx, m, "udp"); err != nil {
			return nil, err
		}
	}
	pids := w.pids()
	for _, m := range machines {
		pids = append(pids, m.Result().PID)
	}
	before := processorTime(pids)
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("the measurement takes more than %v", within))
	defer cancel()
	values, err := k.measure(ctx, w, machines)
	if err != nil {
		return nil, err
	}
	values[cpu] += milliseconds(processorTime(pids) - before)
	return values, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func answers(ctx context.Context, m *harness.Machine, network string) error {
	c, err := m.Dial(ctx, network, echoPort)
	if err != nil {
		return err
	}
	defer c.Close()
	return echoguest.Wait(ctx, c)
}

// processorTime returns the processor time of this process and of others.
func processorTime(pids []int) (sum time.Duration) {
	for _, pid := range append(pids, os.Getpid()) {
		for _, t := range sys.Threads(pid) {
			sum += t.Ran
		}
	}
	return sum
}

// trip measures round trips.
func trip(network string) measurement {
	return func(ctx context.Context, _ *wire, m []*harness.Machine) (map[string]float64, error) {
		c, err := m[0].Dial(ctx, network, echoPort)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if _, err := roundTrips(ctx, c, warmUp); err != nil {
			return nil, err
		}
		median, err := roundTrips(ctx, c, trips)
		return map[string]float64{us: float64(median.Nanoseconds()) / 1000}, err
	}
}

// many measures echoes with a window of datagrams in flight.
func many(ctx context.Context, _ *wire, m []*harness.Machine) (map[string]float64, error) {
	c, err := m[0].Dial(ctx, "udp", echoPort)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	began := time.Now()
	err = echoes(ctx, c, datagrams)
	took := time.Since(began)
	return map[string]float64{ms: milliseconds(took), perSecond: datagrams / took.Seconds()}, err
}

// stream measures a stream of bytes to a port of the guest or from it.
func stream(port int, transfer func(ctx context.Context, c net.Conn, n int) error) measurement {
	return func(ctx context.Context, _ *wire, m []*harness.Machine) (map[string]float64, error) {
		c, err := m[0].Dial(ctx, "tcp", port)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		began := time.Now()
		err = transfer(ctx, c, bulk)
		return throughput(bulk, time.Since(began)), err
	}
}

func throughput(bytes int, took time.Duration) map[string]float64 {
	return map[string]float64{ms: milliseconds(took), megabytes: float64(bytes) / 1e6 / took.Seconds()}
}

// tripBetween measures round trips from the first guest to the second. The guest runs the client, so the result is
// the mean, and not the median.
func tripBetween(ctx context.Context, w *wire, m []*harness.Machine) (map[string]float64, error) {
	took, err := callOther(ctx, w, m, "udp", echoPort, trips)
	return map[string]float64{us: float64(took.Nanoseconds()) / 1000 / trips}, err
}

// bulkBetween measures a stream from the second guest to the first.
func bulkBetween(ctx context.Context, w *wire, m []*harness.Machine) (map[string]float64, error) {
	took, err := callOther(ctx, w, m, "tcp", sourcePort, between)
	return throughput(between, took), err
}

func callOther(ctx context.Context, w *wire, m []*harness.Machine, network string, port, n int) (time.Duration, error) {
	if len(m) != 2 {
		return 0, errors.New("the case needs two guests")
	}
	at, err := w.reach(m[1], network, port)
	if err != nil {
		return 0, err
	}
	c, err := m[0].Dial(ctx, "tcp", callerPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	if err := call(ctx, c, network, at, n); err != nil {
		return 0, fmt.Errorf("%s/%d of the second guest: %w", network, port, err)
	}
	return time.Since(began), nil
}
