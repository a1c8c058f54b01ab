// Package qcow2 makes empty disk images in QEMU's format qcow2, and reads the header of others, so that the
// harness needs no qemu-img. QEMU itself reads and writes what the images hold.
//
// Source of the format: docs/interop/qcow2.txt of QEMU.
package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Magic are the first bytes of an image.
const Magic = "QFI\xfb"

const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	headerSize  = 104
	entrySize   = 8                                     // of a table, in bytes
	perL1Entry  = clusterSize / entrySize * clusterSize // bytes of the disk that an entry of the first table stands for
)

// MaxSize is the largest disk that Empty makes, in bytes: its tables fit into what one block of reference
// counts describes, and QEMU accepts no larger first table.
const MaxSize = 1 << 44

// Empty returns an image of a disk of zeros. The size is in bytes and a multiple of 512. QEMU may be told
// another image as its backing file: the disk then has that image's content.
func Empty(size int64) []byte {
	entries := (size + perL1Entry - 1) / perL1Entry
	tables := (entries*entrySize + clusterSize - 1) / clusterSize
	// The clusters are: the header, the table of reference counts, a block of them, and the first table.
	const countTable, countBlock, firstTable = 1, 2, 3
	clusters := firstTable + max(1, tables)
	image := make([]byte, clusters*clusterSize)
	put32, put64 := binary.BigEndian.PutUint32, binary.BigEndian.PutUint64
	copy(image, Magic)
	put32(image[4:], 3) // the version
	put32(image[20:], clusterBits)
	put64(image[24:], uint64(size))
	put32(image[36:], uint32(entries))
	put64(image[40:], firstTable*clusterSize)
	put64(image[48:], countTable*clusterSize)
	put32(image[56:], 1) // the clusters of the table of reference counts
	put32(image[96:], 4) // a reference count has 1<<4 bits
	put32(image[100:], headerSize)
	put64(image[countTable*clusterSize:], countBlock*clusterSize)
	for i := range clusters {
		binary.BigEndian.PutUint16(image[countBlock*clusterSize+2*i:], 1)
	}
	return image
}

// Size reads the header of an image and returns the size of its disk in bytes. It refuses an image that
// names other files, which QEMU would open too: a backing file or a file of data.
func Size(r io.ReaderAt) (int64, error) {
	var header [headerSize]byte
	if n, err := r.ReadAt(header[:], 0); n < 72 {
		if err == io.EOF {
			err = errors.New("it is too short")
		}
		return 0, fmt.Errorf("not an image in format qcow2: %w", err)
	}
	if string(header[:4]) != Magic {
		return 0, errors.New("not an image in format qcow2: it does not begin with the magic bytes")
	}
	version := binary.BigEndian.Uint32(header[4:])
	if version != 2 && version != 3 {
		return 0, fmt.Errorf("qcow2 of version %d: only 2 and 3 are known", version)
	}
	if binary.BigEndian.Uint64(header[8:]) != 0 {
		return 0, errors.New("the image has a backing file: copy it into one file with: qemu-img convert -O qcow2 OLD NEW")
	}
	const externalData = 1 << 2 // of the incompatible features
	if version == 3 && binary.BigEndian.Uint64(header[72:])&externalData != 0 {
		return 0, errors.New("the image keeps its data in another file: copy it into one file with: qemu-img convert -O qcow2 OLD NEW")
	}
	size := int64(binary.BigEndian.Uint64(header[24:]))
	if size <= 0 || size > MaxSize {
		return 0, fmt.Errorf("qcow2 of a disk of %d bytes", size)
	}
	return size, nil
}
