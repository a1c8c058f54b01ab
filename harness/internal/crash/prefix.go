package crash

import "bytes"

// prompt returns the length of a shell's prompt at the start of a line, such as "uart:~$ ", "nsh> "
// or "root@host:/# ", and 0 if there is none.
func prompt(line []byte) int {
	const longest = 64
	end := bytes.IndexByte(line[:min(len(line), longest)], ' ')
	if end < 1 {
		return 0
	}
	switch line[end-1] {
	case '$', '#', '>':
	default:
		return 0
	}
	for _, b := range line[:end-1] {
		if !letterOrDigit(b) && !bytes.ContainsRune([]byte("@:~/._-"), rune(b)) {
			return 0
		}
	}
	return end + 1
}

func letterOrDigit(b byte) bool { return digit(b) || b|0x20 >= 'a' && b|0x20 <= 'z' }

func digit(b byte) bool { return b >= '0' && b <= '9' }

const maxStamp = 200 // bytes; a time and its groups are shorter

const maxGroups = 4 // in brackets, one after the other

// group returns the length of the short group in brackets at the start of a text, and 0 if there is
// none.
func group(text []byte) int {
	const longest = 32
	if len(text) == 0 || text[0] != '[' {
		return 0
	}
	return bytes.IndexByte(text[:min(len(text), longest)], ']') + 1
}

// stamp returns the length of what Linux prints before a line of its log, and 0 if there is none.
// This is the time in seconds since the boot and, if the kernel is configured to print it, the
// caller: "[    1.234567][    T1] ".
func stamp(line []byte) int {
	if len(line) < len("[0.0] ") || line[0] != '[' {
		return 0
	}
	at, digits, dot := 1, 0, false
	line = line[:min(len(line), maxStamp)]
	for ; at < len(line) && line[at] == ' '; at++ {
	}
	for ; at < len(line) && (digit(line[at]) || line[at] == '.' && !dot && digits > 0); at++ {
		if dot = dot || line[at] == '.'; !dot {
			digits++
		}
	}
	if !dot || at == len(line) || line[at] != ']' {
		return 0
	}
	at++
	for range maxGroups {
		n := group(line[at:]) // a processor, a thread or a program
		if n == 0 {
			break
		}
		at += n
	}
	if at == len(line) || line[at] != ' ' {
		return 0
	}
	return at + 1
}

// rtosPrefix returns the length of what an RTOS prints before its own messages. These are groups in
// brackets, which have the time, the level or the processor, and the level and module of Zephyr's
// fatal errors: "[00:00:00.010,000] <err> os: " or "E: ".
func rtosPrefix(line []byte) int {
	at := 0
	for range maxGroups {
		n := group(line[at:])
		if n == 0 {
			break
		}
		if at += n; at < len(line) && line[at] == ' ' {
			at++
		}
	}
	for _, level := range [][]byte{[]byte("<err> os: "), []byte("E: ")} {
		if bytes.HasPrefix(line[at:], level) {
			return at + len(level)
		}
	}
	return at
}
