package vm

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/filetree"
)

func TestACopysNameIsAsForCp(t *testing.T) {
	for p, name := range map[string]string{"/a/b": "b", "/a/b/": "b", "a/.": ".", "..": ".", "/": ".", "./a": "a", ".": "."} {
		require.Equal(t, name, copyName(p), "%q", p)
	}
}

func TestADeliveredFileHasItsHash(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/program")
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("content")
	require.NoError(t, err)
	right := sha256.Sum256([]byte("content"))
	wrong := sha256.Sum256([]byte("another"))
	batches := 0
	emit := func([]byte) error {
		batches++
		return nil
	}
	require.NoError(t, filetree.SendFile(f, 0o755, checked(f, hex.EncodeToString(right[:]), emit)))
	require.Equal(t, 1, batches)
	err = filetree.SendFile(f, 0o755, checked(f, hex.EncodeToString(wrong[:]), emit))
	require.ErrorContains(t, err, "program: its content has changed: the SHA-256 is "+hex.EncodeToString(right[:]))
	require.Equal(t, 1, batches, "the last batch is not sent, so the file does not appear")
}
