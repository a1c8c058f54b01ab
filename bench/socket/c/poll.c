// The oldest form: poll(2) over all sockets, one read and one answer for each that is
// ready.
#include "server.h"
#include <poll.h>

static struct pollfd *fds;
static struct conn *conns;
static int used, capacity;

static void add(int fd) {
	if (used == capacity) {
		capacity = 2 * capacity + 64;
		fds = realloc(fds, capacity * sizeof *fds);
		conns = realloc(conns, capacity * sizeof *conns);
		if (!fds || !conns)
			die("realloc");
	}
	fds[used] = (struct pollfd){.fd = fd, .events = POLLIN};
	conns[used++] = (struct conn){0};
}

int main(int argc, char **argv) {
	int services, type = start(argc, argv, &services);

	for (int i = 0; i < services; i++)
		add(open_port(type));
	serving();
	for (;;) {
		int ready = poll(fds, used, -1), client, next;

		if (ready < 0 && errno != EINTR)
			die("poll");
		// From the end, so that the last can take the place of one that closes.
		for (int i = used - 1; i >= 0 && ready > 0; i--) {
			if (!fds[i].revents)
				continue;
			ready--;
			if (type == SOCK_DGRAM) {
				echo_udp(fds[i].fd);
			} else if (i == 0) {
				while ((client = accept_client(fds[0].fd)) >= 0)
					add(client);
			} else if ((next = echo_tcp(fds[i].fd, &conns[i])) == CLOSED) {
				close(fds[i].fd);
				fds[i] = fds[--used];
				conns[i] = conns[used];
			} else {
				fds[i].events = next == WRITE ? POLLOUT : POLLIN;
			}
		}
	}
}
