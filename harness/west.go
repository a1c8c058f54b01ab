package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"guesthouse.example/internal/testcache"
	"guesthouse.example/internal/westbuild"
)

// WestBuild returns a Spec for the image in a build directory of Zephyr's tool west: with the board, the files, the
// machine, the processors and the memory that "west build -t run" would use.
func WestBuild(dir string) (Spec, error) {
	b, err := westbuild.Read(dir)
	if err != nil {
		return Spec{}, err
	}
	testcache.Depends(b.Inputs...)
	s := Spec{Board: "zephyr/" + b.Board, Kernel: b.Kernel, Machine: b.Machine, CPU: b.CPU, Memory: b.Memory, CPUs: b.CPUs}
	for _, l := range b.Loaders {
		s.Loaders = append(s.Loaders, Loader(l))
	}
	if _, err := os.Stat(s.Kernel); errors.Is(err, fs.ErrNotExist) {
		how := "build it with west build -d " + dir
		if s.Kernel != b.ELF {
			how += " -t qemu_kernel_target"
		}
		return Spec{}, fmt.Errorf("build directory %s: no such file %s: %s", dir, s.Kernel, how)
	}
	return s, nil
}
