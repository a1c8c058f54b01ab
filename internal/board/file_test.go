package board

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, text string) string {
	file := filepath.Join(t.TempDir(), FileName)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	return file
}

func TestABoardOfAFileIsLikeAnother(t *testing.T) {
	all, err := ReadFile(write(t, `
# Our board has more memory and another card than Zephyr's.
[[board]]
name = "acme/widget"
like = "zephyr/qemu_x86"
memory = 64
card = "virtio-net-pci"
slots = ["5"]

[[board]]
name = "acme/gadget"
target = "arm"
machine = "virt,highmem=off"
cpu = "cortex-a15"
memory = 128
cpus = 2
card = "virtio-net-device"
globals = ["virtio-mmio.force-legacy=false"]
load = "firmware"
ready = '^gadget> '
autoboot = "any key"
crashes = ["FATAL"]
power_off = "off"
`))
	require.NoError(t, err)
	widget, err := Lookup("zephyr/qemu_x86")
	require.NoError(t, err)
	widget.Name, widget.Memory, widget.Card, widget.Slots = "acme/widget", 64, "virtio-net-pci", []string{"5"}
	require.Equal(t, []Board{widget, {
		Name: "acme/gadget", Target: "arm", Machine: "virt,highmem=off", CPU: "cortex-a15", Memory: 128, CPUs: 2,
		Card: "virtio-net-device", Globals: []string{"virtio-mmio.force-legacy=false"}, Load: Firmware,
		Ready: "^gadget> ", Autoboot: "any key", Crashes: []string{"FATAL"}, PowerOff: "off",
	}}, all)
}

// The built-in boards pass the check of a user's.
func TestEveryRowPassesTheCheck(t *testing.T) {
	for _, b := range All() {
		_, err := b.Check()
		require.NoError(t, err)
	}
}

func TestAnErrorOfAFileNamesTheLineAndWhatToWrite(t *testing.T) {
	const head = "[[board]]\nname = \"a/b\"\nlike = \"zephyr/qemu_x86\"\n"
	for text, want := range map[string]string{
		"":                               ": it describes no board: begin each with a line [[board]]",
		head + "cpu = 1\n":               ":4: ",
		head + "cpu = \"a\n":             ":4: ",
		head + "processor = \"x\"\n":     ":4: unknown key board.processor: the keys are like, name, target, machine, cpu, memory, cpus, card, ",
		"[[board]]\nname = \"widget\"\n": `:2: name "widget": write the system and the board`,
		"[[board]]\nname = \"zephyr/qemu_x86\"\n":         ":2: guesthouse has a board zephyr/qemu_x86 itself",
		"[[board]]\nname = \"a/b\"\nlike = \"c/d\"":       `:3: unknown board "c/d": the boards are `,
		"[[board]]\nname = \"a/b\"\n":                     `:1: unknown target ""`,
		head + head:                                       ":5: another board of this file has the name a/b",
		head + "memory = -1\n":                            ":4: board a/b: memory: write the memory in MiB",
		head + "load = \"rom\"\n":                         `:4: board a/b: load: write "kernel" or "firmware"`,
		head + "ready = \"(\"\n":                          ":4: board a/b: ready: error parsing regexp",
		head + "card = \"e1000,romfile=/file\"\n":         ":4: board a/b: card: write the network card",
		head + "beside = [\"../file\"]\n":                 `:4: board a/b: beside "../file": write names of files`,
		head + "semihosting = true\n":                     ":4: board a/b: semihosting: write true for a board with a processor of ARM only",
		head + "slots = [\"2,romfile=/file\"]\n":          `:4: board a/b: slots "2,romfile=/file": write hexadecimal numbers`,
		head + "\n globals = [\"e1000.romfile=/file\"]\n": `:5: board a/b: globals "e1000.romfile=/file": write DRIVER.PROPERTY=VALUE`,
	} {
		file := write(t, text)
		_, err := ReadFile(file)
		require.ErrorContains(t, err, file+want, "%s", text)
	}
}
