package cli

import "strings"

// A guest may leave the user's terminal in any mode, and no program can query a terminal for all of
// its modes. So run restores the modes that a shell expects: those of a terminal that was just
// switched on, except for the user's own choices, such as the key code of backspace. A terminal
// ignores a sequence that it does not know.
// Sources: xterm's ctlseqs, the VT510 manual (DECSTR), the kitty keyboard protocol.

// keepTitle makes the terminal remember its title.
const keepTitle = "\x1b[22;0t"

// giveBackModes resets every mode that a guest's output may have set.
var giveBackModes = strings.Join([]string{
	"\x1b\\",      // end a string, such as a title, that the guest left unfinished
	"\x1b[?2026l", // end a synchronized update

	// Leave the alternate screen. Each screen has its own saved cursor. On the main screen the second
	// sequence puts the cursor back to where the first saved it.
	"\x1b7", "\x1b[?1049l",

	"\x1b[!p", // most of the other modes, if the terminal knows a soft reset; it does not move the cursor

	// Scroll the whole screen. These sequences move the cursor.
	"\x1b7", "\x1b[?6l", "\x1b[?69l", "\x1b[r", "\x1b8",

	"\x0f", "\x1b(B", "\x1b)B", "\x1b*B", "\x1b+B", // character sets
	"\x1b[>4m",                                                             // modifyOtherKeys; a terminal without it may underline, which the next sequence ends
	"\x1b[0m",                                                              // colours
	"\x1b]8;;\x1b\\",                                                       // a link
	"\x1b]104\x1b\\", "\x1b]110\x1b\\", "\x1b]111\x1b\\", "\x1b]112\x1b\\", // the palette, the default colours, the cursor's
	"\x1b[?5l",                           // reverse video
	"\x1b[?25h", "\x1b[0 q", "\x1b[?12l", // the cursor: shown, of the user's shape, not blinking by force
	"\x1b[?7h",                                   // line wrap, which some firmware turns off
	"\x1b[4l", "\x1b[20l", "\x1b[12h", "\x1b[2l", // insert mode, new-line mode, local echo, a locked keyboard
	"\x1b[?8h",                      // keys repeat
	"\x1b[?1l", "\x1b>", "\x1b[=0u", // cursor keys, keypad, kitty's keyboard
	"\x1b[?9l", "\x1b[?1000l", "\x1b[?1001l", "\x1b[?1002l", "\x1b[?1003l", // the mouse,
	"\x1b[?1005l", "\x1b[?1006l", "\x1b[?1015l", "\x1b[?1016l", // and how it reports
	"\x1b[?1004l", "\x1b[?2004l", // focus, bracketed paste
	"\x1b[?2031l", "\x1b[?2048l", // reports of the colour scheme and of the window's size
	"\x1b[?5W",   // a tab stop every 8 columns
	"\x1b[23;0t", // the title that keepTitle saved
}, "")
