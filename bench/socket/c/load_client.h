// What both kinds of clients of the load generator need.
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

#define MAX_WINDOW 64

struct client {
	int fd;
	int busy;      // a request is in flight
	uint32_t seq;  // the number of the first that is
	uint64_t sent; // when

	int got; // TCP: bytes of the answer

	int left;                      // UDP: answers that are missing
	uint64_t answered;             // UDP: a bit for each answer that is not
	struct client *before, *after; // UDP: in the order of sending
};

struct samples {
	uint32_t *ns;
	size_t used, size;
	uint64_t echoes;
};

static int bytes; // of a request
static char filler[MAX_BYTES];
static uint64_t last_echo;
static int open_clients; // that are busy
static int measuring, sending = 1;

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

// echoed counts an answer.
static void echoed(struct samples *s, uint64_t sent, uint64_t now) {
	last_echo = now;
	if (!measuring)
		return;
	s->echoes++;
	if (s->used == s->size) {
		s->size = s->size ? 2 * s->size : 1 << 16;
		if (!(s->ns = realloc(s->ns, s->size * sizeof *s->ns)))
			fail("keep latency: out of memory");
	}
	s->ns[s->used++] = now - sent < UINT32_MAX ? now - sent : UINT32_MAX;
}

// tag writes the first bytes of a request: the client and the number.
static void tag(char *to, uint32_t client, uint32_t number) {
	memcpy(to, &client, 4);
	memcpy(to + 4, &number, 4);
}

static struct client *new_clients(int n) {
	struct client *c = calloc(n + 1, sizeof *c);

	if (!c)
		fail("make clients: out of memory");
	return c;
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
