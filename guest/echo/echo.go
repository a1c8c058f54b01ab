// Package echo is Zephyr's echo_service sample on package socketservice. On one loop,
// it sends back what it receives on UDP and TCP port 4242, from IPv6 and IPv4 clients.
// guesthouse's own guest runs it. It is also an example of a server with connections
// on package socketservice.
//
// The server's console lines are those of the sample (samples/net/sockets/echo_service),
// so one set of console patterns fits both. The server differs from the sample in four
// ways. The reason for the first three is that one client of the sample can harm others.
//
//   - The server never blocks. If a TCP client does not read, up to [BufferSize] bytes
//     wait in a buffer, and the server reads no more from the client until it has sent
//     them. The server drops a UDP answer that it cannot send at once: a queue would
//     only delay the loss, because UDP cannot slow a sender down.
//   - When accept fails for lack of descriptors or memory, the server keeps the
//     listener and tries again later. The sample restarts and closes all connections.
//   - The server shuts a connection over the capacity down, and closes it when the
//     client has ended it too. So the client reads the end of the stream and gets no
//     reset, even if it keeps sending. The server closes at most 64 such connections at
//     a time, each within 2 seconds; further ones wait in the listener's queue.
//   - The server drops a UDP datagram that is longer than [BufferSize], counts it as
//     an error of service_udp, and logs it. The sample answers with the first 1500
//     bytes.
//
// Addresses have the form of Zephyr's inet_ntop: an IPv4 client is ::ffff:192.0.2.2.
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
	// CONFIG_ZVFS_POLL_MAX of 20 less one slot each for UDP, the listener
	// and the loop.
	DefaultClients = 17

	// BufferSize is the length limit in bytes of a UDP datagram that the server
	// answers, and of the data that it keeps for a TCP client that does not read.
	BufferSize = 1500

	// Module is the sample's name in the log.
	Module = "net_echo_server_svc_sample"
)

// retryAccept is how long the listener rests after accept has failed for lack of a
// resource. A client that leaves ends the rest.
const retryAccept = 100 * time.Millisecond

// Config is the configuration of a server. The zero value is the sample's.
type Config struct {
	// Port is the UDP and TCP port. Zero means DefaultPort; -1 lets the
	// kernel choose one that is free for both, see [Server.Port].
	Port int

	// Clients is how many TCP clients are served at once. Further clients are
	// turned away. Zero means DefaultClients.
	Clients int

	// Loop is the loop to run on. Nil means the default loop.
	Loop *socketservice.Loop

	// Log gets the console lines, with the attribute module=Module. Nil
	// means the default logger of package slog at the time of Start.
	Log *slog.Logger
}

// A Server is an echo server, made by New.
type Server struct {
	cfg Config
	log *slog.Logger

	udp, accept, tcp *socketservice.Service

	// These belong to the handlers, which run one at a time.
	datagrams *udpbatch.Batch
	stream    [BufferSize]byte
	clients   []*client
	refused   uint64 // UDP answers that the kernel refused to send
	oversized uint64 // datagrams that were too long

	dropped atomic.Uint64
	turning sync.WaitGroup // see turnAway

	mu       sync.Mutex // never held while Unregister waits for a handler
	started  bool
	stopped  bool
	udpFd    int
	listenFd int
	resting  *time.Timer // see rest
	short    bool        // accept fails, and that was logged
	surplus  map[*os.File]bool

	surplusTime time.Duration // tests change it
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

// Start opens the sockets and registers them. It waits until the loop has started. A
// server can be started once.
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
	// No lock is held here: the loop may never start, and Register waits for it.
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

// listen opens a TCP and a UDP socket on one port.
func listen(port int) (tcp, udp, bound int, err error) {
	const tries = 16 // the port that the kernel chooses for TCP may be taken for UDP
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

// Stop closes all sockets. If a handler of the server runs, Stop waits until it returns. The
// server cannot be started again.
func (s *Server) Stop() {
	s.mu.Lock()
	s.stopped = true
	if s.resting != nil {
		s.resting.Stop()
		s.resting = nil
	}
	s.mu.Unlock()
	// An error says that the loop does not run. Then no handler runs either.
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

// Port returns the port that the server listens on, or 0 if it does not listen.
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
