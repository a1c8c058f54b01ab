package kills

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// workVariable is what an owner does with its machine: one of the works, and a path.
const workVariable = "GUESTHOUSE_TEST_WORK"

// megabytes is the size of the files that are copied, in MiB. They fit into the guest's /tmp, and a copy takes
// longer than the test needs to see it.
const megabytes = 100

var works = map[string]func(ctx context.Context, m *harness.Machine, path string) error{
	"copy in": func(ctx context.Context, m *harness.Machine, path string) error {
		return m.CopyIn(ctx, path, "/tmp/file")
	},
	"copy out": func(ctx context.Context, m *harness.Machine, path string) error {
		if err := m.Command(ctx, "dd", "if=/dev/zero", "of=/tmp/file", "bs=1048576", "count="+strconv.Itoa(megabytes)).Run(); err != nil {
			return err
		}
		return m.CopyOut(ctx, "/tmp/file", path)
	},
	"write to a share": func(ctx context.Context, m *harness.Machine, _ string) error {
		return m.Command(ctx, "gosh", "-c", "while true; do echo a line >>/share/lines; done").Run()
	},
}

// work does an owner's work, if it has any.
func work(m *harness.Machine) error {
	kind, path, ok := strings.Cut(os.Getenv(workVariable), ":")
	if !ok {
		return nil
	}
	return works[kind](context.Background(), m, path)
}

func TestAKilledOwnerLeavesNoHalfFile(t *testing.T) {
	harnesstest.Require(t, target)
	spec := harnesstest.Platform(t, target)
	spec.Accel = harness.TCG
	template := save(t, spec)
	for kind := range works {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			place := filepath.Join(dir, "place")
			require.NoError(t, os.Mkdir(place, 0o777))
			path := filepath.Join(place, "file")
			spec := spec
			var before []string
			switch kind {
			case "copy in":
				require.NoError(t, os.WriteFile(path, make([]byte, megabytes<<20), 0o666))
				before = []string{"file"}
			case "write to a share":
				spec.Share = []harness.Share{{Host: place, Guest: "/share", Mode: harness.ShareWrite}}
			}
			file := filepath.Join(dir, "spec.json")
			text, err := json.Marshal(spec)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, text, 0o644))

			o := start(t, []string{ownVariable + "=" + file, templateVariable + "=" + template, workVariable + "=" + kind + ":" + path}, os.Args[0])
			o.waitFor(&o.err, `ready`)
			o.waitOpen(place)
			require.NoError(t, unix.Kill(o.cmd.Process.Pid, unix.SIGKILL))
			o.waitEnd()
			o.leavesNoProcess()

			entries, err := os.ReadDir(place)
			require.NoError(t, err)
			var after []string
			for _, e := range entries {
				after = append(after, e.Name())
			}
			if kind == "write to a share" {
				require.Equal(t, []string{"lines"}, after)
				lines, err := os.ReadFile(filepath.Join(place, "lines"))
				require.NoError(t, err)
				require.Equal(t, strings.Repeat("a line\n", len(lines)/len("a line\n")), string(lines))
			} else {
				require.Equal(t, before, after)
			}
			o.sweep(file)
			require.Empty(t, o.files())
			require.NoError(t, os.RemoveAll(place), "nothing is mounted there")
		})
	}
}

// waitOpen waits until the owner has a file in a directory open.
func (o *owner) waitOpen(dir string) {
	o.t.Helper()
	late := time.After(patience)
	for {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", o.cmd.Process.Pid))
		require.NoError(o.t, err)
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, dir+"/") {
				return
			}
		}
		select {
		case err := <-o.ended:
			o.t.Fatalf("the owner has ended: %v", err)
		case <-late:
			o.t.Fatal("the owner has opened no file")
		case <-time.After(time.Millisecond):
		}
	}
}
