package agent

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

func TestADeliveredFileAppearsWithItsLastChunk(t *testing.T) {
	dir := t.TempDir()
	f := wire.File{Path: filepath.Join(dir, "new/sub/program"), Perm: 0o755, Size: 6}
	var d delivery
	for range 2 { // the second replaces the first
		require.NoError(t, d.add(wire.Chunk{File: f, Data: []byte("abc")}))
		if _, err := os.Stat(f.Path); err == nil {
			text, _ := os.ReadFile(f.Path)
			require.Equal(t, "abcdef", string(text), "the first file, complete")
		}
		require.NoError(t, d.add(wire.Chunk{File: f, Offset: 3, Data: []byte("def")}))
		text, err := os.ReadFile(f.Path)
		require.NoError(t, err)
		require.Equal(t, "abcdef", string(text))
		info, err := os.Stat(f.Path)
		require.NoError(t, err)
		require.Equal(t, f.Perm, info.Mode())
		all, err := os.ReadDir(filepath.Dir(f.Path))
		require.NoError(t, err)
		require.Len(t, all, 1)
	}
	empty := wire.File{Path: filepath.Join(dir, "empty"), Perm: 0o600}
	require.NoError(t, d.add(wire.Chunk{File: empty}))
	info, err := os.Stat(empty.Path)
	require.NoError(t, err)
	require.Zero(t, info.Size())
}

func TestNothingIsLeftOfADeliveryThatFails(t *testing.T) {
	dir := t.TempDir()
	f := wire.File{Path: filepath.Join(dir, "program"), Perm: 0o755, Size: 6}
	first := wire.Chunk{File: f, Data: []byte("abc")}
	last := wire.Chunk{File: f, Offset: 3, Data: []byte("def")}
	other := last
	other.File.Perm = 0o644
	for name, chunks := range map[string][]wire.Chunk{
		"no first chunk":           {last},
		"a chunk is missing":       {first, {File: f, Offset: 4, Data: []byte("ef")}},
		"a chunk of another file":  {first, other},
		"a chunk comes again":      {first, last, last},
		"begun again, then a hole": {first, first, {File: f, Offset: 5, Data: []byte("f")}},
	} {
		var d delivery
		var err error
		for _, c := range chunks {
			err = d.add(c)
		}
		require.ErrorContains(t, err, "does not follow the last one", name)
		os.Remove(f.Path)
		all, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, all, name)
	}

	var d delivery
	require.NoError(t, os.Mkdir(f.Path, 0o755))
	require.NoError(t, d.add(first))
	require.ErrorContains(t, d.add(last), "rename")
	require.Error(t, d.add(wire.Chunk{File: wire.File{Path: "/proc/version/program", Size: 1}, Data: []byte("a")}))
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, all, 1)
}

// While one goroutine starts programs all the time, a delivered program can be started at once.
func TestADeliveredProgramIsNotBusy(t *testing.T) {
	sh, err := exec.LookPath("true")
	require.NoError(t, err)
	text, err := os.ReadFile(sh)
	require.NoError(t, err)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				exec.Command(sh).Run()
			}
		}
	}()
	defer func() { <-done }()
	defer close(stop)
	var d delivery
	f := wire.File{Path: filepath.Join(t.TempDir(), "true"), Perm: 0o755, Size: int64(len(text))}
	for range 50 {
		r := bytes.NewReader(text)
		for r.Len() > 0 {
			chunk := wire.Chunk{File: f, Offset: f.Size - int64(r.Len()), Data: make([]byte, min(r.Len(), wire.MaxChunk))}
			_, err := r.Read(chunk.Data)
			require.NoError(t, err)
			require.NoError(t, d.add(chunk))
		}
		require.NoError(t, exec.Command(f.Path).Run())
	}
}
