package template

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/regular"
)

// copySparse copies the file of a machine's memory or disk to a new file, with holes for blocks of zeros. It
// fails when ctx ends.
func copySparse(ctx context.Context, file string, src *os.File) (File, error) {
	info, err := src.Stat()
	if err != nil {
		return File{}, err
	}
	dst, err := createPrivate(file)
	if err != nil {
		return File{}, err
	}
	defer dst.Close()
	if err := dst.Truncate(info.Size()); err != nil {
		return File{}, err
	}
	sums, err := sumBlocks(ctx, src, info.Size(), func(at int64, block []byte) error {
		_, err := dst.WriteAt(block, at)
		return err
	})
	if err != nil {
		return File{}, err
	}
	stat, err := regular.StateOf(dst)
	return File{stat, sums.String()}, err
}

// LoadRAM copies the memory of a template from src to dst, a file of zeros. It fails when ctx ends.
func LoadRAM(ctx context.Context, dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	return inSegments(ctx, info.Size(), func(from, to int64) error {
		return dataBlocks(src, from, to, func(at int64, block []byte) error {
			_, err := dst.WriteAt(block, at)
			return err
		})
	})
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// blockSums holds what is known of each block of a file.
type blockSums []blockSum

type blockSum struct {
	data bool   // the block holds a byte other than zero
	crc  uint32 // CRC-32C
}

func newBlockSums(size int64) blockSums { return make(blockSums, (size+blockSize-1)/blockSize) }

// set notes the content of the block at an offset. Goroutines may set different blocks at once.
func (s blockSums) set(at int64, block []byte) {
	s[at/blockSize] = blockSum{data: !isZero(block), crc: crc32.Checksum(block, castagnoli)}
}

// String returns, in hexadecimal, the SHA-256 of the offsets and the CRC-32C of the blocks with data. The
// checksum finds damage. It need not resist a forger, who could also change the description of the template,
// and a SHA-256 of all bytes takes longer than all other steps of a save together.
func (s blockSums) String() string {
	h := sha256.New()
	for i, sum := range s {
		if sum.data {
			record := binary.BigEndian.AppendUint64(nil, uint64(i)*blockSize)
			h.Write(binary.BigEndian.AppendUint32(record, sum.crc)) // A hash does not fail.
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sumBlocks calls use, which may be nil, for each block of a file that holds a byte other than zero, on
// several goroutines, and returns the checksums of all blocks.
func sumBlocks(ctx context.Context, f *os.File, size int64, use func(at int64, block []byte) error) (blockSums, error) {
	sums := newBlockSums(size)
	err := inSegments(ctx, size, func(from, to int64) error {
		return dataBlocks(f, from, to, func(at int64, block []byte) error {
			sums.set(at, block)
			if use == nil {
				return nil
			}
			return use(at, block)
		})
	})
	return sums, err
}

const (
	blockSize   = 64 << 10
	segmentSize = 4 << 20
)

// inSegments calls f for each segment of a file's size, on as many goroutines as there are processors. It
// fails when ctx ends.
func inSegments(ctx context.Context, size int64, f func(from, to int64) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for from := int64(0); from < size; from += segmentSize {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return f(from, min(size, from+segmentSize))
		})
	}
	return g.Wait()
}

// dataBlocks calls f for each block of a part of a file that holds a byte other than zero. The part begins
// at a multiple of the size of a block.
func dataBlocks(file *os.File, from, to int64, f func(at int64, block []byte) error) error {
	buf := make([]byte, blockSize)
	for at := from; at < to; at += blockSize {
		data, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // The rest is a hole.
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		at = data / blockSize * blockSize
		if at >= to {
			return nil
		}
		n, err := file.ReadAt(buf[:min(blockSize, to-at)], at)
		if err != nil {
			return err
		}
		if isZero(buf[:n]) {
			continue
		}
		if err := f(at, buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

func isZero(block []byte) bool {
	for len(block) >= 8 {
		if binary.NativeEndian.Uint64(block) != 0 {
			return false
		}
		block = block[8:]
	}
	for _, b := range block {
		if b != 0 {
			return false
		}
	}
	return true
}
