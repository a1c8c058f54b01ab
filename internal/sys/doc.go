// Package sys asks the host's kernel about the host: its processes, its memory, its processors and
// its disks.
package sys
