package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// savable returns the Spec of a machine that can be saved, although it is restored if there is a template.
func savable(spec harness.Spec) harness.Spec {
	spec.Accel, spec.Savable = harness.TCG, true // which templates require
	return spec
}

// save starts a machine and saves it.
func save(t *testing.T, spec harness.Spec) (*harnesstest.Machine, *harness.Template) {
	t.Helper()
	m := harnesstest.Boot(t, savable(spec))
	return m, m.Save(filepath.Join(t.TempDir(), "template"))
}

// restored boots a machine and requires that it was restored from its template.
func restored(t *testing.T, spec harness.Spec) *harnesstest.Machine {
	t.Helper()
	m := harnesstest.Boot(t, spec)
	require.Equal(t, harness.BootRestored, m.Result().Boot, m.Result().Why)
	return m
}

// manyMachines is how many machines TestRestoredMachinesAreIndependentAndAlike runs at once on one
// target. On the others two suffice.
const manyMachines = 6

func TestRestoredMachinesAreIndependentAndAlike(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := echoSpec(t, target)
		if target == oneTarget(t) {
			spec.From = harness.Cold // the others save a machine that may have been restored
		}
		original, template := save(t, spec)
		original.Expect(`guesthouse: ready\n`)
		boot, _, _ := strings.Cut(original.Console().Text(), "guesthouse: ready\n")

		spec.From = template
		machines := make([]*harnesstest.Machine, 2)
		if target == oneTarget(t) {
			machines = make([]*harnesstest.Machine, manyMachines)
		}
		var all sync.WaitGroup
		for i := range machines {
			all.Go(func() { machines[i] = restored(t, spec) })
		}
		all.Wait()
		if t.Failed() {
			return
		}
		for i, m := range append(machines, original) {
			text := "to machine " + strconv.Itoa(i)
			echoes(t, m.Dial("udp", echoPort), text)
			echoes(t, m.Dial("tcp", echoPort), text)
			require.True(t, strings.HasPrefix(m.Console().Text(), boot), "the console begins with the boot messages")
			if m != original {
				m.Expect(`Single-threaded TCP/UDP echo server waits for a connection`)
				m.Expect(`guesthouse: ready$`)
			}
			m.Expect(`Connection from \S+ \(\d+\)\nuart:~\$ `)
		}

		one, other := machines[0], machines[1]
		one.Send("sh echo changed > /file; cat /file")
		one.Expect(`^changed`)
		other.Send("sh cat /file || echo has none")
		other.Expect(`^has none`)
		one.Send("net iface")
		one.Expect(`192\.0\.2\.1/24`)
		one.Send("uptime")
		uptime, err := strconv.Atoi(one.Expect(`Uptime: (\d+) ms`)[1])
		require.NoError(t, err)
		require.Greater(t, uptime, 100, "the uptime continues from the original's")

		_, err = harness.OpenTemplate(template.Dir())
		require.NoError(t, err, "nothing was written to the template")
		one.Shutdown()
	})
}

// Output of the guest during a save appears exactly once on each console.
func TestSaveAndRestoreLoseNoConsoleOutput(t *testing.T) {
	t.Parallel()
	// x86 has the serial port of x86_64, and arm has that of arm64.
	for _, target := range []string{"x86_64", "arm64"} {
		t.Run(target, func(t *testing.T) {
			harnesstest.Require(t, target)
			spec := echoSpec(t, target)
			m := harnesstest.Boot(t, savable(spec))
			const last = 3000
			m.Expect(`uart:~\$ `)
			m.Send("sh i=0; while test $i -le " + strconv.Itoa(last) + "; do echo n$i; i=$((i+1)); done")
			m.Expect(`^n100$`)
			spec.From = m.Save(filepath.Join(t.TempDir(), "template"))
			numbers := regexp.MustCompile(`(?m)^n(\d+)$`)
			for _, m := range []*harnesstest.Machine{m, restored(t, spec)} {
				m.Expect(`^n` + strconv.Itoa(last) + `$`)
				found := numbers.FindAllStringSubmatch(m.Console().Text(), -1)
				for i, n := range found {
					require.Equal(t, strconv.Itoa(i), n[1])
				}
				require.Len(t, found, last+1)
			}
		})
	}
}

func TestAMachineWithAnOpenConnectionIsNotSaved(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, savable(echoSpec(t, target)))
	dir := filepath.Join(t.TempDir(), "template")
	conn := m.Dial("tcp", echoPort)
	echoes(t, conn, "open")
	_, err := m.Machine.Save(t.Context(), dir)
	require.ErrorContains(t, err, "a connection is open: TCP[ESTABLISHED]")
	require.NoDirExists(t, dir)
	echoes(t, conn, "still open")
}

// A damaged template costs no more than a cold boot.
func TestADamagedTemplateCostsAColdBoot(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	_, template := save(t, spec)
	spec.From = template
	cold := func(why string) {
		t.Helper()
		m := harnesstest.Boot(t, spec)
		require.Equal(t, harness.BootCold, m.Result().Boot)
		require.Contains(t, m.Result().Why, why)
		echoes(t, m.Dial("udp", echoPort), "the machine works")
	}

	file := filepath.Join(template.Dir(), "state")
	state, err := os.ReadFile(file)
	require.NoError(t, err)
	half := state[:len(state)/2]
	require.NoError(t, os.WriteFile(file, half, 0o644))
	_, err = harness.OpenTemplate(template.Dir())
	require.ErrorContains(t, err, "state is damaged")

	// With the hash of the truncated state, only QEMU can notice the damage.
	description := filepath.Join(template.Dir(), "template.json")
	text, err := os.ReadFile(description)
	require.NoError(t, err)
	whole, cut := sha256.Sum256(state), sha256.Sum256(half)
	text = bytes.Replace(text, []byte(hex.EncodeToString(whole[:])), []byte(hex.EncodeToString(cut[:])), 1)
	text = bytes.Replace(text, fmt.Appendf(nil, `"size": %d`, len(state)), fmt.Appendf(nil, `"size": %d`, len(half)), 1)
	require.NoError(t, os.WriteFile(description, text, 0o644))
	spec.From, err = harness.OpenTemplate(template.Dir())
	require.NoError(t, err)
	cold("restoring it failed")
}
