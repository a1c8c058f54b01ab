// Package guesthouse has no code: it holds the rules for the packages below it.
package guesthouse

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "guesthouse.example/"

// A rule says which packages of this module the packages of a folder may
// import. The rule with the longest folder that fits a package counts.
var rules = []struct {
	folder  string
	imports string // folders, or "" for none of this module
	std     bool   // nothing from outside the standard library either
}{
	{folder: "internal"},
	{folder: "docs/draw", imports: "internal/svg"},
	{folder: "internal/apart", imports: "internal/tied"},
	{folder: "internal/leash", imports: "internal/sys"},
	{folder: "internal/board", imports: "internal/target"},
	{folder: "internal/store", imports: "internal/sys"},
	{folder: "internal/imagecache", imports: "internal/regular internal/store internal/sys internal/testcache"},
	{folder: "internal/kernelfile", imports: "internal/regular internal/target"},
	{folder: "guest", imports: "guest internal/diskproto internal/filetree internal/initramfs internal/wire internal/subnet"},
	{folder: "host/traffic", std: true},
	{folder: "host/echotest", imports: "host/traffic", std: true},
	{folder: "images", imports: "images internal"},
	{folder: "images/testdata", imports: ""},
	{folder: "harness", imports: "internal harness/internal harness/console"},
	{folder: "harness/console", imports: "harness/internal/crash harness/internal/guestfault harness/internal/termtext harness/internal/until"},
	{folder: "harness/internal", imports: "internal harness/internal harness/console"},
	// What joins the parts.
	{folder: "harness/harnesstest", imports: "internal harness images"},
	{folder: "harness/harnesstest/testdata", imports: "guest"},
	{folder: "harness/harnesstest/example", imports: "guest"},
	{folder: "harness/integration", imports: "internal harness images host"},
	{folder: "harness/integration/guests", imports: "guest"},
	{folder: "harness/internal/verdict", imports: "internal harness"},
	{folder: "harness/internal/scenario", imports: "internal harness host/traffic"},
	{folder: "harness/internal/cli", imports: "internal harness images host"},
	{folder: "harness/cmd/guesthouse", imports: "harness/internal/cli"},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestPackagesImportOnlyWhatTheirPlaceAllows(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == strings.TrimSuffix(module, "/") {
			continue // this one
		}
		found := -1
		for i, r := range rules {
			if within(name, r.folder) && (found < 0 || len(r.folder) > len(rules[found].folder)) {
				found = i
			}
		}
		if !assertFound(t, found, name) {
			continue
		}
		r := rules[found]
		for _, imported := range p.Imports {
			own, isOwn := strings.CutPrefix(imported, module)
			switch {
			case !isOwn && r.std && strings.Contains(strings.Split(imported, "/")[0], "."):
				t.Errorf("%s imports %s: only the standard library is allowed there", name, imported)
			case isOwn && !withinAny(own, strings.Fields(r.imports)):
				t.Errorf("%s imports %s: only %q are allowed there", name, own, r.imports)
			}
		}
	}
}

func assertFound(t *testing.T, found int, name string) bool {
	if found < 0 {
		t.Errorf("no rule says what %s may import: add one", name)
	}
	return found >= 0
}

func within(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}

func withinAny(name string, folders []string) bool {
	for _, f := range folders {
		if within(name, f) {
			return true
		}
	}
	return false
}

func packages(t *testing.T) (all []pkg) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		all = append(all, p)
	}
	require.NotEmpty(t, all)
	return all
}
