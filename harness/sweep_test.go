package harness

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// leftRecord makes a record as an owner leaves it that is killed: complete and
// not locked.
func leftRecord(t *testing.T, parent string, res *Result) string {
	t.Helper()
	t.Setenv("TMPDIR", parent)
	r, err := newRecord("", Spec{}, nil)
	require.NoError(t, err)
	if res != nil {
		require.NoError(t, r.result(*res))
	}
	r.close(true)
	return r.dir
}

func TestASweepRemovesWhatAKilledOwnerLeft(t *testing.T) {
	parent := t.TempDir()
	early := leftRecord(t, parent, nil)
	ready := leftRecord(t, parent, &Result{State: "ready"})
	writing := leftRecord(t, parent, &Result{State: "booting"})
	require.NoError(t, os.WriteFile(filepath.Join(writing, "result.json.new"), []byte("{"), 0o644))
	empty := filepath.Join(parent, temporaryPrefix+"empty")
	require.NoError(t, os.Mkdir(empty, 0o700))

	sweepRecords(parent)
	for _, dir := range []string{early, ready, writing, empty} {
		require.NoDirExists(t, dir)
	}
}

func TestASweepLeavesWhatSomebodyNeeds(t *testing.T) {
	parent := t.TempDir()
	failed := leftRecord(t, parent, &Result{State: "failed", Error: "it hangs"})
	torn := leftRecord(t, parent, nil)
	require.NoError(t, os.WriteFile(filepath.Join(torn, "result.json"), []byte(`{"state":`), 0o644))
	noted := leftRecord(t, parent, &Result{State: "ready"})
	require.NoError(t, os.WriteFile(filepath.Join(noted, "notes"), nil, 0o644))
	named := filepath.Join(parent, "guesthouse-named")
	require.NoError(t, os.Mkdir(named, 0o700))
	file := filepath.Join(parent, temporaryPrefix+"file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))

	elsewhere := leftRecord(t, t.TempDir(), &Result{State: "ready"})
	link := filepath.Join(parent, temporaryPrefix+"link")
	require.NoError(t, os.Symlink(elsewhere, link))

	t.Setenv("TMPDIR", parent)
	live, err := newRecord("", Spec{}, nil)
	require.NoError(t, err)
	defer live.close(false)

	sweepRecords(parent)
	for _, dir := range []string{failed, torn, noted, elsewhere, live.dir} {
		for _, name := range []string{"spec.json", "qemu.args", "console.log", "qmp.log", "qemu.stderr"} {
			require.FileExists(t, filepath.Join(dir, name))
		}
	}
	require.FileExists(t, filepath.Join(failed, "result.json"))
	require.FileExists(t, filepath.Join(noted, "notes"))
	require.DirExists(t, named)
	require.FileExists(t, file)
	_, err = os.Readlink(link)
	require.NoError(t, err)
}

func TestALockIsRefusedWhenAnotherDirectoryTookThePlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "record")
	require.NoError(t, os.Mkdir(dir, 0o700))
	f, err := os.Open(dir)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Remove(dir))
	require.ErrorIs(t, lockAtPath(f, unix.LOCK_EX), os.ErrNotExist)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.ErrorIs(t, lockAtPath(f, unix.LOCK_EX), os.ErrNotExist)
}

func TestSweepsDisturbNoRecordThatIsBeingMade(t *testing.T) {
	parent := t.TempDir()
	t.Setenv("TMPDIR", parent)
	done := make(chan struct{})
	var sweepers, makers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					sweepRecords(parent)
				}
			}
		})
	}
	errs := make(chan error, 4)
	for range cap(errs) {
		makers.Go(func() {
			for range 50 {
				r, err := newRecord("", Spec{}, nil)
				if err == nil {
					if err = r.result(Result{State: "booting"}); err == nil {
						_, err = os.Stat(r.path("console.log"))
					}
					r.close(true) // as if killed: the next sweep's
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	makers.Wait()
	close(done)
	sweepers.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	sweepRecords(parent)
	left, err := os.ReadDir(parent)
	require.NoError(t, err)
	require.Empty(t, left)
}
