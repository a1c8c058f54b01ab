package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"slices"

	"guesthouse.example/host/echotest"
	"guesthouse.example/host/traffic"
)

const trafficUsage = `guesthouse traffic [flags] NETWORK ADDRESS

Checks that an echo service returns every byte. NETWORK is udp or tcp, ADDRESS is HOST:PORT.
With -load, traffic measures the service instead. -clients, -duration, -json and -requests
imply -load.

With -profile zephyr, traffic asks no more of a service than Zephyr's echo sample promises: it
waits for each answer, and does not half-close a connection. A -window of your own counts more.`

// A trafficLine is the command line of traffic.
type trafficLine struct {
	load                  bool
	window, bytes, resend int
	noHalfClose           bool
	profile               string
	asJSON                bool
	measure               traffic.LoadConfig
}

func (l *trafficLine) flags() *flag.FlagSet {
	flags := flag.NewFlagSet("traffic", flag.ContinueOnError)
	flags.IntVar(&l.window, "window", 0, "the `number` of requests in flight on each connection (default 16, or 1 with -load)")
	flags.IntVar(&l.bytes, "bytes", 0, "the `size` of a request in bytes (default: the payloads of Zephyr's echo-client, or 64 with -load; at least 8 with -load)")
	flags.StringVar(&l.profile, "profile", "", "the `name` of the service's profile: guesthouse or zephyr")
	flags.IntVar(&l.resend, "resend", 0, "check, UDP: the `number` of times that a lost datagram is sent again")
	flags.BoolVar(&l.noHalfClose, "no-half-close", false, "check, TCP: close the connection when every byte is back, without a half-close before")
	flags.BoolVar(&l.load, "load", false, "measure how many answers per second the service gives, and their latency")
	flags.IntVar(&l.measure.Clients, "clients", 1, "load: the `number` of connections")
	flags.IntVar(&l.measure.Requests, "requests", 0, "load: stop after this `number` of requests")
	flags.DurationVar(&l.measure.Duration, "duration", 0, "load: stop after this `time` (default 1s, or no limit with -requests)")
	flags.BoolVar(&l.asJSON, "json", false, "load: print the result as JSON")
	return flags
}

// complete applies the profile, and refuses flags that do not work together.
func (l *trafficLine) complete(flags *flag.FlagSet) error {
	var onlyForCheck []string
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "clients", "duration", "json", "requests":
			l.load = true
		case "resend", "no-half-close":
			onlyForCheck = append(onlyForCheck, "-"+f.Name)
		}
	})
	if l.load && len(onlyForCheck) > 0 {
		return fmt.Errorf("%s has no effect on a load (%w; see -h)", onlyForCheck[0], errUsage)
	}
	if l.window < 0 || l.bytes < 0 || l.resend < 0 {
		return fmt.Errorf("-window, -bytes and -resend cannot be negative (%w; see -h)", errUsage)
	}
	if l.profile == "" {
		return nil
	}
	profiles := []echotest.Profile{echotest.Guesthouse, echotest.Zephyr}
	i := slices.IndexFunc(profiles, func(p echotest.Profile) bool { return p.Name == l.profile })
	if i < 0 {
		return fmt.Errorf("unknown profile %q: the profiles are guesthouse and zephyr (%w; see -h)", l.profile, errUsage)
	}
	if l.window == 0 {
		l.window = profiles[i].Window
	}
	l.noHalfClose = l.noHalfClose || !profiles[i].HalfClose
	return nil
}

func trafficCommand(ctx context.Context, args []string, std stdio) error {
	var line trafficLine
	flags := line.flags()
	if err := parse(flags, args, std, trafficUsage); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return fmt.Errorf("traffic: want NETWORK and ADDRESS, got %d arguments (%w; see -h)", flags.NArg(), errUsage)
	}
	if err := line.complete(flags); err != nil {
		return fmt.Errorf("traffic: %w", err)
	}
	network, address := flags.Arg(0), flags.Arg(1)
	dial := func(ctx context.Context, network string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	if line.load {
		return line.printLoad(ctx, dial, network, std)
	}
	cfg := traffic.EchoConfig{Network: network, Window: line.window, Resend: line.resend, NoHalfClose: line.noHalfClose}
	if line.bytes > 0 {
		for seed := range payloads {
			cfg.Payloads = append(cfg.Payloads, traffic.Bytes(uint64(seed), line.bytes))
		}
	}
	if err := traffic.Echo(ctx, dial, cfg); err != nil {
		return err
	}
	_, err := fmt.Fprintf(std.out, "%s %s: every byte came back\n", network, address)
	return err
}

const payloads = 22 // as many as echo-client sends

func (l *trafficLine) printLoad(ctx context.Context, dial traffic.DialFunc, network string, std stdio) error {
	l.measure.Network, l.measure.Window, l.measure.Bytes = network, l.window, l.bytes
	result, err := traffic.Load(ctx, dial, l.measure)
	if l.asJSON {
		if jsonErr := json.NewEncoder(std.out).Encode(result); err == nil {
			err = jsonErr
		}
	} else if result.Sent > 0 {
		if _, printErr := fmt.Fprintln(std.out, result); err == nil {
			err = printErr
		}
	}
	return err
}
