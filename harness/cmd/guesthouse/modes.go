package main

import "strings"

// A guest may leave the user's terminal in any mode that the terminal knows, and nobody can ask a
// terminal for all of them. So what is given back is what a shell has: the modes of a terminal
// that was switched on, but for the ones that are the user's own choice (as what backspace sends).
// A terminal ignores a sequence that it does not know.
// Sources: xterm's ctlseqs, the VT510 manual (DECSTR), the kitty keyboard protocol.

// keepTitle has the terminal remember its title.
const keepTitle = "\x1b[22;0t"

// giveBackModes undoes what a guest's output may leave behind.
var giveBackModes = strings.Join([]string{
	"\x1b\\",      // end a string, such as a title, that the guest has begun
	"\x1b[?2026l", // show what a synchronized update holds back

	// Leave the alternate screen, where each screen has its saved cursor. On the main screen the
	// second sequence puts the cursor to where the first has found it.
	"\x1b7", "\x1b[?1049l",

	"\x1b[!p", // most of the rest, where the terminal knows a soft reset: it does not move the cursor

	// The whole screen scrolls. These do move it.
	"\x1b7", "\x1b[?6l", "\x1b[?69l", "\x1b[r", "\x1b8",

	"\x0f", "\x1b(B", "\x1b)B", "\x1b*B", "\x1b+B", // character sets
	"\x1b[>4m",                                                             // modifyOtherKeys; a terminal that takes it for an underline has that undone:
	"\x1b[0m",                                                              // colours
	"\x1b]8;;\x1b\\",                                                       // a link
	"\x1b]104\x1b\\", "\x1b]110\x1b\\", "\x1b]111\x1b\\", "\x1b]112\x1b\\", // the palette, the default colours, the cursor's
	"\x1b[?5l",                           // reverse video
	"\x1b[?25h", "\x1b[0 q", "\x1b[?12l", // the cursor: shown, of the user's shape, not blinking by force
	"\x1b[?7h",                                   // line wrap, which some firmware switches off
	"\x1b[4l", "\x1b[20l", "\x1b[12h", "\x1b[2l", // insert mode, new-line mode, local echo, a locked keyboard
	"\x1b[?8h",                      // keys repeat
	"\x1b[?1l", "\x1b>", "\x1b[=0u", // cursor keys, keypad, kitty's keyboard
	"\x1b[?9l", "\x1b[?1000l", "\x1b[?1001l", "\x1b[?1002l", "\x1b[?1003l", // the mouse,
	"\x1b[?1005l", "\x1b[?1006l", "\x1b[?1015l", "\x1b[?1016l", // and how it reports
	"\x1b[?1004l", "\x1b[?2004l", // focus, bracketed paste
	"\x1b[?2031l", "\x1b[?2048l", // reports of the colour scheme and of the window's size
	"\x1b[?5W",   // a tab stop every 8 columns
	"\x1b[23;0t", // the title that keepTitle has kept
}, "")
