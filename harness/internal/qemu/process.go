package qemu

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/diskproto"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/tied"
	"guesthouse.example/internal/wire"
)

// A Process is a running QEMU with its connections. Each connection is a socket pair whose far end QEMU
// inherits. A socket pair needs no path, which could be too long, and no port, which another process
// could take, and it ends when QEMU does.
type Process struct {
	Console net.Conn
	Monitor net.Conn
	Agent   net.Conn
	Disk    net.Conn      // for disk.Server; nil if the machine has no such disk
	Frames  []net.Conn    // the connections for outbound.Start: sent, given and seen; nil if the network is not filtered
	Capture *os.File      // the pcap file of a Machine with Capture; QEMU waits for its reader
	Cards   []net.Conn    // the frames of Machine.Cards: each follows its length, which is four bytes in network order
	Done    chan struct{} // closed when QEMU has been reaped

	cmd *exec.Cmd
	err error // of cmd.Wait; set before Done is closed
}

// The descriptors that QEMU inherits.
const (
	consoleFD = 3
	monitorFD = 4
	ramFD     = 5 // the machine's memory, where it is a file of the harness
	StateFD   = 6 // the saved device state of a machine that is restored
	agentFD   = 7
	diskFD    = 8

	// The connections of a filtered network: the frames that the guest sends, those of them that may
	// pass, and copies of the frames for the guest.
	sentFD  = 9
	givenFD = 10
	seenFD  = 11

	captureFD   = firstCardFD            // a machine on QEMU's user network has no card there
	firstCardFD = 12                     // the frames of the machine's cards
	firstDiskFD = firstCardFD + MaxCards // the files of the machine's disks
)

// outputWithin is how long a process that QEMU has started may keep QEMU's standard error open after
// QEMU's end.
const outputWithin = time.Second

// Start starts QEMU with the arguments that Args returned. QEMU dies when this process dies, even if a
// signal kills this process. Start copies to stderr what QEMU prints, made safe for a terminal. QEMU
// inherits ram and state, which may be nil, and the files of the disks.
func (m Machine) Start(args []string, stderr io.Writer, ram, state *os.File, disks []DiskFiles) (*Process, error) {
	return start(m.Binary, args, stderr, ram, state, diskFiles(disks), m)
}

// StartProbe starts a QEMU that boots the kernel at once, or waits for the device state of a machine to
// restore, without a network. ram and state are as for Start. It ignores the user's arguments, because they
// may name files or ports that two machines must not share.
func (m Machine) StartProbe(stderr io.Writer, kind RAM, ram, state *os.File) (*Process, error) {
	m.Forwards, m.Disks, m.Cards, m.Filtered = nil, nil, nil, true // QEMU cuts the guest off
	args := slices.Concat(sandboxArgs(m.Binary, nil), m.machineArgs(kind, true), m.connectionArgs())
	return start(m.Binary, args, stderr, ram, state, nil, Machine{})
}

// start starts QEMU with the connections that m needs.
func start(binary string, args []string, stderr io.Writer, ram, state *os.File, disks []*os.File, m Machine) (_ *Process, err error) {
	p := &Process{Done: make(chan struct{})}
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
			if p.Capture != nil {
				p.Capture.Close()
			}
		}
	}()
	inherited := []*os.File{consoleFD: nil, monitorFD: nil, ramFD: ram, StateFD: state, firstDiskFD - 1: nil}
	connect := func(fd int, name string) (conn net.Conn) {
		if err != nil {
			return nil
		}
		if conn, inherited[fd], err = connPair(name); err == nil {
			near, far = append(near, conn), append(far, inherited[fd])
		}
		return conn
	}
	p.Console, p.Monitor, p.Agent = connect(consoleFD, "console"), connect(monitorFD, "monitor"), connect(agentFD, "agent")
	if m.hasDisk() {
		p.Disk = connect(diskFD, "disk")
	}
	for i := range m.Cards {
		p.Cards = append(p.Cards, connect(firstCardFD+i, "frames of card "+strconv.Itoa(i)))
	}
	if m.Filtered {
		p.Frames = []net.Conn{connect(sentFD, "frames sent"), connect(givenFD, "frames given"), connect(seenFD, "frames seen")}
	}
	if m.Capture && err == nil {
		if p.Capture, inherited[captureFD], err = os.Pipe(); err == nil {
			far = append(far, inherited[captureFD])
		}
	}
	if err != nil {
		return nil, err
	}

	cmd := exec.Command(binary, args...)
	cmd.Env = environ()
	output := printable.NewWriter(stderr)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = outputWithin
	cmd.ExtraFiles = closeInherited(append(inherited, disks...)[consoleFD:]) // from descriptor 3 on
	ended, err := tied.StartOn(ownUmask, cmd)
	if err != nil {
		return nil, err
	}
	p.cmd = cmd
	go func() {
		if p.err = <-ended; errors.Is(p.err, exec.ErrWaitDelay) {
			p.err = nil
		}
		output.Flush() // the owner of stderr reports a failure to write
		close(p.Done)
	}()
	return p, nil
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// CommandLine returns QEMU's command line, beginning with the binary.
func (p *Process) CommandLine() []string { return p.cmd.Args }

// Kill kills QEMU and waits until it is reaped. The connections end after the last byte that QEMU sent.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // fails only if QEMU has ended already
	<-p.Done
}

// Abandon ends QEMU and closes its connections. It is for a caller that has given none of them to a reader.
func (p *Process) Abandon() {
	p.Kill()
	for _, c := range append([]net.Conn{p.Console, p.Monitor, p.Agent, p.Disk}, p.Frames...) {
		if c != nil {
			c.Close()
		}
	}
	if p.Capture != nil {
		p.Capture.Close()
	}
}

// Describe waits for QEMU's end and returns an error that says how QEMU ended.
func (p *Process) Describe() error {
	<-p.Done
	if p.err != nil {
		return fmt.Errorf("QEMU ended: %w", p.err)
	}
	return errors.New("QEMU ended by itself")
}

// Exited waits for QEMU's end and reports whether QEMU exited by itself: no signal killed it.
func (p *Process) Exited() bool {
	<-p.Done
	exit, ok := errors.AsType[*exec.ExitError](p.err)
	return p.err == nil || ok && exit.Exited()
}

// Status waits for QEMU's end and returns its exit status. ok is false if a signal killed QEMU.
func (p *Process) Status() (status int, ok bool) {
	<-p.Done
	if p.err == nil {
		return 0, true
	}
	exit, ok := errors.AsType[*exec.ExitError](p.err)
	if !ok || !exit.Exited() {
		return 0, false
	}
	return exit.ExitCode(), true
}

// Succeeded waits for QEMU's end and reports whether its exit status is 0, as after a guest's own reboot or
// power-off.
func (p *Process) Succeeded() bool {
	<-p.Done
	return p.err == nil
}

// connPair returns the two ends of a socket pair: the harness's, and a file for QEMU to inherit.
func connPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for the %s: %w", name, os.NewSyscallError("socketpair", err))
	}
	near := os.NewFile(uintptr(fds[0]), name)
	far := os.NewFile(uintptr(fds[1]), name)
	defer near.Close() // FileConn duplicates the descriptor
	conn, err := net.FileConn(near)
	if err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("socket pair for the %s: %w", name, err)
	}
	return conn, far, nil
}

// AgentDevice is the QMP label of the character device that the guest's agent opens.
const AgentDevice = "agent"

// connectionArgs connects QEMU's devices to the descriptors that it inherits. A board has no device for the
// agent's line, because it would take a slot of the board's bus.
func (m Machine) connectionArgs() []string {
	args := []string{
		"-chardev", "socket,id=console,fd=" + strconv.Itoa(consoleFD),
		"-serial", "chardev:console",
		"-chardev", "socket,id=monitor,fd=" + strconv.Itoa(monitorFD),
		"-mon", "chardev=monitor,mode=control",
		"-chardev", "socket,id=" + AgentDevice + ",fd=" + strconv.Itoa(agentFD),
	}
	if m.Board {
		return args
	}
	return append(args,
		"-device", "virtio-serial-pci,id=agentbus,max_ports=2", // port 0 is for consoles
		"-device", "virtserialport,bus=agentbus.0,chardev=agent,name="+wire.PortName)
}

// diskArgs returns the disk that the harness serves, or nothing if the machine has none. Its address is the
// last one of the bus that is free on all targets, so that no other device gets another address or name
// because of it.
func (m Machine) diskArgs() []string {
	if !m.hasDisk() {
		return nil
	}
	return []string{
		"-blockdev", "driver=nbd,node-name=disk,server.type=fd,server.str=" + strconv.Itoa(diskFD),
		"-device", "virtio-blk-pci,drive=disk,serial=" + diskproto.Serial + ",addr=0x1e,werror=report,rerror=report",
	}
}

// hasDisk reports whether the machine has the disk of the guest's agent: a machine without an initramfs has
// no agent.
func (m Machine) hasDisk() bool { return m.Initramfs != "" }

// filterArgs puts the harness between the guest and QEMU's network.
func filterArgs() []string {
	return []string{
		"-chardev", "socket,id=sent,fd=" + strconv.Itoa(sentFD),
		"-chardev", "socket,id=given,fd=" + strconv.Itoa(givenFD),
		"-chardev", "socket,id=seen,fd=" + strconv.Itoa(seenFD),
		"-object", "filter-redirector,id=guest,netdev=net0,queue=rx,outdev=sent,indev=given",
		"-object", "filter-mirror,id=network,netdev=net0,queue=tx,outdev=seen",
	}
}
