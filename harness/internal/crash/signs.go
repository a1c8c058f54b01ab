package crash

import (
	"bytes"
	"regexp"
)

// A Sign is what a system prints when it fails.
type Sign struct {
	Name     string
	From     string // who prints it
	Severity Severity

	place  place
	begins []string               // it begins with one of these,
	looks  func(text []byte) bool // or where there are none this says that it may be one, at little cost
	then   *regexp.Regexp         // matches what follows the begin; nil is anything
	trace  bool                   // it counts only if the trace of a goroutine follows
}

// A place is where on a line a sign stands, behind a prompt if there is one.
type place int

const (
	atStart     place = iota // at the start
	behindStamp              // behind the kernel's time
	atEither                 // of the two, as a kernel may have been told to leave out the time
	behindRTOS               // at the start or behind what an RTOS puts before it
)

// own is what a user's own patterns find.
var own = Sign{Name: "one of the Spec's crashes", From: "user", Severity: Crash}

// signs is the table. The first that fits counts. How the signs look is from the systems' sources
// and from what was provoked on the project's own targets; testdata has samples of all.
var signs = []Sign{
	// Linux dies or kills.
	{Name: "kernel panic", From: "linux", Severity: Crash, place: atEither,
		begins: []string{"Kernel panic - not syncing"}},
	{Name: "kernel BUG", From: "linux", Severity: Crash, place: atEither,
		begins: []string{"kernel BUG at "}, then: match(`\S+:\d+!`)},
	{Name: "bad memory access", From: "linux", Severity: Crash, place: atEither,
		begins: []string{"BUG: unable to handle ", "BUG: kernel NULL pointer ", "BUG: stack guard page was hit ", "Unable to handle kernel "}},
	{Name: "unhandled fault", From: "linux", Severity: Crash, place: behindStamp,
		begins: []string{"Unhandled fault: ", "Unhandled prefetch abort: ", "Bad mode in ", "SError Interrupt on CPU",
			"PANIC: double fault", "traps: PANIC: double fault"}},
	// Every architecture counts its oopses, in the line that also has the error's name: "general
	// protection fault: 0000 [#1] PREEMPT SMP", "Internal error: Oops - undefined instruction: 0 [#1] SMP ARM".
	{Name: "oops", From: "linux", Severity: Crash, place: behindStamp, looks: counted, then: match(`.*\[#\d+\]`)},
	{Name: "oops without a time", From: "linux", Severity: Crash, place: atStart, then: match(`.*\[#\d+\]`),
		begins: []string{"Oops", "Internal error: ", "general protection fault", "segment-related general protection fault", "divide error: ", "invalid opcode: "}},
	{Name: "out of memory", From: "linux", Severity: Crash, place: atEither, then: match(`Kill(?:ed)? process \d`),
		begins: []string{"Out of memory: ", "Out of memory (oom_kill_allocating_task): ", "Memory cgroup out of memory: "}},
	{Name: "no kernel to start", From: "linux", Severity: Crash, place: atStart,
		begins: []string{" -- System halted", "-- System halted"}},

	// Linux finds fault with itself, and goes on.
	{Name: "sanitizer of the kernel", From: "linux", Severity: Warning, place: atEither,
		begins: []string{"BUG: KASAN: ", "BUG: KMSAN: ", "BUG: KCSAN: ", "BUG: KFENCE: ", "UBSAN: "}},
	{Name: "lockup", From: "linux", Severity: Warning, place: behindStamp,
		begins: []string{"watchdog: BUG: soft lockup", "NMI watchdog: BUG: soft lockup", "BUG: soft lockup", "BUG: workqueue lockup",
			"watchdog: Watchdog detected hard LOCKUP", "NMI watchdog: Watchdog detected hard LOCKUP"}},
	{Name: "RCU stall", From: "linux", Severity: Warning, place: behindStamp,
		begins: []string{"rcu: INFO: rcu", "INFO: rcu"}, then: match(`.* (?:self-detected stall|detected stalls|detected expedited stalls)`)},
	{Name: "hung task", From: "linux", Severity: Warning, place: behindStamp,
		begins: []string{"INFO: task "}, then: match(`.* blocked .*for more than \d+ seconds`)},
	{Name: "bug that the kernel survives", From: "linux", Severity: Warning, place: behindStamp,
		begins: []string{"BUG: "}},
	{Name: "locks", From: "linux", Severity: Warning, place: behindStamp,
		begins: []string{"WARNING: possible ", "WARNING: suspicious RCU usage", "WARNING: bad unlock balance detected", "WARNING: inconsistent lock state"}},
	{Name: "kernel warning", From: "linux", Severity: Warning, place: behindStamp,
		begins: []string{"WARNING: "}, then: match(`(?:CPU: \d+ PID: \d+ at |\S+:\d+ at )`)},
	{Name: "kernel memory leak", From: "linux", Severity: Warning, place: behindStamp,
		begins: []string{"kmemleak: "}, then: match(`\d+ new suspected memory leaks`)},

	// Programs of the guest.
	{Name: "Go panic", From: "go", Severity: Crash, place: atStart, begins: []string{"panic: "}, trace: true},
	{Name: "Go fatal error", From: "go", Severity: Crash, place: atStart, trace: true,
		begins: []string{"fatal error: "}},
	{Name: "signal of a Go program", From: "go", Severity: Crash, place: atStart, trace: true,
		begins: []string{"SIGSEGV: ", "SIGBUS: ", "SIGFPE: ", "SIGILL: ", "SIGABRT: ", "SIGTRAP: ", "SIGSYS: ", "SIGQUIT: "}},
	{Name: "Go runtime lost", From: "go", Severity: Crash, place: atStart,
		begins: []string{"fatal: morestack on ", "fatal: bad g in signal handler", "fatal: systemstack called from unexpected goroutine"}},
	{Name: "data race", From: "go", Severity: Warning, place: atStart, begins: []string{"WARNING: DATA RACE"}, then: match(`$`)},
	{Name: "Rust panic", From: "rust", Severity: Crash, place: atStart,
		begins: []string{"thread 'main' "}, then: match(`(?:\(\d+\) )?panicked at `)},
	{Name: "sanitizer", From: "sanitizers", Severity: Crash, place: atStart,
		begins: []string{"=="}, then: match(`\d+==(?:ERROR: (?:Address|HWAddress|Thread|Memory)Sanitizer|WARNING: MemorySanitizer): `)},
	{Name: "leak", From: "sanitizers", Severity: Warning, place: atStart,
		begins: []string{"=="}, then: match(`\d+==ERROR: LeakSanitizer: `)},
	{Name: "data race of C", From: "sanitizers", Severity: Warning, place: atStart, begins: []string{"WARNING: ThreadSanitizer: "}},
	{Name: "undefined behaviour", From: "sanitizers", Severity: Warning, place: atStart,
		looks: inSource, then: match(`\S+:\d+:\d+: runtime error: `)},
	{Name: "C library", From: "glibc", Severity: Crash, place: atStart,
		begins: []string{"*** stack smashing detected ***", "*** buffer overflow detected ***", "*** Error in `",
			"double free or corruption (", "corrupted size vs. prev_size", "corrupted double-linked list",
			"munmap_chunk(): invalid pointer", "Fatal glibc error: ", "terminate called "}},
	{Name: "C heap", From: "glibc", Severity: Crash, place: atStart, begins: []string{"free(): ", "malloc(): ", "realloc(): "},
		then: match(`(?:invalid|double free|corrupted|memory corruption|unaligned|unsorted|mismatching|smallbin|largebin|too many chunks)`)},

	// Others than Linux.
	{Name: "Zephyr fatal error", From: "zephyr", Severity: Crash, place: behindRTOS, begins: []string{">>> ZEPHYR FATAL ERROR "}},
	{Name: "Zephyr halts", From: "zephyr", Severity: Crash, place: behindRTOS, begins: []string{"Halting system"}, then: match(`$`)},
	{Name: "Zephyr assertion", From: "zephyr", Severity: Crash, place: behindRTOS, begins: []string{"ASSERTION FAIL ["}, then: match(`.*\] @ `)},
	{Name: "NuttX assertion", From: "nuttx", Severity: Crash, place: behindRTOS,
		begins: []string{"dump_assert_info: Assertion failed", "_assert: Assertion failed", "up_assert: Assertion failed"}},
	{Name: "NuttX fault", From: "nuttx", Severity: Crash, place: behindRTOS,
		begins: []string{"arm_hardfault: PANIC!!! ", "arm_busfault: PANIC!!! ", "arm_memfault: PANIC!!! ", "arm_usagefault: PANIC!!! ",
			"arm_dataabort: Data abort. ", "arm_prefetchabort: Prefetch abort. ", "arm_undefinedinsn: Undefined instruction ", "riscv_exception: EXCEPTION: "}},
	{Name: "U-Boot hangs", From: "u-boot", Severity: Crash, place: atStart,
		begins: []string{"### ERROR ### Please RESET the board ###", `"Synchronous Abort" handler, esr `, `"Error" handler, esr `}},
}

func match(expr string) *regexp.Regexp { return regexp.MustCompile("^(?:" + expr + ")") }

// signsAt are those of one place, by the first byte, and those that begin with anything.
type signsAt struct {
	first  [256][]prefixed
	others []*Sign
}

type prefixed struct {
	begins []byte
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
			for _, b := range s.begins {
				at.first[b[0]] = append(at.first[b[0]], prefixed{[]byte(b), s})
			}
			if len(s.begins) == 0 {
				at.others = append(at.others, s)
			}
		}
	}
	return at
}

// find returns the sign with which a text begins.
func (at *signsAt) find(text []byte) *Sign {
	if len(text) == 0 {
		return nil
	}
	for _, p := range at.first[text[0]] {
		if bytes.HasPrefix(text, p.begins) && (p.sign.then == nil || p.sign.then.Match(text[len(p.begins):])) {
			return p.sign
		}
	}
	for _, s := range at.others {
		if s.looks(text) && s.then.Match(text) {
			return s
		}
	}
	return nil
}

// counted says whether a text may have a number as oopses do.
func counted(text []byte) bool { return bytes.Contains(text, []byte("[#")) }

// inSource says whether a text may begin with a file, a line and a column, as "main.c:3:5: ".
func inSource(text []byte) bool {
	end := bytes.IndexByte(text, ' ')
	return end > 0 && text[end-1] == ':'
}
