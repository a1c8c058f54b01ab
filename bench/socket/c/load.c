// The load generator: one thread, a closed loop.
//
//   load PID BYTES WARM_MS RUN_MS UDP_PORT UDP_CLIENTS WINDOW TCP_PORT TCP_CLIENTS STALLED
//
// Each client is a socket of its own. A TCP client has one request in flight, a UDP client
// WINDOW. Every byte of every answer is compared; a wrong one, and a connection that
// ends, ends the run with a message. A datagram without an answer after LOST_NS counts as
// lost and the client goes on. STALLED further TCP clients send without end and never
// read.
//
// It never sleeps: a generator that does would charge the server for waking it, and how
// often would depend on the server's speed.
//
// After the run it prints one line "name=value ..." and then the latencies in ns, first
// UDP's then TCP's, as 32-bit numbers. It keeps the connections open until the end of its
// standard input, so that the server's memory can be looked at.
#include "load_client.h"
#include "load_tcp.h"
#include "load_udp.h"
#include <sys/resource.h>

#define CPU CLOCK_PROCESS_CPUTIME_ID

static struct {
	uint64_t elapsed, server, own, idle;
} spent;

// serve_for lets the clients work for a time, or until none is busy.
static void serve_for(uint64_t ns) {
	uint64_t now = now_ns(), end = now + ns, next_scan = now;

	while (now < end && (sending || open_clients)) {
		int n = tcp_turn() + udp_turn();
		uint64_t before = now;

		now = now_ns();
		if (n == 0 && measuring)
			spent.idle += now - before;
		if (now < next_scan)
			continue;
		next_scan = now + SCAN_NS;
		udp_scan(now);
		tcp_push();
		if (sending && now > last_echo + SILENT_NS)
			fail("no echo in %llu s", SILENT_NS / 1000000000ull);
	}
}

static void measure(clockid_t server, uint64_t ns) {
	uint64_t begin = now_ns(), cpu = clock_ns(server), own = clock_ns(CPU);

	measuring = 1;
	serve_for(ns);
	measuring = 0;
	spent.elapsed = now_ns() - begin;
	spent.server = clock_ns(server) - cpu;
	spent.own = clock_ns(CPU) - own;
}

static void print(void) {
	struct samples *all[] = {&udp_samples, &tcp_samples};
	char byte;

	printf("udp=%llu tcp=%llu lost=%llu late=%llu ns=%llu server_ns=%llu own_ns=%llu idle_ns=%llu ring=%d\n",
		(unsigned long long)udp_samples.echoes, (unsigned long long)tcp_samples.echoes,
		(unsigned long long)lost, (unsigned long long)late, (unsigned long long)spent.elapsed,
		(unsigned long long)spent.server, (unsigned long long)spent.own, (unsigned long long)spent.idle,
		tcps && ring.fd >= 0);
	for (int i = 0; i < 2; i++)
		fwrite(all[i]->ns, sizeof *all[i]->ns, all[i]->used, stdout);
	if (fflush(stdout))
		fail("write: %s", strerror(errno));
	while (read(0, &byte, 1) > 0)
		;
}

int main(int argc, char **argv) {
	enum { PID = 1, BYTES, WARM, RUN, UDP_PORT, UDP, WINDOW, TCP_PORT, TCP, STALLED, ARGS };
	int n[ARGS];
	struct rlimit r;
	clockid_t server;

	if (argc != ARGS)
		fail("usage: load PID BYTES WARM_MS RUN_MS UDP_PORT UDP_CLIENTS WINDOW TCP_PORT TCP_CLIENTS STALLED");
	for (int i = 1; i < ARGS; i++)
		n[i] = atoi(argv[i]);
	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	if (clock_getcpuclockid(n[PID], &server))
		fail("CPU clock of process %d: none", n[PID]);
	if (n[BYTES] < TAG || n[BYTES] > MAX_BYTES || n[WINDOW] < 1 || n[WINDOW] > MAX_WINDOW)
		fail("%d bytes, window %d: %d to %d and 1 to %d are possible", n[BYTES], n[WINDOW], TAG, MAX_BYTES, MAX_WINDOW);
	bytes = n[BYTES];
	window = n[WINDOW];
	for (int i = 0; i < bytes; i++)
		filler[i] = i * 7 + 1;

	udp_open(n[UDP_PORT], n[UDP]);
	tcp_open(n[TCP_PORT], n[TCP], n[STALLED]);
	last_echo = now_ns();
	for (int i = 0; i < udps; i++)
		udp_send(&udp[i], now_ns());
	for (int i = 0; i < tcps; i++)
		tcp_send(&tcp[i], now_ns());
	serve_for(n[WARM] * 1000000ull);
	measure(server, n[RUN] * 1000000ull);
	sending = 0;
	serve_for(LOST_NS);
	print();
	return 0;
}
