package socketservice

// A table is a slice that grows without moving what it holds, so that pointers
// into it stay good, and without leaving the outgrown memory behind: that would
// be several times the price of an idle service.
type table[T any] struct {
	chunks []*[chunk]T
}

// chunk is such that one of slots, services, watches, counters or definitions and
// the header that the allocator adds fill a size class: 4, 6, 4, 6 and 10 KiB.
const chunk = 254

func (t *table[T]) at(i uint32) *T { return &t.chunks[i/chunk][i%chunk] }

// reach makes room for index i.
func (t *table[T]) reach(i uint32) {
	for int(i/chunk) >= len(t.chunks) {
		t.chunks = append(t.chunks, nil)
	}
	if t.chunks[i/chunk] == nil {
		t.chunks[i/chunk] = new([chunk]T)
	}
}

// find returns the element, or nil if nothing reached its chunk.
func (t *table[T]) find(i uint32) *T {
	if int(i/chunk) >= len(t.chunks) || t.chunks[i/chunk] == nil {
		return nil
	}
	return t.at(i)
}
