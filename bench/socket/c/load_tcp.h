// The TCP clients, each with one request in flight, and those that never read.
#include "load_ring.h"
#include <sys/epoll.h>

static struct client *tcp;
static int tcps, tcp_poll = -1, *stalled, nstalled;
static struct samples tcp_samples;

// A request's bytes must stay until it is sent. With the ring that is later: there is a
// place for each that can be queued.
static char requests[RING_SENDS][MAX_BYTES];

// tcp_answer checks n bytes of an answer.
static void tcp_answer(struct client *c, const char *answer, int n) {
	char want[TAG];
	int in_tag = c->got < TAG ? TAG - c->got : 0;

	if (!c->busy)
		fail("tcp client %ld: bytes that were not asked for", (long)(c - tcp));
	if (n > bytes - c->got)
		fail("tcp client %ld: the answer to request %u is longer than that", (long)(c - tcp), c->seq);
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

// tcp_ask writes a client's next request, which is for the caller to send.
static void tcp_ask(struct client *c, char *request, uint64_t now) {
	tag(request, c - tcp, ++c->seq);
	c->got = 0;
	c->sent = now;
	c->busy = 1;
	open_clients++;
}

static void tcp_send(struct client *c, uint64_t now) {
	if (ring.fd >= 0) {
		struct io_uring_sqe *s = ring_next();
		char *request = requests[s - ring.sqes];

		tcp_ask(c, request, now);
		ring_send(s, c->fd, request, c - tcp);
		return;
	}
	tcp_ask(c, requests[0], now);
	ssize_t n = send(c->fd, requests[0], bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n != bytes)
		fail("tcp client %ld: send: %s", (long)(c - tcp), n < 0 ? strerror(errno) : "a part only");
}

// tcp_take takes what has come for a client: n bytes, the end of the stream or an error.
static void tcp_take(struct client *c, const char *answer, int n, int error, uint64_t now) {
	if (n <= 0)
		fail("tcp client %ld: receive: %s", (long)(c - tcp),
			n < 0 ? strerror(error) : "the server has closed the connection");
	tcp_answer(c, answer, n);
	if (c->busy)
		return;
	echoed(&tcp_samples, c->sent, now);
	if (sending)
		tcp_send(c, now);
}

static int tcp_epoll_turn(void) {
	static char answer[MAX_BYTES];
	struct epoll_event events[EVENTS];
	int n = epoll_wait(tcp_poll, events, EVENTS, 0);

	if (n < 0 && errno != EINTR)
		fail("epoll_wait: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		struct client *c = events[i].data.ptr;
		int got = recv(c->fd, answer, MAX_BYTES, MSG_DONTWAIT);

		if (got >= 0 || (errno != EAGAIN && errno != EINTR))
			tcp_take(c, answer, got, errno, now_ns());
	}
	return n > 0 ? n : 0;
}

static int tcp_ring_turn(void) {
	unsigned head = *ring.cq_head, tail;
	uint64_t now;
	int n = 0;

	ring_enter(IORING_ENTER_GETEVENTS);
	tail = __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE);
	now = now_ns();
	for (; head != tail; head++) {
		struct io_uring_cqe e = ring.cqes[head & ring.cq_mask];
		struct client *c = &tcp[e.user_data & UINT32_MAX];
		unsigned id = e.flags >> IORING_CQE_BUFFER_SHIFT;

		__atomic_store_n(ring.cq_head, head + 1, __ATOMIC_RELEASE);
		if (e.user_data & RING_SEND_FAILED)
			fail("tcp client %ld: send: %s", (long)(c - tcp), e.res < 0 ? strerror(-e.res) : "a part only");
		if (!(e.flags & IORING_CQE_F_MORE))
			ring_listen(c->fd, c - tcp);
		if (e.res == -ENOBUFS)
			continue;
		tcp_take(c, ring.buffers[id], e.res, -e.res, now);
		ring_give(id);
		n++;
	}
	return n;
}

// tcp_turn takes the answers that are there.
static int tcp_turn(void) {
	if (!tcps)
		return 0;
	return ring.fd < 0 ? tcp_epoll_turn() : tcp_ring_turn();
}

// tcp_prove waits until the server has answered a client's first request.
static void tcp_prove(struct client *c, uint64_t limit_ns) {
	uint64_t now = now_ns(), left = limit_ns > now ? limit_ns - now : 1000;
	struct timeval limit = {.tv_sec = left / 1000000000, .tv_usec = left % 1000000000 / 1000}, none = {0};
	char answer[MAX_BYTES];

	tcp_ask(c, requests[0], now);
	if (send(c->fd, requests[0], bytes, MSG_NOSIGNAL) != bytes)
		fail("tcp client %ld: send: %s", (long)(c - tcp), strerror(errno));
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	while (c->busy) {
		ssize_t n = recv(c->fd, answer, MAX_BYTES, 0);

		if (n <= 0)
			fail("first echo of tcp client %ld of %d: %s", (long)(c - tcp), tcps,
				n == 0 ? "the server has closed the connection" :
				errno == EAGAIN ? "the server took too long to accept so many" : strerror(errno));
		tcp_answer(c, answer, n);
	}
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
}

// tcp_watch has the answers of a client that has none in flight come to tcp_turn.
static void tcp_watch(struct client *c) {
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

	if (ring.fd >= 0)
		ring_listen(c->fd, c - tcp);
	else if (epoll_ctl(tcp_poll, EPOLL_CTL_ADD, c->fd, &ev) < 0)
		fail("epoll_ctl: %s", strerror(errno));
}

static void tcp_open(int port, int count, int stalled_count) {
	uint64_t limit = now_ns() + OPEN_NS;

	for (unsigned i = 0; i < RING_SENDS; i++)
		memcpy(requests[i], filler, bytes);
	tcps = count;
	tcp = new_clients(count);
	if (!ring_open() && (tcp_poll = epoll_create1(EPOLL_CLOEXEC)) < 0)
		fail("epoll_create1: %s", strerror(errno));
	for (int i = 0; i < count; i++) {
		tcp[i].fd = connect_to(1, port);
		if (i % PACE == PACE - 1 || i == count - 1)
			tcp_prove(&tcp[i], limit);
		tcp_watch(&tcp[i]);
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
