// The plain event loop: level-triggered epoll, one read and one answer for each event.
#include "server.h"
#include <sys/epoll.h>

static void watch(int ep, int op, int fd, unsigned events) {
	struct epoll_event ev = {.events = events, .data.fd = fd};

	if (epoll_ctl(ep, op, fd, &ev) < 0)
		die("epoll_ctl");
}

int main(int argc, char **argv) {
	struct epoll_event events[256];
	struct conn *conns = NULL;
	int services, capacity = 0, listener = -1;
	int type = start(argc, argv, &services);
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (ep < 0)
		die("epoll_create1");
	for (int i = 0; i < services; i++) {
		int fd = open_port(type);
		if (type == SOCK_STREAM)
			listener = fd;
		watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN);
	}
	serving();
	for (;;) {
		int n = epoll_wait(ep, events, 256, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd, client, before, next;

			if (type == SOCK_DGRAM) {
				echo_udp(fd);
				continue;
			}
			if (fd == listener) {
				while ((client = accept_client(fd)) >= 0) {
					if (client >= capacity) {
						int grown = 2 * client + 64;
						if (!(conns = realloc(conns, grown * sizeof *conns)))
							die("realloc");
						memset(conns + capacity, 0, (grown - capacity) * sizeof *conns);
						capacity = grown;
					}
					watch(ep, EPOLL_CTL_ADD, client, EPOLLIN);
				}
				continue;
			}
			before = conns[fd].pending ? WRITE : READ;
			next = echo_tcp(fd, &conns[fd]);
			if (next == CLOSED)
				close(fd);
			else if (next != before)
				watch(ep, EPOLL_CTL_MOD, fd, next == WRITE ? EPOLLOUT : EPOLLIN);
		}
	}
}
