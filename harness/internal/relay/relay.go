// Package relay forwards ports of 127.0.0.1 to ports that only this process reaches. Package harness uses it for the
// ports of a machine on a network of Spec.Net, which QEMU cannot forward.
package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Dial connects to the far end of a port.
type Dial func(ctx context.Context) (net.Conn, error)

const (
	// maxClients bounds the UDP clients of a port, because any process of the host can send from any number of ports.
	// The client that has been silent for longest makes room for a new one.
	maxClients = 256

	maxDatagram = 64 << 10
)

// A Relay forwards one port.
type Relay struct {
	port   int
	dial   Dial
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	socket io.Closer
	work   sync.WaitGroup

	mu      sync.Mutex
	clients map[netip.AddrPort]*client // of UDP
}

// A client of a UDP port has a connection of its own, so that it gets the answers.
type client struct {
	conn net.Conn
	last time.Time // when it sent
}

// Listen forwards a port of 127.0.0.1, which the host's kernel chooses. The network is "tcp" or "udp".
func Listen(network string, dial Dial) (*Relay, error) {
	r := &Relay{dial: dial, clients: make(map[netip.AddrPort]*client)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if network == "udp" {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		r.socket, r.port = c, c.LocalAddr().(*net.UDPAddr).Port
		r.work.Go(func() { r.receive(c) })
		return r, nil
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	r.socket, r.port = l, l.Addr().(*net.TCPAddr).Port
	r.work.Go(func() { r.accept(l) })
	return r, nil
}

// Port returns the port of 127.0.0.1.
func (r *Relay) Port() int { return r.port }

// Close ends the forward and all its connections.
func (r *Relay) Close() {
	r.cancel()
	r.socket.Close()
	r.work.Wait()
}

// accept forwards each connection. Like QEMU's user network, it accepts a connection at once and resets it if the far
// end refuses it.
func (r *Relay) accept(l *net.TCPListener) {
	for {
		near, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select { // no descriptor is free, for example
			case <-time.After(10 * time.Millisecond):
			case <-r.ctx.Done():
			}
			continue
		}
		r.work.Go(func() {
			defer near.Close()
			far, err := r.dial(r.ctx)
			if err != nil {
				near.SetLinger(0)
				return
			}
			defer far.Close()
			r.join(near, far)
		})
	}
}

// join copies in both directions until both have ended. If one fails, the client's connection is reset.
func (r *Relay) join(near *net.TCPConn, far net.Conn) {
	defer context.AfterFunc(r.ctx, func() { near.Close(); far.Close() })()
	broken := make(chan error, 2)
	copyTo := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); err == nil && ok {
			half.CloseWrite() // fails only if the connection has ended
		}
		broken <- err
	}
	go copyTo(far, near)
	go copyTo(near, far)
	for range 2 {
		if err := <-broken; err != nil {
			near.SetLinger(0)
			near.Close()
			far.Close()
		}
	}
}

// receive gives each datagram to the connection of its client.
func (r *Relay) receive(c *net.UDPConn) {
	buf := make([]byte, maxDatagram)
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, client := range r.clients {
			client.conn.Close()
		}
	}()
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		if conn := r.connection(c, from); conn != nil {
			conn.Write(buf[:n]) // the network may lose a datagram
		}
	}
}

// connection returns the connection of a client, or nil if there can be none. Only receive calls it.
func (r *Relay) connection(c *net.UDPConn, from netip.AddrPort) net.Conn {
	r.mu.Lock()
	known := r.clients[from]
	if known != nil {
		known.last = time.Now()
	}
	r.mu.Unlock()
	if known != nil {
		return known.conn
	}
	far, err := r.dial(r.ctx)
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.clients) >= maxClients {
		silent := r.silent()
		r.clients[silent].conn.Close()
		delete(r.clients, silent)
	}
	r.clients[from] = &client{far, time.Now()}
	r.work.Go(func() { r.answer(c, from, far) })
	return far
}

// silent returns the client that has been silent for longest. The caller holds mu.
func (r *Relay) silent() (longest netip.AddrPort) {
	for at, client := range r.clients {
		if known := r.clients[longest]; known == nil || client.last.Before(known.last) {
			longest = at
		}
	}
	return longest
}

// answer gives a client the datagrams that come back, until its connection ends.
func (r *Relay) answer(c *net.UDPConn, to netip.AddrPort, far net.Conn) {
	buf := make([]byte, maxDatagram)
	for {
		n, err := far.Read(buf)
		if err != nil {
			break // the next datagram of the client opens another connection
		}
		c.WriteToUDPAddrPort(buf[:n], to) // the client may have gone
	}
	far.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.clients[to]; known != nil && known.conn == far {
		delete(r.clients, to)
	}
}
