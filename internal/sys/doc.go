// Package sys asks the host's kernel about the host: its processes and their threads, its memory,
// its processors, its disks, and the identity of its current boot.
//
// It is for code that runs on the host and for the tests of that code; a guest has no use for it.
// Each call reads the present state, and each format of /proc is parsed in one place. A function
// whose last result is ok reports false if the kernel does not tell, and its caller goes on
// without the number. The package measures and never decides: a limit that follows from a
// measurement belongs to the caller, except [CacheLimit], which all caches share.
package sys
