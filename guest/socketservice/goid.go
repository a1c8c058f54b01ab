package socketservice

import "runtime"

// goid returns the number of the calling goroutine.
//
// Go hides it to keep programs from hanging state on goroutines. Here it
// decides one question that has no other answer: whether Unregister is called
// by the very handler that it would otherwise wait for, and hence would wait
// for forever. It is asked only while such a handler runs, and costs about a
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
