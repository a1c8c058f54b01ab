package share

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// unique is the number of the requests of message.
const unique = 7

func message(op uint32, body ...uint32) []byte {
	b := make([]byte, headerSize)
	binary.LittleEndian.PutUint64(b[8:], unique)
	binary.LittleEndian.PutUint32(b[4:], op)
	for _, v := range body {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// The guest reads an answer with one transfer of the disk if it knows how long the answer is at most.
func TestTheLengthOfAnAnswerIsKnownBeforehand(t *testing.T) {
	require.Equal(t, replySize+4096, expect(message(opRead, 1, 0, 0, 0, 4096)))
	require.Equal(t, replySize+maxData, expect(message(opRead, 1, 0, 0, 0, 1<<31)))
	require.Equal(t, replySize+8192, expect(message(opReaddirplus, 1, 0, 0, 0, 8192)))
	require.Equal(t, 256, expect(message(opRead)))
	require.Equal(t, 256, expect(message(1)))
}

// Each message is a write(2) of its own.
func TestTheKernelGetsEachMessageOfAnAnswer(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	fd := int(w.Fd())
	first, second := make([]byte, 40), make([]byte, replySize)
	binary.LittleEndian.PutUint32(first, 40)
	binary.LittleEndian.PutUint32(second, replySize)
	answer := append(first, second...)
	require.NoError(t, reply(fd, answer))
	require.NoError(t, reply(fd, nil))
	got := make([]byte, 100)
	n, err := r.Read(got)
	require.NoError(t, err)
	require.Equal(t, answer, got[:n])

	require.Error(t, reply(fd, second[:10]))
	binary.LittleEndian.PutUint32(second, 17)
	require.Error(t, reply(fd, second))
	binary.LittleEndian.PutUint32(second, 3)
	require.Error(t, reply(fd, second))
}

// After an unmount the kernel ends the connection.
func TestTheLastWorkerClosesTheConnection(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	link := fmt.Sprintf("/proc/self/fd/%d", pair[0])
	before, err := os.Readlink(link)
	require.NoError(t, err)
	serve(pair[0])
	require.NoError(t, unix.Close(pair[1]))
	require.Eventually(t, func() bool {
		now, _ := os.Readlink(link)
		return now != before
	}, time.Minute, time.Millisecond)
}
