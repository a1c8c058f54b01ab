package records

import (
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A result is the part of a machine's result that a sweep reads.
type result struct {
	State string `json:"state"`
	Error string `json:"error,omitempty"`
}

// leftRecord makes the record of an owner that was killed: it has all files and is not locked.
func leftRecord(t *testing.T, parent string, res *result) string {
	t.Helper()
	t.Setenv("TMPDIR", parent)
	r, err := Create("", nil, nil)
	require.NoError(t, err)
	if res != nil {
		r.WriteResult(*res)
		require.NoError(t, r.Failure())
	}
	r.Close(true)
	return r.dir
}

func TestASweepRemovesTheRecordsOfKilledOwners(t *testing.T) {
	parent := t.TempDir()
	early := leftRecord(t, parent, nil)
	ready := leftRecord(t, parent, &result{State: "ready"})
	writing := leftRecord(t, parent, &result{State: "booting"})
	require.NoError(t, os.WriteFile(filepath.Join(writing, "result.json.new"), []byte("{"), 0o644))
	empty := filepath.Join(parent, tempPrefix+"empty")
	require.NoError(t, os.Mkdir(empty, 0o700))

	sweepTemporary(parent)
	for _, dir := range []string{early, ready, writing, empty} {
		require.NoDirExists(t, dir)
	}
}

func TestASweepKeepsFailedAndLiveRecordsAndForeignFiles(t *testing.T) {
	parent := t.TempDir()
	failed := leftRecord(t, parent, &result{State: "failed", Error: "it hangs"})
	torn := leftRecord(t, parent, nil)
	require.NoError(t, os.WriteFile(filepath.Join(torn, "result.json"), []byte(`{"state":`), 0o644))
	noted := leftRecord(t, parent, &result{State: "ready"})
	require.NoError(t, os.WriteFile(filepath.Join(noted, "notes"), nil, 0o644))
	named := filepath.Join(parent, "guesthouse-named")
	require.NoError(t, os.Mkdir(named, 0o700))
	file := filepath.Join(parent, tempPrefix+"file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))

	elsewhere := leftRecord(t, t.TempDir(), &result{State: "ready"})
	link := filepath.Join(parent, tempPrefix+"link")
	require.NoError(t, os.Symlink(elsewhere, link))

	t.Setenv("TMPDIR", parent)
	live, err := Create("", nil, nil)
	require.NoError(t, err)
	defer live.Close(false)

	sweepTemporary(parent)
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

func TestSweepKilledRemovesMatchingRecordsOfKilledOwners(t *testing.T) {
	parent := t.TempDir()
	mine := regexp.MustCompile(`^TestMine-\d+$`)
	named := func(name string, res *result) string {
		dir := filepath.Join(parent, name)
		r, err := Create(dir, nil, nil)
		require.NoError(t, err)
		if res != nil {
			r.WriteResult(*res)
			require.NoError(t, r.Failure())
		}
		r.Close(true)
		return dir
	}
	gone := []string{named("TestMine-1", nil), named("TestMine-2", &result{State: "booting"}), named("TestMine-3", &result{State: "ready"})}
	stays := []string{
		named("TestMine-4", &result{State: "ended"}), named("TestMine-5", &result{State: "failed", Error: "it hangs"}),
		named("TestOther-6", &result{State: "ready"}), filepath.Join(parent, "TestMine-7"),
	}
	require.NoError(t, os.Mkdir(stays[3], 0o700), "its record may be about to be written")
	gone = append(gone, filepath.Join(parent, "TestMine-9"))
	require.NoError(t, os.Mkdir(gone[3], 0o700))
	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(gone[3], old, old))
	live, err := Create(filepath.Join(parent, "TestMine-8"), nil, nil)
	require.NoError(t, err)
	defer live.Close(true)

	SweepKilled(parent, mine)
	for _, dir := range gone {
		require.NoDirExists(t, dir)
	}
	for _, dir := range append(stays, live.dir) {
		require.DirExists(t, dir)
	}
	require.FileExists(t, live.path("console.log"))
}

func TestSweepsDoNotDisturbRecordsBeingMade(t *testing.T) {
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
					sweepTemporary(parent)
				}
			}
		})
	}
	errs := make(chan error, 4)
	for range cap(errs) {
		makers.Go(func() {
			for range 50 {
				r, err := Create("", nil, nil)
				if err == nil {
					r.WriteResult(result{State: "booting"})
					if err = r.Failure(); err == nil {
						_, err = os.Stat(r.path("console.log"))
					}
					r.Close(true) // as if this process were killed: a later sweep removes the record
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
	sweepTemporary(parent)
	left, err := os.ReadDir(parent)
	require.NoError(t, err)
	require.Empty(t, left)
}
