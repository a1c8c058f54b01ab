package testreport

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The elements of JUnit's XML that CI services read.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"` // seconds
		Began    string      `xml:"timestamp,attr,omitempty"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string       `xml:"classname,attr"`
		Name    string       `xml:"name,attr"`
		Time    string       `xml:"time,attr"`
		Failure *junitResult `xml:"failure,omitempty"`
		Skipped *junitResult `xml:"skipped,omitempty"`
	}
	junitResult struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes the results as JUnit's XML: a suite for each package and run. A package that fails
// without a failed test, for example because it does not compile, has a test of the name "(package)".
func (r *Report) WriteJUnit(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all junitSuites
	for _, p := range r.packages {
		all.Suites = append(all.Suites, p.suite())
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "\t")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (p *result) suite() junitSuite {
	s := junitSuite{Name: p.name(), Time: seconds(p.elapsed), Began: p.began}
	add := func(name string, elapsed float64, action, output string) {
		c := junitCase{Class: p.name(), Name: name, Time: seconds(elapsed)}
		switch action {
		case "pass":
		case "skip":
			s.Skipped++
			c.Skipped = &junitResult{Message: "skipped", Text: output}
		default: // a test that has not ended has failed: its package has ended without it
			s.Failures++
			c.Failure = &junitResult{Message: "failed", Text: output}
		}
		s.Cases = append(s.Cases, c)
	}
	for _, t := range p.tests {
		add(t.name, t.elapsed, t.action, p.output(t))
	}
	if p.action != "pass" && p.action != "skip" && s.Failures == 0 {
		add("(package)", p.elapsed, "fail", p.failedBuild+p.output(nil))
	}
	s.Tests = len(s.Cases)
	return s
}

// output returns what a test has printed, or what the package has printed outside its tests.
func (p *result) output(t *test) string {
	var b strings.Builder
	for _, l := range p.lines {
		if l.test == t && !frame.MatchString(l.text) {
			b.WriteString(l.text)
		}
	}
	return b.String()
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }
