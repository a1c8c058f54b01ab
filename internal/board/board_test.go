package board

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryRowIsComplete(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range All() {
		t.Run(b.Name, func(t *testing.T) {
			require.False(t, seen[b.Name])
			seen[b.Name] = true
			system, board, ok := strings.Cut(b.Name, "/")
			require.True(t, ok && system != "" && board != "")
			hardware, err := b.Hardware()
			require.NoError(t, err)
			require.Empty(t, hardware.Cmdline, "a board has no kernel command line")
			require.Empty(t, hardware.KVMHosts)
			for _, text := range []string{hardware.Machine, hardware.CPU, b.Card, string(b.Load), b.Ready} {
				require.NotEmpty(t, text)
			}
			require.Positive(t, b.Memory)
			_, err = regexp.Compile(b.Ready)
			require.NoError(t, err)
			_, err = regexp.Compile(b.Autoboot)
			require.NoError(t, err)
			for _, expr := range b.Crashes {
				_, err = regexp.Compile(expr)
				require.NoError(t, err)
			}
			found, err := Lookup(b.Name)
			require.NoError(t, err)
			require.Equal(t, b, found)
		})
	}
}

func TestAnUnknownBoardNamesTheOthers(t *testing.T) {
	_, err := Lookup("zephyr/vax")
	require.ErrorContains(t, err, `unknown board "zephyr/vax": the boards are zephyr/qemu_x86, `)
}
