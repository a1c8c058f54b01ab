package zephyrlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/guest/zephyrlog"
)

func Example() {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	h := zephyrlog.New(os.Stdout, &zephyrlog.Options{Start: start})
	r := slog.NewRecord(start.Add(10*time.Millisecond), slog.LevelInfo, "Connection from ::1 (7)", 0)
	_ = h.WithAttrs([]slog.Attr{slog.String("module", "net_echo_server_svc_sample")}).Handle(context.Background(), r)
	// Output: [00:00:00.010,000] <inf> net_echo_server_svc_sample: Connection from ::1 (7)
}

// line returns what the handler writes for one record, without the newline.
func line(t *testing.T, since time.Duration, level slog.Level, msg string, with func(*slog.Logger) *slog.Logger, args ...any) string {
	t.Helper()
	start := time.Now()
	var out bytes.Buffer
	var h slog.Handler = zephyrlog.New(&out, &zephyrlog.Options{Start: start, Level: slog.LevelDebug})
	if with != nil {
		h = with(slog.New(h)).Handler()
	}
	r := slog.NewRecord(start.Add(since), level, msg, 0)
	r.Add(args...)
	require.NoError(t, h.Handle(t.Context(), r))
	s, ok := strings.CutSuffix(out.String(), "\n")
	require.True(t, ok)
	require.NotContains(t, s, "\n")
	return s
}

func TestTimeHasZephyrsFormat(t *testing.T) {
	for since, want := range map[time.Duration]string{
		-time.Second:              "[00:00:00.000,000]",
		0:                         "[00:00:00.000,000]",
		10 * time.Millisecond:     "[00:00:00.010,000]",
		1234567 * time.Nanosecond: "[00:00:00.001,234]",
		100*time.Hour + 59*time.Minute + 58*time.Second + 987654*time.Microsecond: "[100:59:58.987,654]",
	} {
		require.Equal(t, want+" <inf> x", line(t, since, slog.LevelInfo, "x", nil))
	}
}

func TestLevelsAreZephyrs(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelDebug - 4: "<dbg>", slog.LevelDebug: "<dbg>", slog.LevelInfo: "<inf>", slog.LevelInfo + 1: "<inf>",
		slog.LevelWarn: "<wrn>", slog.LevelError: "<err>", slog.LevelError + 4: "<err>",
	} {
		require.Equal(t, "[00:00:00.000,000] "+want+" x", line(t, 0, level, "x", nil))
	}
}

func TestModuleAndAttributes(t *testing.T) {
	const stamp = "[00:00:00.000,000] <inf> "
	module := func(l *slog.Logger) *slog.Logger { return l.With("module", "m") }
	require.Equal(t, stamp+"m: x", line(t, 0, slog.LevelInfo, "x", module))
	require.Equal(t, stamp+"n: x a=1", line(t, 0, slog.LevelInfo, "x", module, "module", "n", "a", 1))
	require.Equal(t, stamp+`m: x a="b c" e="" f="\"" err="no: x"`,
		line(t, 0, slog.LevelInfo, "x", module, "a", "b c", "e", "", "f", `"`, "err", errors.New("no: x")))
	require.Equal(t, stamp+"m: x b=2 g.a=1 g.h.module=o", line(t, 0, slog.LevelInfo, "x",
		func(l *slog.Logger) *slog.Logger { return module(l).With("b", 2).WithGroup("g") },
		"a", 1, slog.Group("h", "module", "o")))
}

func TestOneRecordIsOneLine(t *testing.T) {
	require.Equal(t, `[00:00:00.000,000] <inf> m\n: a\n[00:00:00.000,000] <err> b\x1b[1m k="v\nw"`,
		line(t, 0, slog.LevelInfo, "a\n[00:00:00.000,000] <err> b\x1b[1m", nil, "module", "m\n", "k", "v\nw"))
}

func TestDefaultIsTheTimeSinceBoot(t *testing.T) {
	raw, err := os.ReadFile("/proc/uptime")
	require.NoError(t, err)
	before, err := strconv.ParseFloat(strings.Fields(string(raw))[0], 64)
	require.NoError(t, err)
	var out bytes.Buffer
	slog.New(zephyrlog.New(&out, nil)).Info("x")
	var h, m, s, ms, us int
	_, err = fmt.Sscanf(out.String(), "[%d:%d:%d.%d,%d] <inf> x\n", &h, &m, &s, &ms, &us)
	require.NoError(t, err, out.String())
	got := float64(h*3600+m*60+s) + float64(ms)/1e3 + float64(us)/1e6
	require.InDelta(t, before, got, 5)
}

func TestDefaultLevelIsInfo(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(zephyrlog.New(&out, nil))
	log.Debug("x")
	require.Empty(t, out.String())
}

// writes counts calls of Write and fails the test if two run at once.
type writes struct {
	mu    sync.Mutex
	lines []string
}

func (w *writes) Write(b []byte) (int, error) {
	if !w.mu.TryLock() {
		return 0, errors.New("concurrent write")
	}
	defer w.mu.Unlock()
	w.lines = append(w.lines, string(b))
	return len(b), nil
}

func TestConcurrentRecordsAreWrittenWhole(t *testing.T) {
	const goroutines, each = 8, 100
	var w writes
	log := slog.New(zephyrlog.New(&w, nil))
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			log := log.With("module", "m"+strconv.Itoa(g))
			for i := range each {
				log.Info("text", "i", i)
			}
		})
	}
	wg.Wait()
	require.Len(t, w.lines, goroutines*each)
	whole := regexp.MustCompile(`^\[\d+:\d\d:\d\d\.\d{3},\d{3}\] <inf> m(\d): text i=(\d+)\n$`)
	next := make(map[string]int)
	for _, l := range w.lines {
		m := whole.FindStringSubmatch(l)
		require.NotNil(t, m, l)
		require.Equal(t, strconv.Itoa(next[m[1]]), m[2], "each record once, those of a goroutine in their order")
		next[m[1]]++
	}
}

// TestSlogConformance runs the standard library's own tests of handlers.
func TestSlogConformance(t *testing.T) {
	var out bytes.Buffer
	form := regexp.MustCompile(`^(\[\S+\] )?<(\w+)> (\S+)(.*)\n$`)
	pair := regexp.MustCompile(` (\S+?)=("[^"]*"|\S+)`)
	slogtest.Run(t,
		func(*testing.T) slog.Handler {
			out.Reset()
			return zephyrlog.New(&out, nil)
		},
		func(t *testing.T) map[string]any {
			f := form.FindStringSubmatch(out.String())
			require.NotNil(t, f, out.String())
			m := map[string]any{slog.LevelKey: f[2], slog.MessageKey: f[3]}
			if f[1] != "" {
				m[slog.TimeKey] = f[1]
			}
			for _, p := range pair.FindAllStringSubmatch(f[4], -1) {
				at, keys := m, strings.Split(p[1], ".")
				for _, k := range keys[:len(keys)-1] {
					if at[k] == nil {
						at[k] = map[string]any{}
					}
					at = at[k].(map[string]any)
				}
				at[keys[len(keys)-1]] = p[2]
			}
			return m
		})
}
