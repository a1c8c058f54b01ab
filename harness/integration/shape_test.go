package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/sys"
)

func TestAMachineHasItsProcessorsAndItsDiskInEveryBootMode(t *testing.T) {
	t.Parallel()
	spec := harnesstest.Spec(t, oneTarget(t), "./guests/shape")
	spec.CPUs, spec.Disks = 4, []harness.Disk{{Size: 64}}
	ran := "4 processors, GOMAXPROCS is 4, threads ran on [0 1 2 3]"
	inEveryBootMode(t, spec, func(m *harness.Machine) {
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		defer cancel()
		require.NoError(t, m.Command(ctx, "gosh", "-c", "echo kept >/dev/vda").Run())
		require.NoError(t, m.Console().Send(ctx, "cpus"))
		_, err := m.Console().Expect(ctx, "^"+strings.NewReplacer("[", `\[`, "]", `\]`).Replace(ran)+"$")
		require.NoError(t, err)
		out, err := m.Command(ctx, "head", "-n", "1", "/dev/vda").Output()
		require.NoError(t, err)
		require.Equal(t, "kept\n", string(out))
		require.NoError(t, m.Shutdown(ctx))
	})
}

// The memory of a machine is a sparse file, so a machine with much of it is as fast and as small as others.
func TestMachinesOfAllSizesAreRestored(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	most := 8 << 10
	if target == "arm" {
		most = 3 << 10 // the most that it can have
	}
	for _, mib := range []int{100, most} {
		t.Run(fmt.Sprint(mib), func(t *testing.T) {
			spec := harnesstest.Spec(t, target, "./guests/shape")
			spec.Memory = mib
			if _, total, ok := sys.Memory(); ok && total>>20 < int64(mib) {
				require.ErrorContains(t, spec.Validate(), "this host has")
				return
			}
			cache := &harness.TemplateCache{Dir: t.TempDir()}
			for _, mode := range []harness.BootMode{harness.BootCold, harness.BootRestored} {
				m := harnesstest.Boot(t, from(cache, spec))
				require.Equal(t, mode, m.Result().Boot, m.Result().Why)
				t.Logf("%d MiB, %s: ready after %.2f s, memory %d MiB", mib, mode, m.Result().ReadySeconds, m.Stats().MemoryTotal>>20)
				m.Shutdown()
			}
			for _, saved := range allTemplates(t, cache) { // of the platform and of the program
				require.Less(t, saved.Bytes, int64(400<<20))
			}
		})
	}
}
