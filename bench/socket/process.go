package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a server or the generator, on a core of its own.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errors bytes.Buffer // standard error; read it only after stop
	cancel context.CancelFunc
}

// start starts a process on a core. It must be called on the main goroutine, which main has locked to
// its thread: when that thread ends for any reason, the kernel kills the process.
func start(ctx context.Context, core int, limit time.Duration, path string, args ...string) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	p := &process{cmd: exec.CommandContext(ctx, path, args...), cancel: cancel}
	p.cmd.Stderr = &p.errors
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := p.cmd.StdinPipe()
	if err == nil {
		var out io.Reader
		out, err = p.cmd.StdoutPipe()
		p.in, p.out = in, bufio.NewReader(out)
	}
	if err == nil {
		err = onCore(core, p.cmd.Start)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return p, nil
}

// onCore calls f with the calling thread on one core.
func onCore(core int, f func() error) error {
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read cores: %w", err)
	}
	one.Set(core)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("choose core %d: %w", core, err)
	}
	err := f()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// twoCores returns the first two cores that the process may use.
func twoCores() (first, second int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, fmt.Errorf("read cores: %w", err)
	}
	var cores []int
	for i := 0; i < 64*len(set) && len(cores) < 2; i++ {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	if len(cores) < 2 {
		return 0, 0, errors.New("choose cores: two are needed, one for the server and one for the generator")
	}
	return cores[0], cores[1], nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop kills the process and waits until it is gone.
func (p *process) stop() {
	p.cancel()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// complain stops the process and adds its output to the error.
func (p *process) complain(err error) error {
	p.stop()
	// Only the first line, because the other lines of a panic are its stack.
	if said, _, _ := strings.Cut(strings.TrimSpace(p.errors.String()), "\n"); said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// startServer starts a server, waits until it serves, and returns its ports.
func (b *bench) startServer(s server, network string, services, clients int) (*process, []int, error) {
	if err := b.broken[s.name]; err != nil {
		return nil, nil, err
	}
	p, err := start(b.ctx, b.serverCore, time.Minute, b.bin(s.name),
		network, strconv.Itoa(services), strconv.Itoa(clients))
	if err != nil {
		return nil, nil, err
	}
	var ports []int
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			return nil, nil, p.complain(fmt.Errorf("start server %s: ended early", s.name))
		}
		if line == "serving\n" {
			return p, ports, nil
		}
		port, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), "port "))
		if err != nil {
			return nil, nil, p.complain(fmt.Errorf("start server %s: unexpected output %q", s.name, line))
		}
		ports = append(ports, port)
	}
}

// settle makes a server return its unused memory to the kernel.
func (p *process) settle() error {
	if err := p.cmd.Process.Signal(unix.SIGUSR1); err != nil {
		return fmt.Errorf("settle server: %w", err)
	}
	if line, err := p.out.ReadString('\n'); err != nil || line != "settled\n" {
		return fmt.Errorf("settle server: unexpected output %q", line)
	}
	return nil
}
