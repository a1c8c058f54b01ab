// Package contexts tests that every exported call with a context returns when the context ends,
// whatever the call waits for: a stopped QEMU, a guest that hangs, a full serial port, a lock of
// another process, a program that hangs, a silent peer.
//
// The target makes no difference here. The tests use arm64, which boots with the least work.
package contexts

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/sys"
)

const target = "arm64"

// TestMain fails the run if a cancelled call leaves a goroutine or a process behind.
func TestMain(m *testing.M) {
	code := m.Run()
	harnesstest.EndPrefetched()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if left := sys.Children(os.Getpid()); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "processes left behind: %v\n", left)
		code = 1
	}
	os.Exit(code)
}

// Every call that is tried has a row in one of these tables.
var tables = [][]string{names(ofMachines), names(ofBoots), names(ofImages), names(ofTraffic), names(ofTests)}

// A row is a call that must end with its context.
type row[On any] struct {
	name string // as exported finds it, and after a space what distinguishes it from another row
	call func(context.Context, On) error

	// The error of the call in the states in which it has nothing to wait for. It is "" for success,
	// but on a busy host the context may end first.
	atOnce map[string]string
}

func names[On any](rows []row[On]) (all []string) {
	for _, r := range rows {
		all = append(all, r.name)
	}
	return all
}

func TestEveryCallWithAContextHasARow(t *testing.T) {
	have := make(map[string]bool)
	for _, table := range tables {
		for _, name := range table {
			function, _, _ := strings.Cut(name, " ")
			have[function] = true
		}
	}
	for _, name := range exported(t, "harness", "harness/console", "harness/harnesstest", "host/traffic", "images", "internal/imagecache") {
		if !have[name] {
			t.Errorf("%s may wait: add a row that tries it", name)
		}
		delete(have, name)
	}
	require.Empty(t, have, "these functions do not exist")
}

// exported returns the exported functions of packages, and the methods of their exported types, that
// take a context. It also returns the methods of harnesstest.Machine that wait with a context of their
// own.
func exported(t *testing.T, dirs ...string) (found []string) {
	t.Helper()
	for _, dir := range dirs {
		files, err := filepath.Glob("../../../" + dir + "/*.go")
		require.NoError(t, err)
		before := len(found)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			require.NoError(t, err)
			for _, d := range source.Decls {
				f, isFunc := d.(*ast.FuncDecl)
				if !isFunc || !f.Name.IsExported() || !takesContext(f) && !bringsContext(f) {
					continue
				}
				name := source.Name.Name + "."
				if f.Recv != nil {
					receiver := f.Recv.List[0].Type
					if star, ok := receiver.(*ast.StarExpr); ok {
						receiver = star.X
					}
					id, ok := receiver.(*ast.Ident)
					if !ok || !id.IsExported() {
						continue
					}
					name += id.Name + "."
				}
				found = append(found, name+f.Name.Name)
			}
		}
		require.Greater(t, len(found), before, "%s has none?", dir)
	}
	return found
}

func takesContext(f *ast.FuncDecl) bool {
	for _, p := range f.Type.Params.List {
		if s, ok := p.Type.(*ast.SelectorExpr); ok && s.Sel.Name == "Context" {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "context" {
				return true
			}
		}
	}
	return false
}

// bringsContext reports whether a function calls do or output of a type of harnesstest, which bring a
// context.
func bringsContext(f *ast.FuncDecl) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		s, ok := call.Fun.(*ast.SelectorExpr)
		found = found || ok && (s.Sel.Name == "do" || s.Sel.Name == "output")
		return true
	})
	return found
}

var errEnough = errors.New("enough")

const (
	lasts  = 150 * time.Millisecond // how long a context lives; by then, the call is waiting
	margin = 10 * time.Second       // how long the call may take to return then; a call that ignores its context waits much longer
)

// try makes a row's call in a state. It requires that the call ends with its context, or returns at
// once if it has nothing to wait for in that state.
func try[On any](t *testing.T, r row[On], state string, on On) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), lasts, errEnough)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.call(ctx, on) }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(lasts + margin):
		t.Fatalf("%s does not end with its context: %s", r.name, state)
	}
	says, atOnce := r.atOnce[state]
	switch {
	case atOnce && says == "" && err == nil:
	case !atOnce || says == "":
		require.ErrorIs(t, err, errEnough, "%s: %s", r.name, state)
	default:
		require.ErrorContains(t, err, says, "%s: %s", r.name, state)
	}
}
