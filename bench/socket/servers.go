package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ours is the server with which the benchmark compares all others.
const ours = "guesthouse"

// A server is one of the compared programs.
type server struct {
	name     string
	source   string // a file of C, or a package of Go
	tags     string // for go build
	networks string
	many     bool // can listen on any number of UDP sockets
	about    string
}

var servers = []server{
	{name: ours, source: "./servers/guesthouse", networks: "udp tcp", many: true,
		about: "package guest/echo, one loop"},
	{name: "c-epoll", source: "c/epoll.c", networks: "udp tcp", many: true,
		about: "level-triggered epoll, one read and one answer for each event"},
	{name: "c-poll", source: "c/poll.c", networks: "udp tcp", many: true,
		about: "poll(2), one read and one answer for each ready socket"},
	{name: "c-mmsg", source: "c/mmsg.c", networks: "udp", many: true,
		about: "recvmmsg that waits for one, sendmmsg; batches of 64"},
	{name: "go-net", source: "./servers/go-net", networks: "udp tcp", many: true,
		about: "package net, a goroutine for each UDP socket and each TCP connection"},
	// The tags choose gnet's faster poller, and a connection table that the garbage collector need not
	// scan.
	{name: "gnet", source: "./servers/gnet", tags: "poll_opt,gc_opt", networks: "udp tcp",
		about: "gnet 2.5.0, one event loop that also accepts, built with poll_opt and gc_opt"},
	{name: "evio", source: "./servers/evio", networks: "udp tcp", many: true,
		about: "evio 1.0.8, one loop, input buffer reused"},
	{name: "netpoll", source: "./servers/netpoll", networks: "tcp",
		about: "netpoll 0.7.2, one poller that also runs the handlers"},
}

func (s server) speaks(network string) bool { return strings.Contains(s.networks, network) }

// build compiles a program into the folder.
func build(ctx context.Context, dir string, s server) error {
	to := filepath.Join(dir, s.name)
	var cmd *exec.Cmd
	if filepath.Ext(s.source) == ".c" {
		cmd = exec.CommandContext(ctx, "gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", to, s.source)
	} else {
		cmd = exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags", s.tags, "-o", to, s.source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w: %s", s.name, err, lastLine(out.String()))
	}
	return nil
}

// lastLine returns the last line that is not empty, which is a failed compiler's message.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
