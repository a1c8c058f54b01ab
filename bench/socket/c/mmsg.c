// UDP in batches: one recvmmsg takes up to 64 datagrams, one sendmmsg answers them. With
// one socket it needs no poll: recvmmsg itself waits for the first datagram.
#include "server.h"
#include <fcntl.h>
#include <poll.h>

#define BATCH 64

static char bufs[BATCH][BUFFER];
static struct sockaddr_in from[BATCH];
static struct iovec iov[BATCH];
static struct mmsghdr msgs[BATCH];

static void reset(int n) {
	for (int i = 0; i < n; i++) {
		iov[i].iov_len = BUFFER;
		msgs[i].msg_hdr.msg_namelen = sizeof from[i];
	}
}

static int answer(int fd, int flags) {
	int n = recvmmsg(fd, msgs, BATCH, flags, NULL);

	if (n <= 0)
		return n;
	for (int i = 0; i < n; i++)
		iov[i].iov_len = msgs[i].msg_len;
	for (int sent = 0; sent < n;) {
		int more = sendmmsg(fd, msgs + sent, n - sent, 0);
		sent += more > 0 ? more : 1; // one that can not be sent is dropped
	}
	reset(n);
	return n;
}

int main(int argc, char **argv) {
	int services, type = start(argc, argv, &services);
	struct pollfd *fds = calloc(services, sizeof *fds);

	if (type != SOCK_DGRAM || !fds) {
		fprintf(stderr, "mmsg: for UDP only\n");
		return 2;
	}
	for (int i = 0; i < services; i++)
		fds[i] = (struct pollfd){.fd = open_port(type), .events = POLLIN};
	for (int i = 0; i < BATCH; i++) {
		iov[i].iov_base = bufs[i];
		msgs[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_iov = &iov[i], .msg_iovlen = 1};
	}
	reset(BATCH);
	serving();
	if (services == 1) {
		fcntl(fds[0].fd, F_SETFL, 0);
		for (;;)
			if (answer(fds[0].fd, MSG_WAITFORONE) < 0 && errno != EINTR)
				die("recvmmsg");
	}
	for (;;) {
		if (poll(fds, services, -1) < 0 && errno != EINTR)
			die("poll");
		for (int i = 0; i < services; i++)
			if (fds[i].revents)
				answer(fds[i].fd, MSG_DONTWAIT);
	}
}
