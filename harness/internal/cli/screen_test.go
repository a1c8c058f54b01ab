package cli

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Zephyr's prompt has a colour, and NuttX's erases what follows it.
func TestAPromptIsSeenAmongEscapeSequences(t *testing.T) {
	for name, prompt := range map[string]string{
		"plain": "uart:~$ ", "Zephyr": "\x1b[1;32muart:~$ \x1b[m", "NuttX": "nsh> \x1b[K", "bracketed paste": "\x1b[?2004h# \x1b[0m",
	} {
		t.Run(name, func(t *testing.T) {
			s := newScreen(io.Discard, io.Discard, false)
			start := time.Now()
			io.WriteString(s, "hello\r\n")
			for i := range len(prompt) {
				s.Write([]byte{prompt[i]})
			}
			require.True(t, s.hasPrompt())
			require.True(t, s.awaitPrompt(t.Context(), 0))
			require.Less(t, time.Since(start), busy)
			io.WriteString(s, "help\n")
			require.True(t, s.hasPrompt(), "it has asked once")
		})
	}
}
