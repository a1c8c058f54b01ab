// Package govm runs an empty test with govmtest, the peer of "guesthouse exec" under go test.
package govm
