package guesthouse

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// A document is a Markdown file of the project.
type document struct {
	path  string
	text  string
	prose string // without its blocks of code
}

var codeBlocks = regexp.MustCompile("(?ms)^```.*?^```$")

// documents returns all Markdown files that git has or would add.
func documents(t *testing.T) (all []document) {
	out, err := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	require.NoError(t, err)
	for name := range strings.FieldsSeq(string(out)) {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // removed and not committed yet
		}
		require.NoError(t, err)
		all = append(all, document{name, string(text), codeBlocks.ReplaceAllString(string(text), "")})
	}
	require.Greater(t, len(all), 10)
	return all
}

func read(t *testing.T, file string) string {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

var links = regexp.MustCompile(`(?:\]\(|src="|srcset=")([^)":#]*)(#[^)"]*)?[)"]`)

// Every file, folder and heading to which a document links exists.
func TestDocumentsLinkToWhatExists(t *testing.T) {
	found := 0
	for _, doc := range documents(t) {
		for _, m := range links.FindAllStringSubmatch(doc.prose, -1) {
			if m[1] == "" && m[2] == "" {
				continue
			}
			target, heading := doc.path, strings.TrimPrefix(m[2], "#")
			if m[1] != "" {
				target = path.Join(path.Dir(doc.path), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which does not exist", doc.path, m[1])
				continue
			}
			if heading != "" && strings.HasSuffix(target, ".md") && !slices.Contains(headings(read(t, target)), heading) {
				t.Errorf("%s links to %s, which has no heading %q", doc.path, target, heading)
			}
			found++
		}
	}
	require.Greater(t, found, 100)
}

var headingLine = regexp.MustCompile(`(?m)^#+ (.*)$`)

// headings returns the anchors that a Markdown file's headings get.
func headings(text string) (anchors []string) {
	for _, m := range headingLine.FindAllStringSubmatch(codeBlocks.ReplaceAllString(text, ""), -1) {
		anchors = append(anchors, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1]))
	}
	return anchors
}

var spans = regexp.MustCompile("`([^`\n]+)`")

// history lists the documents that name things of the past.
var history = []string{"CHANGELOG.md"}

// Every path of the project that a document names exists.
func TestDocumentsNamePathsThatExist(t *testing.T) {
	top := regexp.MustCompile(`^(bench|ci|docs|guest|harness|host|images|internal|scripts)/[A-Za-z0-9_./*-]+$`)
	found := 0
	for _, doc := range documents(t) {
		if slices.Contains(history, doc.path) {
			continue
		}
		for _, m := range spans.FindAllStringSubmatch(doc.prose, -1) {
			if !top.MatchString(m[1]) {
				continue
			}
			found++
			if files, err := filepath.Glob(m[1]); err != nil || len(files) == 0 {
				t.Errorf("%s names %s, which does not exist", doc.path, m[1])
			}
		}
	}
	require.Greater(t, found, 10)
}

// Every identifier of ours that a document names, as harness.Boot or Spec.Ports, exists.
func TestDocumentsNameIdentifiersThatExist(t *testing.T) {
	exported, members := map[string]bool{}, map[string]bool{}
	packages := map[string]bool{}
	for _, dir := range []string{"guest", "guest/echo", "guest/socketservice", "guest/udpbatch", "harness", "harness/console", "harness/harnesstest", "host/traffic", "images"} {
		for _, file := range parsePackage(t, dir) {
			packages[file.Name.Name] = true
			for name, decls := range names(file) {
				exported[file.Name.Name+"."+name] = true
				for _, member := range decls {
					members[name+"."+member] = true
				}
			}
		}
	}
	types := map[string]bool{}
	for name := range members {
		typ, _, _ := strings.Cut(name, ".")
		types[typ] = true
	}
	identifier := regexp.MustCompile(`^([A-Za-z]+)\.([A-Z][A-Za-z0-9]*)(\(.*\)| = .*)?$`)
	found := 0
	for _, doc := range documents(t) {
		if slices.Contains(history, doc.path) {
			continue
		}
		for _, m := range spans.FindAllStringSubmatch(doc.prose, -1) {
			id := identifier.FindStringSubmatch(m[1])
			if id == nil || !packages[id[1]] && !types[id[1]] {
				continue
			}
			found++
			if name := id[1] + "." + id[2]; !exported[name] && !members[name] {
				t.Errorf("%s names %s, which does not exist", doc.path, name)
			}
		}
	}
	require.Greater(t, found, 50)
}

// parsePackage returns the files of a package, without its tests.
func parsePackage(t *testing.T, dir string) (files []*ast.File) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		files = append(files, file)
	}
	return files
}

// names returns a file's declarations, each with the fields and methods of its type.
func names(file *ast.File) map[string][]string {
	all := map[string][]string{}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				all[d.Name.Name] = append(all[d.Name.Name], "")
				continue
			}
			typ := d.Recv.List[0].Type
			if star, ok := typ.(*ast.StarExpr); ok {
				typ = star.X
			}
			if id, ok := typ.(*ast.Ident); ok {
				all[id.Name] = append(all[id.Name], d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					all[s.Name.Name] = append(all[s.Name.Name], fields(s.Type)...)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						all[id.Name] = append(all[id.Name], "")
					}
				}
			}
		}
	}
	return all
}

// fields returns the names of a type's fields, or of its methods if it is an interface.
func fields(typ ast.Expr) (all []string) {
	var list *ast.FieldList
	switch x := typ.(type) {
	case *ast.StructType:
		list = x.Fields
	case *ast.InterfaceType:
		list = x.Methods
	}
	if list == nil {
		return nil
	}
	for _, f := range list.List {
		for _, id := range f.Names {
			all = append(all, id.Name)
		}
	}
	return all
}

// Every make target that a document names exists.
func TestDocumentsNameMakeTargetsThatExist(t *testing.T) {
	makefile := read(t, "Makefile")
	found := 0
	for _, doc := range documents(t) {
		for _, m := range regexp.MustCompile("(?m)(?:`|^    |^| \\| )make ((?:[a-z][a-z-]* ?)+)").FindAllStringSubmatch(doc.text, -1) {
			name := strings.Fields(m[1])[0]
			found++
			if !regexp.MustCompile(`(?m)^` + name + `:`).MatchString(makefile) {
				t.Errorf("%s names make %s, which does not exist", doc.path, name)
			}
		}
	}
	require.Greater(t, found, 10)
}

// The tables of README.md and the reference have every variable that the tests of a user read, and no
// other.
func TestDocumentsListTheVariables(t *testing.T) {
	variable := regexp.MustCompile(`"(GUESTHOUSE_[A-Z]+)"`)
	var want []string
	for _, m := range variable.FindAllStringSubmatch(read(t, "harness/harnesstest/settings.go"), -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	want = slices.Compact(want)
	require.NotEmpty(t, want)
	for _, doc := range []string{"README.md", "docs/reference.md"} {
		var listed []string
		for _, m := range regexp.MustCompile("(?m)^\\| `(GUESTHOUSE_[A-Z]+)` \\|").FindAllStringSubmatch(read(t, doc), -1) {
			listed = append(listed, m[1])
		}
		slices.Sort(listed)
		require.Equal(t, want, listed, "%s: its table of variables", doc)
	}
}

// The reference has a row for every field of a Spec, a Disk and a Result.
func TestTheReferenceListsEveryField(t *testing.T) {
	all := map[string][]string{}
	for _, file := range parsePackage(t, "harness") {
		for name, members := range names(file) {
			all[name] = append(all[name], members...)
		}
	}
	reference := read(t, "docs/reference.md")
	for _, typ := range []string{"Spec", "Disk", "Share", "Result"} {
		_, section, ok := strings.Cut(reference, "\n## "+typ+"\n")
		require.True(t, ok, "a section %s", typ)
		section, _, _ = strings.Cut(section, "\n## ")
		var listed []string
		for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z][A-Za-z0-9]*)` \\|").FindAllStringSubmatch(section, -1) {
			listed = append(listed, m[1])
		}
		for _, member := range all[typ] {
			if isField(t, typ, member) && ast.IsExported(member) {
				require.Contains(t, listed, member, "the reference's table of %s", typ)
			}
		}
		for _, name := range listed {
			require.Contains(t, all[typ], name, "the reference's table of %s has a field that does not exist", typ)
		}
	}
}

// isField reports whether a member of a type is a field and no method.
func isField(t *testing.T, typ, member string) bool {
	for _, file := range parsePackage(t, "harness") {
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok {
				for _, spec := range d.Specs {
					if s, ok := spec.(*ast.TypeSpec); ok && s.Name.Name == typ {
						return slices.Contains(fields(s.Type), member)
					}
				}
			}
		}
	}
	return false
}

// Pictures are shown in both themes.
func TestPicturesHaveALightAndADarkFile(t *testing.T) {
	require.NoError(t, filepath.WalkDir("docs/img", func(name string, _ fs.DirEntry, err error) error {
		require.NoError(t, err)
		if light, ok := strings.CutSuffix(name, "-light.svg"); ok {
			require.FileExists(t, light+"-dark.svg")
			require.Contains(t, read(t, "README.md"), light+"-light.svg", "the README shows it")
			require.Contains(t, read(t, "README.md"), light+"-dark.svg", "the README shows it")
		}
		return nil
	}))
}

// The templates' page explains every reason for a cold boot that the code gives.
func TestTheTemplatesPageExplainsEveryReason(t *testing.T) {
	var code strings.Builder
	for _, pattern := range []string{"harness/*.go", "harness/internal/template/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			code.WriteString(read(t, file))
		}
	}
	_, table, _ := strings.Cut(read(t, "docs/templates.md"), "| the reason begins with |")
	table, _, _ = strings.Cut(table, "\n\n")
	found := 0
	for _, m := range spans.FindAllStringSubmatch(table, -1) {
		if strings.Contains(m[1], ".") || strings.HasPrefix(m[1], "run ") || strings.HasPrefix(m[1], "GUESTHOUSE_") {
			continue
		}
		words := strings.TrimSuffix(strings.TrimSuffix(m[1], " …"), "tcg")
		if !strings.Contains(code.String(), `"`+words) {
			t.Errorf("docs/templates.md explains a reason that the code does not give: %s", m[1])
		}
		found++
	}
	require.Greater(t, found, 5)
}

// The architecture names every package but those of tests.
func TestTheArchitectureNamesEveryPackage(t *testing.T) {
	architecture := read(t, "docs/architecture.md")
	for _, p := range packages(t) {
		name, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok || strings.Contains(name, "/integration/") || strings.Contains(name, "/example") || strings.Contains(name, "testdata") {
			continue
		}
		if !strings.Contains(architecture, "["+name+"](../"+name+")") {
			t.Errorf("docs/architecture.md has no row for %s", name)
		}
	}
}

// The architecture tells the rules of deps_test.go.
func TestTheArchitectureTellsTheRules(t *testing.T) {
	architecture := read(t, "docs/architecture.md")
	for _, r := range rules {
		if strings.Contains(r.folder, "testdata") || strings.Contains(r.folder, "example") || strings.Contains(r.folder, "/guests") {
			continue
		}
		imports := "nothing"
		if folders := strings.Fields(r.imports); len(folders) > 0 {
			imports = "`" + strings.Join(folders, "`, `") + "`"
		}
		if r.std {
			imports += ", and only the standard library"
		}
		if row := "| `" + r.folder + "` | " + imports + " |\n"; !strings.Contains(architecture, row) {
			t.Errorf("docs/architecture.md, who may import what, has no row %s", row)
		}
		if r.folder != "guest" {
			continue
		}
		answer := regexp.MustCompile("(?m)^\\| What may `guest` import\\? .*$").FindString(architecture)
		var listed []string
		for _, m := range regexp.MustCompile("`(internal/[a-z/]+)`").FindAllStringSubmatch(answer, -1) {
			listed = append(listed, m[1])
		}
		require.Equal(t, strings.Fields(r.imports)[1:], listed, "what guest may import")
	}
}

// The page about failures quotes errors in the words of the code.
func TestTheDebuggingPageQuotesErrorsThatExist(t *testing.T) {
	_, section, _ := strings.Cut(read(t, "docs/debugging.md"), "## Which error means what")
	section, _, _ = strings.Cut(section, "\n## ")
	out, err := exec.Command("git", "ls-files", "*.go", "*.txt", "*.txtar").Output()
	require.NoError(t, err)
	var code strings.Builder
	for name := range strings.FieldsSeq(string(out)) {
		if text, err := os.ReadFile(name); err == nil {
			code.Write(text)
		}
	}
	// Between these a message has values, or the words of the operating system.
	values := regexp.MustCompile(`…|"|\d+m\d+s|\d+s|\d+|\([a-z]+\)|read tcp`)
	quotes := 0
	for _, m := range regexp.MustCompile("(?m)^- (`.*?`)(?:: |, or|, and| or no)").FindAllStringSubmatch(section, -1) {
		for _, quote := range spans.FindAllStringSubmatch(m[1], -1) {
			for _, words := range values.Split(quote[1], -1) {
				if words = strings.Trim(words, " :"); len(words) < 6 {
					continue
				}
				quotes++
				if !strings.Contains(code.String(), words) {
					t.Errorf("docs/debugging.md quotes %q, but no code says %q", quote[1], words)
				}
			}
		}
	}
	require.Greater(t, quotes, 25)
}
