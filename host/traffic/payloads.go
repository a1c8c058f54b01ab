package traffic

import (
	"encoding/binary"
	"math/rand/v2"
)

// maxPayload is the largest UDP payload of an unfragmented IPv4 packet on Ethernet:
// 1,500 bytes less 20 of IP and 8 of UDP. IPv6 fragments it.
const maxPayload = 1472

// Payloads returns the payloads of Zephyr's echo-client (net-tools, echo-client.c)
// in sizes that fit one Ethernet frame: one byte, a NUL byte, the 256 byte values,
// lorem ipsum of 500 and of 1,400 bytes, 1,472 bytes, and 16 payloads of random
// lengths from 1 to 1,472, as with its option -r. Echo-client cuts its random
// payloads from one text. These have random contents, so that no payload can pass
// for another. Equal seeds give equal payloads.
func Payloads(seed uint64) [][]byte {
	values := make([]byte, 256)
	for i := range values {
		values[i] = byte(i + 1)
	}
	random := source(seed)
	list := [][]byte{
		{'A'},
		{0},
		values,
		lorem(0, 500),
		lorem(124, 1400), // from the second sentence, so that the shorter text is no prefix of it
		read(random, maxPayload),
	}
	for range 16 {
		list = append(list, read(random, 1+int(random.Uint64()%maxPayload)))
	}
	return list
}

// Bytes returns n random bytes, the same for the same seed: a payload for a
// long stream.
func Bytes(seed uint64, n int) []byte { return read(source(seed), n) }

func source(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

func read(random *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	random.Read(b) // never fails
	return b
}

const loremIpsum = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut " +
	"labore et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut " +
	"aliquip ex ea commodo consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum " +
	"dolore eu fugiat nulla pariatur. Excepteur sint occaecat cupidatat non proident, sunt in culpa qui officia " +
	"deserunt mollit anim id est laborum. "

// lorem returns n bytes of the endless repetition of the text, from an offset.
func lorem(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = loremIpsum[(from+i)%len(loremIpsum)]
	}
	return b
}
