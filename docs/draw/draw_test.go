package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/svg"
)

func TestThePicturesAreThoseOfTheirSources(t *testing.T) {
	dir := filepath.Join("..", "img")
	files, err := pictures(dir)
	require.NoError(t, err)
	for name, want := range files {
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err, "draw it with: go run ./docs/draw")
		require.Equal(t, string(want), string(content), "%s is not up to date: go run ./docs/draw", name)
	}
}

func TestADiagramIsRefusedWithTheLineThatIsWrong(t *testing.T) {
	for source, want := range map[string]string{
		"":                            "no line with its size",
		"size 1":                      "line 1: want 2 words",
		"size 1 1\nblob 2":            "line 2: unknown kind of line",
		"size 1 1\nbox a 1 1 x 1 | t": "line 2: ",
		"size 1 1\nbox a 1 1 1 1 | t\nlink a --> b": "line 3: a link joins two boxes that stand above it",
		"size 1 1\nlink a ~> b":                     `line 2: unknown arrow "~>"`,
	} {
		_, err := parseDiagram(source)
		require.ErrorContains(t, err, want, source)
	}
}

func TestADiagramShowsItsTexts(t *testing.T) {
	d, err := parseDiagram("size 300 100\narea 0 0 300 100 | Host | here\nbox* a 10 10 80 40 | A | first | second\nbox b 200 10 80 40 | B\nlink a <-> b | talk")
	require.NoError(t, err)
	picture := string(d.draw(svg.Dark))
	for _, text := range []string{">Host<", ">here<", ">A<", ">first<", ">second<", ">B<", ">talk<", svg.Dark.AccentSoft} {
		require.Contains(t, picture, text)
	}
}

func TestAScreenIsWhatARecordingLeavesOnATerminal(t *testing.T) {
	require.Equal(t, []string{"$ make", "red", "100%", "abd"},
		screen("$ make\r\n\x1b[31mred\x1b[0m\x1b[>4m\x1b]8;;\x1b\\\x1b(B\x1b7\x0f\r\n10%\r100%\r\nabc\b \bd\x1b[K\r\n\r\n"))
	require.Equal(t, []string{"abc", "de"}, wrap("abcde", 3))
}
