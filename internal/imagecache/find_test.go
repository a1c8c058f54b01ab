package imagecache

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/regular"
)

func sum(text string) string {
	s, _ := regular.Sum(strings.NewReader(text))
	return s
}

func TestAFileThatWasPutIsFoundUntilItIsDamaged(t *testing.T) {
	c := testCache(t)
	for folder, do := range map[string]struct {
		find func(sum string) (string, error)
		mode os.FileMode // for the owner
	}{
		Initramfs: {c.FindInitramfs, 0o600},
		Programs:  {c.FindProgram, 0o700},
	} {
		for range 2 { // the second time the file is damaged
			path, is, err := c.Put(t.Context(), folder, []byte("content"))
			require.NoError(t, err)
			require.Equal(t, sum("content"), is)
			found, err := do.find(is)
			require.NoError(t, err)
			require.Equal(t, path, found)
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, do.mode, info.Mode()&0o700, folder)
			first := info

			path, _, err = c.Put(t.Context(), folder, []byte("content"))
			require.NoError(t, err)
			info, err = os.Stat(path)
			require.NoError(t, err)
			require.True(t, os.SameFile(first, info), "it was not written again")
			require.NoError(t, os.WriteFile(path, []byte("CONTENT"), 0o666))
		}
	}
	requireEmpty(t, c.Path("tmp"))
}

func TestAnImportedFileIsFoundUntilItIsDamaged(t *testing.T) {
	c := testCache(t)
	for name, do := range map[string]struct {
		add  func(sum, text string) (string, error)
		find func(sum string) (string, error)
	}{
		"kernel": {func(sum, text string) (string, error) {
			return c.ImportKernel(t.Context(), sum, strings.NewReader(text))
		}, c.FindKernel},
		"initramfs": {func(sum, text string) (string, error) {
			return c.ImportInitramfs(t.Context(), sum, strings.NewReader(text))
		}, c.FindInitramfs},
		"program": {func(sum, text string) (string, error) {
			path, err := c.ImportProgram(t.Context(), sum, strings.NewReader(text))
			if err == nil {
				info, err := os.Stat(path)
				require.NoError(t, err)
				require.NotZero(t, info.Mode()&0o100, "it is executable")
			}
			return path, err
		}, c.FindProgram},
	} {
		t.Run(name, func(t *testing.T) {
			is := sum("content")
			_, err := do.find(is)
			require.ErrorIs(t, err, os.ErrNotExist)
			_, err = do.add(is, "other content")
			require.ErrorContains(t, err, "import "+name+" "+is+": its SHA-256 is "+sum("other content"))
			_, err = do.add("../"+is, "content")
			require.ErrorContains(t, err, "not a SHA-256")

			path, err := do.add(is, "content")
			require.NoError(t, err)
			found, err := do.find(is)
			require.NoError(t, err)
			require.Equal(t, path, found)
			text, err := os.ReadFile(found)
			require.NoError(t, err)
			require.Equal(t, "content", string(text))

			require.NoError(t, os.WriteFile(path, []byte("CONTENT"), 0o666))
			_, err = do.find(is)
			require.ErrorIs(t, err, os.ErrNotExist)
			_, err = do.add(is, "content")
			require.NoError(t, err, "it replaces what is damaged")
			requireEmpty(t, c.Path("tmp"))
		})
	}
	_, err := c.FindInitramfs("../x")
	require.ErrorContains(t, err, "is not a SHA-256")
}
