// Package testreport reads the events of several runs of "go test -json", such as one for each target, and
// reports them together: as the text that go test prints, as JSON, as JUnit's XML and as a summary. The name
// of a package has the run behind it: "net [arm64, 6.1.0-47-cloud-arm64]".
package testreport

import (
	"bufio"
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"sync"
)

// Options say how a Report prints. The zero value prints what go test prints without -v.
type Options struct {
	Verbose bool // print all that the tests print, as with -v
	Passed  bool // print what packages that pass print, as with -bench
	JSON    bool // print the events
}

// A Report collects the results of runs. Its methods may be called from any goroutine.
type Report struct {
	out     io.Writer
	options Options

	mu       sync.Mutex
	err      error // of the first failed write
	packages []*result
	queue    []*result // with Options.Verbose or Passed: printed one after the other, the first while it runs
	builds   map[build]string
}

// A build is what go test could not compile in a run.
type build struct{ run, importPath string }

// New returns a report that prints on out.
func New(out io.Writer, o Options) *Report {
	return &Report{out: out, options: o, builds: make(map[build]string)}
}

// A result is what one package has done in one run.
type result struct {
	run, pkg    string
	began       string // RFC 3339
	lines       []line
	printed     int // how many of the lines have been printed
	tests       []*test
	byName      map[string]*test
	action      string // "pass", "fail" or "skip"; empty while the package runs
	elapsed     float64
	failedBuild string // the text of the compiler
}

// name returns the name of the package with its run.
func (p *result) name() string { return p.pkg + " " + p.run }

type line struct {
	test *test // nil for the package
	text string
}

type test struct {
	name    string
	action  string // "pass", "fail" or "skip"; empty while the test runs
	elapsed float64
	line    string // the beginning of a line whose end has not come
}

// An event is what "go test -json" prints; see "go doc test2json" and "go help buildjson".
type event struct {
	Time, Action, Package, Test, Output, FailedBuild, ImportPath string

	Elapsed float64
}

// Read reads the output of "go test -json" until its end. A run is named as it follows a package's name,
// such as "[arm64]". Lines that are no events are printed as they are.
func (r *Report) Read(run string, from io.Reader) error {
	in := bufio.NewReader(from)
	for {
		text, err := in.ReadBytes('\n')
		if len(text) > 0 {
			if failed := r.add(run, text); failed != nil {
				return failed
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// add adds one line of a run's output. It returns the error of printing.
func (r *Report) add(run string, text []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e event
	if json.Unmarshal(text, &e) != nil || e.Action == "" {
		r.print(string(text))
		return r.err
	}
	if r.options.JSON {
		r.print(decorateEvent(string(text), e.Package, run))
	}
	switch e.Action {
	case "build-output":
		r.builds[build{run, e.ImportPath}] += e.Output
	case "build-fail":
	default:
		r.addTo(r.result(run, e), e)
	}
	return r.err
}

// result returns the result of an event's package.
func (r *Report) result(run string, e event) *result {
	for _, p := range r.packages {
		if p.run == run && p.pkg == e.Package && p.action == "" {
			return p
		}
	}
	p := &result{run: run, pkg: e.Package, began: e.Time, byName: make(map[string]*test)}
	r.packages = append(r.packages, p)
	r.queue = append(r.queue, p)
	return p
}

func (r *Report) addTo(p *result, e event) {
	var t *test
	if e.Test != "" {
		if t = p.byName[e.Test]; t == nil || e.Action == "run" { // again, with -count
			t = &test{name: e.Test}
			p.tests, p.byName[e.Test] = append(p.tests, t), t
		}
	}
	switch e.Action {
	case "output":
		p.lines = append(p.lines, line{t, e.Output})
		if t != nil {
			p.read(t, e.Output)
		}
		r.printQueue()
	case "pass", "fail", "skip":
		if t != nil {
			t.action, t.elapsed = e.Action, e.Elapsed
			return
		}
		p.action, p.elapsed = e.Action, e.Elapsed
		if e.FailedBuild != "" {
			key := build{p.run, e.FailedBuild}
			p.failedBuild = r.builds[key]
			if !r.options.JSON {
				r.print(p.failedBuild)
			}
			r.builds[key] = "" // go test prints it once, too
		}
		if !r.streams() {
			r.printRest(p)
		}
		r.printQueue()
	}
}

// figures matches the line with the figures of a benchmark that has ended.
var figures = regexp.MustCompile(`^Benchmark[^\t]*\t *\d+\t`)

// read looks for the figures of a benchmark in what it prints, which may come in parts of a line. A benchmark that has
// figures has passed, and so have those that it is a part of: go test prints no event for that. It prints one for a
// benchmark that fails.
func (p *result) read(benchmark *test, output string) {
	benchmark.line += output
	if !strings.HasSuffix(output, "\n") {
		return
	}
	found := figures.MatchString(benchmark.line)
	benchmark.line = ""
	name := benchmark.name
	for more := found; more; name, more = parent(name) {
		if t := p.byName[name]; t != nil && t.action == "" {
			t.action = "pass"
		}
	}
}

// parent returns the name of the test that a subtest is a part of.
func parent(name string) (string, bool) {
	at := strings.LastIndexByte(name, '/')
	return name[:max(at, 0)], at >= 0
}

// streams reports whether packages are printed while they run.
func (r *Report) streams() bool { return r.options.Verbose || r.options.Passed }

// printQueue prints what the first package of the queue has printed so far, and removes packages that
// have ended.
func (r *Report) printQueue() {
	if !r.streams() {
		r.queue = nil
		return
	}
	for len(r.queue) > 0 {
		r.printRest(r.queue[0])
		if r.queue[0].action == "" {
			return
		}
		r.queue = r.queue[1:]
	}
}

// printRest prints the lines of a package that have not been printed.
func (r *Report) printRest(p *result) {
	for ; p.printed < len(p.lines) && !r.options.JSON; p.printed++ {
		l := p.lines[p.printed]
		if r.shows(p, l, p.printed == len(p.lines)-1) {
			r.print(strings.Replace(l.text, "\t"+p.pkg, "\t"+p.name(), wordsOf(l, p)))
		}
	}
}

// wordsOf returns how many names of the package a line has that are to be decorated: 1 for the verdict of
// go test.
func wordsOf(l line, p *result) int {
	if l.test == nil && verdict.MatchString(l.text) {
		return 1
	}
	return 0
}

// verdict matches the line in which go test says how a package has ended.
var verdict = regexp.MustCompile(`^(ok  |FAIL|\?   |)\t`)

// frame matches the lines that go test prints only with -v.
var frame = regexp.MustCompile(`^=== (RUN|PAUSE|CONT|NAME|ATTR|ARTIFACTS) `)

// shows reports whether to print a line.
func (r *Report) shows(p *result, l line, last bool) bool {
	switch {
	case r.options.Verbose:
		return true
	case frame.MatchString(l.text):
		return false
	case r.options.Passed, last:
		return true
	case p.action == "fail":
		return l.test == nil || l.test.action == "fail" || l.test.action == ""
	}
	return false
}

// decorateEvent puts the run behind the name of the package in an event's text. In JSON, a quotation mark in
// a string is escaped, so the text of the key occurs only as the key.
func decorateEvent(text, pkg, run string) string {
	was, err := json.Marshal(pkg)
	is, errIs := json.Marshal(pkg + " " + run)
	if pkg == "" || err != nil || errIs != nil {
		return text
	}
	return strings.Replace(text, `"Package":`+string(was), `"Package":`+string(is), 1)
}

func (r *Report) print(text string) {
	if r.err == nil {
		_, r.err = io.WriteString(r.out, text)
	}
}
