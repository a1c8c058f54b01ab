package gotest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheOutputsOfACallAreWhereTheTestBinaryWritesThem(t *testing.T) {
	c, ok := Parse("/m/pkg", "/tmp/go-build1/b001/pkg.test", []string{"-test.paniconexit0", "-test.gocoverdir=/tmp/go-build1/b001/gocoverdir",
		"-test.timeout=10m0s", "-test.coverprofile=/tmp/go-build1/b001/_cover_.out", "-test.outputdir=/m", "-test.cpuprofile", "cpu.out",
		"-test.trace=/abs/trace.out", "-test.v=true", "-test.artifacts", "-own=1", "arg", "-test.memprofile=no flag any more"})
	require.True(t, ok)
	require.Equal(t, []string{"/m/cpu.out", "/abs/trace.out", "/m/_artifacts"}, c.Outputs(), "without those in the scratch directory")
	dir, ok := c.Scratch()
	require.True(t, ok)
	require.Equal(t, "/tmp/go-build1/b001", dir)
	require.False(t, c.Fuzzes())

	// Without the go command there is no scratch directory, and paths are relative to the working directory.
	c, ok = Parse("/m/pkg", "/m/pkg/pkg.test", []string{"--test.coverprofile=c.out", "-test.gocoverdir", "cover", "-test.outputdir=out",
		"-test.fuzz=FuzzX", "-test.fuzzcachedir=cache", "-test.testlogfile=log", "-test.artifacts=false"})
	require.True(t, ok)
	require.Equal(t, []string{"/m/pkg/out/c.out", "/m/pkg/cover", "/m/pkg/log"}, c.Outputs())
	_, ok = c.Scratch()
	require.False(t, ok)
	require.True(t, c.Fuzzes())
	require.Equal(t, "/m/pkg/cache", c.FuzzCache())

	for _, args := range [][]string{nil, {"-v"}, {"arg", "-test.v"}, {"--", "-test.v"}, {"-", "-test.v"}} {
		_, ok := Parse("/", "/bin/ls", args)
		require.False(t, ok, args)
	}
}

func TestATestReadsItsModuleAndTheRestOfItsWorkspace(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
	write("work/go.work", "go 1.26\nuse (\n\t./a\n\t./b\n\t./b/nested\n\t./gone\n)\n")
	write("work/a/go.mod", "module a\n")
	write("work/b/go.mod", "module b\n")
	write("work/b/nested/go.mod", "module nested\n")
	write("work/outside/go.mod", "module outside\n")
	write("go/src/go.mod", "module std\n")
	write("go/src/cmd/go.mod", "module cmd\n")
	for _, sub := range []string{"work/a/deep/er", "work/outside/go.mod.d", "go/src/net", "go/src/cmd/go", "none"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, sub), 0o777))
	}
	for _, c := range []struct {
		dir, goWork string
		want        []string
	}{
		{"work/a/deep/er", "", []string{"work/a", "work/b"}},
		{"work/b/nested", filepath.Join(dir, "work/go.work"), []string{"work/a", "work/b"}},
		{"work/b/nested", "off", []string{"work/b/nested"}},
		{"work/outside", "", []string{"work/outside"}},
		{"go/src/net", "", []string{"go"}},
		{"go/src/cmd/go", "", []string{"go"}},
		{"none", "", nil},
	} {
		var want []string
		for _, w := range c.want {
			want = append(want, filepath.Join(dir, w))
		}
		got, err := Modules(filepath.Join(dir, c.dir), c.goWork)
		require.NoError(t, err)
		require.Equal(t, want, got, c)
	}
	_, err := Modules(filepath.Join(dir, "work/a"), filepath.Join(dir, "missing.work"))
	require.ErrorIs(t, err, os.ErrNotExist)
	write("work/go.work", "nonsense")
	_, err = Modules(filepath.Join(dir, "work/a"), "")
	require.ErrorContains(t, err, "parse the workspace: "+filepath.Join(dir, "work/go.work"))
}

func TestAGuestGetsNoVariablesThatDescribeTheHost(t *testing.T) {
	got := Environ([]string{"HOME=/home/u", "PATH=/usr/bin", "MY_TEST=1", "LD_PRELOAD=x.so", "XDG_CACHE_HOME=/c", "PWD=/x",
		"GODEBUG=a=1", "GOCOVERDIR=/tmp/b001/gocoverdir", "LANG=C", "broken"}, "/m/pkg")
	require.Equal(t, []string{"MY_TEST=1", "GODEBUG=a=1", "GOCOVERDIR=/tmp/b001/gocoverdir", "LANG=C", "PWD=/m/pkg"}, got)
}
