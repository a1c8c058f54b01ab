package share

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// result returns the error number and the body of an answer to a request of message.
func result(t *testing.T, answer []byte) (unix.Errno, []byte) {
	t.Helper()
	require.GreaterOrEqual(t, len(answer), replySize)
	require.EqualValues(t, len(answer), order.Uint32(answer))
	require.EqualValues(t, unique, order.Uint64(answer[8:]))
	return unix.Errno(-int32(order.Uint32(answer[4:]))), answer[replySize:]
}

// The kernel's offer of a new version has fields behind those of version 7.31.
func TestInitAgreesWithTheKernelOnWhatTheHarnessCanDo(t *testing.T) {
	for _, empty := range []bool{true, false} {
		answer, own := ownAnswer(message(opInit, 7, 38, 128<<10, 0xffffffff, 0, 0), empty)
		require.True(t, own)
		errno, body := result(t, answer)
		require.Zero(t, errno)
		require.Len(t, body, 64)
		require.EqualValues(t, 7, order.Uint32(body))
		require.EqualValues(t, 31, order.Uint32(body[4:]))
		require.EqualValues(t, maxData, order.Uint32(body[20:]))
		require.Zero(t, order.Uint32(body[12:])&(1<<16), "no write-back cache: what a program has written is on the host")

		answer, _ = ownAnswer(message(opInit, 7, 28, 128<<10, 0), empty)
		_, body = result(t, answer)
		require.EqualValues(t, 28, order.Uint32(body[4:]), "the kernel's version, which is older")

		for _, bad := range [][]byte{message(opInit, 8, 0, 0, 0), message(opInit, 7)} {
			answer, _ = ownAnswer(bad, empty)
			errno, _ = result(t, answer)
			require.Equal(t, unix.EPROTO, errno)
		}
	}
}

func TestAConnectionWithoutAHarnessIsAnEmptyDirectory(t *testing.T) {
	answer, own := ownAnswer(message(opGetattr, 0, 0, 0, 0), true)
	require.True(t, own)
	errno, body := result(t, answer)
	require.Zero(t, errno)
	require.Len(t, body, 104)
	require.Zero(t, order.Uint64(body), "the kernel asks again for what the harness may know otherwise")
	require.EqualValues(t, unix.S_IFDIR|0o755, order.Uint32(body[16+60:]))

	answer, _ = ownAnswer(message(opStatfs), true)
	errno, body = result(t, answer)
	require.Zero(t, errno)
	require.Len(t, body, 80)

	for _, op := range []uint32{opForget, opBatchForget} {
		answer, own = ownAnswer(message(op, 1, 0), true)
		require.True(t, own)
		require.Nil(t, answer, "the kernel expects none")
	}
	const opGetxattr = 22
	answer, own = ownAnswer(message(opGetxattr, 1, 0), true)
	require.True(t, own)
	errno, _ = result(t, answer)
	require.Equal(t, unix.ENOSYS, errno)
}

func TestAConnectionWithAHarnessAnswersNothingElseItself(t *testing.T) {
	for _, op := range []uint32{opForget, opGetattr, opStatfs, opBatchForget, opRead} {
		_, own := ownAnswer(message(op, 1, 0), false)
		require.False(t, own, "request %d", op)
	}
}
