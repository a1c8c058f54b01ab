package westbuild

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// write writes the files of a build directory, and returns the directory.
func write(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	return dir
}

const (
	config = "# a comment\nCONFIG_BOARD=\"qemu_x86_64\"\nCONFIG_BOARD_QUALIFIERS=\"atom\"\nCONFIG_KERNEL_BIN_NAME=\"app\"\nCONFIG_SRAM_SIZE=4096\n"

	// The targets of Ninja are written as CMake writes them.
	ninja = `rule CUSTOM_COMMAND
  command = $COMMAND

build zephyr/CMakeFiles/menuconfig: CUSTOM_COMMAND
  COMMAND = cd /old/build && /usr/bin/qemu-system-none -m 1

build zephyr/CMakeFiles/run_qemu | ${cmake_ninja_workdir}zephyr/CMakeFiles/run_qemu: CUSTOM_COMMAND $
    zephyr/app.elf
  COMMAND = cd /old/my$ build/zephyr && /usr/bin/cmake -E echo a\ b && /usr/bin/qemu-system-x86_64 -m 1G -cpu $
      qemu64,+x2apic -machine q35 -machine acpi=off -append "a 'b' \"$$c\"" -device isa-debug-exit,iobase=0xf4 $
      -device loader,file="/old/my build/zephyr/main,,1.elf" -device loader,file=data.bin,addr=0x2000 -smp cpus=2 -kernel '/old/my build/zephyr/locore.elf'
  DESC = [QEMU]
  pool = console
`
)

func TestABuildDirectorySaysWhatWestWouldRun(t *testing.T) {
	dir := write(t, map[string]string{"zephyr/.config": config, "build.ninja": ninja})
	b, err := Read(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"/usr/bin/qemu-system-x86_64", "-m", "1G", "-cpu", "qemu64,+x2apic", "-machine", "q35", "-machine", "acpi=off",
		"-append", `a 'b' "$c"`, "-device", "isa-debug-exit,iobase=0xf4", "-device", "loader,file=/old/my build/zephyr/main,,1.elf",
		"-device", "loader,file=data.bin,addr=0x2000", "-smp", "cpus=2", "-kernel", "/old/my build/zephyr/locore.elf"}, b.Run)
	b.Run, b.Inputs = nil, nil
	require.Equal(t, &Build{
		Dir: dir, Board: "qemu_x86_64", ELF: filepath.Join(dir, "zephyr/app.elf"), Kernel: filepath.Join(dir, "zephyr/locore.elf"),
		Loaders: []Loader{{File: filepath.Join(dir, "zephyr/main,1.elf")}, {File: filepath.Join(dir, "data.bin"), Addr: 0x2000}},
		Machine: "q35,acpi=off", CPU: "qemu64,+x2apic", Memory: 1024, CPUs: 2,
	}, b)
}

// Sysbuild builds several images.
func TestSysbuildNamesTheApplication(t *testing.T) {
	dir := write(t, map[string]string{
		"domains.yaml":       "default: app\nbuild_dir: /old\ndomains:\n  - name: app\n    build_dir: /old/app\n",
		"app/zephyr/.config": config,
	})
	b, err := Read(dir)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "app/zephyr/app.elf"), b.Kernel)
	require.Nil(t, b.Run, "it was not built with Ninja")
}

func TestAnotherDirectoryIsNoBuildDirectory(t *testing.T) {
	run := func(command string) string {
		return "build zephyr/CMakeFiles/run_qemu: CUSTOM_COMMAND\n  COMMAND = cd /x && qemu-system-arm " + command + "\n"
	}
	for want, files := range map[string]map[string]string{
		"it has no zephyr/.config: name the directory that west build made": {"zephyr/zephyr.elf": ""},
		"its zephyr/.config names no CONFIG_BOARD":                          {"zephyr/.config": "CONFIG_X=y\n"},
		"domains.yaml: it names no default domain":                          {"domains.yaml": "default: ../..\n"},
		"domains.yaml: yaml: ":                                              {"domains.yaml": "default: ["},
		`the command of west build -t run: -m lots: strconv.Atoi`:           {"zephyr/.config": config, "build.ninja": run("-m lots")},
		"guesthouse does not know the property cpu-num of a loader":         {"zephyr/.config": config, "build.ninja": run("-device loader,file=/x/zephyr/zephyr.elf,cpu-num=0")},
		"its image takes the place of the firmware (-bios)":                 {"zephyr/.config": config, "build.ninja": run("-bios zephyr.bin")},
	} {
		_, err := Read(write(t, files))
		require.ErrorContains(t, err, want)
	}
}
