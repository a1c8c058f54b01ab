package images_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"guesthouse.example/images"
)

// The two files for a machine that runs the program in ./cmd/upper.
func ExampleBuild() {
	img, err := images.Build(context.Background(), "arm64", "./cmd/upper", images.Options{
		Log:      os.Stderr,
		Progress: os.Stderr,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("qemu-system-aarch64 -kernel", img.Kernel, "-initrd", img.Initramfs)
}
