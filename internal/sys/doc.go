// Package sys asks the host's kernel about the host: its processes and their threads, its memory,
// its processors, its disks, and the identity of its current boot.
//
// It is for code that runs on the host and for the tests of that code, and not for guests. Each call
// reads the present state. A function with a last result ok returns false if the kernel does not
// report a value, and its caller does without the value. The package only measures. Its callers
// derive limits from the measurements, except for [CacheLimit], which all caches share.
package sys
