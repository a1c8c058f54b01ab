package tsc

const available = true

// count reads the counter.
func count() uint64
