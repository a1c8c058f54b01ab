package images

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo-terminal of 40 columns.
func openTerminal(t *testing.T) (user, terminal *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { user.Close() })
	fd := int(user.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { terminal.Close() })
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 40}))
	return user, terminal
}

func TestProgressOnTerminal(t *testing.T) {
	user, terminal := openTerminal(t)
	var log bytes.Buffer
	o := Options{Progress: terminal, Log: &log}
	shown := make(chan time.Duration)
	stop := o.progress("kernel fake", func(d time.Duration) string {
		shown <- d
		return "1.0 of 2.0 MB " + strings.Repeat("long ", 20)
	})
	<-shown
	other := o.progress("another", func(time.Duration) string { t.Error("two lines at once"); return "" })
	<-shown // the first line has been written
	o.notice("a %s", "line")
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	// The meter may draw once more before it notices that it has to stop.
	for done := false; !done; {
		select {
		case <-shown:
		case <-stopped:
			done = true
		case <-within(t):
			t.Fatal("it does not stop")
		}
	}
	other()
	require.Equal(t, "guesthouse: a line\n", log.String())
	terminal.Write([]byte("END\n"))
	text, err := bufio.NewReader(user).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, text, eraseLine+"kernel fake: 1.0 of 2.0 MB long long lo\r", "cut to the width")
	require.True(t, strings.HasSuffix(text, eraseLine+"END\r\n"), "%q", text)
}

func TestProgressElsewhere(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	o := Options{Progress: w}
	stop := o.progress("x", func(time.Duration) string { t.Error("shown"); return "" })
	o.notice("nobody reads this")
	stop()
	w.Close()
	n, _ := r.Read(make([]byte, 1))
	require.Zero(t, n)
	Options{}.progress("x", nil)()
}

func TestGrowing(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/a", make([]byte, 1500000), 0o666))
	require.Equal(t, "1.5 of 3.0 MB", growing(dir, 3e6)(0))
	require.Equal(t, "1.5 MB", growing(dir, 0)(0))
	require.Equal(t, "0.0 MB", growing(dir+"/none", 0)(0))
	require.Equal(t, "12 s", elapsed(12*time.Second))
}
