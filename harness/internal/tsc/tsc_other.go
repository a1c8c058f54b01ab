//go:build !amd64

package tsc

const available = false

func count() uint64 { panic("no time-stamp counter") }
