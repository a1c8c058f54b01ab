// The load generator: one thread, a closed loop with one request in flight for each
// client.
//
//   load PID BYTES WARM_MS RUN_MS UDP_PORT UDP_CLIENTS TCP_PORT TCP_CLIENTS STALLED
//
// Each client is a socket of its own. Every byte of every answer is compared; a wrong one,
// and a connection that ends, ends the run with a message. A datagram without an answer after
// LOST_NS counts as lost and the client sends the next. STALLED further TCP clients send
// without end and never read.
//
// It never sleeps: a generator that does would charge the server for waking it, and how
// often would depend on the server's speed.
//
// After the run it prints one line "name=value ..." and then the latencies in ns, first
// UDP's then TCP's, as 32-bit numbers. It keeps the connections open until the end of its
// standard input, so that the server's memory can be looked at.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_BYTES 1500
#define EVENTS 256
#define TAG 8
#define LOST_NS 200000000ull    // far above every latency that is measured
#define SILENT_NS 3000000000ull // a server that answers nobody for so long has failed
#define SCAN_NS 5000000ull
#define OPEN_NS 20000000000ull // all connections are to be open after that
#define PACE 64 // connections between two that prove that the server has accepted them all

struct client {
	int fd, tcp;
	uint32_t seq; // of the request in flight
	int got;      // bytes of its answer
	int busy;
	uint64_t sent;
	struct client *before, *after; // in the order of sending; UDP only
};

struct samples {
	uint32_t *ns;
	size_t used, size;
};

static struct client *clients;
static int total, bytes, open_requests;
static char request[MAX_BYTES], answer[MAX_BYTES];
static struct samples latencies[2];
static uint64_t echoes[2], lost, late, last_echo;
static int measuring, sending = 1;

// A UDP server takes its one socket's queue in order, so the next answer is the one to the
// oldest request. Asking that client's socket alone spares both sides epoll's
// bookkeeping for each datagram, which on loopback the server's core would pay for.
static struct client oldest = {.before = &oldest, .after = &oldest};

static void unlink_client(struct client *c) {
	c->before->after = c->after;
	c->after->before = c->before;
}

static void append_client(struct client *c) {
	c->before = oldest.before;
	c->after = &oldest;
	c->before->after = c->after->before = c;
}

static void fail(const char *format, ...) {
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t clock_ns(clockid_t id) {
	struct timespec t;

	if (clock_gettime(id, &t) < 0)
		fail("read clock: %s", strerror(errno));
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static void keep(struct samples *s, uint64_t ns) {
	if (s->used == s->size) {
		s->size = s->size ? 2 * s->size : 1 << 16;
		if (!(s->ns = realloc(s->ns, s->size * sizeof *s->ns)))
			fail("keep latency: out of memory");
	}
	s->ns[s->used++] = ns < UINT32_MAX ? ns : UINT32_MAX;
}

// The tag names the client and the request.
static void tag(struct client *c, char *to) {
	uint32_t index = c - clients;

	memcpy(to, &index, 4);
	memcpy(to + 4, &c->seq, 4);
}

static void send_request(struct client *c, uint64_t now) {
	ssize_t n;

	c->seq++;
	c->got = 0;
	c->sent = now;
	tag(c, request);
	n = send(c->fd, request, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n != bytes)
		fail("%s client %ld: send: %s", c->tcp ? "tcp" : "udp", (long)(c - clients),
			n < 0 ? strerror(errno) : "a part only");
	if (!c->tcp) {
		if (c->busy)
			unlink_client(c);
		append_client(c);
	}
	open_requests += !c->busy;
	c->busy = 1;
}

// same reports whether n bytes are those of the answer from the offset.
static int same(struct client *c, const char *got, int n, int offset) {
	if (offset < TAG) {
		char want[TAG];
		int part = n < TAG - offset ? n : TAG - offset;

		tag(c, want);
		if (memcmp(got, want + offset, part))
			return 0;
		got += part;
		n -= part;
		offset += part;
	}
	return memcmp(got, request + offset, n) == 0;
}

static void done(struct client *c, uint64_t now) {
	c->busy = 0;
	open_requests--;
	last_echo = now;
	if (!c->tcp)
		unlink_client(c);
	if (measuring) {
		echoes[c->tcp]++;
		keep(&latencies[c->tcp], now - c->sent);
	}
	if (sending)
		send_request(c, now);
}

// receive reports whether there was something.
static int receive(struct client *c) {
	const char *name = c->tcp ? "tcp" : "udp";
	long index = c - clients;
	ssize_t n = recv(c->fd, answer, c->tcp ? bytes - c->got : MAX_BYTES, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		fail("%s client %ld: receive: %s", name, index, strerror(errno));
	if (c->tcp && n == 0)
		fail("tcp client %ld: the server has closed the connection", index);
	if (!c->tcp) {
		uint32_t seq;

		if (n != bytes)
			fail("udp client %ld: an answer of %zd bytes to a request of %d", index, n, bytes);
		memcpy(&seq, answer + 4, 4);
		if (!c->busy || seq != c->seq) {
			if (seq > c->seq)
				fail("udp client %ld: an answer to request %u, which was not sent", index, seq);
			late++;
			return 1;
		}
	} else if (!c->busy) {
		fail("tcp client %ld: bytes that were not asked for", index);
	}
	if (!same(c, answer, n, c->got))
		fail("%s client %ld: the answer to request %u is not what was sent", name, index, c->seq);
	if ((c->got += n) == bytes)
		done(c, now_ns());
	return 1;
}

// receive_udp takes the answers that are there, at most one for each client.
static int receive_udp(void) {
	int n = 0;

	while (n < total && oldest.after != &oldest && receive(oldest.after))
		n++;
	return n;
}

static int connect_to(int tcp, int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int one = 1, fd = socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
	struct linger reset = {.l_onoff = 1}; // no TIME_WAIT is left for the next run

	if (fd < 0)
		fail("open socket: %s", strerror(errno));
	if (tcp) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	}
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		fail("connect: %s", strerror(errno));
	return fd;
}

// prove waits until the server has answered a client's first request.
static void prove(struct client *c, int count, uint64_t limit_ns) {
	uint64_t now = now_ns(), left = limit_ns > now ? limit_ns - now : 1000;
	struct timeval limit = {.tv_sec = left / 1000000000, .tv_usec = left % 1000000000 / 1000}, none = {0};

	send_request(c, now);
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	while (c->got < bytes) {
		ssize_t n = recv(c->fd, answer, bytes - c->got, 0);

		if (n <= 0)
			fail("first echo of tcp client %ld of %d: %s", (long)(c - clients), count,
				n == 0 ? "the server has closed the connection" :
				errno == EAGAIN ? "the server took too long to accept so many" : strerror(errno));
		if (!same(c, answer, n, c->got))
			fail("tcp client %ld: the answer is not what was sent", (long)(c - clients));
		c->got += n;
	}
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
	c->busy = 0;
	open_requests--;
}

static void open_clients(int ep, int tcp, int port, int count) {
	uint64_t limit = now_ns() + OPEN_NS;

	for (int i = 0; i < count; i++) {
		struct client *c = &clients[total++];
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

		c->tcp = tcp;
		c->fd = connect_to(tcp, port);
		if (tcp && (i % PACE == PACE - 1 || i == count - 1))
			prove(c, count, limit);
		if (tcp && epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) < 0)
			fail("epoll_ctl: %s", strerror(errno));
	}
}

static void scan(uint64_t now, int *stalled, int nstalled) {
	for (int i = 0; i < total; i++) {
		struct client *c = &clients[i];

		if (c->busy && !c->tcp && now > c->sent + LOST_NS) {
			lost += measuring;
			if (sending)
				send_request(c, now);
		} else if (c->busy && !c->tcp && now > c->sent + SCAN_NS) {
			receive(c); // it waits behind one that is lost
		}
	}
	for (int i = 0; i < nstalled; i++)
		while (send(stalled[i], request, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
			;
	if (sending && now > last_echo + SILENT_NS)
		fail("no echo in %llu s", SILENT_NS / 1000000000ull);
}

// number reads the i-th argument.
static int number(char **argv, int i) { return atoi(argv[i]); }

int main(int argc, char **argv) {
	enum { PID = 1, BYTES, WARM, RUN, UDP_PORT, UDP, TCP_PORT, TCP, STALLED, ARGS };
	struct epoll_event events[EVENTS];
	struct rlimit r;
	clockid_t server;
	uint64_t now, next_scan = 0, begin = 0, end, idle = 0, server_ns = 0, own_ns = 0;
	int ep = epoll_create1(EPOLL_CLOEXEC), tcp, nstalled, *stalled;
	char byte;

	if (argc != ARGS)
		fail("usage: load PID BYTES WARM_MS RUN_MS UDP_PORT UDP_CLIENTS TCP_PORT TCP_CLIENTS STALLED");
	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	if (clock_getcpuclockid(number(argv, PID), &server))
		fail("CPU clock of process %s: none", argv[PID]);
	bytes = number(argv, BYTES);
	if (bytes < TAG || bytes > MAX_BYTES)
		fail("requests of %d bytes: %d to %d are possible", bytes, TAG, MAX_BYTES);
	for (int i = 0; i < bytes; i++)
		request[i] = i * 7 + 1;
	tcp = number(argv, TCP);
	nstalled = number(argv, STALLED);
	clients = calloc(number(argv, UDP) + tcp + 1, sizeof *clients);
	stalled = calloc(nstalled + 1, sizeof *stalled);
	if (ep < 0 || !clients || !stalled)
		fail("prepare: %s", strerror(errno));

	open_clients(ep, 0, number(argv, UDP_PORT), number(argv, UDP));
	open_clients(ep, 1, number(argv, TCP_PORT), tcp);
	for (int i = 0; i < nstalled; i++)
		stalled[i] = connect_to(1, number(argv, TCP_PORT));
	now = last_echo = now_ns();
	for (int i = 0; i < total; i++)
		send_request(&clients[i], now);

	end = now + number(argv, WARM) * 1000000ull;
	for (;;) {
		int n = tcp ? epoll_wait(ep, events, EVENTS, 0) : 0;

		if (n < 0 && errno != EINTR)
			fail("epoll_wait: %s", strerror(errno));
		for (int i = 0; i < n; i++)
			receive(events[i].data.ptr);
		if (n + receive_udp() <= 0) {
			uint64_t before = now;
			now = now_ns();
			idle += measuring ? now - before : 0;
		} else {
			now = now_ns();
		}
		if (now >= next_scan) {
			scan(now, stalled, nstalled);
			next_scan = now + SCAN_NS;
		}
		if (now >= end && !sending)
			break;
		if (now >= end && measuring) {
			server_ns = clock_ns(server) - server_ns;
			own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns;
			begin = now - begin;
			measuring = sending = 0;
			end = now + LOST_NS;
		} else if (now >= end) {
			server_ns = clock_ns(server);
			own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
			begin = now;
			measuring = 1;
			end = now + number(argv, RUN) * 1000000ull;
		}
		if (!sending && !open_requests)
			break;
	}

	printf("udp=%llu tcp=%llu lost=%llu late=%llu ns=%llu server_ns=%llu own_ns=%llu idle_ns=%llu\n",
		(unsigned long long)echoes[0], (unsigned long long)echoes[1], (unsigned long long)lost,
		(unsigned long long)late, (unsigned long long)begin, (unsigned long long)server_ns,
		(unsigned long long)own_ns, (unsigned long long)idle);
	for (int i = 0; i < 2; i++)
		fwrite(latencies[i].ns, sizeof *latencies[i].ns, latencies[i].used, stdout);
	if (fflush(stdout))
		fail("write: %s", strerror(errno));
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
