package gotest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/modfile"
)

// Modules returns the directories that a test in dir may read: the root of the module around dir, and the
// other modules of its workspace. For a package of the standard library that is GOROOT. goWork is the value
// of the variable GOWORK. The result is empty if dir is not in a module. No directory lies in another one.
func Modules(dir, goWork string) ([]string, error) {
	root, err := enclosing(dir, "go.mod")
	if root == "" || err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	switch modfile.ModulePath(text) {
	case "std":
		return []string{filepath.Dir(root)}, nil // GOROOT/src
	case "cmd":
		return []string{filepath.Dir(filepath.Dir(root))}, nil // GOROOT/src/cmd
	}
	workspace, err := workspace(dir, goWork)
	if err != nil {
		return nil, err
	}
	roots := []string{root}
	if slices.Contains(workspace, root) {
		roots = workspace
	}
	return outermost(roots), nil
}

// enclosing returns the nearest directory at or above dir that holds a file of that name, or an empty string.
func enclosing(dir, name string) (string, error) {
	for {
		info, err := os.Stat(filepath.Join(dir, name))
		if err == nil && info.Mode().IsRegular() {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", nil
		}
		dir = parent
	}
}

// workspace returns the existing directories of the modules in the workspace of dir.
func workspace(dir, goWork string) (roots []string, err error) {
	file := goWork
	switch goWork {
	case "off":
		return nil, nil
	case "":
		parent, err := enclosing(dir, "go.work")
		if parent == "" || err != nil {
			return nil, err
		}
		file = filepath.Join(parent, "go.work")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	work, err := modfile.ParseWork(file, text, nil)
	if err != nil {
		return nil, fmt.Errorf("parse the workspace: %w", err)
	}
	for _, use := range work.Use {
		root := absolute(filepath.Dir(file), use.Path)
		if info, err := os.Stat(root); err == nil && info.IsDir() {
			roots = append(roots, root)
		}
	}
	return roots, nil
}

// outermost leaves out the directories that lie in another one.
func outermost(dirs []string) (all []string) {
	dirs = slices.Sorted(slices.Values(dirs)) // a directory comes before those in it
	for _, dir := range dirs {
		if !slices.ContainsFunc(all, func(outer string) bool { return within(dir, outer) }) {
			all = append(all, dir)
		}
	}
	return all
}
