// Package echotest checks an implementation of Zephyr's echo_service sample through its network and its
// console. The same checks run against guesthouse's service in Go and against Zephyr's own. Implementations
// differ in their limits, so a [Profile] says what each promises. [Run] fails only what is promised, and
// reports what came back for everything. [Table] shows several reports side by side.
//
//	report := echotest.Run(ctx, echotest.Service{Dial: dial, Console: machine.Console()}, echotest.Zephyr)
//	fmt.Print(echotest.Table(report))
//	err := report.Err()
//
// The package does not measure speed. [traffic.Load] does.
package echotest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"guesthouse.example/host/traffic"
)

// A Console is the console of an implementation, such as a *console.Console of package harness. Expect
// searches the text after its last match and returns the match and its groups.
type Console interface {
	Expect(ctx context.Context, pattern string) ([]string, error)
}

// A Service is an implementation to check. No other client may use it during the checks.
type Service struct {
	Dial traffic.DialFunc

	// Console may be nil. Then nothing checks what the service logs.
	Console Console

	// Timeout is how long a promised answer may take; 0 means 10 s.
	Timeout time.Duration

	// Unpromised is how long the checks wait for an answer that the profile does not promise; 0
	// means 1 s.
	Unpromised time.Duration
}

// A Profile says what an implementation promises.
type Profile struct {
	Name string

	// Window is the number of datagrams in flight of which none is lost; at least 1.
	Window int

	// Datagram is the size in bytes of the largest datagram that comes back whole.
	Datagram int

	// Clients is the number of TCP clients that are served at once. Refuses says that the service
	// ends the connection of one client more. Other services leave it without an answer.
	Clients int
	Refuses bool

	// HalfClose says that all bytes come back after a client's half-close, and then the stream ends.
	HalfClose bool

	// Independent says that a TCP client that never reads delays no other TCP client.
	Independent bool

	// Connected and Closed are regular expressions for what the console shows when a TCP client
	// connects and when it closes its connection. Empty ones promise nothing.
	Connected, Closed string
}

// Guesthouse is the profile of package guest/echo in guesthouse's own guest.
var Guesthouse = Profile{
	Name: "guesthouse", Window: 16, Datagram: 1500, Clients: 17, Refuses: true, HalfClose: true, Independent: true,
	Connected: `<inf> net_echo_server_svc_sample: Connection from ::ffff:192\.0\.2\.2 \(\d+\)`,
	Closed:    `<inf> net_echo_server_svc_sample: Connection from ::ffff:192\.0\.2\.2 closed`,
}

// Zephyr is the profile of Zephyr's sample with the sample's own limits (CONFIG_NET_MAX_CONN=5), as
// Zephyr 3.4 kept it on qemu_x86. The address in its second line is not initialised.
var Zephyr = Profile{
	Name: "zephyr", Window: 1, Datagram: 1472, Clients: 3,
	Connected: `<inf> net_echo_server_svc_sample: Connection from ::ffff:192\.0\.2\.2 \(\d+\)`,
	Closed:    `<inf> net_echo_server_svc_sample: Connection from \S+ closed`,
}

// A Row is the result of one check.
type Row struct {
	Check string // "UDP, 16 in flight"
	Saw   string // "22 of 22"

	// Err says which promise is broken. It is nil if the promises are kept, or if there is none.
	Err error
}

// A Report is the result of all checks of an implementation, always in the same order.
type Report struct {
	Name string // of the profile
	Rows []Row
}

// Err returns the errors of all rows.
func (r Report) Err() error {
	var errs []error
	for _, row := range r.Rows {
		if row.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: saw %q: %w", r.Name, row.Check, row.Saw, row.Err))
		}
	}
	return errors.Join(errs...)
}

// Run makes all checks, one after the other. If ctx ends, the remaining rows have its cause as their error.
func Run(ctx context.Context, s Service, p Profile) Report {
	s.Timeout = cmp.Or(s.Timeout, 10*time.Second)
	s.Unpromised = cmp.Or(s.Unpromised, time.Second)
	c := checks{s, p}
	report := Report{Name: p.Name}
	add := func(check string, run func(context.Context) (string, error)) {
		if err := ctx.Err(); err != nil {
			report.Rows = append(report.Rows, Row{check, "", context.Cause(ctx)})
			return
		}
		saw, err := run(ctx)
		report.Rows = append(report.Rows, Row{check, saw, err})
	}
	// The lines of one client are checked before there are others, and the check that may stop the service is
	// the last one.
	add("console, a client connects and closes", c.console)
	for _, window := range []int{1, 16} {
		add(fmt.Sprintf("UDP, %d in flight", window), func(ctx context.Context) (string, error) { return c.window(ctx, window) })
	}
	for _, size := range []int{1472, 1500, 2000} {
		add(fmt.Sprintf("UDP, %d bytes", size), func(ctx context.Context) (string, error) { return c.datagram(ctx, size) })
	}
	add("TCP, a stream", c.stream)
	add("TCP, clients at once", c.clients)
	for _, size := range []int{5, 20_000} {
		add(fmt.Sprintf("TCP, a half-close after %d bytes", size), func(ctx context.Context) (string, error) { return c.halfClose(ctx, size) })
	}
	add("beside a TCP client that never reads", c.neverReads)
	return report
}
