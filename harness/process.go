package harness

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/tied"
	"guesthouse.example/internal/wire"
)

// A process is a running QEMU with its connections. They are socket pairs
// whose far end QEMU inherits: no path that could be too long, no port that
// somebody could take, and an end of file when QEMU is gone.
type process struct {
	cmd     *exec.Cmd
	console net.Conn
	monitor net.Conn
	agent   net.Conn
	frames  []net.Conn    // those of a guest whose network is filtered
	done    chan struct{} // closed when QEMU has been reaped
	err     error         // of cmd.Wait; set before done is closed
}

// The descriptors under which QEMU finds its ends.
const (
	consoleFD = 3
	monitorFD = 4
	ramFD     = 5 // the machine's memory, where it is a file of ours
	stateFD   = 6 // the saved state of a machine that is restored
	agentFD   = 7

	// Where the network is filtered: the frames that the guest sends, those of them that may pass, and a
	// copy of those that it is sent.
	sentFD  = 8
	givenFD = 9
	seenFD  = 10
)

// saidWithin bounds how long, after QEMU's end, what it has started may hold its standard error.
const saidWithin = time.Second

// startProcess starts QEMU, which dies with us, however we die. What it says, made safe for a
// terminal, goes to stderr. It inherits ram and state, which may be nil.
func startProcess(binary string, args []string, stderr io.Writer, ram, state *os.File, filtered bool) (_ *process, err error) {
	names := []string{"console", "monitor", "agent"}
	if filtered {
		names = append(names, "frames sent", "frames given", "frames seen")
	}
	var near []net.Conn
	var far []*os.File
	defer func() {
		for _, f := range far {
			f.Close()
		}
		if err != nil {
			for _, c := range near {
				c.Close()
			}
		}
	}()
	for _, name := range names {
		ours, theirs, err := connPair(name)
		if err != nil {
			return nil, err
		}
		near, far = append(near, ours), append(far, theirs)
	}

	cmd := exec.Command(binary, args...)
	cmd.Env = environ()
	said := printable.NewWriter(stderr)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = saidWithin
	cmd.ExtraFiles = closeInherited(append([]*os.File{far[0], far[1], ram, state}, far[2:]...)) // from descriptor 3 on
	ended, err := tied.StartOn(ownUmask, cmd)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, console: near[0], monitor: near[1], agent: near[2], frames: near[3:], done: make(chan struct{})}
	go func() {
		if p.err = <-ended; errors.Is(p.err, exec.ErrWaitDelay) {
			p.err = nil
		}
		said.Flush() // a record that cannot be written is told of elsewhere
		close(p.done)
	}()
	return p, nil
}

// kill ends QEMU at once and waits until it is gone. Its connections end with
// it, after the last byte that it sent.
func (p *process) kill() {
	p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// connPair returns the two ends of a socket pair: ours, and a file for QEMU to
// inherit.
func connPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for the %s: %w", name, os.NewSyscallError("socketpair", err))
	}
	near := os.NewFile(uintptr(fds[0]), name)
	far := os.NewFile(uintptr(fds[1]), name)
	defer near.Close() // FileConn has its own descriptor
	conn, err := net.FileConn(near)
	if err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("socket pair for the %s: %w", name, err)
	}
	return conn, far, nil
}

// connectionArgs tells QEMU which inherited descriptors are what.
func connectionArgs() []string {
	return []string{
		"-chardev", "socket,id=console,fd=" + strconv.Itoa(consoleFD),
		"-serial", "chardev:console",
		"-chardev", "socket,id=monitor,fd=" + strconv.Itoa(monitorFD),
		"-mon", "chardev=monitor,mode=control",
		"-chardev", "socket,id=agent,fd=" + strconv.Itoa(agentFD),
		"-device", "virtio-serial-pci,id=agentbus,max_ports=2", // port 0 is for consoles
		"-device", "virtserialport,bus=agentbus.0,chardev=agent,name=" + wire.PortName,
	}
}

// filterArgs put us between the guest and QEMU's network.
func filterArgs() []string {
	return []string{
		"-chardev", "socket,id=sent,fd=" + strconv.Itoa(sentFD),
		"-chardev", "socket,id=given,fd=" + strconv.Itoa(givenFD),
		"-chardev", "socket,id=seen,fd=" + strconv.Itoa(seenFD),
		"-object", "filter-redirector,id=guest,netdev=net0,queue=rx,outdev=sent,indev=given",
		"-object", "filter-mirror,id=network,netdev=net0,queue=tx,outdev=seen",
	}
}
