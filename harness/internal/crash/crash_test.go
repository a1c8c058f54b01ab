package crash

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
)

// A sample is a text in testdata and the name of the sign that it must have or must not have.
type sample struct {
	sign, note, text string
	not              bool
}

func samples(t testing.TB) (all []sample) {
	for _, file := range []string{"linux", "go", "rtos"} {
		archive, err := txtar.ParseFile("testdata/" + file + ".txtar")
		require.NoError(t, err)
		for _, f := range archive.Files {
			name, note, ok := strings.Cut(f.Name, ": ")
			require.True(t, ok, f.Name)
			name, not := strings.CutPrefix(name, "not ")
			all = append(all, sample{sign: name, note: note, text: string(f.Data), not: not})
		}
	}
	return all
}

// found returns what a new detector finds in a text that arrives in pieces.
func found(pieces ...string) (all []Found) {
	d := New(nil)
	for _, p := range pieces {
		all = append(all, d.Write([]byte(p))...)
	}
	return append(all, d.End()...)
}

func TestEverySignIsFoundInItsSamplesOnly(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.sign+"/"+s.note, func(t *testing.T) {
			all := found(s.text)
			if s.not {
				require.Empty(t, all)
				return
			}
			require.NotEmpty(t, all)
			require.Equal(t, s.sign, all[0].Sign.Name, all[0].Line)
			require.Contains(t, s.text, all[0].Line)
		})
	}
}

func TestEverySignHasSamplesAndCounterexamples(t *testing.T) {
	is, isNot := make(map[string]bool), make(map[string]bool)
	for _, s := range samples(t) {
		if s.not {
			isNot[s.sign] = true
		} else {
			is[s.sign] = true
		}
	}
	for _, s := range signs {
		require.True(t, is[s.Name], s.Name)
		require.True(t, isNot[s.Name], "not "+s.Name)
	}
	require.Len(t, is, len(signs), "samples of signs that are not in the table")
	require.Len(t, isNot, len(signs), "samples of signs that are not in the table")
}

func TestASignIsFoundHoweverItsTextIsSplit(t *testing.T) {
	for _, s := range samples(t) {
		whole := found(s.text)
		require.Equal(t, whole, found(strings.Split(s.text, "")...), "%s: %s, byte by byte", s.sign, s.note)
		for i := range s.text {
			require.Equal(t, whole, found(s.text[:i], s.text[i:]), "%s: %s, split at %d", s.sign, s.note, i)
		}
	}
}

// A client of the guest may choose a text that the guest logs inside a line.
func TestNoSignIsFoundInALogRecord(t *testing.T) {
	for _, s := range samples(t) {
		var log strings.Builder
		for line := range strings.Lines(s.text) {
			for _, prefix := range []string{"[00:00:01.000,000] <inf> echo: ", "2026/11/30 18:33:14 ", `time=2026-11-30T18:33:14Z level=INFO msg="`, "got: "} {
				log.WriteString(prefix + line)
			}
		}
		require.Empty(t, found(log.String()), "%s: %s", s.sign, s.note)
	}
}

func TestATraceIsFoundFarBelowItsMessage(t *testing.T) {
	value := strings.Repeat("\n\tlook at its cable", 500)
	all := found("panic: no such sensor" + value + "\n\ngoroutine 1 [running]:\nmain.main()\n")
	require.Len(t, all, 1)
	require.Equal(t, "panic: no such sensor", all[0].Line)
}

func TestTheLastLineNeedsNoLineEnd(t *testing.T) {
	require.Len(t, found("[    1.203456] Kernel panic - not syncing: gone"), 1)
	require.Len(t, found("panic: gone\n\ngoroutine 1 [running]:\n"), 1)
	require.Empty(t, found("panic: gone\n\n"))
}

func TestAMessageWithoutATraceIsSuspicious(t *testing.T) {
	d := New(nil)
	for _, step := range []struct {
		text       string
		suspicious bool
	}{
		{"all is well\n", false},
		{"panic: gone\n", true},
		{"\ngoroutine 1 [running]:\n", true},
		{"main.main()\n", false},
	} {
		d.Write([]byte(step.text))
		require.Equal(t, step.suspicious, d.Suspicious(), step.text)
	}
}

func TestAUsersOwnExpressionsAreCrashes(t *testing.T) {
	d := New([]*regexp.Regexp{regexp.MustCompile(`^(?:FATAL|ABORT\d)`)})
	all := d.Write([]byte("I say FATAL\nuart:~$ FATAL: gone\nABORT7\n"))
	require.Len(t, all, 2)
	require.Equal(t, Found{&own, "FATAL: gone"}, all[0])
	require.Equal(t, Crash, all[0].Sign.Severity)
	require.Equal(t, "ABORT7", all[1].Line)
}

func TestASignIsFoundAtTheStartOfALongLine(t *testing.T) {
	all := found("[    1.203456] Kernel panic - not syncing: "+strings.Repeat("x", 1<<20), strings.Repeat("y", 1<<20)+"\n")
	require.Len(t, all, 1)
	require.Len(t, all[0].Line, maxLine)
}

func FuzzDetector(f *testing.F) {
	for _, s := range samples(f) {
		if !strings.Contains(s.text, string(halted)) {
			f.Add(s.text, 7)
		}
	}
	f.Fuzz(func(t *testing.T, text string, at int) {
		if strings.Contains(text, string(halted)) {
			t.Skip("the detector does not wait for the end of this line")
		}
		at = max(0, min(at, len(text)))
		require.Equal(t, found(text), found(text[:at], text[at:]))
	})
}

// flood has lines that guests print by the thousand: a service's log, a program's output, a boot.
var flood = strings.Repeat("[00:00:04.082,054] <inf> net_echo_server_svc_sample: Connection from ::ffff:192.0.2.2 (7) closed\n"+
	"worker 12 has done 1834 of 20000 jobs, 3 of them again, in 12.4 s; the next one is for line 7\n"+
	"[    1.203456] virtio_net virtio0 eth0: link becomes ready, 1000 Mbit/s, full duplex\n", 200)

func BenchmarkFlood(b *testing.B) {
	d := New(nil)
	text := []byte(flood)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		d.Write(text)
	}
}

// Lines that look like signs take little more time than other lines.
func TestNoLineIsSlowToSearch(t *testing.T) {
	for _, part := range []string{"x", "[1.1] [#1", "[1.1]", "[1.1] ", "[", "[]", "panic:", "panic: ", "fatal error: ", "a: b: ", "== ", "[#1", "WARNING: "} {
		line := strings.Repeat(part, maxLine/len(part)) + "\n"
		text := []byte(strings.Repeat(line, 256)) // 1 MiB
		searched := make(chan struct{})
		go func() {
			New(nil).Write(text)
			close(searched)
		}()
		select {
		case <-searched:
		case <-time.After(20 * time.Second): // 100 times the usual; a search that tries every place in a line takes 29 s
			require.Fail(t, "these lines take too long", part)
		}
	}
}
