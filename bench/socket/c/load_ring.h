// An io_uring for the TCP clients: all requests of a turn are sent, and all answers that
// are there are taken, with one system call. With a call or two for each event, as a
// server needs them, the generator could not keep one ahead that is as plain as itself.
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define RING_SENDS 64u    // a turn's requests at most between two system calls
#define RING_BUFFERS 512u // answers at most in one turn
#define RING_EVENTS 32768u
#define RING_SEND_FAILED (1ull << 32) // in an event's user data, beside the client's number

static struct {
	int fd; // negative: there is none
	unsigned *sq_tail, *cq_head, *cq_tail, sq_mask, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	struct io_uring_buf_ring *free;
	char (*buffers)[MAX_BYTES];
	unsigned tail, queued; // of the submissions
} ring = {.fd = -1};

static void *ring_map(size_t size, off_t at) {
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, at < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE,
		at < 0 ? -1 : ring.fd, at < 0 ? 0 : at);

	if (p == MAP_FAILED)
		fail("map io_uring: %s", strerror(errno));
	return p;
}

// ring_give lets the kernel use a buffer (again).
static void ring_give(unsigned short id) {
	struct io_uring_buf *b = &ring.free->bufs[ring.free->tail & (RING_BUFFERS - 1)];

	b->addr = (uintptr_t)ring.buffers[id];
	b->len = MAX_BYTES;
	b->bid = id;
	__atomic_store_n(&ring.free->tail, ring.free->tail + 1, __ATOMIC_RELEASE);
}

// ring_open reports whether the kernel has what is needed (Linux 6.1) and allows it: where
// programs are confined it often does not.
static int ring_open(void) {
	struct io_uring_params p = {.cq_entries = RING_EVENTS,
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
	struct io_uring_buf_reg reg = {.ring_entries = RING_BUFFERS};
	char *rings;

	if ((ring.fd = syscall(SYS_io_uring_setup, RING_SENDS, &p)) < 0)
		return 0;
	ring.free = ring_map(RING_BUFFERS * sizeof(struct io_uring_buf), -1);
	ring.buffers = ring_map(RING_BUFFERS * sizeof *ring.buffers, -1);
	reg.ring_addr = (uintptr_t)ring.free;
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_PBUF_RING, &reg, 1) < 0) {
		close(ring.fd);
		ring.fd = -1;
		return 0;
	}
	rings = ring_map(p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_SQ_RING);
	ring.sqes = ring_map(p.sq_entries * sizeof *ring.sqes, IORING_OFF_SQES);
	ring.sq_tail = (unsigned *)(rings + p.sq_off.tail);
	ring.sq_mask = p.sq_entries - 1;
	for (unsigned i = 0; i < p.sq_entries; i++)
		((unsigned *)(rings + p.sq_off.array))[i] = i;
	ring.cq_head = (unsigned *)(rings + p.cq_off.head);
	ring.cq_tail = (unsigned *)(rings + p.cq_off.tail);
	ring.cq_mask = p.cq_entries - 1;
	ring.cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
	for (unsigned i = 0; i < RING_BUFFERS; i++)
		ring_give(i);
	return 1;
}

// ring_enter submits what is queued, and with IORING_ENTER_GETEVENTS has the kernel
// receive what is there. It does not wait.
static void ring_enter(unsigned flags) {
	__atomic_store_n(ring.sq_tail, ring.tail, __ATOMIC_RELEASE);
	while (ring.queued > 0 || flags) {
		int n = syscall(SYS_io_uring_enter, ring.fd, ring.queued, 0, flags, NULL, 0);

		if (n < 0 && errno != EINTR)
			fail("io_uring_enter: %s", strerror(errno));
		if (n > 0)
			ring.queued -= n;
		flags = 0;
	}
}

// ring_next returns the next submission, to be filled before the next call of ring_enter.
static struct io_uring_sqe *ring_next(void) {
	struct io_uring_sqe *s;

	if (ring.queued == RING_SENDS)
		ring_enter(0);
	s = &ring.sqes[ring.tail++ & ring.sq_mask];
	ring.queued++;
	return memset(s, 0, sizeof *s);
}

// ring_send makes of a submission the sending of a request. There is an event only if not
// all of it can be sent at once.
static void ring_send(struct io_uring_sqe *s, int fd, const char *request, uint32_t client) {
	s->opcode = IORING_OP_SEND;
	s->flags = IOSQE_CQE_SKIP_SUCCESS;
	s->fd = fd;
	s->addr = (uintptr_t)request;
	s->len = bytes;
	s->msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT | MSG_WAITALL;
	s->user_data = client | RING_SEND_FAILED;
}

// ring_listen has what comes for a client received, until an event without
// IORING_CQE_F_MORE.
static void ring_listen(int fd, uint32_t client) {
	struct io_uring_sqe *s = ring_next();

	s->opcode = IORING_OP_RECV;
	s->flags = IOSQE_BUFFER_SELECT;
	s->ioprio = IORING_RECV_MULTISHOT;
	s->fd = fd;
	s->user_data = client;
}
