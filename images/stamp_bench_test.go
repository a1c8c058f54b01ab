package images

import "testing"

// BenchmarkCached measures how long a result takes for which nothing has changed.
func BenchmarkCached(b *testing.B) {
	const guest = "guesthouse.example/guest/cmd/uinit"
	for name, build := range map[string]func(o Options) error{
		"platform": func(o Options) error { _, err := Platform(b.Context(), "arm64", o); return err },
		"program":  func(o Options) error { _, err := Program(b.Context(), "arm64", guest, o); return err },
		"image":    func(o Options) error { _, err := Build(b.Context(), "arm64", guest, o); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for range 2 { // the second writes the stamp if the files were new
				if err := build(Options{}); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if err := build(Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
