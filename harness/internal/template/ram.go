package template

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/regular"
)

// copySparse copies the file of a machine's memory or disk to a new file, with holes for blocks of zeros. It fails when ctx
// ends.
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
	h := sha256.New()
	hash := hashBlock(h)
	if err := dataBlocks(src, info.Size(), func(at int64, block []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		hash(at, block)
		_, err := dst.WriteAt(block, at)
		return err
	}); err != nil {
		return File{}, err
	}
	stat, err := regular.StateOf(dst)
	return File{stat, hex.EncodeToString(h.Sum(nil))}, err
}

// LoadRAM copies the memory of a template from src to dst, a file of zeros. It fails when ctx ends.
func LoadRAM(ctx context.Context, dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	return dataBlocks(src, info.Size(), func(at int64, block []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, err := dst.WriteAt(block, at)
		return err
	})
}

// hashBlock returns a function that writes a block and its offset to a hash. The offsets make the hash
// depend on the blocks of zeros, which are not hashed.
func hashBlock(h io.Writer) func(int64, []byte) error {
	return func(at int64, block []byte) error {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(at))) // A hash does not fail.
		h.Write(block)
		return nil
	}
}

const blockSize = 64 << 10

// dataBlocks calls f for each block of a file that holds a byte other than zero.
func dataBlocks(file *os.File, size int64, f func(at int64, block []byte) error) error {
	buf := make([]byte, blockSize)
	for at := int64(0); at < size; at += blockSize {
		data, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // The rest is a hole.
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		at = data / blockSize * blockSize
		n, err := file.ReadAt(buf[:min(blockSize, size-at)], at)
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

// hashSparse returns the SHA-256 of a file that copySparse wrote, in hexadecimal.
func hashSparse(f *os.File, size int64) (string, error) {
	h := sha256.New()
	if err := dataBlocks(f, size, hashBlock(h)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
