package console

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestARejectedPatternFailsTheCallThatWaits(t *testing.T) {
	g := newGuestLine(t)
	g.print("error: of before\nready\n")
	expect(t, g.console, "ready")
	require.NoError(t, g.console.Reject(`^error: (.*)$`), "text before the last match does not count")
	go g.print("all is well\nerror: disk\n")
	_, err := g.console.Expect(t.Context(), "never")
	require.ErrorIs(t, err, ErrRejected)
	require.ErrorContains(t, err, `expect "never": the console shows text that is rejected: "error: disk" matches "^error: (.*)$"`)
	require.ErrorIs(t, g.console.Idle(t.Context(), time.Nanosecond), ErrRejected)
	require.ErrorIs(t, g.console.ExpectAll(t.Context(), "well"), ErrRejected)
}

func TestRejectFindsTextThatHasArrivedBefore(t *testing.T) {
	g := newGuestLine(t)
	g.print("ready\noops\nnext\n")
	g.Write(nil)
	expect(t, g.console, "ready")
	require.ErrorIs(t, g.console.Reject("^oops$"), ErrRejected)
}

func TestARejectedPatternAtTheEndOfTheTextWaitsForTheRest(t *testing.T) {
	g := newGuestLine(t)
	require.NoError(t, g.console.Reject(`^lost$`))
	g.print("lost")
	g.print(" and found\n")
	g.Write(nil)
	require.NoError(t, g.console.Rejected())
	g.print("lost")
	g.Conn.Close()
	<-g.console.Done()
	require.ErrorIs(t, g.console.Rejected(), ErrRejected, "no more text can follow")
}

// A prompt has no line end, so its match is open until the guest has been silent.
func TestARejectedPromptFailsTheCallThatWaits(t *testing.T) {
	for name, call := range map[string]func(*Console, context.Context) error{
		"Expect": func(c *Console, ctx context.Context) error { _, err := c.Expect(ctx, "never"); return err },
		"Idle":   func(c *Console, ctx context.Context) error { return c.Idle(ctx, time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuestLine(t)
				require.NoError(t, g.console.Reject(`^login: $`))
				g.print("login: ")
				g.Write(nil) // returns when the console has the text
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				require.ErrorIs(t, call(g.console, ctx), ErrRejected)
				require.LessOrEqual(t, time.Since(began), time.Second)
			})
		})
	}
}

func TestRejectLeavesOutTheEchoOfSend(t *testing.T) {
	c := echoing(t, "uart:~$ ", func(line string) string { return "done\r\n" })
	expect(t, c, `\$ $`)
	require.NoError(t, c.Reject(`secret`))
	require.NoError(t, c.Send(t.Context(), "say secret"))
	expect(t, c, "^done$")
	require.NoError(t, c.Rejected())
}

func TestExpectAllFindsMatchesInAnyOrder(t *testing.T) {
	g := newGuestLine(t)
	g.print("b is up\na is up\nthen\n")
	require.NoError(t, g.console.ExpectAll(t.Context(), "a is up", "b is up"))
	expect(t, g.console, "then")

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gave up"))
	require.ErrorContains(t, g.console.ExpectAll(ctx, "c", "d"), "gave up")
	require.ErrorContains(t, g.console.ExpectAll(t.Context(), "a", "a"), `expect "a": the pattern is there twice, and one match would be enough for both`)
	require.ErrorContains(t, g.console.ExpectAll(t.Context(), "("), "missing closing )")
}

func TestIdleEndsAfterSilenceOrWithNewText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuestLine(t)
		g.print("before\n")
		g.Write(nil) // returns when the console has the text
		began := time.Now()
		require.NoError(t, g.console.Idle(t.Context(), 3*time.Second))
		require.Equal(t, 3*time.Second, time.Since(began))
		go func() {
			time.Sleep(time.Second)
			g.print("a line\n")
		}()
		require.EqualError(t, g.console.Idle(t.Context(), 3*time.Second), `idle for 3s: the console has shown "a line"`)
		require.Equal(t, 4*time.Second, time.Since(began))
	})
}

func TestIdleEndsWithTheLine(t *testing.T) {
	g := newGuestLine(t)
	g.Conn.Close()
	require.ErrorIs(t, g.console.Idle(t.Context(), time.Hour), ErrEnded)
}

func TestAFailedExpectShowsTheNearestLine(t *testing.T) {
	for _, c := range []struct{ pattern, line, want string }{
		{`Listening on \S+:4243`, "[00:00:01.000,000] <inf> svc: Listening on 0.0.0.0:4242", `up to "Listening on 0.0.0.0:424"`},
		{`^(udp|tcp) service: 4 sockets$`, "tcp service: 3 sockets", `up to "tcp service: "`},
		{`(?i)CONNECTION FROM 10`, "Connection from 192.0.2.2", `up to "Connection from 1"`},
	} {
		g := newGuestLine(t)
		g.print("something else\n" + c.line + "\nlast\n")
		g.Write(nil) // returns when the console has the text
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("gave up"))
		_, err := g.console.Expect(ctx, c.pattern)
		require.ErrorContains(t, err, "the line that comes nearest is \""+c.line+`": the pattern matches it `+c.want)
	}
	g := newGuestLine(t)
	g.print("nothing of the kind\n")
	g.Write(nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gave up"))
	_, err := g.console.Expect(ctx, `.*Listening.*`)
	require.NotContains(t, err.Error(), "nearest")
}

func TestTheNearestLineLeavesOutEchoes(t *testing.T) {
	c := echoing(t, "uart:~$ ", func(line string) string { return "done\r\n" })
	expect(t, c, `\$ $`)
	end := int64(0)
	for range 2 { // the second line is typed behind a prompt that no Expect has matched
		require.NoError(t, c.Send(t.Context(), "say more"))
		var err error
		_, end, err = c.WaitFor(within(t, 10*time.Second), "^done$", end)
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gave up"))
	_, err := c.Expect(ctx, `uart:~\$ done`)
	require.ErrorContains(t, err, `the line that comes nearest is "uart:~$ ": the pattern matches it up to "uart:~$ "`)
}
