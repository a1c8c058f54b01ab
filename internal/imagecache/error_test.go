package imagecache

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFail(t *testing.T) {
	err := Fail("build guest", "./cmd/upper", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, "other")
	require.EqualError(t, err, "build guest ./cmd/upper: write x: no space left on device\n"+
		"hint: free some space or raise the limit, or name a directory on another disk with -cache DIR or Options.Cache")
	for _, full := range []error{syscall.EDQUOT, syscall.EFBIG, errors.New("E: Write error - write (28: No space left on device)"),
		errors.New("apt-get: signal: file size limit exceeded")} {
		require.ErrorContains(t, Fail("fetch kernel", "arm64", full, "other"), "hint: free some space", "%v", full)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Same(t, err, Fail("outer", "step", err, ""), "it says it already")
	require.EqualError(t, Fail("fetch kernel", "arm64", context.Canceled, "try again"), "fetch kernel arm64: context canceled")
}
