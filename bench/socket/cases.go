package main

import (
	"fmt"
	"strings"
	"time"
)

// The metrics are the names in socket.json.
const (
	cpuPerEcho    = "cpu_us_per_echo"
	echoesPerS    = "echoes_per_s"
	p50           = "p50_us"
	p99           = "p99_us"
	rss           = "rss_kib"
	serverBusy    = "server_busy_percent" // the share of its core
	perService    = "bytes_per_service"
	perConnection = "bytes_per_connection"
)

var loadMetrics = []string{cpuPerEcho, echoesPerS, p50, p99, rss, serverBusy}

// many is the number of idle services and connections whose memory is measured.
const many = 10000

// The networks of cases. A UDP client has one request in flight. A pipelined client has a full window
// in flight, sent together.
const (
	udpPipelined = "udp-pipelined"
	pipelined    = 16 // requests in flight
)

// A benchCase is a load. Its name in socket.json is network/clients/bytes.
type benchCase struct {
	network string
	clients int
	bytes   int
}

func (c benchCase) String() string { return fmt.Sprintf("%s/%d/%d", c.network, c.clients, c.bytes) }

// protocol returns the protocol of the servers, udp or tcp.
func (c benchCase) protocol() string { return strings.TrimSuffix(c.network, "-pipelined") }

// window returns how many requests each client has in flight.
func (c benchCase) window() int {
	if c.network == udpPipelined {
		return pipelined
	}
	return 1
}

// saturates reports whether the case can keep a server busy all the time. A single request cannot,
// because the server has nothing to do until the client has sent the next one.
func (c benchCase) saturates() bool { return c.clients*c.window() > 1 }

// memoryCase names the rows of idle services. Each service has answered one datagram of 64 bytes,
// because a service that was never used takes less memory.
var memoryCase = benchCase{"udp", many, 64}

// connectionCase is the load after which the benchmark measures the memory of the idle connections.
var connectionCase = benchCase{"tcp", many, 64}

// A plan says what is measured and for how long.
type plan struct {
	cases  []benchCase
	runs   int
	warmUp time.Duration
	run    time.Duration
	spare  time.Duration // for repeated runs
}

func newPlan(quick bool) plan {
	if quick {
		return plan{
			cases: []benchCase{{"udp", 1, 64}, {"udp", 16, 64}, {"udp", 256, 64}, {udpPipelined, 16, 64},
				{"tcp", 1, 64}, {"tcp", 16, 64}, connectionCase},
			runs: 2, spare: 20 * time.Second, warmUp: 100 * time.Millisecond, run: 300 * time.Millisecond,
		}
	}
	p := plan{runs: 5, spare: 90 * time.Second, warmUp: 150 * time.Millisecond, run: 600 * time.Millisecond}
	for _, bytes := range []int{64, 1400} {
		for _, clients := range []int{1, 16, 256} {
			p.cases = append(p.cases, benchCase{"udp", clients, bytes})
		}
		p.cases = append(p.cases, benchCase{udpPipelined, 16, bytes})
		for _, clients := range []int{1, 16, 256, many} {
			p.cases = append(p.cases, benchCase{"tcp", clients, bytes})
		}
	}
	return p
}
