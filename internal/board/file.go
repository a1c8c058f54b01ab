package board

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"guesthouse.example/internal/target"
)

// FileName is the name of a file with boards of the user's own.
const FileName = "boards.toml"

// A described is a board in a file. What it does not say is that of the board Like.
type described struct {
	Like string `toml:"like"`
	Board
}

// ReadFile reads a file with boards. Its errors begin with the file and the line.
func ReadFile(file string) ([]Board, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var content struct {
		Board []described `toml:"board"`
	}
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&content); err != nil {
		return nil, atLine(file, err)
	}
	if len(content.Board) == 0 {
		return nil, fmt.Errorf("%s: it describes no board: begin each with a line [[board]]", file)
	}
	var all []Board
	seen := make(map[string]bool)
	for i := range content.Board {
		d := &content.Board[i]
		key, err := d.resolve(seen)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, lineOf(string(text), i, key), err)
		}
		seen[d.Name] = true
		all = append(all, d.Board)
	}
	return all, nil
}

// resolve completes a board and checks it. seen holds the names of the boards before it in the file. The key is that of
// the field that is wrong.
func (d *described) resolve(seen map[string]bool) (key string, err error) {
	if d.Like != "" {
		like, err := Lookup(d.Like)
		if err != nil {
			return "like", err
		}
		complete(&d.Board, like)
	}
	if _, err := Lookup(d.Name); err == nil {
		return "name", fmt.Errorf("guesthouse has a board %s itself: choose another name", d.Name)
	}
	if seen[d.Name] {
		return "name", fmt.Errorf("another board of this file has the name %s", d.Name)
	}
	return d.Board.Check()
}

// atLine names the line of an error of the decoder.
func atLine(file string, err error) error {
	if missing := (*toml.StrictMissingError)(nil); errors.As(err, &missing) && len(missing.Errors) > 0 {
		first := &missing.Errors[0]
		line, _ := first.Position()
		return fmt.Errorf("%s:%d: unknown key %s: the keys are %s", file, line, strings.Join(first.Key(), "."), strings.Join(keys(), ", "))
	}
	if wrong := (*toml.DecodeError)(nil); errors.As(err, &wrong) {
		line, _ := wrong.Position()
		return fmt.Errorf("%s:%d: %s", file, line, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", file, err)
}

// keys returns the keys of a board in a file.
func keys() []string {
	all := []string{"like"}
	for i := range reflect.TypeFor[Board]().NumField() {
		all = append(all, reflect.TypeFor[Board]().Field(i).Tag.Get("toml"))
	}
	return all
}

// complete sets the fields of b that are empty to those of another board.
func complete(b *Board, like Board) {
	to, from := reflect.ValueOf(b).Elem(), reflect.ValueOf(like)
	for i := range to.NumField() {
		if to.Field(i).IsZero() && to.Type().Field(i).Name != "Name" {
			to.Field(i).Set(from.Field(i))
		}
	}
}

// lineOf returns the line of a key of the n-th board, or that at which the board begins.
func lineOf(text string, n int, key string) int {
	found := 0
	for i, line := range strings.Split(text, "\n") {
		line = strings.ReplaceAll(line, " ", "")
		switch {
		case strings.HasPrefix(line, "[[board]]"):
			if n--; n < -1 {
				return found
			}
			if n == -1 {
				found = i + 1
			}
		case n == -1 && strings.HasPrefix(line, key+"="):
			return i + 1
		}
	}
	return found
}

var (
	boardName = regexp.MustCompile(`^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$`)
	cardModel = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	slot      = regexp.MustCompile(`^[0-9a-fA-F]{1,2}(\.[0-7])?$`)
	// globalValue matches values of -global that name no file of the host.
	globalValue = regexp.MustCompile(`^[a-z0-9-]+\.[a-z0-9_-]+=(true|false|on|off|[0-9]+)$`)
)

// Check refuses a board that no machine can be, or that would let QEMU read files of the host beyond those of the
// image. It returns the key of the field that is wrong.
func (b Board) Check() (key string, err error) {
	if !boardName.MatchString(b.Name) {
		return "name", fmt.Errorf("name %q: write the system and the board, such as zephyr/my_board", b.Name)
	}
	if _, err := target.Lookup(b.Target); err != nil {
		return "target", err
	}
	for _, f := range []struct {
		key  string
		ok   bool
		want string
	}{
		{"machine", b.Machine != "", "the value of QEMU's -machine, such as virt"},
		{"cpu", b.CPU != "", "the value of QEMU's -cpu, such as cortex-a15"},
		{"memory", b.Memory > 0, "the memory in MiB"},
		{"cpus", b.CPUs >= 0, "the number of processors"},
		{"card", cardModel.MatchString(b.Card), "the network card, one of QEMU's devices, such as virtio-net-pci"},
		{"load", b.Load == Kernel || b.Load == Firmware, strconv.Quote(string(Kernel)) + " or " + strconv.Quote(string(Firmware))},
		{"semihosting", !b.Semihosting || b.Target == "arm" || b.Target == "arm64", "true for a board with a processor of ARM only"},
		{"ready", b.Ready != "", "a regular expression for the console of a ready system"},
	} {
		if !f.ok {
			return f.key, fmt.Errorf("board %s: %s: write %s", b.Name, f.key, f.want)
		}
	}
	for _, list := range []struct {
		key    string
		values []string
		wrong  func(string) bool
		want   string
	}{
		{"slots", b.Slots, func(s string) bool { return !slot.MatchString(s) }, "hexadecimal numbers, such as 2 or 2.0"},
		{"beside", b.Beside, func(s string) bool { return s != filepath.Base(s) || s == ".." || s == "." }, "names of files in the directory of the image"},
		{"globals", b.Globals, func(s string) bool { return !globalValue.MatchString(s) }, "DRIVER.PROPERTY=VALUE, where the value is a number, on, off, true or false"},
	} {
		for _, value := range list.values {
			if list.wrong(value) {
				return list.key, fmt.Errorf("board %s: %s %q: write %s", b.Name, list.key, value, list.want)
			}
		}
	}
	for key, list := range map[string][]string{"ready": {b.Ready}, "autoboot": {b.Autoboot}, "crashes": b.Crashes} {
		for _, expr := range list {
			if _, err := regexp.Compile(expr); err != nil {
				return key, fmt.Errorf("board %s: %s: %w", b.Name, key, err)
			}
		}
	}
	return "", nil
}
