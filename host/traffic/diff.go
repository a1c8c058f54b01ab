package traffic

import (
	"bytes"
	"fmt"
	"slices"
)

// difference describes how got differs from sent.
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

// excerpt returns at most 8 bytes from an offset. That is enough to recognise data that
// overwrote the payload.
func excerpt(b []byte, at int) []byte { return b[at:min(at+8, len(b))] }

func equalBytes(a, b []byte) (n int) {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			n++
		}
	}
	return n
}

// nearest returns the index of the candidate from which got most likely comes, or -1
// if got resembles none. It chooses the candidate with the largest share of equal
// bytes if the share is at least half. Otherwise it chooses a candidate that begins
// with got, then the longest candidate with which got begins, then the first
// candidate of the same length.
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
