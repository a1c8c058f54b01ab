package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/internal/diskproto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const within = 10 * time.Second

// A client is QEMU's end of a server. Replies are kept by their handles.
type client struct {
	t    *testing.T
	conn net.Conn

	mu      sync.Mutex
	handle  uint64
	sizes   map[uint64]int
	replies map[uint64]chan reply2
}

type reply2 struct {
	code uint32
	data []byte
}

// start starts a server and negotiates as QEMU does: it asks for structured replies first.
func start(t *testing.T) (*client, *Server) {
	t.Helper()
	near, far := net.Pipe()
	s := New(near)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		far.Close()
		select {
		case err := <-served:
			require.NoError(t, err)
		case <-time.After(within):
			require.Fail(t, "the server outlives its connection")
		}
	})
	require.NoError(t, far.SetDeadline(time.Now().Add(within)))
	be := binary.BigEndian
	hello := make([]byte, 18)
	_, err := io.ReadFull(far, hello)
	require.NoError(t, err)
	require.Equal(t, "NBDMAGICIHAVEOPT\x00\x03", string(hello))
	_, err = far.Write([]byte{0, 0, 0, 3})
	require.NoError(t, err)
	option := func(number uint32, data []byte) {
		b := append([]byte("IHAVEOPT"), be.AppendUint32(be.AppendUint32(nil, number), uint32(len(data)))...)
		_, err := far.Write(append(b, data...))
		require.NoError(t, err)
	}
	answer := func() (option, kind uint32, data []byte) {
		h := make([]byte, 20)
		_, err := io.ReadFull(far, h)
		require.NoError(t, err)
		require.EqualValues(t, answerMagic, be.Uint64(h))
		data = make([]byte, be.Uint32(h[16:]))
		_, err = io.ReadFull(far, data)
		require.NoError(t, err)
		return be.Uint32(h[8:]), be.Uint32(h[12:]), data
	}
	option(8, nil) // NBD_OPT_STRUCTURED_REPLY
	_, kind, _ := answer()
	require.EqualValues(t, repUnsupported, kind)
	option(optGo, []byte("\x00\x00\x00\x04name\x00\x01\x00\x03"))
	_, kind, data := answer()
	require.EqualValues(t, repInfo, kind)
	require.EqualValues(t, diskproto.Size, be.Uint64(data[2:]))
	_, kind, _ = answer()
	require.EqualValues(t, repAck, kind)
	c := &client{t: t, conn: far, sizes: make(map[uint64]int), replies: make(map[uint64]chan reply2)}
	go c.receive()
	return c, s
}

func (c *client) receive() {
	for {
		h := make([]byte, 16)
		if _, err := io.ReadFull(c.conn, h); err != nil {
			return
		}
		handle := binary.BigEndian.Uint64(h[8:])
		c.mu.Lock()
		r := reply2{code: binary.BigEndian.Uint32(h[4:])}
		size, to := c.sizes[handle], c.replies[handle]
		c.mu.Unlock()
		if r.code == 0 {
			r.data = make([]byte, size)
			if _, err := io.ReadFull(c.conn, r.data); err != nil {
				return
			}
		}
		to <- r
	}
}

// send sends a request and returns the channel of its reply.
func (c *client) send(command uint16, offset int64, length int, data []byte) <-chan reply2 {
	c.t.Helper()
	be := binary.BigEndian
	c.mu.Lock()
	c.handle++
	handle := c.handle
	if command == cmdRead {
		c.sizes[handle] = length
	}
	to := make(chan reply2, 1)
	c.replies[handle] = to
	c.mu.Unlock()
	b := be.AppendUint32(nil, requestWord)
	b = be.AppendUint32(b, uint32(command))
	b = be.AppendUint64(b, handle)
	b = be.AppendUint64(b, uint64(offset))
	b = be.AppendUint32(b, uint32(length))
	_, err := c.conn.Write(append(b, data...))
	require.NoError(c.t, err)
	return to
}

func (c *client) await(to <-chan reply2) reply2 {
	c.t.Helper()
	select {
	case r := <-to:
		return r
	case <-time.After(within):
		require.Fail(c.t, "no reply")
		return reply2{}
	}
}

func (c *client) write(offset int64, data []byte) {
	c.t.Helper()
	require.Zero(c.t, c.await(c.send(cmdWrite, offset, len(data), data)).code)
}

func (c *client) read(offset int64, length int) []byte {
	c.t.Helper()
	r := c.await(c.send(cmdRead, offset, length, nil))
	require.Zero(c.t, r.code)
	return r.data
}

// request returns the transfer of a request.
func request(number, channel uint32, payload string) []byte {
	b := make([]byte, diskproto.Padded(len(payload)))
	diskproto.Header{Number: number, Channel: channel, Length: len(payload)}.Put(b)
	copy(b[diskproto.HeaderSize:], payload)
	return b
}

// parse returns an answer's header and payload.
func parse(t *testing.T, b []byte) (diskproto.Header, string) {
	t.Helper()
	h, err := diskproto.ParseHeader(b)
	require.NoError(t, err)
	return h, string(b[diskproto.HeaderSize:][:h.Length])
}

func slotOffset(i int) int64 { return int64(i) * diskproto.SlotSize }

func upper(_ context.Context, request []byte) ([]byte, error) { return bytes.ToUpper(request), nil }

func TestARequestIsAnsweredInItsSlot(t *testing.T) {
	c, s := start(t)
	channel := s.Open(upper)
	c.write(slotOffset(3), request(7, channel.Number, "hello"))
	h, payload := parse(t, c.read(slotOffset(3), diskproto.Sector))
	require.Equal(t, diskproto.Header{Number: 7, Channel: channel.Number, Status: diskproto.Done, Length: 5}, h)
	require.Equal(t, "HELLO", payload)
	require.Equal(t, make([]byte, 4096), c.read(slotOffset(2), 4096), "another slot is empty")
}

func TestPartsMayArriveInAnyOrder(t *testing.T) {
	c, s := start(t)
	channel := s.Open(upper)
	random := rand.New(rand.NewPCG(1, 2))
	for n := range uint32(20) {
		text := string(bytes.Repeat([]byte("abcdefgh"), 1+random.IntN(4000)))
		whole := request(n, channel.Number, text)
		for _, i := range random.Perm((len(whole) + 4095) / 4096) {
			c.write(slotOffset(5)+int64(4096*i), whole[4096*i:min(len(whole), 4096*(i+1))])
		}
		answer := make([]byte, len(whole))
		for _, i := range random.Perm((len(whole) + 1023) / 1024) {
			copy(answer[1024*i:], c.read(slotOffset(5)+int64(1024*i), 1024)) // more than the answer, at its end
		}
		h, payload := parse(t, answer)
		require.Equal(t, n, h.Number)
		require.Equal(t, string(bytes.ToUpper([]byte(text))), payload)
	}
}

func TestAReadWaitsForTheAnswerAndIsToldIfItTakesLong(t *testing.T) {
	c, s := start(t)
	release := make(chan struct{})
	channel := s.Open(func(ctx context.Context, request []byte) ([]byte, error) {
		<-release
		return request, nil
	})
	other := s.Open(upper)
	c.write(slotOffset(0), request(1, channel.Number, "slow"))
	h, _ := parse(t, c.read(slotOffset(0), diskproto.Sector))
	require.Equal(t, diskproto.Header{Number: 1, Channel: channel.Number, Status: diskproto.Pending}, h)

	waiting := c.send(cmdRead, slotOffset(0), diskproto.Sector, nil)
	c.write(slotOffset(1), request(2, other.Number, "quick"))
	_, payload := parse(t, c.read(slotOffset(1), diskproto.Sector))
	require.Equal(t, "QUICK", payload, "another slot's request does not wait")
	close(release)
	for h.Status == diskproto.Pending {
		h, payload = parse(t, c.await(waiting).data)
		waiting = c.send(cmdRead, slotOffset(0), diskproto.Sector, nil)
	}
	c.await(waiting)
	require.Equal(t, "slow", payload)
}

func TestFailuresAreAnswers(t *testing.T) {
	c, s := start(t)
	channel := s.Open(func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no such file") })
	c.write(0, request(1, channel.Number, ""))
	h, payload := parse(t, c.read(0, diskproto.Sector))
	require.Equal(t, diskproto.Failed, h.Status)
	require.Equal(t, "no such file", payload)

	channel.Close()
	c.write(0, request(2, channel.Number, ""))
	h, _ = parse(t, c.read(0, diskproto.Sector))
	require.Equal(t, diskproto.NoChannel, h.Status)

	c.write(0, bytes.Repeat([]byte("garbage!"), 64))
	h, payload = parse(t, c.read(0, diskproto.Sector))
	require.Equal(t, diskproto.Failed, h.Status)
	require.Contains(t, payload, "malformed request")

	for _, r := range []<-chan reply2{
		c.send(cmdRead, diskproto.Size, diskproto.Sector, nil),
		c.send(cmdWrite, diskproto.Size-diskproto.Sector, 2*diskproto.Sector, make([]byte, 2*diskproto.Sector)),
		c.send(cmdWrite, slotOffset(1)-diskproto.Sector, 2*diskproto.Sector, make([]byte, 2*diskproto.Sector)),
		c.send(9, 0, 0, nil),
	} {
		require.EqualValues(t, errInvalid, c.await(r).code)
	}
	require.Len(t, c.read(slotOffset(1)-diskproto.Sector, 2*diskproto.Sector), 2*diskproto.Sector, "a program that reads the disk as a file may cross slots")
}

func TestAnIncompleteRequestIsForgotten(t *testing.T) {
	// A guest that was saved in the middle of a request writes the rest to the server of the restored machine.
	c, s := start(t)
	channel := s.Open(upper)
	whole := request(1, channel.Number, string(make([]byte, 3000)))
	c.write(slotOffset(4)+1024, whole[1024:])
	require.Equal(t, make([]byte, diskproto.Sector), c.read(slotOffset(4), diskproto.Sector))
	c.write(slotOffset(4), request(2, channel.Number, "again"))
	_, payload := parse(t, c.read(slotOffset(4), diskproto.Sector))
	require.Equal(t, "AGAIN", payload)
}

func TestALateAnswerToAnEarlierRequestIsDropped(t *testing.T) {
	c, s := start(t)
	release, returned := make(chan struct{}), make(chan struct{})
	slow := s.Open(func(context.Context, []byte) ([]byte, error) {
		defer close(returned)
		<-release
		return []byte("late"), nil
	})
	fast := s.Open(upper)
	c.write(0, request(1, slow.Number, ""))
	c.write(0, request(2, fast.Number, "now"))
	close(release)
	<-returned
	slow.Close() // waits until the answer is dropped
	h, payload := parse(t, c.read(0, diskproto.Sector))
	require.EqualValues(t, 2, h.Number)
	require.Equal(t, "NOW", payload)
}

// A guest that does not wait for answers would otherwise have any number of handlers, each with its memory.
func TestASlotHasOneHandlerAtATime(t *testing.T) {
	c, s := start(t)
	release := make(chan struct{})
	var running, most, handled atomic.Int32
	channel := s.Open(func(_ context.Context, request []byte) ([]byte, error) {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		handled.Add(1)
		<-release
		return bytes.ToUpper(request), nil
	})
	for n := range uint32(100) {
		c.write(0, request(n, channel.Number, fmt.Sprint("request ", n)))
	}
	close(release)
	h, payload := diskproto.Header{}, ""
	for h.Status == diskproto.Pending {
		h, payload = parse(t, c.read(0, diskproto.Sector))
	}
	require.EqualValues(t, 99, h.Number)
	require.Equal(t, "REQUEST 99", payload)
	require.EqualValues(t, 1, most.Load())
	require.EqualValues(t, 2, handled.Load(), "the first and the newest")
}

// QEMU waits for the replies to all reads before it stops the machine.
func TestAReadThatWaitsIsAnsweredIfAnotherRequestComes(t *testing.T) {
	c, s := start(t)
	channel := s.Open(func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for i, other := range [][]byte{bytes.Repeat([]byte("garbage!"), 64), request(2, channel.Number+1, "")} {
		at := slotOffset(i)
		c.write(at, request(1, channel.Number, ""))
		waiting := c.send(cmdRead, at, diskproto.Sector, nil)
		c.write(at, other)
		c.await(waiting)
	}
}

func TestTheEndOfTheConnectionEndsHandlers(t *testing.T) {
	c, s := start(t)
	began, ended := make(chan struct{}), make(chan error, 1)
	channel := s.Open(func(ctx context.Context, _ []byte) ([]byte, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	c.write(0, request(1, channel.Number, ""))
	c.send(cmdRead, 0, diskproto.Sector, nil)
	<-began
	c.conn.Close()
	require.ErrorIs(t, <-ended, context.Canceled)
	<-s.Done()
	channel.Close()
	require.Error(t, s.Open(upper).ctx.Err(), "a channel of an ended machine has ended")
}

func TestABrokenConversationEnds(t *testing.T) {
	near, far := net.Pipe()
	s := New(near)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	go io.Copy(io.Discard, far)
	_, err := far.Write(append([]byte{0, 0, 0, 3}, bytes.Repeat([]byte("x"), 16)...))
	require.NoError(t, err)
	require.ErrorContains(t, <-served, "malformed option")
	far.Close()
}
