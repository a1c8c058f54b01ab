package harness

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSharesOnACommandLine(t *testing.T) {
	for text, want := range map[string]Share{
		"/a":               {Host: "/a"},
		"/a:/b":            {Host: "/a", Guest: "/b"},
		"/a:/b:rw":         {Host: "/a", Guest: "/b", Mode: ShareWrite},
		"/a::overlay":      {Host: "/a", Mode: ShareOverlay},
		"a b/../c:/b c:ro": {Host: "a b/../c", Guest: "/b c", Mode: ShareReadOnly},
	} {
		got, err := ParseShare(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
		require.Equal(t, text, got.String())
	}
	for text, want := range map[string]string{
		"":           `share "": write DIR, DIR:PATH or DIR:PATH:MODE`,
		":/a":        `share ":/a": write DIR, DIR:PATH or DIR:PATH:MODE`,
		"/a:/b:rw:x": `share "/a:/b:rw:x": write DIR, DIR:PATH or DIR:PATH:MODE`,
		"/a:rw":      `share "/a:rw": the path in the guest, "rw", must be absolute`,
		"/a:/b/":     `share "/a:/b/": the path in the guest, "/b/", must be absolute and without //, . and ..`,
		"/a:/b/../c": `must be absolute and without`,
		"/a:/b:wr":   `unknown mode "wr": write "ro", "overlay" or "rw"`,
		"/a:/":       `the path in the guest, /, is the guest's own`,
		"/":          `the path in the guest, /, is the guest's own`,
		"/a:/proc":   `the path in the guest, /proc, is the guest's own`,
		"/a:/dev/x":  `the path in the guest, /dev/x, is the guest's own`,
	} {
		_, err := ParseShare(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestSharesAreCheckedBeforeTheBoot(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	for want, shares := range map[string][]Share{
		"it names no directory of the host":                {{Guest: "/a"}},
		"share: open /nonexistent: no such file":           {{Host: "/nonexistent"}},
		"not a directory; a single file can be copied":     {{Host: file}},
		"have the same path in the guest, /a":              {{Host: dir, Guest: "/a"}, {Host: "/", Guest: "/a", Mode: ShareWrite}},
		`unknown mode "x": write "ro", "overlay" or "rw"`:  {{Host: dir, Mode: "x"}},
		`the path in the guest, "a", must be absolute and`: {{Host: dir, Guest: "a"}},
	} {
		s := minimal(t)
		s.Initramfs, s.Share = s.Kernel, shares
		_, err := s.check()
		require.ErrorContains(t, err, want)
	}
	s := minimal(t)
	s.Share = []Share{{Host: dir}}
	_, err := s.check()
	require.ErrorContains(t, err, "share: the machine has no initramfs")
}

func TestAShareIsMountedAfterTheOnesAroundIt(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	require.NoError(t, err)
	s := minimal(t)
	s.Initramfs, s.Share = s.Kernel, []Share{{Host: ".", Guest: "/a/b/c"}, {Host: "."}, {Host: "/", Guest: "/a", Mode: ShareOverlay}, {Host: "/", Guest: "/a/b"}}
	p, err := s.check()
	require.NoError(t, err)
	require.Contains(t, p.spec.Share, Share{Host: here, Guest: here, Mode: ShareReadOnly})
	var order []string
	for _, share := range p.spec.Share {
		if share.Guest != here {
			order = append(order, share.Guest)
		}
	}
	require.Equal(t, []string{"/a", "/a/b", "/a/b/c"}, order)
}
