package main

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheKernelsWordsAboutTheGuestProgramAreFound(t *testing.T) {
	require.Equal(t, []string{
		"<6>[    2.100000] uinit[82]: segfault at 0 ip 0000000000401000 sp 00007ffd error 6 in uinit[400000+1000]",
		"<3>[    2.300000] Out of memory: Killed process 82 (uinit) total-vm:1240kB",
	}, aboutTheEnd(`<6>[    0.000000] Kernel command line: console=ttyS0 uroot.uinitargs=-v
<6>[    2.100000] uinit[82]: segfault at 0 ip 0000000000401000 sp 00007ffd error 6 in uinit[400000+1000]
<6>[    2.200000] gosh[83]: segfault at 0
<3>[    2.300000] Out of memory: Killed process 82 (uinit) total-vm:1240kB
`))
	require.Empty(t, aboutTheEnd(""))
}

func TestInitSaysThatAProgramCannotBeStarted(t *testing.T) {
	_, err := run(exec.Command("/nowhere/uinit"))
	require.ErrorContains(t, err, "/nowhere/uinit: no such file or directory")
}
