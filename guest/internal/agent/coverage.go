package agent

import (
	"io"
	"os"
	"path/filepath"
	"time"

	"guesthouse.example/internal/wire"
)

// makeCoverDir makes the directory into which programs that were built with -cover write what they have
// covered, and sets the variable by which they find it.
func makeCoverDir() error {
	if err := os.MkdirAll(wire.CoverDir, 0o777); err != nil {
		return err
	}
	return os.Setenv("GOCOVERDIR", wire.CoverDir)
}

// coverWithin bounds how long a machine that powers off waits for the harness to take its coverage data.
const coverWithin = 5 * time.Second

// sendCoverage sends all files of a directory and removes them. The harness may ask for the data while the program
// ends.
func (a *Agent) sendCoverage(dir string) error {
	a.covering.Lock()
	defer a.covering.Unlock()
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		file := filepath.Join(dir, f.Name())
		if err := a.sendCoverFile(file); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) sendCoverFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, wire.MaxCoverPiece)
	for {
		n, err := io.ReadFull(f, buf)
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return err
		}
		piece := wire.CoverPiece{Name: filepath.Base(file), Data: buf[:n], Last: last}
		a.say(wire.Message{Type: wire.Covered, Payload: piece.Encode()})
		if last {
			return nil
		}
	}
}

// Covered sends the coverage data of programs that have ended. It gives up if the harness does not take it.
func (a *Agent) Covered() {
	if !a.Connected() {
		return
	}
	sent := make(chan error, 1)
	go func() { sent <- a.sendCoverage(wire.CoverDir) }()
	select {
	case err := <-sent:
		if err != nil {
			a.remark("coverage: " + err.Error())
		}
	case <-time.After(coverWithin):
	}
}

// answerCoverage answers Coverage. The program, if it uses package guest, writes its counters first.
func (a *Agent) answerCoverage(m wire.Message) {
	a.program.writeCoverage()
	if err := a.sendCoverage(wire.CoverDir); err != nil {
		a.remark("coverage: " + err.Error())
	}
	a.say(wire.Message{Type: m.Type, Answers: m.Sequence})
}

// writeCoverage makes the program write its counters, and waits until it has.
func (p *program) writeCoverage() { p.await(wire.Coverage, p.covered, coverWithin) }
