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

// A port is the virtio-serial port. Its descriptor blocks: the kernel's poll for
// such a port says that it hung up while no host is connected, and os.File would
// take its empty reads for the end.
type port struct{ fd int }

const (
	driver = "/sys/bus/virtio/drivers/virtio_console"
	ports  = "/sys/class/virtio-ports"

	portWithin = 2 * time.Second // from the driver's start to the port's name
	portLook   = 5 * time.Millisecond
	idleMost   = time.Second // between two looks for a host that is not connected
)

// openPort opens the harness's port; nil without an error means that this
// machine has none.
func openPort() (*port, error) {
	// The host names its ports only after the driver has taken the device.
	devices, _ := filepath.Glob(driver + "/virtio*")
	if len(devices) == 0 {
		return nil, nil
	}
	for late := time.Now().Add(portWithin); ; time.Sleep(portLook) {
		if dev := findPort(ports); dev != "" {
			fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				return &port{fd}, nil
			}
			// The name may be there before the device node.
			if !errors.Is(err, unix.ENOENT) || time.Now().After(late) {
				return nil, fmt.Errorf("agent: %w", &os.PathError{Op: "open", Path: dev, Err: err})
			}
		}
		if time.Now().After(late) {
			return nil, nil
		}
	}
}

// findPort returns the device of the port with our name; "" if there is none.
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

// Read waits for bytes. The kernel returns none while no host is connected.
func (p *port) Read(b []byte) (int, error) {
	for idle := 10 * time.Millisecond; ; {
		n, err := unix.Read(p.fd, b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			time.Sleep(idle)
			idle = min(2*idle, idleMost)
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

// A socket is the line to the program. Like the port it is read in a thread of its own, which a
// restored machine wakes with less code than Go's poller takes.
type socket int

func (s socket) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(s), b)
		switch {
		case n > 0:
			return n, nil
		case err == nil, errors.Is(err, unix.ECONNRESET): // the program has ended and left something unread
			return 0, io.EOF
		case err != unix.EINTR:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// Write does not wait: the agent is never held up by a program that does not read.
func (s socket) Write(b []byte) (int, error) {
	n, err := unix.SendmsgN(int(s), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err == nil && n < len(b) {
		err = unix.EAGAIN
	}
	if errors.Is(err, unix.EAGAIN) {
		return n, errors.New("it does not read what it is asked")
	}
	return n, os.NewSyscallError("sendmsg", err)
}

// hangUp ends a Read.
func (s socket) hangUp() { unix.Shutdown(int(s), unix.SHUT_RDWR) }

func (s socket) Close() error { return unix.Close(int(s)) }
