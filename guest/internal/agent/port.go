package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// A port is the virtio-serial port, on a blocking descriptor. It is not an os.File, because reads
// return no bytes while no host is connected, and an os.File would report io.EOF.
type port struct{ fd int }

const (
	driver = "/sys/bus/virtio/drivers/virtio_console"
	ports  = "/sys/class/virtio-ports"

	// Looks for the port's name after the driver has started. They bound the wait by their number: the
	// guest's clock also counts the time in which a busy host does not run the guest.
	portLooks = 1000
	portTick  = 5 * time.Millisecond
	maxIdle   = time.Second // the longest pause between two reads while no host is connected
)

// openPort opens the harness's port. It returns nil without an error if the machine has no such port.
func openPort() (*port, error) {
	// The host announces the names of its ports only after the driver has bound the device.
	devices, _ := filepath.Glob(driver + "/virtio*")
	if len(devices) == 0 {
		return nil, nil
	}
	for looks := 1; ; looks++ {
		if dev := findPort(ports); dev != "" {
			fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				return &port{fd}, nil
			}
			// The name may appear before the device node.
			if !errors.Is(err, unix.ENOENT) || looks == portLooks {
				return nil, fmt.Errorf("agent: %w", &os.PathError{Op: "open", Path: dev, Err: err})
			}
		}
		if looks == portLooks {
			return nil, nil
		}
		time.Sleep(portTick)
	}
}

// findPort returns the device of the port named wire.PortName, or "" if there is none.
func findPort(class string) string {
	names, _ := filepath.Glob(class + "/*/name")
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(name)) == wire.PortName {
			return "/dev/" + filepath.Base(filepath.Dir(file))
		}
	}
	return ""
}

// Read waits until there are bytes. The kernel returns none while no host is connected.
func (p *port) Read(b []byte) (int, error) {
	for idle := 10 * time.Millisecond; ; {
		n, err := unix.Read(p.fd, b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			time.Sleep(idle)
			idle = min(2*idle, maxIdle)
		case err != unix.EINTR && err != unix.EAGAIN:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

func (p *port) Write(b []byte) (done int, err error) {
	for done < len(b) {
		n, err := unix.Write(p.fd, b[done:])
		if n > 0 {
			done += n
		}
		if err != nil && err != unix.EINTR && err != unix.EAGAIN {
			return done, os.NewSyscallError("write", err)
		}
	}
	return done, nil
}

func (p *port) Close() error { return unix.Close(p.fd) }

// A socket is the line to the program, on a blocking descriptor like the port. Waking a blocked thread
// runs less code than Go's poller does, and in a restored machine all code is slow at first.
type socket int

func (s socket) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(s), b)
		switch {
		case n > 0:
			return n, nil
		case err == nil, errors.Is(err, unix.ECONNRESET): // reset: the program has ended with unread bytes
			return 0, io.EOF
		case err != unix.EINTR:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// Write never blocks, so that a program that does not read cannot hold up the agent.
func (s socket) Write(b []byte) (int, error) {
	n, err := unix.SendmsgN(int(s), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err == nil && n < len(b) {
		err = unix.EAGAIN
	}
	if errors.Is(err, unix.EAGAIN) {
		return n, errors.New("the program does not read its requests")
	}
	return n, os.NewSyscallError("sendmsg", err)
}

// hangUp makes Read return.
func (s socket) hangUp() { unix.Shutdown(int(s), unix.SHUT_RDWR) }

func (s socket) Close() error { return unix.Close(int(s)) }
