// Package westbuild reads the build directories of Zephyr's tool west: the board, the image, and the QEMU that
// "west build -t run" would start. It runs nothing.
package westbuild

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Build is what a build directory says about its image.
type Build struct {
	Dir   string // of the application; with sysbuild, a directory in the build directory
	Board string // Zephyr's name of the board, without qualifiers: "qemu_x86"
	ELF   string // the ELF file of the build

	// Run is the QEMU command that "west build -t run" starts in Dir; nil if the build has none that is known.
	Run []string

	// Kernel and Loaders are the files that Run starts and puts into memory. Kernel is the ELF file if Run has no
	// -kernel.
	Kernel  string
	Loaders []Loader

	// The following values are those of Run. They are empty or 0 where Run has none.
	Machine, CPU string
	Memory, CPUs int // Memory is in MiB

	Inputs []string // the files that Read has read
}

// A Loader is a file for QEMU's device loader.
type Loader struct {
	File string
	Addr uint64
}

// Read reads a build directory.
func Read(dir string) (*Build, error) {
	app, err := application(dir)
	if err != nil {
		return nil, fmt.Errorf("build directory %s: %w", dir, err)
	}
	inputs := []string{filepath.Join(app, "zephyr", ".config"), filepath.Join(app, "build.ninja")}
	config, err := readConfig(inputs[0])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("build directory %s: it has no zephyr/.config: name the directory that west build made", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("build directory %s: %w", dir, err)
	}
	b := &Build{Dir: app, Board: config["CONFIG_BOARD"], Inputs: inputs}
	if b.Board == "" {
		return nil, fmt.Errorf("build directory %s: its zephyr/.config names no CONFIG_BOARD", dir)
	}
	b.ELF = filepath.Join(app, "zephyr", cmp.Or(config["CONFIG_KERNEL_BIN_NAME"], "zephyr")+".elf")
	b.Kernel = b.ELF
	ninja, err := os.ReadFile(inputs[1])
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil // built by another tool than Ninja
	}
	if err == nil {
		b.Run = runCommand(ninja)
		err = b.readRun()
	}
	if err != nil {
		return nil, fmt.Errorf("build directory %s: %w", dir, err)
	}
	return b, nil
}

// application returns the build directory of the application. Sysbuild builds several images, each in a directory
// of its own, and domains.yaml names the application's.
func application(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "domains.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return dir, nil
	}
	if err != nil {
		return "", err
	}
	var all struct {
		Default string `yaml:"default"`
	}
	if err := yaml.Unmarshal(text, &all); err != nil {
		return "", fmt.Errorf("domains.yaml: %w", err)
	}
	if all.Default == "" || !filepath.IsLocal(all.Default) {
		return "", errors.New("domains.yaml: it names no default domain")
	}
	return filepath.Join(dir, all.Default), nil
}

// readConfig returns the values of a file of Kconfig, without the quotes of strings.
func readConfig(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			values[name] = strings.Trim(value, `"`)
		}
	}
	return values, lines.Err()
}

// readRun takes the machine from the QEMU command.
func (b *Build) readRun() error {
	for i := 1; i+1 < len(b.Run); i++ {
		var err error
		switch value := b.Run[i+1]; b.Run[i] {
		case "-machine", "-M":
			b.Machine = strings.TrimPrefix(b.Machine+","+value, ",") // QEMU merges the values, too
		case "-cpu":
			b.CPU = value
		case "-m":
			b.Memory, err = megabytes(value)
		case "-smp":
			first, _, _ := strings.Cut(strings.TrimPrefix(value, "cpus="), ",")
			b.CPUs, err = strconv.Atoi(first)
		case "-kernel":
			b.Kernel = b.moved(value)
		case "-bios":
			err = errors.New("its image takes the place of the firmware (-bios), and the boards of Zephyr do not: describe the board in boards.toml")
		case "-device":
			err = b.addLoader(value)
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("the command of west build -t run: %s %s: %w", b.Run[i], b.Run[i+1], err)
		}
		i++
	}
	return nil
}

// addLoader adds the file of QEMU's device loader, if the device is one.
func (b *Build) addLoader(device string) error {
	const comma = "\x00" // QEMU's form of a comma in a value is two of them
	fields := strings.Split(strings.ReplaceAll(device, ",,", comma), ",")
	if fields[0] != "loader" {
		return nil
	}
	var l Loader
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(strings.ReplaceAll(field, comma, ","), "=")
		switch name {
		case "file":
			l.File = b.moved(value)
		case "addr":
			addr, err := strconv.ParseUint(value, 0, 64)
			if err != nil {
				return err
			}
			l.Addr = addr
		default:
			return fmt.Errorf("guesthouse does not know the property %s of a loader", name)
		}
	}
	b.Loaders = append(b.Loaders, l)
	return nil
}

// moved returns the path of a file of the build. A build directory may be another than the one in which the
// file was made.
func (b *Build) moved(file string) string {
	if here := filepath.Join(b.Dir, "zephyr", filepath.Base(file)); filepath.Base(filepath.Dir(file)) == "zephyr" {
		return here
	}
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(b.Dir, file)
}

// megabytes parses a value of QEMU's -m.
func megabytes(text string) (int, error) {
	text, _, _ = strings.Cut(strings.TrimPrefix(text, "size="), ",")
	unit := 1
	switch last := text[max(0, len(text)-1):]; last {
	case "G", "g":
		unit = 1024
		fallthrough
	case "M", "m":
		text = text[:len(text)-1]
	}
	n, err := strconv.Atoi(text)
	return n * unit, err
}
