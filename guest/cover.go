package guest

import (
	"os"
	"runtime/coverage"
)

// writeCoverage writes what has run of the program so far, if the program was built with -cover, into the
// directory from which init sends it to the harness.
func writeCoverage() {
	dir := os.Getenv("GOCOVERDIR")
	if coverage.WriteMetaDir(dir) == nil { // otherwise the program was built without -cover
		coverage.WriteCountersDir(dir)
	}
}
