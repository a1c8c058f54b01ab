package initramfs

import (
	"fmt"
	"net/url"
	"strings"
)

// The words of the kernel command line that hold one argument and one environment variable of a guest
// program that is built into the initramfs. Each may appear many times.
const (
	argWord = "guesthouse.arg="
	envWord = "guesthouse.env="
)

// Words returns the words of the kernel command line that give a built-in guest program these
// arguments and environment variables. Bytes that separate or quote words are percent-encoded.
func Words(args, env []string) (words []string) {
	for _, arg := range args {
		words = append(words, argWord+escape(arg))
	}
	for _, v := range env {
		words = append(words, envWord+escape(v))
	}
	return words
}

// FromCommandLine returns the arguments and the environment variables in a kernel command line.
func FromCommandLine(line string) (args, env []string, err error) {
	for _, word := range strings.Fields(line) {
		list := &args
		text, found := strings.CutPrefix(word, argWord)
		if !found {
			list = &env
			if text, found = strings.CutPrefix(word, envWord); !found {
				continue
			}
		}
		text, err := url.PathUnescape(text)
		if err != nil {
			return nil, nil, fmt.Errorf("kernel command line: %s: %w", word, err)
		}
		*list = append(*list, text)
	}
	return args, env, nil
}

func escape(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("%\"'\\`", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
