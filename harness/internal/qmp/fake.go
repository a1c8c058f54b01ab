package qmp

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
)

// A Fake is QEMU's end of a QMP connection, in memory, for states that a real
// QEMU rarely shows: a refused command, an answer that never comes, a line that
// is no JSON.
type Fake struct {
	net.Conn
	lines *bufio.Reader
}

// NewFake returns a fake and the connection to hand to New. It greets as QEMU
// does and accepts the capabilities; everything after that is the test's to say.
func NewFake() (*Fake, net.Conn) {
	ours, theirs := net.Pipe()
	f := &Fake{Conn: ours, lines: bufio.NewReader(ours)}
	f.greet()
	return f, theirs
}

func (f *Fake) greet() {
	go func() {
		f.Say(`{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": ["oob"]}}`)
		if id, _, err := f.Hear(); err == nil {
			f.Say(fmt.Sprintf(`{"return": {}, "id": %d}`, id))
		}
	}()
}

// Say sends one line to the client.
func (f *Fake) Say(line string) { fmt.Fprintln(f.Conn, line) }

// Hear reads the client's next command and returns its id and name.
func (f *Fake) Hear() (id uint64, command string, err error) {
	line, err := f.lines.ReadBytes('\n')
	if err != nil {
		return 0, "", err
	}
	var m struct {
		Execute string
		ID      uint64
	}
	err = json.Unmarshal(line, &m)
	return m.ID, m.Execute, err
}
