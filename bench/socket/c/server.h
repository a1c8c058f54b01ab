// What the plain servers share. Each is one thread and behaves to its starter as package
// internal/serve says; on SIGUSR1 they have nothing to give back.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER 1500
#define UDP_BUFFER (4 << 20) // no datagram is lost in any case that is measured

static void die(const char *step) {
	fprintf(stderr, "%s: %s\n", step, strerror(errno));
	exit(1);
}

static void settle(int sig) {
	(void)sig;
	if (write(1, "settled\n", 8) < 0)
		_exit(1);
}

// start reads the arguments and prepares the process.
static int start(int argc, char **argv, int *services) {
	struct rlimit r;
	struct sigaction a = {.sa_handler = settle};

	if (argc != 4) {
		fprintf(stderr, "usage: %s udp|tcp SERVICES CLIENTS\n", argv[0]);
		exit(2);
	}
	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGUSR1, &a, NULL);
	*services = atoi(argv[2]);
	return strcmp(argv[1], "tcp") == 0 ? SOCK_STREAM : SOCK_DGRAM;
}

// open_port listens on a port of 127.0.0.1 that the kernel chooses, and prints it.
static int open_port(int type) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int size = UDP_BUFFER;
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	if (type == SOCK_DGRAM) {
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	}
	if (bind(fd, (struct sockaddr *)&a, len) < 0)
		die("bind");
	if (type == SOCK_STREAM && listen(fd, SOMAXCONN) < 0)
		die("listen");
	if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		die("getsockname");
	printf("port %d\n", ntohs(a.sin_port));
	return fd;
}

static void serving(void) {
	printf("serving\n");
	fflush(stdout);
}

// A conn is what a client has not taken yet. Nothing is kept for one that takes all.
struct conn {
	char *pending;
	int off, len;
};

enum { CLOSED = -1, READ, WRITE };

static int end(struct conn *c) {
	free(c->pending);
	memset(c, 0, sizeof *c);
	return CLOSED;
}

// echo_udp answers one datagram.
static inline void echo_udp(int fd) {
	static char buf[BUFFER];
	struct sockaddr_in from;
	socklen_t len = sizeof from;
	ssize_t n = recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&from, &len);

	if (n >= 0)
		sendto(fd, buf, n, 0, (struct sockaddr *)&from, len);
}

// echo_tcp reads and answers once, or goes on sending what is pending. It returns what
// to wait for next.
static inline int echo_tcp(int fd, struct conn *c) {
	static char buf[BUFFER];
	ssize_t n, sent;

	if (c->pending) {
		sent = send(fd, c->pending + c->off, c->len - c->off, MSG_NOSIGNAL);
		if (sent < 0)
			return errno == EAGAIN || errno == EINTR ? WRITE : end(c);
		if ((c->off += sent) < c->len)
			return WRITE;
		end(c);
		return READ;
	}
	n = recv(fd, buf, sizeof buf, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? READ : end(c);
	if (n == 0)
		return end(c);
	sent = send(fd, buf, n, MSG_NOSIGNAL);
	if (sent == n)
		return READ;
	if (sent < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return end(c);
		sent = 0;
	}
	c->len = n - sent;
	c->off = 0;
	if (!(c->pending = malloc(c->len)))
		die("malloc");
	memcpy(c->pending, buf + sent, c->len);
	return WRITE;
}

static inline int accept_client(int fd) {
	int one = 1, client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (client >= 0)
		setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return client;
}
