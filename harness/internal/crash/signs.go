package crash

import (
	"bytes"
	"regexp"
)

// A Sign is what a system prints when it fails.
type Sign struct {
	Name     string
	From     string // the system that prints it: "linux", "go", …
	Severity Severity

	place    place
	prefixes []string               // the sign begins with one of these
	mayBe    func(text []byte) bool // replaces prefixes: a cheap test before rest
	rest     *regexp.Regexp         // matches the text behind the prefix; nil matches any text
	traced   bool                   // the sign is a crash only if a goroutine's trace follows
}

// A place is where a sign stands on a line. A prompt before it does not count.
type place int

const (
	atStart     place = iota // at the start
	behindStamp              // behind the time that Linux prints
	atEither                 // at the start or behind the time, because Linux can be told not to print it
	behindRTOS               // at the start or behind the prefix of an RTOS
)

// own is the sign that the user's own expressions find.
var own = Sign{Name: "user's expression", From: "user", Severity: Crash}

// signs is the table of signs. A line has the first sign that matches it. The texts are from the sources
// of the systems and from crashes on the project's targets; testdata has samples of every sign.
var signs = []Sign{
	// Linux crashes or kills.
	{Name: "kernel panic", From: "linux", Severity: Crash, place: atEither,
		prefixes: []string{"Kernel panic - not syncing"}},
	{Name: "kernel BUG", From: "linux", Severity: Crash, place: atEither,
		prefixes: []string{"kernel BUG at "}, rest: match(`\S+:\d+!`)},
	{Name: "bad memory access", From: "linux", Severity: Crash, place: atEither,
		prefixes: []string{"BUG: unable to handle ", "BUG: kernel NULL pointer ", "BUG: stack guard page was hit ", "Unable to handle kernel "}},
	{Name: "unhandled fault", From: "linux", Severity: Crash, place: behindStamp,
		prefixes: []string{"Unhandled fault: ", "Unhandled prefetch abort: ", "Bad mode in ", "SError Interrupt on CPU",
			"PANIC: double fault", "traps: PANIC: double fault"}},
	// Every architecture counts its oopses on the line that names the error: "general protection
	// fault: 0000 [#1] PREEMPT SMP", "Internal error: Oops - undefined instruction: 0 [#1] SMP ARM".
	{Name: "oops", From: "linux", Severity: Crash, place: behindStamp, mayBe: counted, rest: match(`.*\[#\d+\]`)},
	{Name: "oops without a time", From: "linux", Severity: Crash, place: atStart, rest: match(`.*\[#\d+\]`),
		prefixes: []string{"Oops", "Internal error: ", "general protection fault", "segment-related general protection fault", "divide error: ", "invalid opcode: "}},
	{Name: "out of memory", From: "linux", Severity: Crash, place: atEither, rest: match(`Kill(?:ed)? process \d`),
		prefixes: []string{"Out of memory: ", "Out of memory (oom_kill_allocating_task): ", "Memory cgroup out of memory: "}},
	{Name: "no kernel to start", From: "linux", Severity: Crash, place: atStart,
		prefixes: []string{" -- System halted", "-- System halted"}},

	// Linux reports a fault and goes on.
	{Name: "sanitizer of the kernel", From: "linux", Severity: Warning, place: atEither,
		prefixes: []string{"BUG: KASAN: ", "BUG: KMSAN: ", "BUG: KCSAN: ", "BUG: KFENCE: ", "UBSAN: "}},
	{Name: "lockup", From: "linux", Severity: Warning, place: behindStamp,
		prefixes: []string{"watchdog: BUG: soft lockup", "NMI watchdog: BUG: soft lockup", "BUG: soft lockup", "BUG: workqueue lockup",
			"watchdog: Watchdog detected hard LOCKUP", "NMI watchdog: Watchdog detected hard LOCKUP"}},
	{Name: "RCU stall", From: "linux", Severity: Warning, place: behindStamp,
		prefixes: []string{"rcu: INFO: rcu", "INFO: rcu"}, rest: match(`.* (?:self-detected stall|detected stalls|detected expedited stalls)`)},
	{Name: "hung task", From: "linux", Severity: Warning, place: behindStamp,
		prefixes: []string{"INFO: task "}, rest: match(`.* blocked .*for more than \d+ seconds`)},
	{Name: "bug that the kernel survives", From: "linux", Severity: Warning, place: behindStamp,
		prefixes: []string{"BUG: "}},
	{Name: "locks", From: "linux", Severity: Warning, place: behindStamp,
		prefixes: []string{"WARNING: possible ", "WARNING: suspicious RCU usage", "WARNING: bad unlock balance detected", "WARNING: inconsistent lock state"}},
	{Name: "kernel warning", From: "linux", Severity: Warning, place: behindStamp,
		prefixes: []string{"WARNING: "}, rest: match(`(?:CPU: \d+ PID: \d+ at |\S+:\d+ at )`)},
	{Name: "kernel memory leak", From: "linux", Severity: Warning, place: behindStamp,
		prefixes: []string{"kmemleak: "}, rest: match(`\d+ new suspected memory leaks`)},

	// Programs in the guest.
	{Name: "Go panic", From: "go", Severity: Crash, place: atStart, prefixes: []string{"panic: "}, traced: true},
	{Name: "Go fatal error", From: "go", Severity: Crash, place: atStart, traced: true,
		prefixes: []string{"fatal error: "}},
	{Name: "signal of a Go program", From: "go", Severity: Crash, place: atStart, traced: true,
		prefixes: []string{"SIGSEGV: ", "SIGBUS: ", "SIGFPE: ", "SIGILL: ", "SIGABRT: ", "SIGTRAP: ", "SIGSYS: ", "SIGQUIT: "}},
	{Name: "Go runtime lost", From: "go", Severity: Crash, place: atStart,
		prefixes: []string{"fatal: morestack on ", "fatal: bad g in signal handler", "fatal: systemstack called from unexpected goroutine"}},
	{Name: "data race", From: "go", Severity: Warning, place: atStart, prefixes: []string{"WARNING: DATA RACE"}, rest: match(`$`)},
	{Name: "Rust panic", From: "rust", Severity: Crash, place: atStart,
		prefixes: []string{"thread 'main' "}, rest: match(`(?:\(\d+\) )?panicked at `)},
	{Name: "Rust panic without a thread", From: "rust", Severity: Crash, place: atStart, // as a handler without std prints it
		prefixes: []string{"panicked at "}, rest: match(`.*\S:\d+:\d+`)},
	{Name: "sanitizer", From: "sanitizers", Severity: Crash, place: atStart,
		prefixes: []string{"=="}, rest: match(`\d+==(?:ERROR: (?:Address|HWAddress|Thread|Memory)Sanitizer|WARNING: MemorySanitizer): `)},
	{Name: "leak", From: "sanitizers", Severity: Warning, place: atStart,
		prefixes: []string{"=="}, rest: match(`\d+==ERROR: LeakSanitizer: `)},
	{Name: "data race of C", From: "sanitizers", Severity: Warning, place: atStart, prefixes: []string{"WARNING: ThreadSanitizer: "}},
	{Name: "undefined behaviour", From: "sanitizers", Severity: Warning, place: atStart,
		mayBe: inSource, rest: match(`\S+:\d+:\d+: runtime error: `)},
	{Name: "C library", From: "glibc", Severity: Crash, place: atStart,
		prefixes: []string{"*** stack smashing detected ***", "*** buffer overflow detected ***", "*** Error in `",
			"double free or corruption (", "corrupted size vs. prev_size", "corrupted double-linked list",
			"munmap_chunk(): invalid pointer", "Fatal glibc error: ", "terminate called "}},
	{Name: "C heap", From: "glibc", Severity: Crash, place: atStart, prefixes: []string{"free(): ", "malloc(): ", "realloc(): "},
		rest: match(`(?:invalid|double free|corrupted|memory corruption|unaligned|unsorted|mismatching|smallbin|largebin|too many chunks)`)},

	// Other systems than Linux.
	{Name: "Zephyr fatal error", From: "zephyr", Severity: Crash, place: behindRTOS, prefixes: []string{">>> ZEPHYR FATAL ERROR "}},
	{Name: "Zephyr halts", From: "zephyr", Severity: Crash, place: behindRTOS, prefixes: []string{"Halting system"}, rest: match(`$`)},
	{Name: "Zephyr assertion", From: "zephyr", Severity: Crash, place: behindRTOS, prefixes: []string{"ASSERTION FAIL ["}, rest: match(`.*\] @ `)},
	{Name: "NuttX assertion", From: "nuttx", Severity: Crash, place: behindRTOS,
		prefixes: []string{"dump_assert_info: Assertion failed", "_assert: Assertion failed", "up_assert: Assertion failed"}},
	{Name: "NuttX fault", From: "nuttx", Severity: Crash, place: behindRTOS,
		prefixes: []string{"arm_hardfault: PANIC!!! ", "arm_busfault: PANIC!!! ", "arm_memfault: PANIC!!! ", "arm_usagefault: PANIC!!! ",
			"arm_dataabort: Data abort. ", "arm_prefetchabort: Prefetch abort. ", "arm_undefinedinsn: Undefined instruction ", "riscv_exception: EXCEPTION: "}},
	// The functions of NuttX are in front of its alerts: "arm64_exception_handler: ", "irq_unexpected_isr: ".
	{Name: "NuttX panic", From: "nuttx", Severity: Crash, place: behindRTOS, mayBe: panics, rest: match(`\w+: PANIC(?:!!! |: )`)},
	{Name: "FreeRTOS assertion", From: "freertos", Severity: Crash, place: atStart, // vAssertCalled of FreeRTOS's demos
		prefixes: []string{"ASSERT! Line "}, rest: match(`\d+(?:,| of) file \S`)},
	{Name: "FreeRTOS stack overflow", From: "freertos", Severity: Crash, place: atStart, // vApplicationStackOverflowHook
		prefixes: []string{"***ERROR*** A stack overflow in task ", "Stack overflow in task "}, rest: match(`\S`)},
	{Name: "ESP-IDF panic", From: "esp-idf", Severity: Crash, place: atStart, prefixes: []string{"Guru Meditation Error: "}, rest: match(`.*panic'ed`)},
	{Name: "ESP-IDF abort", From: "esp-idf", Severity: Crash, place: atStart, prefixes: []string{"abort() was called at PC 0x"}},
	{Name: "ESP-IDF assertion", From: "esp-idf", Severity: Crash, place: atStart, prefixes: []string{"assert failed: "}, rest: match(`\S+ \S+:\d+ \(`)},
	{Name: "U-Boot BUG", From: "u-boot", Severity: Crash, place: atStart, prefixes: []string{"BUG: failure at "}, rest: match(`\S+:\d+/\S+\(\)!`)},
	{Name: "U-Boot hangs", From: "u-boot", Severity: Crash, place: atStart,
		prefixes: []string{"### ERROR ### Please RESET the board ###", `"Synchronous Abort" handler, esr `, `"Error" handler, esr `, `Bad mode in "`}},
	{Name: "U-Boot exception on RISC-V", From: "u-boot", Severity: Crash, place: atStart,
		prefixes: []string{"Unhandled exception: "}, rest: match(`(?:Instruction|Illegal|Breakpoint|Load|Store|Environment)`)},
}

func match(expr string) *regexp.Regexp { return regexp.MustCompile("^(?:" + expr + ")") }

// signsAt holds the signs of some places.
type signsAt struct {
	first  [256][]prefixed // the signs with prefixes, by the first byte of a prefix
	others []*Sign         // the signs without prefixes
}

type prefixed struct {
	prefix []byte
	sign   *Sign
}

var (
	plainSigns   = signsOf(atStart, atEither, behindRTOS)
	stampedSigns = signsOf(behindStamp, atEither)
	rtosSigns    = signsOf(behindRTOS)
)

func signsOf(places ...place) *signsAt {
	at := new(signsAt)
	for i := range signs {
		s := &signs[i]
		for _, p := range places {
			if s.place != p {
				continue
			}
			for _, b := range s.prefixes {
				at.first[b[0]] = append(at.first[b[0]], prefixed{[]byte(b), s})
			}
			if len(s.prefixes) == 0 {
				at.others = append(at.others, s)
			}
		}
	}
	return at
}

// find returns the sign at the start of a text, or nil.
func (at *signsAt) find(text []byte) *Sign {
	if len(text) == 0 {
		return nil
	}
	for _, p := range at.first[text[0]] {
		if bytes.HasPrefix(text, p.prefix) && (p.sign.rest == nil || p.sign.rest.Match(text[len(p.prefix):])) {
			return p.sign
		}
	}
	for _, s := range at.others {
		if s.mayBe(text) && s.rest.Match(text) {
			return s
		}
	}
	return nil
}

// counted reports whether a text may have the number of an oops.
func counted(text []byte) bool { return bytes.Contains(text, []byte("[#")) }

// panics reports whether a text may begin with NuttX's word for a panic behind the name of a function.
func panics(text []byte) bool {
	const longest = 64
	return bytes.Contains(text[:min(len(text), longest)], []byte(": PANIC"))
}

// inSource reports whether a text may begin with a file, a line and a column, as in "main.c:3:5: ".
func inSource(text []byte) bool {
	end := bytes.IndexByte(text, ' ')
	return end > 0 && text[end-1] == ':'
}
