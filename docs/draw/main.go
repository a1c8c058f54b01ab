// Draw draws the pictures of the project's pages from their sources in docs/img: how-it-works.txt, a
// diagram, and qemu-run.txt, the recording of a terminal. Each picture has a light and a dark file.
//
//	go run ./docs/draw
//	script -c 'make qemu-run' FILE; go run ./docs/draw -recording FILE
//
// The second form first replaces the recording by the text that FILE, written by script(1), leaves on a
// terminal.
//
// The charts of measurements are drawn by the benchmarks (make figures).
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"guesthouse.example/internal/svg"
)

func main() {
	recording := flag.String("recording", "", "a recording `file` that replaces docs/img/qemu-run.txt")
	flag.Parse()
	dir := filepath.Join("docs", "img")
	err := take(*recording, dir)
	if err == nil {
		err = draw(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "draw:", err)
		os.Exit(1)
	}
}

// take replaces the recording by the text that another one leaves on the screen.
func take(file, dir string) error {
	if file == "" {
		return nil
	}
	recording, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := strings.Join(screen(string(recording)), "\n") + "\n"
	return os.WriteFile(filepath.Join(dir, "qemu-run.txt"), []byte(text), 0o666)
}

// draw writes every picture into the directory of its source.
func draw(dir string) error {
	files, err := pictures(dir)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// pictures returns the pictures, by the names of their files, of the sources in a directory.
func pictures(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	diagram, err := os.ReadFile(filepath.Join(dir, "how-it-works.txt"))
	if err != nil {
		return nil, err
	}
	d, err := parseDiagram(string(diagram))
	if err != nil {
		return nil, fmt.Errorf("how-it-works.txt: %w", err)
	}
	recording, err := os.ReadFile(filepath.Join(dir, "qemu-run.txt"))
	if err != nil {
		return nil, err
	}
	for _, theme := range svg.Themes {
		files["how-it-works-"+theme.Name+".svg"] = d.draw(theme)
		files["qemu-run-"+theme.Name+".svg"] = drawTerminal(theme, "make qemu-run", string(recording))
	}
	return files, nil
}
