package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/disk"
	"guesthouse.example/guest/internal/share"
	"guesthouse.example/internal/filetree"
	"guesthouse.example/internal/wire"
)

// bulk is the machine's disk. It is opened at its first use, and stays open.
type bulk struct {
	mu   sync.Mutex
	disk *disk.Disk
}

// Disk returns the machine's disk.
func (a *Agent) Disk() (*disk.Disk, error) { return a.bulk.open() }

// open returns the machine's disk.
func (b *bulk) open() (*disk.Disk, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	if b.disk == nil {
		b.disk, err = disk.Open()
	}
	return b.disk, err
}

// call answers a call of the harness on a goroutine of its own. The answer is dropped if another
// conversation has begun by then.
func (a *Agent) call(m wire.Message) error {
	var do func() ([]byte, error)
	switch m.Type {
	case wire.Look:
		r, err := wire.DecodeLookRequest(m.Payload)
		if err != nil {
			return err
		}
		do = func() ([]byte, error) { return look(r) }
	default:
		r, err := wire.DecodeCopyRequest(m.Payload)
		if err != nil {
			return err
		}
		do = func() ([]byte, error) {
			d, err := a.bulk.open()
			if err != nil {
				return nil, err
			}
			if m.Type == wire.CopyIn {
				return nil, copyIn(d, r)
			}
			return nil, copyOut(d, r)
		}
	}
	a.mu.Lock()
	talk := a.talk
	a.mu.Unlock()
	go func() {
		data, err := do()
		a.mu.Lock()
		defer a.mu.Unlock()
		for a.quiet {
			a.loud.Wait()
		}
		if a.talk == talk {
			a.harness.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: wire.Result{Err: err, Data: data}.Encode()})
		}
	}()
	return nil
}

// copyIn writes what a channel sends. It transfers a batch while it writes the one before.
func copyIn(d *disk.Disk, r wire.CopyRequest) (err error) {
	type batch struct {
		slot *disk.Slot
		data []byte
		err  error
	}
	batches := make(chan batch)
	stop := make(chan struct{})
	var transfers sync.WaitGroup
	transfers.Go(func() {
		defer close(batches)
		for expect := r.Expect; ; expect = filetree.MaxBatch {
			b := batch{slot: d.Slot()}
			b.data, b.err = b.slot.Call(r.Channel, 0, max(0, expect))
			last := b.err != nil || filetree.IsLast(b.data)
			select {
			case batches <- b:
			case <-stop:
				b.slot.Release()
				return
			}
			if last {
				return
			}
		}
	})
	to := filetree.NewReceiver(filetree.Destination{Path: r.Path, Name: r.Name, Exact: r.Exact})
	defer func() {
		close(stop)
		transfers.Wait()
		if left := to.Close(); left != nil && err != nil {
			err = fmt.Errorf("%w; %w", err, left)
		}
	}()
	for b := range batches {
		err := b.err
		if err == nil {
			err = to.Write(b.data)
		}
		b.slot.Release()
		if err != nil {
			return err
		}
		share.Collect()
	}
	if !to.Done() {
		return errors.New("the copy has ended too early")
	}
	return nil
}

// copyOut sends a file or a tree to a channel.
func copyOut(d *disk.Disk, r wire.CopyRequest) error {
	return filetree.Send(r.Path, func(batch []byte) error {
		defer share.Collect()
		s := d.Slot()
		defer s.Release()
		payload, err := s.Payload(len(batch))
		if err == nil {
			copy(payload, batch)
			_, err = s.Call(r.Channel, len(batch), 0)
		}
		return err
	})
}

// look describes or reads a file.
func look(r wire.LookRequest) ([]byte, error) {
	switch r.What {
	case wire.Lstat:
		info, err := os.Lstat(r.Path)
		if err != nil {
			return nil, err
		}
		return describe(info).Append(nil), nil
	case wire.ReadLink:
		target, err := os.Readlink(r.Path)
		return []byte(target), err
	}
	// A device or a named pipe might block, and its Open might do something.
	info, err := os.Stat(r.Path)
	if err != nil {
		return nil, err
	}
	switch {
	case r.What == wire.Stat:
		return describe(info).Append(nil), nil
	case r.What == wire.ReadDir && !info.IsDir():
		return nil, &fs.PathError{Op: "readdir", Path: r.Path, Err: syscall.ENOTDIR}
	case r.What == wire.ReadFile && info.IsDir():
		return nil, &fs.PathError{Op: "read", Path: r.Path, Err: syscall.EISDIR}
	case r.What == wire.ReadFile && !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: r.Path, Err: errors.New("not a regular file")}
	}
	if r.What == wire.ReadDir {
		return readDir(r)
	}
	f, err := os.OpenFile(r.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if opened, err := f.Stat(); err != nil || r.Inode != 0 && describe(opened).Inode != r.Inode {
		return nil, &fs.PathError{Op: "read", Path: r.Path, Err: syscall.ESTALE}
	}
	data := make([]byte, r.Length)
	n, err := f.ReadAt(data, r.Offset)
	if err == io.EOF {
		err = nil
	}
	return data[:n], err
}

// maxNames is the limit in bytes of the answer to ReadDir.
const maxNames = 512 << 10

// readDir returns a page of a directory's entries: those after the first r.Offset ones, in the order of
// their names.
func readDir(r wire.LookRequest) (page []byte, err error) {
	entries, err := os.ReadDir(r.Path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries[min(r.Offset, int64(len(entries))):] {
		info, err := e.Info()
		described := wire.FileInfo{Base: e.Name(), FMode: e.Type()}
		if err == nil {
			described = describe(info)
		} // otherwise it has just been removed
		if page = described.Append(page); len(page) > maxNames {
			break
		}
	}
	return page, nil
}

func describe(info fs.FileInfo) wire.FileInfo {
	d := wire.FileInfo{Base: info.Name(), Bytes: info.Size(), FMode: info.Mode(), Changed: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		d.Inode = uint64(st.Ino)
	}
	return d
}
