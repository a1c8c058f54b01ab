// The TCP clients, each with one request in flight, and those that never read.
#include <sys/epoll.h>

#define EVENTS 256

static struct client *tcp;
static int tcps, tcp_poll = -1, *stalled, nstalled;
static struct samples tcp_samples;
static char request[MAX_BYTES], answer[MAX_BYTES];

static void tcp_send(struct client *c, uint64_t now) {
	ssize_t n;

	c->seq++;
	tag(request, c - tcp, c->seq);
	n = send(c->fd, request, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n != bytes)
		fail("tcp client %ld: send: %s", (long)(c - tcp), n < 0 ? strerror(errno) : "a part only");
	c->got = 0;
	c->sent = now;
	c->busy = 1;
	open_clients++;
}

// tcp_take checks n bytes of an answer.
static void tcp_take(struct client *c, int n) {
	char want[TAG];
	int in_tag = c->got < TAG ? TAG - c->got : 0;

	if (in_tag > n)
		in_tag = n;
	tag(want, c - tcp, c->seq);
	if (memcmp(answer, want + (in_tag ? c->got : 0), in_tag) ||
		memcmp(answer + in_tag, filler + c->got + in_tag, n - in_tag))
		fail("tcp client %ld: the answer to request %u is not what was sent", (long)(c - tcp), c->seq);
	if ((c->got += n) == bytes) {
		c->busy = 0;
		open_clients--;
	}
}

static void tcp_receive(struct client *c) {
	ssize_t n = recv(c->fd, answer, c->busy ? bytes - c->got : 1, MSG_DONTWAIT);
	uint64_t now;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		fail("tcp client %ld: receive: %s", (long)(c - tcp),
			n < 0 ? strerror(errno) : "the server has closed the connection");
	if (!c->busy)
		fail("tcp client %ld: bytes that were not asked for", (long)(c - tcp));
	tcp_take(c, n);
	if (c->busy)
		return;
	now = now_ns();
	echoed(&tcp_samples, c->sent, now);
	if (sending)
		tcp_send(c, now);
}

// tcp_turn serves the sockets that are ready.
static int tcp_turn(void) {
	struct epoll_event events[EVENTS];
	int n = tcps ? epoll_wait(tcp_poll, events, EVENTS, 0) : 0;

	if (n < 0 && errno != EINTR)
		fail("epoll_wait: %s", strerror(errno));
	for (int i = 0; i < n; i++)
		tcp_receive(events[i].data.ptr);
	return n > 0 ? n : 0;
}

// tcp_prove waits until the server has answered a client's first request.
static void tcp_prove(struct client *c, uint64_t limit_ns) {
	uint64_t now = now_ns(), left = limit_ns > now ? limit_ns - now : 1000;
	struct timeval limit = {.tv_sec = left / 1000000000, .tv_usec = left % 1000000000 / 1000}, none = {0};

	tcp_send(c, now);
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	while (c->busy) {
		ssize_t n = recv(c->fd, answer, bytes - c->got, 0);

		if (n <= 0)
			fail("first echo of tcp client %ld of %d: %s", (long)(c - tcp), tcps,
				n == 0 ? "the server has closed the connection" :
				errno == EAGAIN ? "the server took too long to accept so many" : strerror(errno));
		tcp_take(c, n);
	}
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
}

static void tcp_open(int port, int count, int stalled_count) {
	uint64_t limit = now_ns() + OPEN_NS;

	memcpy(request, filler, bytes);
	tcps = count;
	tcp = new_clients(count);
	if ((tcp_poll = epoll_create1(EPOLL_CLOEXEC)) < 0)
		fail("epoll_create1: %s", strerror(errno));
	for (int i = 0; i < count; i++) {
		struct client *c = &tcp[i];
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

		c->fd = connect_to(1, port);
		if (i % PACE == PACE - 1 || i == count - 1)
			tcp_prove(c, limit);
		if (epoll_ctl(tcp_poll, EPOLL_CTL_ADD, c->fd, &ev) < 0)
			fail("epoll_ctl: %s", strerror(errno));
	}
	nstalled = stalled_count;
	if (!(stalled = calloc(nstalled + 1, sizeof *stalled)))
		fail("make clients: out of memory");
	for (int i = 0; i < nstalled; i++)
		stalled[i] = connect_to(1, port);
}

// tcp_push fills the connections of those that never read.
static void tcp_push(void) {
	for (int i = 0; i < nstalled; i++)
		while (send(stalled[i], filler, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
			;
}
