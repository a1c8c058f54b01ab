package harness

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/baremetal"
	"guesthouse.example/harness/internal/symbols"
	"guesthouse.example/harness/internal/vm"
)

// spinning returns the symbols of a bare-metal guest for 32-bit x86: SpinsIn is at 0x10002b and longer than 4 bytes.
func spinning(t *testing.T) *symbols.Table {
	file := filepath.Join(t.TempDir(), "guest")
	guest, err := baremetal.Spinning("x86", "a line of text")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, guest, 0o644))
	return symbols.Open(file)
}

func TestCodeAddressesOfACrashAreNamed(t *testing.T) {
	table := spinning(t)
	require.True(t, table.Begins(0x10002b))
	for name, c := range map[string]struct{ line, says string }{
		"Zephyr's program counter on x86":   {"[00:00:01.730,000] <err> os: EIP: 0x0010002c", "0x10002c is in spins"},
		"Zephyr's program counter on arm64": {"E: ELR_ELn: 0x000000000010002c", "0x10002c is in spins"},
		"Zephyr's program counter on arm":   {"E: Faulting instruction address (r15/pc): 0x0010002c", "0x10002c is in spins"},
		"NuttX's registers":                 {"up_dump_register: ELR: 000000000010002c  SPSR: 20000045", "0x10002c is in spins"},
		"a return address":                  {"<err> os:      0x0010002d (0x132160)", "0x10002d is in spins"},
		"a return address behind spins":     {"x30: 0x10002b", ""},
		"data":                              {"r0: 0x00200000 r1: 0xdeadbeef", ""},
		"a word with these letters":         {"facade decade 10002", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			if c.says != "" {
				want = []string{c.says}
			}
			require.Equal(t, want, codeIn([]string{c.line, c.line}, table))
		})
	}
}

func TestPlacesAreCounted(t *testing.T) {
	table := spinning(t)
	require.Empty(t, describePlaces(nil, table))
	require.Equal(t, "in spins (3 of 5 samples), at 0x8000 (1 of 5 samples), at 0x401000 in a program (1 of 5 samples)", describePlaces([]vm.Place{
		{PC: 0x8000}, {PC: 0x10002b}, {PC: 0x10002c}, {PC: 0x401000, User: true}, {PC: 0x10002b}}, table))
}
