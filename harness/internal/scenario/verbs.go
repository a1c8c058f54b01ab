package scenario

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/internal/target"
)

// A verb is a command of the language.
type verb struct {
	name, args, summary string

	detail []string // paragraphs

	// patterns are the arguments behind the flags that are regular expressions: their indices, or -1 for all.
	patterns []int

	// minArgs and maxArgs bound the number of the arguments behind the flags; maxArgs is -1 for no bound.
	minArgs, maxArgs int

	// bare verbs have no machine, and no flags -m and -within.
	bare bool

	// keepsOutput is set for verbs that leave stdout and stderr to those that follow.
	keepsOutput bool

	// setup declares the verb's own flags, and returns what runs it.
	setup func(flags *flag.FlagSet) func(c *call) error

	// raw runs a verb that reads its flags itself, in place of setup.
	raw func(c *call, args []string) error
}

// A call is one line of a script.
type call struct {
	*run
	ctx    context.Context // with the time of -within
	within time.Duration
	args   []string // behind the flags
	m      *machine
	name   string // of the machine, from -m

	stdout, stderr string
}

// within is the default time of a verb, in the machine's time.
const within = 30 * time.Second

// noFlags is the setup of a verb without flags of its own.
func noFlags(f func(c *call) error) func(*flag.FlagSet) func(c *call) error {
	return func(*flag.FlagSet) func(c *call) error { return f }
}

// common are the flags of verbs that use a machine.
type common struct {
	name   string
	within time.Duration
}

// flags returns the flags of a verb.
func (v verb) flags() (*flag.FlagSet, *common, func(c *call) error) {
	flags := flag.NewFlagSet(v.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	var c common
	if !v.bare {
		flags.StringVar(&c.name, "m", "", "the `name` of the machine (default: that of the last boot or restore)")
		flags.DurationVar(&c.within, "within", within, "how `long` the verb may take")
	}
	return flags, &c, v.setup(flags)
}

// expressions returns which arguments are regular expressions. Variables in those stand for their text.
func (v verb) expressions(args ...string) (all []int) {
	if v.patterns == nil {
		return nil
	}
	flags, _, _ := v.flags()
	if flags.Parse(args) != nil {
		return nil
	}
	first := len(args) - flags.NArg()
	for i := range flags.NArg() {
		for _, p := range v.patterns {
			if p == i || p == -1 {
				all = append(all, first+i)
			}
		}
	}
	return all
}

func (v verb) run(c *call, args []string) error {
	if v.raw != nil {
		return v.raw(c, args)
	}
	flags, common, run := v.flags()
	if err := flags.Parse(args); err != nil {
		return wrongf("%w (usage: %s %s)", err, v.name, v.args)
	}
	c.args = flags.Args()
	if n := len(c.args); n < v.minArgs || v.maxArgs >= 0 && n > v.maxArgs {
		return wrongf("it has %d arguments (usage: %s %s)", n, v.name, v.args)
	}
	for i, arg := range c.args {
		if !slices.Contains(v.patterns, i) && !slices.Contains(v.patterns, -1) {
			continue
		}
		if _, err := regexp.Compile(arg); err != nil {
			return &UsageError{err}
		}
	}
	c.ctx = c.run.ctx
	if v.bare {
		return run(c)
	}
	if c.name = common.name; c.name == "" {
		c.name = c.current
	}
	m := c.machines[c.name]
	switch {
	case m != nil:
	case c.name == "":
		return &UsageError{errNoMachine}
	default:
		return wrongf("no machine has the name %q: %s", c.name, c.names())
	}
	c.m, c.within = m, common.within
	ctx, cancel := m.Within(c.run.ctx, common.within)
	defer cancel()
	c.ctx = ctx
	return run(c)
}

// lookup returns the verb of a name.
func lookup(name string) (verb, bool) {
	i := slices.IndexFunc(verbs, func(v verb) bool { return v.name == name })
	if i < 0 {
		return verb{}, false
	}
	return verbs[i], true
}

// names lists the machines, for errors.
func (r *run) names() string {
	var names []string
	for _, m := range r.order {
		if r.machines[m.name] == m {
			names = append(names, m.name)
		}
	}
	if names == nil {
		return "no machine has been booted"
	}
	return "the machines are " + strings.Join(names, ", ")
}

var errNoMachine = errors.New("no machine runs: boot one before")

// conditions are the conditions besides the names of the targets.
var conditions = []struct {
	name, summary string
	holds         func(harness.Result) bool
}{
	{"kvm", "the last machine runs on KVM", func(r harness.Result) bool { return r.Accel == harness.KVM }},
	{"restored", "the last machine did not boot its kernel", func(r harness.Result) bool { return r.Boot != harness.BootCold }},
}

// conditionNames returns the names of all conditions.
func conditionNames() []string {
	names := target.Names()
	for _, c := range conditions {
		names = append(names, c.name)
	}
	return names
}

// holds reports whether a condition holds.
func (r *run) holds(name string) (bool, error) {
	for _, c := range conditions {
		if c.name != name {
			continue
		}
		m := r.machines[r.current]
		if m == nil {
			return false, errNoMachine
		}
		return c.holds(m.Result()), nil
	}
	return r.Target == name, nil
}

// Help writes the reference of the language.
func Help(w io.Writer) error {
	var b strings.Builder
	b.WriteString(intro + "\nVERBS\n")
	sorted := slices.SortedFunc(slices.Values(verbs), func(a, b verb) int { return strings.Compare(a.name, b.name) })
	for _, v := range sorted {
		fmt.Fprintf(&b, "\n%s %s\n\t%s\n", v.name, v.args, v.summary)
		for _, paragraph := range v.detail {
			b.WriteString(wrap(paragraph))
		}
	}
	b.WriteString("\nCONDITIONS\n\n")
	for _, name := range target.Names() {
		fmt.Fprintf(&b, "[%s]\n\tthe scenario runs on the target %[1]s\n", name)
	}
	for _, c := range conditions {
		fmt.Fprintf(&b, "[%s]\n\t%s\n", c.name, c.summary)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks a paragraph into indented lines.
func wrap(paragraph string) string {
	const width = 84
	var b strings.Builder
	line := ""
	for word := range strings.FieldsSeq(paragraph) {
		if line != "" && len(line)+1+len(word) > width {
			b.WriteString("\t" + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return b.String() + "\t" + line + "\n"
}

const intro = `A scenario tests machines. It is a text file, NAME.txtar, with one verb a line:

	# The echo service answers.
	boot -port udp/4242
	udp 4242 hello
	exec uname -r
	stdout '^[0-9]'
	shutdown

SYNTAX

Spaces separate the arguments of a verb. Single quotes keep spaces; inside them, two single
quotes are one. A # starts a comment.

$NAME and ${NAME} are variables. WORK is the directory of the scenario's own files, DIR is the
directory of the scenario, and TARGET is the target. The verb env sets a variable, and so does
a named group of a pattern, such as (?P<port>\d+).

A line that starts with [CONDITION] runs only if the condition holds, and one that starts with
[!CONDITION] only if it does not hold. A verb behind ! must fail. A verb behind ? may fail.

The scenario fails at the first line that fails. It also fails if a guest crashes, if its
console shows a fault, and if a machine ends without shutdown, wait or reset.

Files follow the verbs, each below a line "-- NAME --". They are in $WORK. The files below guest/
are also copied into every machine when it is ready: guest/etc/motd becomes /etc/motd.

Verbs that use a machine have two flags. -m NAME selects the machine; without it, a verb uses
the machine that was booted or restored last. -within TIME bounds the verb, in the machine's
time; the default is 30s.
`
