package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"

	"guesthouse.example/harness"
)

// A passtNetwork is the network of one machine. Its frames go to a process of passt, which forwards ports of the host
// to the guest.
type passtNetwork struct {
	ports   [][2]int // of the guest, and of the host
	command *exec.Cmd
}

var _ harness.Network = (*passtNetwork)(nil)

// String describes the network in the record.
func (p *passtNetwork) String() string { return passt }

// Attach chooses the ports of the host. Passt cannot choose them.
func (p *passtNetwork) Attach(string) (harness.Attachment, error) {
	for _, port := range []int{echoPort, sinkPort, sourcePort, callerPort} {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		p.ports = append(p.ports, [2]int{port, l.Addr().(*net.TCPAddr).Port})
		l.Close()
	}
	return passtCard{p}, nil
}

// host returns the port of the host that leads to a port of the guest.
func (p *passtNetwork) host(port int) int {
	for _, pair := range p.ports {
		if pair[0] == port {
			return pair[1]
		}
	}
	return 0
}

// A passtCard is the machine's place on the network.
type passtCard struct{ *passtNetwork }

func (p passtCard) Name() string          { return "guest" }
func (p passtCard) MAC() net.HardwareAddr { return net.HardwareAddr{0x02, 0x67, 192, 0, 2, 1} }
func (p passtCard) Addresses() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
}
func (p passtCard) Hosts() []netip.Addr { return []netip.Addr{netip.MustParseAddr(gateway)} }
func (p passtCard) String() string      { return p.Name() + " on " + passt }

// Connect starts passt, and waits until it is ready.
func (p passtCard) Connect(c harness.Cable) error {
	defer c.Conn.Close()
	socket, err := c.Conn.(*net.UnixConn).File()
	if err != nil {
		return err
	}
	defer socket.Close()
	ready, says, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	args := []string{"--foreground", "--quiet", "-4", "-a", "192.0.2.1", "-n", "24", "-g", gateway, "-o", "127.0.0.1", "-D", "none", "-m", "1500", "--fd", "3", "--pid", "/dev/fd/4"}
	if os.Getuid() == 0 {
		args = append(args, "--runas", "0") // another user could not open the pipe
	}
	for _, pair := range p.ports {
		args = append(args, "-t", "127.0.0.1/"+strconv.Itoa(pair[1])+":"+strconv.Itoa(pair[0]))
	}
	p.command = exec.Command(passt, append(args, "-u", "127.0.0.1/"+strconv.Itoa(p.host(echoPort))+":"+strconv.Itoa(echoPort))...)
	p.command.ExtraFiles = []*os.File{socket, says}
	err = p.command.Start()
	says.Close()
	if err != nil {
		return err
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil { // passt writes its process number
		return errors.Join(fmt.Errorf("%s is not ready: %w", passt, err), p.Close(nil))
	}
	return nil
}

// Dial connects to a port of the guest.
func (p passtCard) Dial(ctx context.Context, network string, port int) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(p.host(port))))
}

// Connections returns nothing: passt does not tell, and no benchmark saves a machine with an open connection.
func (p passtCard) Connections() (open, transient string) { return "", "" }

// Close ends passt.
func (p passtCard) Close(error) error {
	if p.command != nil && p.command.Process != nil && p.command.ProcessState == nil {
		p.command.Process.Kill()
		p.command.Wait()
	}
	return nil
}
