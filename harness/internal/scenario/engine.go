package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A statement is a line of a script.
type statement struct {
	number     int
	text       string
	conditions []condition
	want       outcome
	verb       string
	args       []word
}

// A condition stands in brackets before a verb.
type condition struct {
	name string
	not  bool
}

// An outcome is the end that a statement must have.
type outcome byte

const (
	succeeds outcome = iota
	fails            // behind !
	either           // behind ?
)

// A word is an argument before its variables are replaced.
type word []fragment

// A fragment is a part of a word, inside or outside quotes.
type fragment struct {
	text   string
	quoted bool
}

// parseLine parses a line. It returns nil for a line without a verb.
func parseLine(number int, line string) (*statement, error) {
	s := &statement{number: number, text: strings.TrimSpace(line)}
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	for len(words) > 0 && s.verb == "" {
		w := words[0]
		words = words[1:]
		text := w.raw()
		switch {
		case len(w) != 1 || w[0].quoted:
			s.verb = text
		case text == "!" || text == "?":
			if s.want != succeeds {
				return nil, errors.New("! or ? is there twice")
			}
			if s.want = fails; text == "?" {
				s.want = either
			}
		case strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]"):
			name, not := strings.CutPrefix(text[1:len(text)-1], "!")
			s.conditions = append(s.conditions, condition{name, not})
		default:
			s.verb = text
		}
	}
	s.args = words
	if s.verb == "" {
		if s.want != succeeds || s.conditions != nil {
			return nil, errors.New("the line has no verb")
		}
		return nil, nil
	}
	return s, nil
}

// split splits a line into words. Spaces and a # outside quotes end a word. Two single quotes inside quotes are one.
func split(line string) (words []word, err error) {
	var w word
	var b strings.Builder
	quoted := false
	fragmentEnds := func() {
		if quoted || b.Len() > 0 {
			w = append(w, fragment{b.String(), quoted})
		}
		b.Reset()
	}
	wordEnds := func() {
		fragmentEnds()
		if w != nil {
			words = append(words, w)
		}
		w = nil
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && strings.HasPrefix(line[i:], "''"):
			b.WriteByte('\'')
			i++
		case c == '\'':
			fragmentEnds()
			quoted = !quoted
		case quoted:
			b.WriteByte(c)
		case c == '#':
			wordEnds()
			return words, nil
		case c == ' ' || c == '\t' || c == '\r':
			wordEnds()
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return nil, errors.New("a quote has no end")
	}
	wordEnds()
	return words, nil
}

// raw returns the word with its variables' names.
func (w word) raw() string {
	var b strings.Builder
	for _, f := range w {
		b.WriteString(f.text)
	}
	return b.String()
}

// expand replaces the variables of a word outside quotes. In a regular expression they stand for their text. A variable that
// is not set is an error, because an empty pattern matches everything.
func (r *run) expand(w word, isPattern bool) (string, error) {
	var b strings.Builder
	var err error
	for _, f := range w {
		if f.quoted {
			b.WriteString(f.text)
			continue
		}
		b.WriteString(os.Expand(f.text, func(name string) string {
			value, ok := r.variables[name]
			if !ok && err == nil {
				err = fmt.Errorf("the variable %q is not set; a $ that begins no variable needs single quotes", name)
			}
			if isPattern {
				return regexp.QuoteMeta(value)
			}
			return value
		}))
	}
	return b.String(), err
}

// A lineError says which line of a scenario has failed, and why.
type lineError struct {
	file string
	statement
	err error
}

func (e *lineError) Error() string {
	return fmt.Sprintf("%s:%d: %s: %v", e.file, e.number, e.text, e.err)
}

func (e *lineError) Unwrap() error { return e.err }

var (
	errSucceeded = errors.New("it succeeded, and the ! before it expects a failure")
	errStop      = errors.New("stop")
)

// parse parses the script. It refuses lines that no machine can make right, before the first machine boots.
func (r *run) parse() (script []*statement, err error) {
	number, hasVerb := 0, false
	for line := range strings.Lines(string(r.archive.script)) {
		number++
		s, err := parseLine(number, strings.TrimRight(line, "\r\n"))
		if err != nil {
			return nil, &lineError{r.file, statement{number: number, text: strings.TrimSpace(line)}, err}
		}
		if s == nil {
			script = append(script, &statement{text: strings.TrimSpace(line)}) // a comment, for the log
			continue
		}
		if _, ok := lookup(s.verb); !ok {
			return nil, &lineError{r.file, *s, fmt.Errorf("unknown verb %q; guesthouse help scenario lists the verbs", s.verb)}
		}
		for _, c := range s.conditions {
			if !slices.Contains(conditionNames(), c.name) {
				return nil, &lineError{r.file, *s, fmt.Errorf("unknown condition %q: the conditions are %s", c.name, strings.Join(conditionNames(), ", "))}
			}
		}
		hasVerb = true
		r.savable = r.savable || s.verb == "save"
		script = append(script, s)
	}
	if !hasVerb { // as in a file whose script is behind a line "-- NAME --"
		return nil, fmt.Errorf(`%s: the scenario has no verb before its first line "-- NAME --"`, r.file)
	}
	return script, nil
}

// execute runs the lines of the script, up to the first that fails.
func (r *run) execute(script []*statement) error {
	for _, s := range script {
		if s.verb == "" {
			r.logf("%s", s.text)
			continue
		}
		r.logf("> %s", s.text)
		err := context.Cause(r.ctx)
		if err == nil {
			err = r.do(s)
		}
		switch {
		case errors.Is(err, errStop):
			return nil
		case err != nil:
			return &lineError{r.file, *s, err}
		}
	}
	return nil
}

// do runs a statement.
func (r *run) do(s *statement) error {
	for _, c := range s.conditions {
		holds, err := r.holds(c.name)
		if err != nil {
			return err
		}
		if holds == c.not {
			r.logf("the condition does not hold")
			return nil
		}
	}
	v, _ := lookup(s.verb)
	args := make([]string, len(s.args))
	for i, w := range s.args {
		args[i] = w.raw()
	}
	patterns := v.expressions(args...)
	for i, w := range s.args {
		var err error
		if args[i], err = r.expand(w, slices.Contains(patterns, i)); err != nil {
			return err
		}
	}
	c := &call{run: r}
	err := v.run(c, args)
	if !v.keepsOutput {
		r.stdout, r.stderr = c.stdout, c.stderr
	}
	r.logOutput("stdout", c.stdout)
	r.logOutput("stderr", c.stderr)
	switch {
	case errors.Is(err, errStop), errors.As(err, new(*Skipped)), errors.As(err, new(*UsageError)), r.ctx.Err() != nil && err != nil:
		return err // in any case
	case s.want == fails && err == nil:
		return errSucceeded
	case s.want == succeeds:
		return err
	case err != nil:
		r.logf("failed: %v", err)
	}
	return nil
}

// A UsageError is a line that no guest can make right. It fails behind ! too.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

func (e *UsageError) Unwrap() error { return e.Err }

// wrongf returns a UsageError.
func wrongf(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

func (r *run) logf(format string, args ...any) { fmt.Fprintf(r.log, format+"\n", args...) }

func (r *run) logOutput(name, text string) {
	if text == "" {
		return
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	fmt.Fprintf(r.log, "[%s]\n%s", name, text)
}

// path returns the path of a file that a script names.
func (r *run) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.work, filepath.FromSlash(name))
}
