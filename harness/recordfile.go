package harness

import "sync"

// A recordFile is a log of a record. It keeps what is written to it in memory until it is opened.
//
// Whoever writes is not told that a file cannot be written: guest and QEMU go on, and the
// record's owner hears of it. The file then ends with what was written before.
type recordFile struct {
	mu     sync.Mutex
	kept   []byte
	file   *boundedFile
	failed func(error) // called for the first write that fails
	ended  bool        // by it
}

// mostKept bounds what a prefetched machine, whose record is in memory, may have said: bytes in
// each file. The rest is lost.
const mostKept = 1 << 20

func (f *recordFile) Write(text []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		f.kept = append(f.kept, text[:min(len(text), mostKept-len(f.kept))]...)
	} else if !f.ended {
		if _, err := f.file.Write(text); err != nil {
			f.ended = true
			f.failed(err)
		}
	}
	return len(text), nil
}

func (f *recordFile) open(name string) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := createPrivate(name)
	if err != nil {
		return err
	}
	f.file = &boundedFile{file: file, max: mostLog}
	_, err = f.file.Write(f.kept)
	f.kept = nil
	return err
}

// inMemory returns what was written to it before it is opened; nil afterwards.
func (f *recordFile) inMemory() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		return nil
	}
	return append([]byte{}, f.kept...)
}

func (f *recordFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return
	}
	// Some file systems say only now that there was no room.
	if err := f.file.Close(); err != nil && !f.ended {
		f.failed(err)
	}
	f.ended = true
}
