package harnesstest

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
)

const echoGuest = "guesthouse.example/guest/cmd/uinit"

// inner are tests that fail or are skipped. TestInner runs the one that the environment names, in a
// process of its own.
var inner = map[string]func(*testing.T){
	"each target": func(t *testing.T) {
		EachTarget(t, func(t *testing.T, target string) { t.Log("runs on " + target) })
	},
	"crash": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		m.Send("sh echo c > /proc/sysrq-trigger")
		m.Machine.Wait(t.Context())
	},
	"crash and fail": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		m.Send("sh echo c > /proc/sysrq-trigger")
		m.Machine.Wait(t.Context())
		t.Error("some consequence")
	},
	"panic behind a connection": func(t *testing.T) {
		spec := Spec(t, "arm64", "./testdata/ends")
		spec.Ports = []string{"tcp/4242"}
		conn := Boot(t, spec).Dial("tcp", 4242)
		_, err := conn.Write([]byte("x"))
		require.NoError(t, err)
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err, "the answer")
	},
	"warning": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		m.Send("sh echo; echo 'WARNING: DATA RACE'")
		m.Expect("^WARNING: DATA RACE$")
		m.Shutdown()
	},
	"off": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		m.Send("poweroff")
		m.Machine.Wait(t.Context())
	},
	"off at the end": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		m.Send("poweroff")
		m.Expect("Power down")
	},
	"restart": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		m.Send("sh echo b > /proc/sysrq-trigger")
		m.Machine.Wait(t.Context())
	},
	"exit": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", "./testdata/ends"))
		m.Send("sh kill -10 $PPID")
		m.Expect("never said")
	},
	"full disk": func(t *testing.T) {
		spec := Spec(t, "arm64", echoGuest)
		spec.From = harness.Cold
		m := Boot(t, spec)
		signal.Ignore(unix.SIGXFSZ)
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4 << 10, Max: 4 << 10}))
		m.Send("sh dmesg; echo all-of-it")
		m.Expect("^all-of-it$")
	},
	"dies": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", "./testdata/ends"))
		m.Send("sh kill -10 $PPID")
		m.Wait()
	},
	"dies unseen": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", "./testdata/ends"))
		m.Send("sh kill -10 $PPID")
		m.Machine.Wait(t.Context())
	},
	"other status": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", "./testdata/ends"))
		m.Send("sh kill -10 $PPID")
		m.WaitExit(4)
	},
	"expected status": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", "./testdata/ends"))
		m.Send("sh kill -10 $PPID")
		m.WaitExit(3)
	},
	"expect": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		m.Send("poweroff")
		m.Expect("never said")
	},
	"rejected": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		m.Reject(`reboot: Power down`)
		m.Shutdown()
	},
	"boot": func(t *testing.T) {
		spec := Spec(t, "arm64", echoGuest)
		spec.Cmdline = []string{"module_blacklist=virtio_net"}
		Boot(t, spec)
	},
	"only build": func(t *testing.T) { Spec(t, "arm64", echoGuest) },
	"build":      func(t *testing.T) { Spec(t, "arm64", "./testdata/broken") },
	"dial": func(t *testing.T) {
		Boot(t, Spec(t, "arm64", echoGuest)).Dial("udp", 4242)
	},
	"killed": func(t *testing.T) {
		Boot(t, Spec(t, "arm64", echoGuest))
		unix.Kill(os.Getpid(), unix.SIGKILL)
	},
	"prefetch": func(t *testing.T) {
		for i := range 100 { // until the host has memory for a prefetched machine
			n, err := templates().Waiting(t.Context())
			require.NoError(t, err)
			t.Run("boot", func(t *testing.T) {
				spec := Spec(t, "arm64", echoGuest)
				spec.Accel = harness.TCG // which templates require
				m := Boot(t, spec)
				t.Logf("boot %d was %s", i, m.Result().Boot)
			})
			if n > 0 || i > 1 && os.Getenv("GUESTHOUSE_PREFETCH") == "0" {
				break
			}
		}
		EndPrefetched()
	},
	"rude setup": func(t *testing.T) { Boot(t, rudeSpec(t, "setup")) },
	"rude panic": func(t *testing.T) { Boot(t, rudeSpec(t, "panic")) },
	"rude": func(t *testing.T) {
		m := Boot(t, rudeSpec(t, ""))
		m.Send("net sockets") // which prints the service's name
		m.Expect("1 service")
		m.Send("poweroff")
		m.Expect("never said")
	},
	"program": func(t *testing.T) { t.Logf("its program is %q", Spec(t, "arm64", echoGuest).Program) },
	"how": func(t *testing.T) {
		result := Boot(t, Spec(t, "arm64", echoGuest)).Result()
		t.Logf("the machine is %s: %s", result.Boot, result.Why)
	},
	"timeout": func(t *testing.T) {
		Boot(t, Spec(t, "arm64", echoGuest))
		select {}
	},
	"panic": func(t *testing.T) {
		Boot(t, Spec(t, "arm64", echoGuest))
		panic("a test's own")
	},
	"fail": func(t *testing.T) {
		Boot(t, Spec(t, "arm64", echoGuest))
		t.FailNow()
	},
	"pass": func(t *testing.T) {
		m := Boot(t, Spec(t, "arm64", echoGuest))
		t.Cleanup(m.Shutdown)
	},
}

func TestInner(t *testing.T) {
	if f := inner[os.Getenv("GUESTHOUSE_TEST_INNER")]; f != nil {
		f(t)
	}
}

// run runs an inner test with further environment variables and flags, and returns its output.
func run(t *testing.T, name string, env []string, flags ...string) (output string, ok bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-test.v", "-test.run=^TestInner$"}, flags...)...)
	cmd.Env = append(append(os.Environ(), "TMPDIR="+t.TempDir(), "GUESTHOUSE_TARGETS=", "GUESTHOUSE_TEST_INNER="+name), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func TestATargetWithoutQEMUIsSkipped(t *testing.T) {
	out, ok := run(t, "each target", []string{"PATH=", "GUESTHOUSE_REQUIRE="})
	require.True(t, ok, out)
	require.Contains(t, out, "--- SKIP: TestInner/arm64")
	require.Contains(t, out, "install it with: apt-get install --no-install-recommends qemu-system-arm")
}

func TestARequiredTargetWithoutQEMUFails(t *testing.T) {
	out, ok := run(t, "each target", []string{"PATH=", "GUESTHOUSE_REQUIRE=arm64"})
	require.False(t, ok, out)
	require.Contains(t, out, "--- FAIL: TestInner/arm64")
	require.Contains(t, out, "GUESTHOUSE_REQUIRE has arm64: QEMU is missing")
	require.Contains(t, out, "--- SKIP: TestInner/x86_64", "GUESTHOUSE_REQUIRE does not name it")

	out, ok = run(t, "each target", []string{"PATH=", "GUESTHOUSE_REQUIRE=", "GUESTHOUSE_TARGETS=arm,x86"})
	require.True(t, ok, out)
	require.Contains(t, out, "--- SKIP: TestInner/arm ")
	require.Contains(t, out, "--- SKIP: TestInner/x86 ")
	require.NotContains(t, out, "TestInner/arm64", "GUESTHOUSE_TARGETS does not name it")

	out, ok = run(t, "each target", []string{"GUESTHOUSE_REQUIRE=arm65"})
	require.False(t, ok, out)
	require.Contains(t, out, `GUESTHOUSE_REQUIRE=arm65: unknown target "arm65"`)
}

func TestFailuresExplainThemselves(t *testing.T) {
	Require(t, "arm64")
	for name, says := range map[string][]string{
		"crash":                     {"the guest crashed during the test: ", "Kernel panic - not syncing: sysrq triggered crash", "record: "},
		"crash and fail":            {"some consequence", "the guest crashed during the test: "},
		"panic behind a connection": {"the answer", "panic: no such sensor", "testdata/ends/main.go:31", "has ended: exit status 2"},
		"off":                       {"the machine powered off during the test, without a call of Shutdown or Wait: the command poweroff on the console (exit status 0)"},
		"off at the end":            {"the machine powered off during the test, without a call of Shutdown or Wait: the command poweroff on the console"},
		"dies":                      {"the guest failed: its program has ended: exit status 3"},
		"dies unseen":               {"the machine ended during the test: the guest failed: its program has ended: exit status 3"},
		"other status":              {"the guest failed: its program has ended: exit status 3: exit status 4 was expected"},
		"warning":                   {"the guest was at fault during the test:", "WARNING: DATA RACE", "its warnings:"},
		"restart":                   {"the machine ended during the test: the guest failed: it restarted instead of powering off"},
		"exit":                      {`expect "never said": the console has ended`, "reboot: Power down"},
		"full disk":                 {": console.log: file too large", "record: "},
		"expect":                    {`expect "never said": the console has ended`, "reboot: Power down", "record: "},
		"rejected":                  {`the console shows text that is rejected: `, `matches "reboot: Power down"`, "record: "},
		"boot":                      {"its program has ended: exit status 1: kernel module virtio_net: operation not permitted", "repeat: go run"},
		"build":                     {"testdata/broken/main.go:3:15: undefined: nonsense"},
		"dial":                      {`dial udp/4242: not among the machine's ports []: add it to Spec.Ports`, "record: ", "repeat: go run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, ok := run(t, name, nil)
			require.False(t, ok, out)
			for _, text := range says {
				require.Contains(t, out, text)
			}
		})
	}
}

func TestAnExpectedExitDoesNotFailTheTest(t *testing.T) {
	Require(t, "arm64")
	out, ok := run(t, "expected status", nil)
	require.True(t, ok, out)
}

// rudeSpec returns the Spec of a guest and a QEMU that print what could control a terminal.
func rudeSpec(t *testing.T, fails string) harness.Spec {
	spec := Spec(t, "arm64", "./testdata/rude")
	spec.Cmdline = []string{"rude=" + fails}
	spec.QEMU = filepath.Join(t.TempDir(), "qemu")
	require.NoError(t, os.WriteFile(spec.QEMU, []byte("#!/bin/sh\n"+
		`printf 'warning \033]0;title\007\302\233 half \342\202\n' >&2; exec qemu-system-aarch64 "$@"`), 0o755))
	return spec
}

// unsafe matches characters that could control a terminal. It is independent of the code that escapes
// them.
var unsafe = regexp.MustCompile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

func TestNoOutputOfAGuestControlsATerminal(t *testing.T) {
	Require(t, "arm64")
	const rude = `\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x1b\\x1b[?1003h\x00\x08\x9b5m\u009b2J\xe2\x82 \u202egnp.exe\x7f`
	const text = `\x9b5m\u009b2J\xe2\x82 \u202egnp.exe` // reports show the console's text without escape sequences
	for name, says := range map[string][]string{
		"rude setup": {text, "its console has not shown \"guesthouse: ready$\": the guest failed: its program has ended: exit status 1: setup: reason " + rude},
		"rude panic": {text, "the guest failed: panic: "},
		"rude":       {text + "  0 sockets of 1", `expect "never said": `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			out, ok := run(t, name, []string{"TMPDIR=" + tmp})
			require.False(t, ok, out)
			for _, text := range append(says, `warning \x1b]0;title\x07\u009b half \xe2\x82`) {
				require.Contains(t, out, text)
			}
			require.NotRegexp(t, unsafe, out)
			require.True(t, utf8.ValidString(out))
			read := map[string]string{}
			require.NoError(t, filepath.WalkDir(tmp, func(path string, entry os.DirEntry, err error) error {
				if err != nil || entry.IsDir() || entry.Name() == "qemu" {
					return err
				}
				text, err := os.ReadFile(path)
				read[entry.Name()] = string(text)
				require.NotRegexp(t, unsafe, string(text), entry.Name())
				require.True(t, utf8.ValidString(string(text)), entry.Name())
				return err
			}))
			require.Contains(t, read["console.log"], "console "+rude)
			require.Contains(t, read["qemu.stderr"], `warning \x1b]0;title\x07\u009b half \xe2\x82`)
			require.Contains(t, read["agent.log"], `event \x1b]52;`)
			require.Contains(t, read, "result.json")
		})
	}
}

func TestTheBuiltInSwitchPutsTheProgramIntoTheInitramfs(t *testing.T) {
	Require(t, "arm64")
	out, ok := run(t, "program", []string{"GUESTHOUSE_BUILTIN=yes"})
	require.True(t, ok, out)
	require.Contains(t, out, `its program is ""`)
	out, ok = run(t, "program", []string{"GUESTHOUSE_BUILTIN="})
	require.True(t, ok, out)
	require.Regexp(t, `its program is "/.+"`, out)
}

func TestTheNextMachineOfAKindIsPrefetched(t *testing.T) {
	Require(t, "arm64")
	out, ok := run(t, "prefetch", []string{"GUESTHOUSE_COLD=", "GUESTHOUSE_PREFETCH="})
	require.True(t, ok, out)
	require.Contains(t, out, "was prefetched")
	out, ok = run(t, "prefetch", []string{"GUESTHOUSE_COLD=", "GUESTHOUSE_PREFETCH=0"})
	require.True(t, ok, out)
	require.Contains(t, out, "boot 2 was restored")
	require.NotContains(t, out, "was prefetched")
}

func TestTheRecordOfATestThatFailedIsKept(t *testing.T) {
	Require(t, "arm64")
	tmp := t.TempDir()
	_, ok := run(t, "boot", []string{"TMPDIR=" + tmp})
	require.False(t, ok)
	records, err := filepath.Glob(filepath.Join(tmp, "TestInner-*", "console.log"))
	require.NoError(t, err)
	require.Len(t, records, 1)

	tmp = t.TempDir()
	_, ok = run(t, "killed", []string{"TMPDIR=" + tmp})
	require.False(t, ok)
	records, err = filepath.Glob(filepath.Join(tmp, "TestInner-*", "console.log"))
	require.NoError(t, err)
	require.Len(t, records, 1, "the killed test has left its record")
	out, ok := run(t, "pass", []string{"TMPDIR=" + tmp})
	require.True(t, ok, out)
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left, "a test that passes leaves no record, and removes the record of the killed one")
}

func TestWithArtifactsEveryRecordIsKept(t *testing.T) {
	Require(t, "arm64")
	dir := t.TempDir()
	out, ok := run(t, "pass", nil, "-test.artifacts", "-test.outputdir", dir)
	require.True(t, ok, out)
	var logs []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, "/console.log") {
			logs = append(logs, path)
		}
		return err
	}))
	require.Len(t, logs, 1)
}
