package socketservice

import "runtime"

// goid returns the number of the calling goroutine.
//
// Go hides the number so that programs do not attach state to goroutines. This
// package needs it to answer one question that has no other answer: whether the
// caller of Unregister is the handler for which Unregister would wait, and so would
// wait for ever. It asks only while such a handler runs, and that costs about a
// microsecond.
func goid() uint64 {
	const prefix = len("goroutine ")
	var buf [64]byte
	n := runtime.Stack(buf[:], false)
	var id uint64
	for i := prefix; i < n && '0' <= buf[i] && buf[i] <= '9'; i++ {
		id = id*10 + uint64(buf[i]-'0')
	}
	return id
}
