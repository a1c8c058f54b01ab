package harnesstest_test

import (
	"testing"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// A test boots guesthouse's own guest on every target. In a test file TestEcho is a function of its
// own.
func Example() {
	TestEcho := func(t *testing.T) {
		harnesstest.EachTarget(t, func(t *testing.T, target string) {
			spec := harnesstest.Spec(t, target, "guesthouse.example/guest/cmd/uinit")
			spec.Ports = []string{"udp/4242"}
			m := harnesstest.Boot(t, spec)

			conn := m.Dial("udp", 4242)
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 64)
			if n, err := conn.Read(answer); err != nil || string(answer[:n]) != "hello" {
				t.Fatal(string(answer[:n]), err)
			}
			m.Send("net sockets")
			m.Expect(`service_udp +1 socket`)
		})
	}
	_ = TestEcho
}

// A test of the boot itself needs a machine that is booted and not restored.
func ExampleBoot_cold() {
	TestCold := func(t *testing.T) {
		spec := harnesstest.Spec(t, "arm64", "guesthouse.example/guest/cmd/uinit")
		spec.From = harness.Cold
		m := harnesstest.Boot(t, spec)
		m.Expect("guesthouse: ready")
		m.Shutdown()
	}
	_ = TestCold
}
