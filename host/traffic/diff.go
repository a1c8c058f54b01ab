package traffic

import (
	"bytes"
	"fmt"
	"slices"
)

// difference says how got differs from what was sent.
func difference(sent, got []byte) string {
	at := firstDifference(sent, got)
	switch {
	case at == len(got):
		return fmt.Sprintf("truncated to the first %d of %d bytes", len(got), len(sent))
	case at == len(sent):
		return fmt.Sprintf("%d bytes after the %d sent, from % x", len(got)-len(sent), len(sent), excerpt(got, at))
	case len(sent) != len(got):
		return fmt.Sprintf("%d bytes for the %d sent, first difference at offset %d: sent % x, got % x",
			len(got), len(sent), at, excerpt(sent, at), excerpt(got, at))
	}
	return fmt.Sprintf("%d of %d bytes differ, first at offset %d: sent % x, got % x",
		len(sent)-equalBytes(sent, got), len(sent), at, excerpt(sent, at), excerpt(got, at))
}

// firstDifference returns the length of the common prefix.
func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// excerpt returns at most 8 bytes from an offset, enough to recognise what overwrote
// the payload.
func excerpt(b []byte, at int) []byte { return b[at:min(at+8, len(b))] }

func equalBytes(a, b []byte) (n int) {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			n++
		}
	}
	return n
}

// nearest returns the index of the candidate that got most likely comes from, or -1
// if it resembles none. In this order, it is the candidate with the largest share of
// equal bytes, if that is at least half; one that begins with got; the longest one
// that got begins with; or the first one of the same length.
func nearest(got []byte, candidates [][]byte) int {
	best, share := -1, 0.5
	for i, c := range candidates {
		s := float64(equalBytes(c, got)) / float64(max(len(c), len(got), 1))
		if s >= share && (best < 0 || s > share) {
			best, share = i, s
		}
	}
	if best >= 0 {
		return best
	}
	if i := slices.IndexFunc(candidates, func(c []byte) bool { return bytes.HasPrefix(c, got) }); i >= 0 {
		return i
	}
	for i, c := range candidates {
		if len(c) > 0 && bytes.HasPrefix(got, c) && (best < 0 || len(c) > len(candidates[best])) {
			best = i
		}
	}
	if best >= 0 {
		return best
	}
	return slices.IndexFunc(candidates, func(c []byte) bool { return len(c) == len(got) })
}
