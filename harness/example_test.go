package harness_test

import (
	"context"
	"fmt"
	"log"

	"guesthouse.example/harness"
	"guesthouse.example/images"
)

// A machine boots, answers over UDP, shows its sockets on the console, and powers off.
func Example() {
	ctx := context.Background()
	image, err := images.Build(ctx, "arm64", "guesthouse.example/guest/cmd/uinit", images.Options{})
	if err != nil {
		log.Fatal(err)
	}
	m, err := harness.Boot(ctx, harness.Spec{
		Target: "arm64", Kernel: image.Kernel, Initramfs: image.Initramfs,
		Ports: []string{"udp/4242"},
	})
	if err != nil {
		log.Fatal(err) // with the end of the console
	}
	defer m.Close()

	conn, err := m.Dial(ctx, "udp", 4242)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 64)
	conn.Write([]byte("hello"))
	n, err := conn.Read(answer) // ends with the machine
	fmt.Println(string(answer[:n]), err)

	m.Console().Send(ctx, "net sockets")
	match, err := m.Console().Expect(ctx, `service_udp +(\d+) socket`)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(match[1])

	if err := m.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Result().State)
}

// The first machine of a kind boots and is saved; the second is restored.
func ExampleTemplateCache() {
	ctx := context.Background()
	image, err := images.Build(ctx, "arm64", "guesthouse.example/guest/cmd/uinit", images.Options{})
	if err != nil {
		log.Fatal(err)
	}
	var cache harness.TemplateCache // the user's
	for range 2 {
		m, err := harness.Boot(ctx, harness.Spec{
			Target: "arm64", Kernel: image.Kernel, Initramfs: image.Initramfs,
			From: &cache,
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Result().Boot, m.Result().Why)
		m.Close()
	}
}
