package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"

	"guesthouse.example/host/traffic"
)

const trafficUsage = `guesthouse traffic [flags] NETWORK ADDRESS

Checks that an echo service returns every byte. NETWORK is udp or tcp, ADDRESS is HOST:PORT.
With -load, traffic measures the service instead. Each of the other flags implies -load.`

func trafficCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("traffic", flag.ContinueOnError)
	var load bool
	var cfg traffic.LoadConfig
	var asJSON bool
	flags.BoolVar(&load, "load", false, "measure how many answers per second the service gives, and their latency")
	flags.IntVar(&cfg.Clients, "clients", 1, "load: the `number` of connections")
	flags.IntVar(&cfg.Window, "window", 1, "load: the `number` of requests in flight on each connection")
	flags.IntVar(&cfg.Bytes, "bytes", 64, "load: the `size` of a request in bytes, at least 8")
	flags.IntVar(&cfg.Requests, "requests", 0, "load: stop after this `number` of requests")
	flags.DurationVar(&cfg.Duration, "duration", 0, "load: stop after this `time` (default 1s, or no limit with -requests)")
	flags.BoolVar(&asJSON, "json", false, "load: print the result as JSON")
	if err := parse(flags, args, std, trafficUsage); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return fmt.Errorf("traffic: want NETWORK and ADDRESS, got %d arguments (%w; see -h)", flags.NArg(), errUsage)
	}
	flags.Visit(func(*flag.Flag) { load = true })

	network, address := flags.Arg(0), flags.Arg(1)
	dial := func(ctx context.Context, network string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	if !load {
		if err := traffic.Echo(ctx, dial, traffic.EchoConfig{Network: network}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(std.out, "%s %s: every byte came back\n", network, address)
		return err
	}
	cfg.Network = network
	result, err := traffic.Load(ctx, dial, cfg)
	if asJSON {
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
