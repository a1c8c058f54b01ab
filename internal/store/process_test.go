package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/tied"
)

// The test binary can also run as another process that uses a store.
const (
	otherEnv = "GUESTHOUSE_TEST_STORE_PROCESS" // the key in others of the function that the process runs
	dirEnv   = "GUESTHOUSE_TEST_STORE_DIR"
)

var others = map[string]func(s *Store) error{
	"build": buildOnce,
	// is killed while it builds.
	"hang": func(s *Store) error {
		b, err := s.Build(context.Background(), "killed")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(b.Path("half/of/it"), 0o777); err != nil {
			return err
		}
		fmt.Println("building")
		time.Sleep(time.Hour) // until it is killed
		return nil
	},
	"read-only": func(s *Store) error {
		if _, err := os.ReadFile(s.Path("things/x")); err != nil {
			return err
		}
		Use(s.Path("things/x"))
		s.Sweep()
		s.Prune(s.Entries("things"), Limits{})
		if all := s.Entries("things"); len(all) != 1 {
			return fmt.Errorf("%d entries instead of 1", len(all))
		}
		if _, err := s.Build(context.Background(), "thing"); !ReadOnly(err) {
			return fmt.Errorf("a build: %v", err)
		}
		if err := s.Remove(s.Path("things/x")); !ReadOnly(err) {
			return fmt.Errorf("a removal: %v", err)
		}
		return nil
	},
	// reads a directory that has none of a store's folders.
	"bare": func(s *Store) error {
		if _, err := os.ReadFile(s.Path("things/x")); err != nil {
			return err
		}
		if _, err := s.Build(context.Background(), "thing"); !ReadOnly(err) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("a build: %v", err)
		}
		return nil
	},
	// fills the disk and empties it again.
	"full": func(s *Store) error {
		filler := s.Path("filler")
		b, err := s.Build(context.Background(), "thing")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filler, make([]byte, 8<<20), 0o666); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("the disk is not full: %v", err)
		}
		if err := os.WriteFile(b.Path("x"), make([]byte, 4096), 0o666); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("a write to a full disk: %v", err)
		}
		b.Close()
		if left, err := os.ReadDir(s.Path("tmp")); err != nil || len(left) > 0 {
			return fmt.Errorf("left behind: %v (%v)", left, err)
		}
		if err := os.Remove(filler); err != nil {
			return err
		}
		// Only the three folders are left.
		if all, err := os.ReadDir(s.Path()); err != nil || len(all) != 3 {
			return fmt.Errorf("left behind: %v (%v)", all, err)
		}
		return buildOnce(s)
	},
}

// buildOnce builds the entry, unless another process has built it.
func buildOnce(s *Store) error {
	b, err := s.Build(context.Background(), "thing")
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := os.Stat(s.Path("things/x")); err == nil {
		fmt.Println("found")
		return nil
	}
	if err := os.WriteFile(b.Path("x"), make([]byte, 1<<20), 0o666); err != nil {
		return err
	}
	fmt.Println("built")
	return b.Publish("x", s.Path("things/x"))
}

func TestMain(m *testing.M) {
	other := others[os.Getenv(otherEnv)]
	if other == nil {
		os.Exit(m.Run())
	}
	s, err := Open(os.Getenv(dirEnv), Options{}, "things")
	if err == nil {
		err = other(s)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// other returns another process that uses a store. Shell commands, if there are any, run first.
func other(t *testing.T, name, dir, commands string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	if commands != "" {
		cmd = exec.CommandContext(t.Context(), "sh", "-ec", commands+`; exec "$0"`, self)
	}
	cmd.Env = append(os.Environ(), otherEnv+"="+name, dirEnv+"="+dir)
	return cmd
}

// mounted runs a process in a mount namespace of its own, where shell commands mount something
// first.
func mounted(t *testing.T, name, dir, commands string) {
	t.Helper()
	cmd := other(t, name, dir, commands)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if id := os.Geteuid(); id != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skip("this user may not have a mount namespace: ", err)
	}
	require.NoError(t, err, "%s", out)
}

func TestOneOfSeveralProcessesBuildsAndTheOthersFindIt(t *testing.T) {
	s := testStore(t, Options{})
	said := make([]string, 8)
	var processes sync.WaitGroup
	for i := range said {
		cmd := other(t, "build", s.Path(), "")
		processes.Go(func() {
			out, err := cmd.CombinedOutput()
			said[i] = string(out)
			if err != nil {
				said[i] += err.Error()
			}
		})
	}
	processes.Wait()
	count := make(map[string]int)
	for _, text := range said {
		count[text]++
	}
	require.Equal(t, map[string]int{"built\n": 1, "found\n": 7}, count)
	requireEmpty(t, s.Path("tmp"))
}

func TestTheNextBuildSweepsWhatAKilledProcessHasLeft(t *testing.T) {
	s := testStore(t, Options{})
	cmd := other(t, "hang", s.Path(), "")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	ended, err := tied.Start(cmd)
	require.NoError(t, err)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "building\n", line)
	b := build(t, s, "another")
	require.DirExists(t, s.Path("tmp/killed"), "the process still builds")
	b.Close()
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, <-ended)

	require.NoError(t, os.MkdirAll(s.Path("tmp/gone-1/half"), 0o777))
	foreign := s.Path("tmp/foreign")
	require.NoError(t, os.WriteFile(foreign, nil, 0o666))
	busy := build(t, s, "busy")
	defer busy.Close()
	require.NoError(t, os.WriteFile(busy.Path("file"), nil, 0o666))
	build(t, s, "another").Close()
	require.NoDirExists(t, s.Path("tmp/killed"))
	require.NoDirExists(t, s.Path("tmp/gone-1"))
	require.FileExists(t, busy.Path("file"))
	require.FileExists(t, foreign, "no build made it")
}

func TestAStoreThatCannotBeWrittenServesReaders(t *testing.T) {
	s := testStore(t, Options{})
	require.NoError(t, os.WriteFile(s.Path("things/x"), []byte("x"), 0o666))
	const readOnly = `mount --bind "$` + dirEnv + `" "$` + dirEnv + `"; mount -o remount,ro,bind "$` + dirEnv + `"`
	mounted(t, "read-only", s.Path(), readOnly)

	// Another program has made the directory, without the folders of a store.
	require.NoError(t, os.RemoveAll(s.Path("locks")))
	require.NoError(t, os.Remove(s.Path("tmp")))
	mounted(t, "bare", s.Path(), readOnly)
}

func TestAFullDiskFailsABuildAndLeavesNothing(t *testing.T) {
	mounted(t, "full", t.TempDir(), `mount -t tmpfs -o size=4m none "$`+dirEnv+`"`)
}
