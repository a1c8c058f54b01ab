// The UDP clients. Each sends as many requests at once as the window has, and the next when
// all are answered.
static struct client *udp;
static int udps, window;
static struct samples udp_samples;
static uint64_t lost, late;

static char out_bytes[MAX_WINDOW][MAX_BYTES], in_bytes[MAX_WINDOW][MAX_BYTES];
static struct iovec out_iov[MAX_WINDOW], in_iov[MAX_WINDOW];
static struct mmsghdr out[MAX_WINDOW], in[MAX_WINDOW];

// A UDP server takes its one socket's queue in order, so the next answer is the one to the
// oldest request. Asking that client's socket alone spares both sides epoll's
// bookkeeping for each datagram, which on loopback the server's core would pay for.
static struct client oldest = {.before = &oldest, .after = &oldest};

static void udp_unlink(struct client *c) {
	c->before->after = c->after;
	c->after->before = c->before;
}

static void udp_append(struct client *c) {
	c->before = oldest.before;
	c->after = &oldest;
	c->before->after = c->after->before = c;
}

static void udp_send(struct client *c, uint64_t now) {
	int sent;

	c->seq += window;
	for (int i = 0; i < window; i++)
		tag(out_bytes[i], c - udp, c->seq + i);
	if (window == 1)
		sent = send(c->fd, out_bytes[0], bytes, MSG_DONTWAIT) == bytes ? 1 : -1;
	else
		sent = sendmmsg(c->fd, out, window, MSG_DONTWAIT);
	if (sent != window)
		fail("udp client %ld: send: %s", (long)(c - udp), sent < 0 ? strerror(errno) : "a part only");
	if (c->busy)
		udp_unlink(c);
	else
		open_clients++;
	udp_append(c);
	c->busy = 1;
	c->sent = now;
	c->left = window;
	c->answered = 0;
}

// udp_take checks one answer.
static void udp_take(struct client *c, const char *answer, int n, uint64_t now) {
	long index = c - udp;
	uint32_t from, number, i;

	if (n != bytes)
		fail("udp client %ld: an answer of %d bytes to a request of %d", index, n, bytes);
	memcpy(&from, answer, 4);
	memcpy(&number, answer + 4, 4);
	if (from != index || memcmp(answer + TAG, filler + TAG, bytes - TAG))
		fail("udp client %ld: an answer is not what was sent", index);
	i = number - c->seq;
	if (number >= c->seq + window)
		fail("udp client %ld: an answer to request %u, which was not sent", index, number);
	if (number < c->seq || !c->busy || c->answered >> i & 1) {
		late++;
		return;
	}
	c->answered |= 1ull << i;
	echoed(&udp_samples, c->sent, now);
	if (--c->left > 0)
		return;
	udp_unlink(c);
	c->busy = 0;
	open_clients--;
}

// udp_receive reports whether there was something.
static int udp_receive(struct client *c) {
	uint64_t now;
	int n = 1;

	if (window == 1) {
		n = recv(c->fd, in_bytes[0], MAX_BYTES, MSG_DONTWAIT);
		in[0].msg_len = n;
		n = n < 0 ? -1 : 1;
	} else {
		n = recvmmsg(c->fd, in, window, MSG_DONTWAIT, NULL);
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		fail("udp client %ld: receive: %s", (long)(c - udp), strerror(errno));
	now = now_ns();
	for (int i = 0; i < n; i++)
		udp_take(c, in_bytes[i], in[i].msg_len, now);
	if (!c->busy && sending)
		udp_send(c, now);
	return 1;
}

// udp_turn takes the answers that are there.
static int udp_turn(void) {
	int n = 0;

	while (n < udps && oldest.after != &oldest && udp_receive(oldest.after))
		n++;
	return n;
}

// udp_scan finds requests that are lost, and answers that wait behind them.
static void udp_scan(uint64_t now) {
	for (int i = 0; i < udps; i++) {
		struct client *c = &udp[i];

		if (c->busy && now > c->sent + LOST_NS) {
			lost += measuring ? c->left : 0;
			if (sending)
				udp_send(c, now);
		} else if (c->busy && now > c->sent + SCAN_NS) {
			udp_receive(c);
		}
	}
}

static void udp_open(int port, int count) {
	for (int i = 0; i < window; i++) {
		memcpy(out_bytes[i], filler, bytes);
		out_iov[i] = (struct iovec){out_bytes[i], bytes};
		in_iov[i] = (struct iovec){in_bytes[i], MAX_BYTES};
		out[i].msg_hdr = (struct msghdr){.msg_iov = &out_iov[i], .msg_iovlen = 1};
		in[i].msg_hdr = (struct msghdr){.msg_iov = &in_iov[i], .msg_iovlen = 1};
	}
	udps = count;
	udp = new_clients(count);
	for (int i = 0; i < count; i++)
		udp[i].fd = connect_to(0, port);
}
