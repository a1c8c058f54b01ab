package socketservice

// A table is a slice that grows without moving its elements. So pointers to elements stay
// valid, and growing leaves no garbage, which would cost several times the memory of an
// idle service.
type table[T any] struct {
	chunks []*[chunk]T
}

// chunk is the number of elements with which a chunk of slots, services, watches,
// counters or definitions, with the allocator's header, fills a size class: 4, 6, 4, 6
// and 10 KiB.
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

// find returns the element with index i, or nil if its chunk does not exist.
func (t *table[T]) find(i uint32) *T {
	if int(i/chunk) >= len(t.chunks) || t.chunks[i/chunk] == nil {
		return nil
	}
	return t.at(i)
}
