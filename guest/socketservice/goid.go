package socketservice

import "runtime"

// goid returns the number of the calling goroutine.
//
// Go hides the number so that programs do not attach state to goroutines. This
// package needs it for one purpose: to detect that Unregister was called by the very
// handler for which it would wait, and so would wait forever. Nothing else tells. The
// package calls goid only while such a handler runs. A call takes about a microsecond.
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
