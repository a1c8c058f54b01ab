package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// files are the ends of a command's pipes.
type files struct {
	command [wire.Streams]int // what the command inherits
	opened  []int             // of these, what is not shared
	agent   []*os.File
}

func (f *files) descriptors() (all []uintptr) {
	for _, fd := range f.command {
		all = append(all, uintptr(fd))
	}
	return all
}

func (f *files) closeCommands() {
	for _, fd := range f.opened {
		unix.Close(fd)
	}
}

func (f *files) closeAgents() {
	for _, end := range f.agent {
		end.Close()
	}
}

// pipe makes a pipe. The command inherits its end as the stream.
func (f *files) pipe(s wire.Stream) (*os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	theirs, ours := fds[1], fds[0]
	if s == wire.Stdin {
		theirs, ours = ours, theirs
	}
	f.command[s] = theirs
	f.opened = append(f.opened, theirs)
	return f.own(ours, s.String()), nil
}

// own makes a descriptor a file with deadlines.
func (f *files) own(fd int, name string) *os.File {
	unix.SetNonblock(fd, true)
	file := os.NewFile(uintptr(fd), name)
	f.agent = append(f.agent, file)
	return file
}

// open makes the command's streams. The caller closes the command's ends when the command has started.
func (c *command) open(r wire.Command, attr *unix.SysProcAttr) (f *files, err error) {
	f = &files{}
	defer func() {
		if err != nil {
			f.closeCommands()
			f.closeAgents()
		}
	}()
	if r.Terminal {
		return f, c.openTerminal(r, f, attr)
	}
	null, err := c.agent.devNull()
	if err != nil {
		return f, err
	}
	for s := range wire.Streams {
		switch {
		case !r.Piped[s]:
			f.command[s] = null
			continue
		case s == wire.Stderr && r.Merged:
			continue
		}
		end, err := f.pipe(s)
		if err != nil {
			return f, err
		}
		if s == wire.Stdin {
			c.in = newInput(c, end)
		} else {
			c.out[s] = newOutput(c, s, end)
		}
	}
	if r.Merged {
		f.command[wire.Stderr] = f.command[wire.Stdout]
	}
	return f, nil
}

// devNull returns a descriptor of /dev/null, which stays open.
func (a *Agent) devNull() (int, error) {
	a.commands.mu.Lock()
	defer a.commands.mu.Unlock()
	if a.commands.null == 0 { // init has a console on descriptor 0
		fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
		}
		a.commands.null = fd
	}
	return a.commands.null, nil
}

// openTerminal makes a terminal and gives all streams of the command to it.
func (c *command) openTerminal(r wire.Command, f *files, attr *unix.SysProcAttr) error {
	const device = "/dev/ptmx"
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("terminal: %w", &os.PathError{Op: "open", Path: device, Err: err})
	}
	c.terminal = f.own(fd, device)
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("terminal: %w", os.NewSyscallError("TIOCSPTLCK", err))
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return fmt.Errorf("terminal: %w", os.NewSyscallError("TIOCGPTN", err))
	}
	if err := resize(c.terminal, r.Size); err != nil {
		return err
	}
	path := fmt.Sprintf("/dev/pts/%d", number)
	theirs, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("terminal: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	f.opened = append(f.opened, theirs)
	for s := range f.command {
		f.command[s] = theirs
	}
	attr.Setctty, attr.Ctty = true, 0
	c.in, c.out[wire.Stdout] = newInput(c, c.terminal), newOutput(c, wire.Stdout, c.terminal)
	return nil
}

// resize sets the size of a terminal. Its foreground programs get SIGWINCH.
func resize(terminal *os.File, size wire.Size) error {
	err := control(terminal, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
	})
	if err != nil {
		return fmt.Errorf("terminal: %w", os.NewSyscallError("TIOCSWINSZ", err))
	}
	return nil
}

// control calls f with the descriptor of a file, which stays in non-blocking mode.
func control(file *os.File, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// An output is a stream that the agent reads and the harness receives.
type output struct {
	command   *command
	stream    wire.Stream
	pipe      *os.File
	allowance *wire.Allowance
}

func newOutput(c *command, s wire.Stream, pipe *os.File) *output {
	return &output{c, s, pipe, wire.NewAllowance()}
}

// copy sends what it reads from the pipe, up to the pipe's end. After lastBytes it sends what the pipe
// holds. Then it closes the stream. It reads only what the harness has room for, so a command whose output
// nobody reads waits, as it does for any pipe.
func (o *output) copy() {
	buf := make([]byte, 1+firstRead)
	read := func(limit int, read func([]byte) (int, error)) (n int, err error) {
		room := o.allowance.Take(min(limit, len(buf)-1))
		if room == 0 {
			return 0, io.ErrClosedPipe // the harness reads no more
		}
		n, err = read(buf[1 : 1+room])
		n = max(n, 0)
		o.allowance.Return(room - n)
		if n > 0 {
			buf[0] = byte(o.stream)
			o.command.say(wire.Data, buf[:1+n])
		}
		if n == firstRead && len(buf) == 1+firstRead {
			buf = make([]byte, 1+wire.MaxData)
		}
		return n, err
	}
	var err error
	for err == nil {
		_, err = read(wire.MaxData, o.pipe.Read)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
		for left := o.held(); left > 0 && err == nil; {
			var n int
			n, err = read(left, o.readNow)
			left -= n
		}
		defer o.discard()
	} else if o.command.terminal == nil {
		o.pipe.Close()
	}
	if err != io.ErrClosedPipe && !errors.Is(err, os.ErrClosed) { // otherwise the harness has closed the stream
		o.command.say(wire.Close, wire.EncodeStream(o.stream))
	}
}

// firstRead is the size in bytes of the buffer for the first reads of an output. Most commands write little.
const firstRead = 2 << 10

// lastBytes makes copy send what the pipe holds, and end.
func (o *output) lastBytes() { o.pipe.SetReadDeadline(past) }

// drop makes copy end without sending more. A command that still writes gets SIGPIPE, unless it writes to a
// terminal.
func (o *output) drop() {
	o.allowance.Close()
	if o.command.terminal == nil {
		o.pipe.Close()
	} else {
		o.discard()
	}
}

// discard reads what the processes write that a command has left behind, so that they do not get
// SIGPIPE.
func (o *output) discard() {
	o.pipe.SetReadDeadline(time.Time{})
	go func() {
		io.Copy(io.Discard, o.pipe)
		o.pipe.Close()
	}()
}

// terminalBuffer is more than the number of bytes that Linux buffers of a terminal's output.
const terminalBuffer = 128 << 10

// held returns how many bytes the pipe holds at most. More may come from processes that the command has left
// behind.
func (o *output) held() (n int) {
	if o.command.terminal != nil {
		return terminalBuffer
	}
	err := control(o.pipe, func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD
		return err
	})
	if err != nil {
		return 0
	}
	return n
}

// readNow reads without waiting. Nothing to read is an error.
func (o *output) readNow(b []byte) (n int, err error) {
	err = control(o.pipe, func(fd int) (err error) {
		if n, err = unix.Read(fd, b); n == 0 && err == nil {
			err = io.EOF
		}
		return err
	})
	return n, err
}

// An input is a stream that the harness sends and the agent writes.
type input struct {
	command *command
	pipe    *os.File
	data    *wire.Inbox
}

func newInput(c *command, pipe *os.File) *input {
	return &input{c, pipe, wire.NewInbox(func(n int) { c.say(wire.Credit, wire.EncodeCredit(wire.Stdin, n)) })}
}

// copy writes what arrives to the pipe, until the stream or the command ends, or the command closes its
// end of the pipe.
func (in *input) copy() {
	buf := make([]byte, wire.MaxData)
	for {
		n, err := in.data.Read(buf)
		if n > 0 {
			_, err = in.pipe.Write(buf[:n])
		}
		switch {
		case err == nil:
			continue
		case err == io.EOF && in.command.terminal != nil:
			in.pipe.Write([]byte{endOfFile})
		case err == io.EOF:
			in.pipe.Close()
		case errors.Is(err, unix.EPIPE):
			in.close()
			in.command.say(wire.Close, wire.EncodeStream(wire.Stdin))
		}
		return
	}
}

// endOfFile is the key that ends the input from a terminal: Ctrl-D.
const endOfFile = 4

// end ends the stream after the bytes that have arrived.
func (in *input) end() { in.data.End(io.EOF) }

// close ends the stream at once.
func (in *input) close() {
	in.data.CloseRead()
	if in.command.terminal == nil {
		in.pipe.Close()
	} else {
		in.pipe.SetWriteDeadline(past)
	}
}
