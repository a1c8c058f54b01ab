package scenario

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"guesthouse.example/host/traffic"
)

var networkVerbs = []verb{
	dataVerb("udp", "a datagram",
		"Without PATTERN the next datagram that comes back must be the same, and with PATTERN it must match."),
	dataVerb("tcp", "bytes on a new connection",
		"Without PATTERN the same bytes must come back, and with PATTERN tcp reads until the bytes so far match."),
	{
		name: "http", args: "[-m NAME] [-within TIME] [-status N] [-data TEXT] METHOD URL [PATTERN]", summary: "send an HTTP request, and print the answer's body on stdout",
		detail:   []string{"URL is :PORT/PATH, or a URL whose host stands for the machine. The answer's status must be N, or 200 to 299 without -status. Its body must match PATTERN."},
		patterns: []int{2}, minArgs: 2, maxArgs: 3, setup: httpVerb,
	},
	{
		name: "wait-port", args: "[-m NAME] [-within TIME] tcp/PORT", summary: "wait until the guest accepts connections on a port",
		minArgs: 1, maxArgs: 1, setup: noFlags((*call).waitPort),
	},
}

// dataVerb returns the verb of udp or tcp.
func dataVerb(network, what, answer string) verb {
	return verb{
		name: network, args: "[-m NAME] [-within TIME] [-hex] PORT DATA [PATTERN] | -echo PORT | -load [flags] PORT", summary: "send " + what + ", and compare the answer",
		detail: []string{
			answer + " The verb prints the answer on stdout.",
			"DATA has the escapes of a Go string, such as \\n and \\x00. With -hex, DATA and PATTERN are hexadecimal, and PATTERN is the whole answer.",
			"-echo sends payloads of many sizes to an echo service, and compares every byte.",
			"-load measures an echo service: -clients N connections (1), -window N requests in flight on each (1), -bytes N in each request (64), for a -duration TIME (1s). More than -loss PERCENT of lost requests (0) fail, and so does a 99th percentile of the latency over -p99 TIME.",
		},
		patterns: []int{2}, minArgs: 1, maxArgs: 3,
		setup: func(flags *flag.FlagSet) func(c *call) error {
			d := data{network: network}
			flags.BoolVar(&d.hex, "hex", false, "DATA and PATTERN are hexadecimal")
			flags.BoolVar(&d.echo, "echo", false, "check an echo service")
			flags.BoolVar(&d.load, "load", false, "measure an echo service")
			flags.IntVar(&d.measure.Clients, "clients", 1, "load: the `number` of connections")
			flags.IntVar(&d.measure.Window, "window", 1, "load: the `number` of requests in flight on each connection")
			flags.IntVar(&d.measure.Bytes, "bytes", 64, "load: the `size` of a request")
			flags.DurationVar(&d.measure.Duration, "duration", time.Second, "load: for how `long`")
			flags.Float64Var(&d.loss, "loss", 0, "load: the `percentage` of requests that may be lost")
			flags.DurationVar(&d.p99, "p99", 0, "load: the bound of the 99th percentile of the latency")
			return d.run
		},
	}
}

// dial connects to a port of the guest. No guest can answer on a port that the line with boot does not list.
func (c *call) dial(ctx context.Context, network string, port int) (net.Conn, error) {
	var listed []string
	for _, p := range c.m.Ports() {
		if p.Network == network && p.Guest == port {
			return c.m.Dial(ctx, network, port)
		}
		listed = append(listed, fmt.Sprintf("%s/%d", p.Network, p.Guest))
	}
	return nil, wrongf("the machine has no port %s/%d, only %s: add -port %[1]s/%[2]d to its boot", network, port, cmp.Or(strings.Join(listed, ", "), "none"))
}

// data is a call of udp or tcp.
type data struct {
	network         string
	hex, echo, load bool
	measure         traffic.LoadConfig
	loss            float64
	p99             time.Duration
}

func (d *data) run(c *call) error {
	port, err := strconv.ParseUint(c.args[0], 10, 16)
	if err != nil {
		return wrongf("%q is not the number of a port", c.args[0])
	}
	dial := func(ctx context.Context, network string) (net.Conn, error) { return c.dial(ctx, network, int(port)) }
	switch {
	case (d.echo || d.load) && len(c.args) > 1:
		return wrongf("-echo and -load send data of their own")
	case d.echo:
		return traffic.Echo(c.ctx, dial, traffic.EchoConfig{Network: d.network, Timeout: c.within})
	case d.load:
		return d.measureLoad(c, dial)
	case len(c.args) < 2:
		return wrongf("DATA is missing")
	}
	send, isAnswer, err := d.texts(c.args[1:])
	if err != nil {
		return &UsageError{err}
	}
	conn, err := dial(c.ctx, d.network)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(c.ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(send); err != nil {
		return orCause(c.ctx, err)
	}
	got, err := d.read(conn, isAnswer)
	c.stdout = string(got)
	if d.hex {
		c.stdout = hex.EncodeToString(got) + "\n"
	}
	if err != nil {
		return fmt.Errorf("%w; %s", orCause(c.ctx, err), came(got))
	}
	return nil
}

// texts returns the bytes to send, and a function that recognizes the expected answer.
func (d *data) texts(args []string) (send []byte, isAnswer func([]byte) bool, err error) {
	decode := unescape
	if d.hex {
		decode = func(text string) ([]byte, error) { return hex.DecodeString(strings.ReplaceAll(text, " ", "")) }
	}
	if send, err = decode(args[0]); err != nil {
		return nil, nil, err
	}
	answer := send
	switch {
	case len(args) == 2 && d.hex:
		answer, err = decode(args[1])
	case len(args) == 2:
		re, err := regexp.Compile("(?m)" + args[1])
		if err != nil {
			return nil, nil, err
		}
		return send, re.Match, nil
	}
	return send, func(got []byte) bool { return bytes.Equal(got, answer) }, err
}

// longestAnswer bounds, in bytes, the answer that tcp and http read.
const longestAnswer = 16 << 20

// read reads one datagram, or a stream until it is the answer.
func (d *data) read(conn net.Conn, isAnswer func([]byte) bool) (got []byte, err error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if (n > 0 || err == nil) && isAnswer(got) {
			return got, nil
		}
		switch {
		case err == io.EOF:
			return got, errors.New("the guest has ended the connection without the answer")
		case err != nil:
			return got, err
		case d.network == "udp":
			return got, errors.New("another datagram came back")
		case len(got) > longestAnswer:
			return got, fmt.Errorf("%d bytes came back without the answer", len(got))
		}
	}
}

// came describes an unexpected answer.
func came(got []byte) string {
	if len(got) == 0 {
		return "nothing came back"
	}
	shown := got[:min(len(got), 200)]
	text := fmt.Sprintf("%d bytes came back: %q", len(got), shown)
	if len(shown) < len(got) {
		text += "…"
	}
	return text
}

// orCause returns the cause of a context that has ended in place of the error that follows from it.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

func (d *data) measureLoad(c *call, dial traffic.DialFunc) error {
	d.measure.Network, d.measure.Timeout = d.network, c.within
	result, err := traffic.Load(c.ctx, dial, d.measure)
	c.stdout = result.String() + "\n"
	if err != nil && !errors.Is(err, traffic.ErrLost) {
		return err
	}
	if lost := 100 * float64(result.Lost) / float64(max(result.Sent, 1)); lost > d.loss {
		return fmt.Errorf("%.2f %% of the requests were lost, and -loss allows %g %%", lost, d.loss)
	}
	if p99 := result.P99; d.p99 > 0 && p99 > d.p99 {
		return fmt.Errorf("the 99th percentile of the latency is %v, and -p99 allows %v", p99, d.p99)
	}
	return nil
}

func httpVerb(flags *flag.FlagSet) func(c *call) error {
	status := flags.Int("status", 0, "the `status` of the answer")
	body := flags.String("data", "", "the body of the request")
	return func(c *call) error {
		url := c.args[1]
		if strings.HasPrefix(url, ":") {
			url = "http://machine" + url
		}
		req, err := http.NewRequestWithContext(c.ctx, c.args[0], url, strings.NewReader(*body))
		if err != nil {
			return &UsageError{err}
		}
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			n, err := strconv.Atoi(port)
			if err != nil {
				return nil, err
			}
			return c.dial(ctx, "tcp", n)
		}}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(io.LimitReader(resp.Body, longestAnswer+1))
		c.stdout, c.stderr = string(got), resp.Status+"\n"
		switch {
		case err != nil:
			return fmt.Errorf("the body of the answer: %w", err)
		case len(got) > longestAnswer:
			return fmt.Errorf("the body of the answer has more than %d bytes", longestAnswer)
		case *status != 0 && resp.StatusCode != *status, *status == 0 && resp.StatusCode/100 != 2:
			return fmt.Errorf("the answer is %s", resp.Status)
		case len(c.args) == 3:
			return matches(c.args[2], "the body of the answer", string(got))
		}
		return nil
	}
}

// waitPort connects until the guest keeps a connection. QEMU's user network accepts a connection before
// the guest does, and ends it if the guest refuses.
func (c *call) waitPort() error {
	network, number, _ := strings.Cut(c.args[0], "/")
	port, err := strconv.ParseUint(number, 10, 16)
	if network != "tcp" || err != nil {
		return wrongf("%q is not a port as tcp/80 is", c.args[0])
	}
	const keeps = 200 * time.Millisecond
	for {
		conn, err := c.dial(c.ctx, "tcp", int(port))
		if err != nil {
			return err
		}
		conn.SetReadDeadline(time.Now().Add(keeps))
		n, err := conn.Read(make([]byte, 1))
		conn.Close()
		if n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		select {
		case <-time.After(keeps / 4):
		case <-c.ctx.Done():
			return fmt.Errorf("the guest refuses connections on %s: %w", c.args[0], context.Cause(c.ctx))
		}
	}
}
