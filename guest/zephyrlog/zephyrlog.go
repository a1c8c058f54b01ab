// Package zephyrlog writes log records in the format of Zephyr's console:
//
//	[00:00:00.010,000] <inf> net_echo_server_svc_sample: Connection from ::1 (7)
//
// With it, one set of console patterns fits a Zephyr program and its Go
// counterpart. It is a [slog.Handler] for serial consoles that people and tests
// read. For files that programs parse, use the handlers of package slog.
//
// The time is the time since boot, in hours, minutes, seconds, milliseconds and
// microseconds. The levels are dbg, inf, wrn and err. The module is the value of
// the attribute "module" outside any group. Programs normally set it once:
//
//	log := slog.New(zephyrlog.New(os.Stdout, nil)).With("module", "my_module")
//
// All other attributes follow the text as key=value, as in slog's TextHandler.
// A record is always one line. Control characters are escaped, so that a text in
// the log cannot forge a line.
package zephyrlog

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// ModuleKey is the key of the attribute that names the module.
const ModuleKey = "module"

// Options are the options of a Handler. The zero value is ready for use.
type Options struct {
	// Level is the lowest level that is written. Nil means slog.LevelInfo,
	// which is also Zephyr's default.
	Level slog.Leveler

	// Start is the time that the console shows as zero. The zero value means
	// the machine's boot (CLOCK_BOOTTIME), as in Zephyr.
	Start time.Time
}

// A Handler is a slog.Handler. It may be used by several goroutines at once.
type Handler struct {
	out    *output
	level  slog.Leveler
	start  time.Time
	module string
	prefix string // of the open groups, with a dot at the end
	attrs  string // of WithAttrs, formatted
}

// output is shared by a handler and the handlers derived from it.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// New returns a Handler that writes each record to w with one call of Write.
// Nil options mean the zero Options.
func New(w io.Writer, opts *Options) *Handler {
	h := &Handler{out: &output{w: w}, level: slog.LevelInfo}
	if opts != nil {
		h.start = opts.Start
		if opts.Level != nil {
			h.level = opts.Level
		}
	}
	if h.start.IsZero() {
		h.start = boot()
	}
	return h
}

// boot returns the time of the machine's boot, with a monotonic clock reading. So
// the times in the log do not jump when a program sets the wall clock, as happens
// on a machine without a battery.
func boot() time.Time {
	now := time.Now()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return now // a kernel older than 2.6.39
	}
	return now.Add(-time.Duration(ts.Nano()))
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	d := *h
	b := []byte(h.attrs)
	for _, a := range attrs {
		b = d.appendAttr(b, &d.module, h.prefix, a)
	}
	d.attrs = string(b)
	return &d
}

// WithGroup implements slog.Handler. The group's attributes are written as
// group.key=value.
func (h *Handler) WithGroup(name string) slog.Handler {
	d := *h
	if name != "" {
		d.prefix += name + "."
	}
	return &d
}

// Handle implements slog.Handler.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	module := h.module
	r.Attrs(func(a slog.Attr) bool {
		if h.prefix == "" && a.Key == ModuleKey {
			module = a.Value.Resolve().String()
		}
		return true
	})
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b := (*buf)[:0]
	if !r.Time.IsZero() {
		b = appendStamp(b, r.Time.Sub(h.start))
	}
	b = append(b, level(r.Level)...)
	if module != "" {
		b = appendText(b, module)
		b = append(b, ": "...)
	}
	b = appendText(b, r.Message)
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = h.appendAttr(b, &module, h.prefix, a)
		return true
	})
	b = append(b, '\n')
	*buf = b
	// The lock is not held during formatting, because an attribute's LogValue may log.
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(b)
	return err
}

// level returns the highest of Zephyr's levels that is not above l.
func level(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<err> "
	case l >= slog.LevelWarn:
		return "<wrn> "
	case l >= slog.LevelInfo:
		return "<inf> "
	}
	return "<dbg> "
}

// appendStamp appends Zephyr's [hh:mm:ss.mmm,uuu]. The hours may exceed 99.
func appendStamp(b []byte, since time.Duration) []byte {
	us := max(since, 0).Microseconds()
	part := func(sep byte, width int, v int64) {
		b = append(b, sep)
		for limit := int64(10); width > 1; width-- {
			if v < limit {
				for range width - 1 {
					b = append(b, '0')
				}
				break
			}
			limit *= 10
		}
		b = strconv.AppendInt(b, v, 10)
	}
	part('[', 2, us/3_600_000_000)
	part(':', 2, us/60_000_000%60)
	part(':', 2, us/1_000_000%60)
	part('.', 3, us/1000%1000)
	part(',', 3, us%1000)
	return append(b, "] "...)
}

// appendAttr appends an attribute. It stores the module attribute in *module instead.
func (h *Handler) appendAttr(b []byte, module *string, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	switch {
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, a := range v.Group() {
			b = h.appendAttr(b, module, prefix, a)
		}
		return b
	case a.Equal(slog.Attr{}):
		return b
	case prefix == "" && a.Key == ModuleKey:
		*module = v.String()
		return b
	}
	b = append(b, ' ')
	b = appendValue(b, prefix+a.Key)
	b = append(b, '=')
	if v.Kind() == slog.KindTime {
		return v.Time().AppendFormat(b, time.RFC3339Nano)
	}
	return appendValue(b, v.String())
}

// appendText appends s with its control characters escaped.
func appendText(b []byte, s string) []byte {
	if !strings.ContainsFunc(s, unicode.IsControl) && utf8.ValidString(s) {
		return append(b, s...)
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == utf8.RuneError {
			quoted := strconv.AppendQuoteRune(nil, r)
			b = append(b, quoted[1:len(quoted)-1]...)
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

// appendValue appends s. It quotes s if a reader could not tell where s ends.
func appendValue(b []byte, s string) []byte {
	ambiguous := func(r rune) bool {
		return r == '"' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r) || r == utf8.RuneError
	}
	if s == "" || strings.ContainsFunc(s, ambiguous) {
		return strconv.AppendQuote(b, s)
	}
	return append(b, s...)
}
