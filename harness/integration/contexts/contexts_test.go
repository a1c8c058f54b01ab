// Package contexts holds the tests for the promise that every exported call with a context
// ends with it, whatever it waits for: a QEMU that stands still, a guest that does, a serial
// port that takes nothing, a lock of another process, a program that hangs, a peer that is
// silent.
//
// Nothing here depends on the target; arm64 boots soonest.
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

// TestMain fails the run when a goroutine or a process is left of a call that was given up.
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

// All that is tried has a row in one of these tables.
var tables = [][]string{names(ofMachines), names(ofBoots), names(ofImages), names(ofTraffic), names(ofTests)}

// A row is a call that is to end with its context.
type row[On any] struct {
	name string // as exported finds it
	call func(context.Context, On) error

	// What it says where there is nothing to wait for, by the state; "" is success, which a
	// busy host may let come too late.
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
			have[name] = true
		}
	}
	for _, name := range exported(t, "harness", "harness/console", "harness/harnesstest", "host/traffic", "images") {
		if !have[name] {
			t.Errorf("%s may wait: add a row that shows that it ends with its context", name)
		}
		delete(have, name)
	}
	require.Empty(t, have, "there is no such function any more")
}

// exported returns the exported functions of packages, and the methods of their exported types,
// that take a context, and the methods of harnesstest.Machine that bring a context of their own.
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

// bringsContext reports whether a method calls harnesstest.Machine.do, which bounds what it waits for.
func bringsContext(f *ast.FuncDecl) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		s, ok := call.Fun.(*ast.SelectorExpr)
		found = found || ok && s.Sel.Name == "do"
		return true
	})
	return found
}

var errEnough = errors.New("enough")

const (
	lasts  = 300 * time.Millisecond // a context, by then a call waits
	margin = 10 * time.Second       // after its end; what does not end with it would wait for much longer
)

// try calls a row's function in a state and checks that it ends with its context, or has
// nothing to wait for there.
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
		t.Fatalf("%s does not end with its context where %s", r.name, state)
	}
	says, atOnce := r.atOnce[state]
	switch {
	case atOnce && says == "" && err == nil:
	case !atOnce || says == "":
		require.ErrorIs(t, err, errEnough, "%s where %s", r.name, state)
	default:
		require.ErrorContains(t, err, says, "%s where %s", r.name, state)
	}
}
