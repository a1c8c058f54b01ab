package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The size of the test's requests. The generator's numbers are in their second four bytes.
const requestBytes = 64

// serveTCP passes each request of every connection to answer, and sends the result in two parts.
// It returns its port.
func serveTCP(t *testing.T, answer func(request []byte)) int {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					request := make([]byte, requestBytes)
					if _, err := io.ReadFull(c, request); err != nil {
						return
					}
					answer(request)
					for _, part := range [][]byte{request[:5], request[5:]} {
						if _, err := c.Write(part); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// generateTCP runs the generator with 100 TCP clients, more than the generator handles at once.
func generateTCP(t *testing.T, port int) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), connectTime)
	defer cancel()
	dir := t.TempDir()
	require.NoError(t, build(ctx, dir, server{name: "load", source: "c/load.c"}))
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "load"), strconv.Itoa(os.Getpid()),
		strconv.Itoa(requestBytes), "100", "100", "0", "0", "1", strconv.Itoa(port), "100", "0")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestTheGeneratorTakesRightAnswers(t *testing.T) {
	out, err := generateTCP(t, serveTCP(t, func([]byte) {}))
	require.NoError(t, err, out)
	require.Contains(t, out, "udp=0 tcp=")
}

func TestTheGeneratorComparesEveryAnswer(t *testing.T) {
	for name, at := range map[string]int{"the client": 0, "the rest": requestBytes - 1} {
		t.Run(name, func(t *testing.T) {
			out, err := generateTCP(t, serveTCP(t, func(request []byte) {
				// The first one proves that the connection is accepted.
				if binary.NativeEndian.Uint32(request[4:]) > 2 {
					request[at] ^= 1
				}
			}))
			require.Error(t, err)
			require.Contains(t, out, "is not what was sent")
		})
	}
}
