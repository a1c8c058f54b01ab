// Package echo is Zephyr's echo_service sample on package socketservice: it
// sends back what arrives on UDP and TCP port 4242, from IPv6 and IPv4 clients,
// on one loop. It is the service that guesthouse's own guest runs, and an
// example of how a server with connections is written for that package.
//
// Its console lines are those of the sample (samples/net/sockets/echo_service),
// so that one set of console patterns fits both. Four things it does
// differently, the first three because the sample's way lets one client harm others:
//
//   - It never blocks. What a TCP client does not take waits in a buffer of
//     [BufferSize] bytes, and the client is not read from until it has taken
//     them. A UDP answer that cannot be sent at once is dropped: queueing it
//     would only move the loss, because UDP has no way to slow a sender.
//   - When accept fails for want of descriptors or memory, the listener is kept
//     and tried again later. The sample restarts, and closes all connections.
//   - A connection over the capacity is shut down, and closed when its client has
//     ended it too, so that its client sees the end and not a reset, whatever it
//     sends. Of such connections 64 are closed at a time, each within 2 seconds;
//     further ones wait in the listener's queue.
//   - A UDP datagram that is longer than [BufferSize] is dropped, counted as an error
//     of service_udp, and logged. The sample answers with the first 1500 bytes.
//
// Addresses are printed as Zephyr's inet_ntop does: a client of IPv4 is
// ::ffff:192.0.2.2.
package echo

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
	"guesthouse.example/guest/udpbatch"
)

const (
	// DefaultPort is the sample's port.
	DefaultPort = 4242

	// DefaultClients is how many TCP clients the sample serves at once: its
	// CONFIG_ZVFS_POLL_MAX of 20, less one slot each for UDP, the listener
	// and the loop.
	DefaultClients = 17

	// BufferSize is the greatest UDP payload that is answered, in bytes. It is
	// also what is kept for a TCP client that does not read.
	BufferSize = 1500

	// Module is the sample's name in the log.
	Module = "net_echo_server_svc_sample"
)

// retryAccept is how long the listener rests after accept failed for want of a
// resource, unless a client leaves before.
const retryAccept = 100 * time.Millisecond

// Config is the configuration of a server. The zero value is the sample's.
type Config struct {
	// Port is the UDP and TCP port. Zero means DefaultPort; -1 lets the
	// kernel choose one that is free for both, see [Server.Port].
	Port int

	// Clients is how many TCP clients are served at once; further ones are
	// turned away. Zero means DefaultClients.
	Clients int

	// Loop is the loop to run on. Nil means the default loop.
	Loop *socketservice.Loop

	// Log gets the console lines, with the attribute module=Module. Nil
	// means the default logger of package slog at the time of Start.
	Log *slog.Logger
}

// A Server is an echo server. It is made by New.
type Server struct {
	cfg Config
	log *slog.Logger

	udp, accept, tcp *socketservice.Service

	// Of the handlers alone, which run one at a time.
	datagrams *udpbatch.Batch
	stream    [BufferSize]byte
	clients   []*client
	refused   uint64 // UDP answers, by the kernel
	oversized uint64 // datagrams

	dropped atomic.Uint64
	turning sync.WaitGroup // see turnAway

	mu       sync.Mutex // never held where Unregister waits for a handler
	started  bool
	stopped  bool
	udpFd    int
	listenFd int
	resting  *time.Timer // see rest
	short    bool        // accept fails, which was logged
	surplus  map[*os.File]bool

	surplusTime time.Duration // the constant, except in tests
}

// New defines the server's three services, service_udp, service_accept and
// service_tcp, with 1, 1 and Clients slots. It must be called before the loop
// is started if the loop has no other service.
func New(c Config) *Server {
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if c.Clients == 0 {
		c.Clients = DefaultClients
	}
	s := &Server{
		cfg:         c,
		udpFd:       -1,
		listenFd:    -1,
		surplus:     map[*os.File]bool{},
		surplusTime: surplusTime,
		datagrams:   udpbatch.New(udpBatch, BufferSize),
	}
	define := socketservice.Define
	if c.Loop != nil {
		define = c.Loop.Define
	}
	s.udp = define("service_udp", s.serveUDP, 1)
	s.accept = define("service_accept", s.serveAccept, 1)
	s.tcp = define("service_tcp", s.serveTCP, c.Clients)
	return s
}

// Start opens the sockets and registers them, for which it waits until the loop
// has been started. A server can be started once.
func (s *Server) Start() error {
	s.mu.Lock()
	if s.started || s.stopped {
		s.mu.Unlock()
		return fmt.Errorf("start echo service: started before: %w", unix.EALREADY)
	}
	s.started = true
	log := s.cfg.Log
	if log == nil {
		log = slog.Default()
	}
	s.log = log.With("module", Module)
	tcp, udp, port, err := listen(s.cfg.Port)
	if err == nil {
		s.listenFd, s.udpFd = tcp, udp
	}
	s.mu.Unlock()
	// Registering waits for the loop's start, which may never come.
	if err == nil {
		err = s.accept.Register([]unix.PollFd{{Fd: int32(tcp), Events: unix.POLLIN}}, nil)
	}
	if err == nil {
		err = s.udp.Register([]unix.PollFd{{Fd: int32(udp), Events: unix.POLLIN}}, nil)
	}
	s.mu.Lock()
	stopped := s.stopped
	s.mu.Unlock()
	if err == nil && stopped {
		err = fmt.Errorf("stopped meanwhile: %w", unix.ECANCELED)
	}
	if err != nil {
		s.Stop()
		return fmt.Errorf("start echo service: %w", err)
	}
	s.log.Info(fmt.Sprintf("Single-threaded TCP/UDP echo server waits for a connection on port %d", port))
	return nil
}

// listen opens both sockets on one port.
func listen(port int) (tcp, udp, bound int, err error) {
	const tries = 16 // the kernel's choice for TCP may be taken for UDP
	for try := 0; ; try++ {
		if tcp, err = socketservice.ListenTCP(max(port, 0)); err != nil {
			return -1, -1, 0, err
		}
		if bound, err = socketservice.Port(tcp); err == nil {
			if udp, err = socketservice.ListenUDP(bound); err == nil {
				return tcp, udp, bound, nil
			}
		}
		_ = unix.Close(tcp)
		if port >= 0 || !errors.Is(err, unix.EADDRINUSE) || try == tries {
			return -1, -1, 0, err
		}
	}
}

// Stop closes all sockets. It waits for a handler of the server that runs. A
// server can not be started again.
func (s *Server) Stop() {
	s.mu.Lock()
	s.stopped = true
	if s.resting != nil {
		s.resting.Stop()
		s.resting = nil
	}
	s.mu.Unlock()
	// The error of a loop that does not run: then no handler does either.
	_ = s.accept.Unregister()
	_ = s.tcp.Unregister()
	_ = s.udp.Unregister()
	s.dismiss()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range []*int{&s.listenFd, &s.udpFd} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
	for _, c := range s.clients {
		_ = unix.Close(c.fd)
	}
	s.clients = nil
}

// Port returns the port that the server listens on, or 0 if it does not.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listenFd < 0 {
		return 0
	}
	port, err := socketservice.Port(s.listenFd)
	if err != nil {
		return 0
	}
	return port
}
