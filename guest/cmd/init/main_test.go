package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

func TestTheKernelsLastLineAboutTheProgramIsFound(t *testing.T) {
	const log = `<6>[    0.000000] Kernel command line: console=ttyS0 uroot.uinitargs=-v
<6>[    2.100000] uinit[82]: segfault at 0 ip 0000000000401000 sp 00007ffd error 6 in uinit[400000+1000]
<6>[    2.200000] gosh[83]: segfault at 0
<3>[    2.300000] Out of memory: Killed process 84 (uinit) total-vm:1240kB
<3>[    2.400000][   T85] Memory cgroup out of memory: Killed process 85 (uinit) total-vm:1240kB
`
	require.Equal(t, "uinit[82]: segfault at 0 ip 0000000000401000 sp 00007ffd error 6 in uinit[400000+1000]", aboutTheEnd(log, 82))
	require.Equal(t, "Out of memory: Killed process 84 (uinit) total-vm:1240kB", aboutTheEnd(log, 84))
	require.Contains(t, aboutTheEnd(log, 85), "Memory cgroup out of memory: Killed process 85 (uinit) total-vm:1240kB")
	require.Empty(t, aboutTheEnd(log, 8))
	require.Empty(t, aboutTheEnd("", 82))
}

func TestTheLastWordsBeginALine(t *testing.T) {
	require.Equal(t, "init: /bin/uinit has ended: exit status 3; the machine powers off\n",
		lastWords(end{ran: true, exit: wire.Exit{Status: 3}}, true))
	require.Equal(t, "\ninit: Out of memory: Killed process 84 (uinit)\ninit: /bin/uinit has ended: signal 9 (killed); the machine powers off\n",
		lastWords(end{ran: true, exit: wire.Exit{Signal: 9, Why: "Out of memory: Killed process 84 (uinit)"}}, false))
	require.Equal(t, "init: the harness asked for it; the machine powers off\n", lastWords(end{why: "the harness asked for it"}, true))
}

func TestAProgramIsNotStartedAtTheWrongTime(t *testing.T) {
	for is, says := range map[state]string{
		booting: `the guest still boots: wait until its console shows "init: ready"`,
		running: "/bin/uinit has already been started: a machine runs it once",
		ending:  "the machine powers off",
	} {
		p := &program{state: is}
		require.EqualError(t, p.Run(wire.Program{}), says)
	}
}
