// Package qmptest has a fake QEMU for tests of code that speaks QMP.
package qmptest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
)

// A Fake is QEMU's end of a QMP connection, in memory. It does what a real QEMU
// rarely does: it refuses a command, never answers, or sends a line that is no JSON.
type Fake struct {
	net.Conn
	Lines *bufio.Reader // what the client sends
}

// New returns a fake and the connection for qmp.New. The fake greets the client as
// QEMU does and accepts the capabilities. The test sends everything after that.
func New() (*Fake, net.Conn) {
	near, far := net.Pipe()
	f := &Fake{Conn: near, Lines: bufio.NewReader(near)}
	f.Greet()
	return f, far
}

// Greet greets the client, and accepts the capabilities that it asks for, in the background.
func (f *Fake) Greet() {
	go func() {
		f.Send(`{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": ["oob"]}}`)
		if id, _, err := f.Receive(); err == nil {
			f.Send(fmt.Sprintf(`{"return": {}, "id": %d}`, id))
		}
	}()
}

// Send sends a line to the client.
func (f *Fake) Send(line string) { fmt.Fprintln(f.Conn, line) }

// Receive returns the ID and the name of the next command of the client.
func (f *Fake) Receive() (id uint64, command string, err error) {
	line, err := f.Lines.ReadBytes('\n')
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
