package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"guesthouse.example/harness/internal/disk"
	"guesthouse.example/harness/internal/guestconn"
	"guesthouse.example/harness/internal/hostfs"
	"guesthouse.example/internal/wire"
)

// A Share is a directory of the host that the guest sees, of any size: the guest reads what it needs when it
// needs it. The guest mounts it before a program that is delivered starts, and before the machine is ready.
// A program in the initramfs has started already then.
//
// Nothing that the guest does reaches outside the directory. A symbolic link leads where its text leads in
// the guest. Devices, pipes and sockets of the host are seen but cannot be opened, and the guest cannot make
// any. The guest's root has the rights of the user who runs the harness, and sees this user's files as its
// own.
//
// The guest sees a change on the host when it opens the file the next time; sizes, times and names may be
// those of one second before. With ShareWrite, what a write(2) of the guest has returned is in the host's
// file, even if the machine is killed then.
type Share struct {
	// Host is a directory of the host.
	Host string `json:"host"`

	// Guest is where the guest has it: an absolute path. Directories that are missing there are made. If it
	// is empty, it is the absolute path of Host. One share may be inside another one that has a directory
	// of its name.
	Guest string `json:"guest,omitempty"`

	// Mode is what the guest may change. If it is empty, it is ShareReadOnly.
	Mode ShareMode `json:"mode,omitempty"`
}

// A ShareMode says what a guest may change in a [Share].
type ShareMode string

const (
	ShareReadOnly ShareMode = "ro"      // nothing
	ShareOverlay  ShareMode = "overlay" // anything; the changes stay in the guest's memory and end with the machine
	ShareWrite    ShareMode = "rw"      // the files of the host; modes without setuid and setgid
)

var shareModes = map[ShareMode]wire.ShareMode{ShareReadOnly: wire.ShareReadOnly, ShareOverlay: wire.ShareOverlay, ShareWrite: wire.ShareWrite}

// ParseShare parses DIR[:PATH[:MODE]], as the command line has it. PATH may be empty.
func ParseShare(text string) (Share, error) {
	f := strings.Split(text, ":")
	if len(f) > 3 || f[0] == "" {
		return Share{}, fmt.Errorf("share %q: write DIR, DIR:PATH or DIR:PATH:MODE", text)
	}
	f = append(f, "", "")
	s := Share{Host: f[0], Guest: f[1], Mode: ShareMode(f[2])}
	_, err := s.complete()
	return s, err
}

// String returns what ParseShare parses.
func (s Share) String() string {
	return strings.TrimRight(s.Host+":"+s.Guest+":"+string(s.Mode), ":")
}

// complete fills in the defaults. It does not look at the directory.
func (s Share) complete() (Share, error) {
	text := s.String()
	fail := func(format string, args ...any) (Share, error) {
		return s, fmt.Errorf("share %q: "+format, append([]any{text}, args...)...)
	}
	if s.Host == "" {
		return fail("it names no directory of the host")
	}
	var err error
	if s.Host, err = filepath.Abs(s.Host); err != nil {
		return fail("%w", err)
	}
	if s.Guest == "" {
		s.Guest = s.Host
	}
	if s.Mode == "" {
		s.Mode = ShareReadOnly
	}
	if _, ok := shareModes[s.Mode]; !ok {
		return fail("unknown mode %q: write %q, %q or %q", s.Mode, ShareReadOnly, ShareOverlay, ShareWrite)
	}
	if !path.IsAbs(s.Guest) || path.Clean(s.Guest) != s.Guest || strings.Contains(s.Guest, "\x00") {
		return fail("the path in the guest, %q, must be absolute and without //, . and ..", s.Guest)
	}
	for _, own := range []string{"/dev", "/proc", "/run/guesthouse", "/sys"} {
		if s.Guest == "/" || s.Guest == own || strings.HasPrefix(s.Guest, own+"/") {
			return fail("the path in the guest, %s, is the guest's own", s.Guest)
		}
	}
	return s, nil
}

// completeShares completes a Spec's shares, in the order in which the guest mounts them: each after the ones
// that it is inside of.
func (s Spec) completeShares() ([]Share, error) {
	if len(s.Share) == 0 {
		return nil, nil
	}
	if s.Initramfs == "" {
		return nil, errors.New("share: the machine has no initramfs, so nothing in it mounts directories")
	}
	shares := make([]Share, 0, len(s.Share))
	for _, share := range s.Share {
		share, err := share.complete()
		if err != nil {
			return nil, err
		}
		shares = append(shares, share)
	}
	slices.SortStableFunc(shares, func(a, b Share) int { return strings.Compare(a.Guest, b.Guest) })
	for i := range shares[1:] {
		if shares[i].Guest == shares[i+1].Guest {
			return nil, fmt.Errorf("share: %s and %s have the same path in the guest, %s", shares[i].Host, shares[i+1].Host, shares[i].Guest)
		}
	}
	return shares, nil
}

// checkDirectory refuses a share that this process cannot read.
func (s Share) checkDirectory() error {
	f, err := os.Open(s.Host)
	if err != nil {
		return fmt.Errorf("share: %w", err)
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return fmt.Errorf("share: %w", err)
	case !info.IsDir():
		return fmt.Errorf("share %s: not a directory; a single file can be copied into the guest", s.Host)
	}
	return nil
}

// mountedShares are the directories that a guest has mounted. They answer it until the machine has ended.
type mountedShares struct {
	mu     sync.Mutex
	list   []mountedShare
	closed bool
}

type mountedShare struct {
	dir     *hostfs.Dir
	channel *disk.Channel
}

// open opens a directory for the guest, and returns what the guest needs to mount it.
func (m *mountedShares) open(s Share, server *disk.Server) (wire.Share, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return wire.Share{}, guestconn.ErrClosed
	}
	dir, err := hostfs.Open(s.Host, s.Mode == ShareWrite)
	if err != nil {
		return wire.Share{}, fmt.Errorf("share: %w", err)
	}
	channel := server.Open(func(_ context.Context, request []byte) ([]byte, error) {
		answer, ok := dir.Answer(request, nil)
		if !ok {
			return nil, errors.New("malformed FUSE request")
		}
		return answer, nil
	})
	m.list = append(m.list, mountedShare{dir, channel})
	return wire.Share{Channel: channel.Number, Mode: shareModes[s.Mode], Point: s.Guest}, nil
}

// close ends the answers. The machine must have ended.
func (m *mountedShares) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, s := range m.list {
		s.channel.Close()
		s.dir.Close()
	}
	m.list = nil
}

// mountWithin bounds the mounts, in the machine's time. They take some tens of milliseconds.
const mountWithin = 30 * time.Second

// mountShares makes the guest mount the Spec's shares.
func (m *Machine) mountShares(ctx context.Context) error {
	if len(m.plan.spec.Share) == 0 {
		return nil
	}
	ctx, cancel := m.Within(ctx, mountWithin)
	defer cancel()
	ctx, cancel = m.vm.UnlessCrashed(ctx)
	defer cancel()
	if err := m.vm.AwaitAgent(ctx); err != nil {
		return fmt.Errorf("share: %w", err)
	}
	if m.vm.Disk == nil {
		return errors.New("share: the machine has no disk over which the guest could read")
	}
	var shares []wire.Share
	for _, s := range m.plan.spec.Share {
		share, err := m.shares.open(s, m.vm.Disk)
		if err != nil {
			return err
		}
		shares = append(shares, share)
	}
	return m.vm.OrCrash(ctx, m.vm.Agent.Mount(ctx, shares))
}
