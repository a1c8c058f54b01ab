// Package disk is the guest's end of the disk that carries bulk data between the guest and the harness.
// Package diskproto describes the requests in the disk's slots.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/diskproto"
)

// A Disk is the machine's disk. Its methods may be called from any goroutine.
type Disk struct {
	fd     int
	number atomic.Uint32 // of the newest request

	idle chan struct{} // holds a token for each free slot
	mu   sync.Mutex
	free []*Slot // the one that was released last is used next, because it has a buffer
}

// ErrNone says that the machine has no such disk, or that the kernel has no driver for it.
var ErrNone = errors.New("the guest has no disk " + diskproto.Serial + ": its kernel needs the driver virtio_blk")

// Open opens the disk. Only one Disk may be open at a time.
func Open() (*Disk, error) {
	dev, err := find("/sys/block")
	if err != nil {
		return nil, err
	}
	// O_DIRECT: the kernel's page cache must not keep what was read from a slot. O_EXCL: no other process
	// has the disk open in this way.
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_DIRECT|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dev, Err: err}
	}
	d := &Disk{fd: fd, idle: make(chan struct{}, diskproto.Slots)}
	for i := range diskproto.Slots {
		(&Slot{disk: d, offset: int64(i) * diskproto.SlotSize}).Release()
	}
	return d, nil
}

// find returns the disk's device.
func find(block string) (string, error) {
	files, _ := filepath.Glob(block + "/*/serial")
	for _, file := range files {
		serial, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(serial)) == diskproto.Serial {
			return "/dev/" + filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", ErrNone
}

// Close closes the disk and frees the memory of its slots. It waits until no slot is in use.
func (d *Disk) Close() error {
	for range diskproto.Slots {
		if s := d.Slot(); s.buffer != nil {
			unix.Munmap(s.buffer)
		}
	}
	return unix.Close(d.fd)
}

// A Slot carries one request at a time.
type Slot struct {
	disk   *Disk
	offset int64
	buffer []byte // page-aligned, as O_DIRECT needs it
}

// Slot waits for a free slot. The caller releases it.
func (d *Disk) Slot() *Slot {
	<-d.idle
	d.mu.Lock()
	defer d.mu.Unlock()
	last := len(d.free) - 1
	s := d.free[last]
	d.free = d.free[:last]
	return s
}

// Release gives the slot back. The answer of its last Call is invalid from then on.
func (s *Slot) Release() {
	d := s.disk
	d.mu.Lock()
	d.free = append(d.free, s)
	d.mu.Unlock()
	d.idle <- struct{}{}
}

// Payload returns n bytes for the payload of the next request. It contains the answer to the last request, or
// a part of it.
func (s *Slot) Payload(n int) ([]byte, error) {
	if n > diskproto.MaxPayload {
		return nil, fmt.Errorf("disk: a payload of %d bytes: the limit is %d", n, diskproto.MaxPayload)
	}
	if err := s.grow(diskproto.Padded(n)); err != nil {
		return nil, err
	}
	return s.buffer[diskproto.HeaderSize:][:n], nil
}

// smallest is the least size in bytes of a slot's buffer.
const smallest = 64 << 10

func (s *Slot) grow(size int) error {
	if size <= len(s.buffer) {
		return nil
	}
	if size > smallest {
		size = diskproto.SlotSize
	}
	b, err := unix.Mmap(-1, 0, max(size, smallest), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("disk: memory for a slot: %w", os.NewSyscallError("mmap", err))
	}
	if s.buffer != nil {
		copy(b, s.buffer)
		unix.Munmap(s.buffer)
	}
	s.buffer = b
	return nil
}

// An Error is a request's failure on the host.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// ErrNoChannel says that the harness has closed the channel, or that the machine was restored since the
// channel was opened.
var ErrNoChannel = errors.New("the harness has closed the channel, or the machine was restored")

// Call sends a request with the first n bytes of Payload to a channel and returns the answer, which is valid
// until the next call of Payload, Call or Release. Expect is the length in bytes that the answer probably has:
// a longer answer takes one more transfer. The error is an *Error if the harness's handler has failed.
func (s *Slot) Call(channel uint32, n, expect int) ([]byte, error) {
	h := diskproto.Header{Number: s.disk.number.Add(1), Channel: channel, Length: n}
	size, ask := diskproto.Padded(n), diskproto.Padded(min(expect, diskproto.MaxPayload))
	if err := s.grow(max(size, ask)); err != nil {
		return nil, err
	}
	h.Put(s.buffer)
	clear(s.buffer[diskproto.HeaderSize+n : size])
	if err := s.transfer(unix.Pwrite, 0, size); err != nil {
		return nil, fmt.Errorf("disk: write a request: %w", err)
	}
	answer := diskproto.Header{Status: diskproto.Pending}
	for answer.Status == diskproto.Pending {
		if err := s.transfer(unix.Pread, 0, ask); err != nil {
			return nil, fmt.Errorf("disk: read an answer: %w", err)
		}
		if [diskproto.HeaderSize]byte(s.buffer) == ([diskproto.HeaderSize]byte{}) {
			return nil, ErrNoChannel // the slot has no request
		}
		var err error
		if answer, err = diskproto.ParseHeader(s.buffer); err != nil {
			return nil, fmt.Errorf("disk: an answer: %w", err)
		}
		if answer.Number != h.Number {
			return nil, fmt.Errorf("disk: an answer to request %d instead of %d", answer.Number, h.Number)
		}
	}
	if whole := diskproto.Padded(answer.Length); whole > ask {
		if err := s.grow(whole); err != nil {
			return nil, err
		}
		if err := s.transfer(unix.Pread, ask, whole); err != nil {
			return nil, fmt.Errorf("disk: read an answer: %w", err)
		}
	}
	payload := s.buffer[diskproto.HeaderSize:][:answer.Length]
	switch answer.Status {
	case diskproto.Done:
		return payload, nil
	case diskproto.NoChannel:
		return nil, ErrNoChannel
	default:
		return nil, &Error{string(payload)}
	}
}

// transfer reads or writes the slot from one offset to another.
func (s *Slot) transfer(do func(fd int, b []byte, offset int64) (int, error), from, to int) error {
	for from < to {
		n, err := do(s.disk.fd, s.buffer[from:to], s.offset+int64(from))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errors.New("the disk has ended")
		default:
			from += n
		}
	}
	return nil
}
