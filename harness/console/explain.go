package console

import (
	"errors"
	"fmt"
	"strings"
)

const (
	lookBack   = 1 << 20 // bytes before the cursor that explain searches
	shownLines = 5       // the most lines after the cursor that explain shows
	shownBytes = 200     // the most bytes of a line that explain shows
)

// explain describes why an Expect has failed: where its pattern would have matched, and what the guest
// has printed instead. The caller holds the token of expecting.
func (c *Console) explain(re *pattern, why error) string {
	from := max(c.cursor.Load()-lookBack, 0)
	now := c.textFrom(from)
	from += now.lost
	cursor := int(max(c.cursor.Load()-from, 0))
	searched := now.echoes.hide(now.text, from)
	var b strings.Builder
	if before := re.FindAllIndex(searched[:cursor], -1); before != nil {
		fmt.Fprintf(&b, "\n\tthe pattern matches in the line %s, but that line is before the end of the last match",
			quoteLine(lineAt(now.text, before[len(before)-1])))
	}
	if echo := re.FindIndex(now.text[cursor:]); echo != nil && !re.Match(searched[cursor:]) {
		fmt.Fprintf(&b, "\n\tthe pattern matches in the line %s, but that is only the echo of what Send typed",
			quoteLine(lineAt(now.text[cursor:], echo)))
	}
	if errors.Is(why, ErrGuest) {
		return b.String() // why quotes the crash
	}
	since := "so far"
	if c.cursor.Load() > 0 {
		since = "since the last match"
	}
	text := strings.Trim(string(now.text[cursor:]), "\n")
	if text == "" {
		return b.String() + "\n\tthe console has shown nothing " + since
	}
	b.WriteString(re.explainNearest(strings.Trim(string(searched[cursor:]), "\n")))
	lines := strings.Split(text, "\n")
	last := ""
	if left := len(lines) - shownLines; left > 0 {
		lines, last = lines[left:], fmt.Sprintf(" (the last %d lines)", shownLines)
	}
	fmt.Fprintf(&b, "\n\tthe console has shown %s%s:", since, last)
	for _, line := range lines {
		b.WriteString("\n\t\t" + quoteLine(line))
	}
	return b.String()
}

// lineAt returns the line in which a match begins.
func lineAt(text []byte, match []int) string {
	line, _, _ := strings.Cut(string(lineOf(text, match[0])), "\n")
	return line
}

// quoteLine quotes a line of the guest, so that it cannot control a terminal.
func quoteLine(line string) string {
	if len(line) > shownBytes {
		return fmt.Sprintf("%q…", line[:shownBytes])
	}
	return fmt.Sprintf("%q", line)
}
