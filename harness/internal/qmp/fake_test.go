package qmp

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
)

// A fakeQEMU is QEMU's end of a QMP connection, in memory. It does what a real QEMU
// rarely does: it refuses a command, never answers, or sends a line that is no JSON.
type fakeQEMU struct {
	net.Conn
	lines *bufio.Reader
}

// newFakeQEMU returns a fake and the connection for New. The fake greets the client as
// QEMU does and accepts the capabilities. The test sends everything after that.
func newFakeQEMU() (*fakeQEMU, net.Conn) {
	near, far := net.Pipe()
	f := &fakeQEMU{Conn: near, lines: bufio.NewReader(near)}
	f.greet()
	return f, far
}

func (f *fakeQEMU) greet() {
	go func() {
		f.send(`{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": ["oob"]}}`)
		if id, _, err := f.receive(); err == nil {
			f.send(fmt.Sprintf(`{"return": {}, "id": %d}`, id))
		}
	}()
}

// send sends a line to the client.
func (f *fakeQEMU) send(line string) { fmt.Fprintln(f.Conn, line) }

// receive returns the ID and the name of the next command of the client.
func (f *fakeQEMU) receive() (id uint64, command string, err error) {
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
