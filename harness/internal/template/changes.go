package template

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/regular"
)

// A baseCopy is the copy of a template's memory, on its way into the memory of another template.
type baseCopy struct {
	stop context.CancelFunc
	done chan struct{} // closed when the copy is complete, or never will be

	// These are set before done is closed.
	file *os.File
	sums blockSums
	err  error
}

// BeginRAM begins to copy the memory of the template from which a machine was restored, while the machine
// runs. Only what the machine has changed is then left to CopyChanges. The caller may close the file when
// BeginRAM returns. A second call does nothing.
func (w *Writer) BeginRAM(saved *os.File) {
	if w.base != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &baseCopy{stop: stop, done: make(chan struct{})}
	w.base = b
	fd, err := unix.FcntlInt(saved.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		b.err = os.NewSyscallError("fcntl", err)
		close(b.done)
		return
	}
	from := os.NewFile(uintptr(fd), saved.Name())
	go func() {
		defer close(b.done)
		defer from.Close()
		b.err = b.copy(ctx, filepath.Join(w.dir, ramName), from)
	}()
}

// copy copies on one goroutine, because the machine needs the other processors.
func (b *baseCopy) copy(ctx context.Context, name string, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if b.file, err = createPrivate(name); err != nil {
		return err
	}
	if err := b.file.Truncate(info.Size()); err != nil {
		return err
	}
	b.sums = newBlockSums(info.Size())
	return dataBlocks(from, 0, info.Size(), func(at int64, block []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return b.write(at, block)
	})
}

// CopyChanges copies the memory of the stopped machine to where BeginRAM has copied that of its template. It
// writes only what differs. It fails when ctx ends.
func (w *Writer) CopyChanges(ctx context.Context, ram *os.File) error {
	b := w.base
	select {
	case <-b.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if b.err != nil {
		return b.err
	}
	info, err := ram.Stat()
	if err != nil {
		return err
	}
	err = inSegments(ctx, info.Size(), func(from, to int64) error { return b.update(ram, from, to) })
	if err != nil {
		return err
	}
	stat, err := regular.StateOf(b.file)
	w.ram = File{stat, b.sums.String()}
	return err
}

// update copies the blocks of a part of the memory that differ.
func (b *baseCopy) update(ram *os.File, from, to int64) error {
	seen := make([]bool, (to-from)/blockSize+1)
	was := make([]byte, blockSize)
	err := dataBlocks(ram, from, to, func(at int64, block []byte) error {
		seen[(at-from)/blockSize] = true
		if !b.sums[at/blockSize].data {
			return b.write(at, block)
		}
		old := was[:len(block)]
		if _, err := b.file.ReadAt(old, at); err != nil || bytes.Equal(old, block) {
			return err
		}
		return b.write(at, block)
	})
	for at := from; err == nil && at < to; at += blockSize {
		if b.sums[at/blockSize].data && !seen[(at-from)/blockSize] {
			err = b.write(at, make([]byte, min(blockSize, to-at))) // the machine has cleared it
		}
	}
	return err
}

// write notes and writes the block at an offset.
func (b *baseCopy) write(at int64, block []byte) error {
	b.sums.set(at, block)
	_, err := b.file.WriteAt(block, at)
	return err
}

// Stop ends the copy that BeginRAM has begun. The template's memory is complete if CopyChanges has returned
// without an error.
func (w *Writer) Stop() {
	if w.base == nil {
		return
	}
	w.base.stop()
	<-w.base.done
	if w.base.file != nil {
		w.base.file.Close()
	}
}
