package qmp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T, log *bytes.Buffer, onEvent func(Event)) (*Client, *Fake) {
	fake, conn := NewFake()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := New(ctx, conn, log, onEvent)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); fake.Close() })
	return c, fake
}

// reply answers the next command with the fields of body.
func reply(t *testing.T, fake *Fake, want string, answer func(id uint64) string) {
	go func() {
		id, command, err := fake.Hear()
		if err == nil && command == want {
			fake.Say(answer(id))
		}
	}()
}

func TestACommandsResultIsDecoded(t *testing.T) {
	var log bytes.Buffer
	c, fake := connect(t, &log, nil)
	reply(t, fake, "query-status", func(id uint64) string {
		return `{"return": {"status": "running"}, "id": ` + itoa(id) + `}`
	})
	var got struct{ Status string }
	require.NoError(t, c.Execute(t.Context(), "query-status", nil, &got))
	require.Equal(t, "running", got.Status)
	require.Contains(t, log.String(), `> {"execute":"query-status"`, "the log shows what was asked")
	require.Contains(t, log.String(), `< {"return": {"status": "running"}`, "the log shows what was answered")
}

func TestARefusedCommandIsAnError(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	reply(t, fake, "nonsense", func(id uint64) string {
		return `{"error": {"class": "CommandNotFound", "desc": "The command nonsense has not been found"}, "id": ` + itoa(id) + `}`
	})
	err := c.Execute(t.Context(), "nonsense", nil, nil)
	var refused *Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "CommandNotFound", refused.Class)
	require.EqualError(t, err, "qmp nonsense: The command nonsense has not been found (CommandNotFound)")
}

func TestCommandsAreSentAtOnce(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	go func() {
		var ids []uint64
		for range 3 { // all are there before the first answer
			id, _, _ := fake.Hear()
			ids = append(ids, id)
		}
		fake.Say(`{"return": "one", "id": ` + itoa(ids[0]) + `}`)
		fake.Say(`{"error": {"class": "GenericError", "desc": "No"}, "id": ` + itoa(ids[1]) + `}`)
		fake.Say(`{"return": "three", "id": ` + itoa(ids[2]) + `}`)
	}()
	var one, two, three string
	err := c.ExecuteAll(t.Context(), Command{Name: "a", Result: &one}, Command{Name: "b", Result: &two}, Command{Name: "c", Result: &three})
	require.EqualError(t, err, "qmp b: No (GenericError)")
	require.Equal(t, []string{"one", "", "three"}, []string{one, two, three})
}

func TestACommandIsReadBeforeItIsToBeCarriedOut(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	const most = `{"execute":"a","id":2`
	begun := make(chan string)
	go func() {
		text := make([]byte, len(most))
		io.ReadFull(fake.lines, text)
		begun <- string(text)
		end, _ := fake.lines.ReadString('\n')
		fake.Say(`{"return": "after ` + strings.TrimSpace(end) + `", "id": 2}`)
	}()
	var result string
	err := c.ExecuteAfter(t.Context(), func() error {
		require.Equal(t, most, <-begun)
		return nil
	}, Command{Name: "a", Result: &result})
	require.NoError(t, err)
	require.Equal(t, "after }", result)
}

func TestACommandThatIsNotToBeCarriedOut(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	rest := make(chan string)
	go func() {
		text, _ := io.ReadAll(fake.lines)
		rest <- string(text)
	}()
	never := errors.New("never")
	require.Equal(t, never, c.ExecuteAfter(t.Context(), func() error { return never }, Command{Name: "a"}))
	require.Equal(t, `{"execute":"a","id":2`, <-rest)
	require.ErrorIs(t, c.Execute(t.Context(), "b", nil, nil), ErrClosed)
}

func TestEventsArriveInOrderBetweenAnswers(t *testing.T) {
	events := make(chan string, 3)
	_, fake := connect(t, new(bytes.Buffer), func(e Event) { events <- e.Name + string(e.Data) })
	fake.Say(`{"event": "STOP"}`)
	fake.Say(`{"event": "SHUTDOWN", "data": {"guest":true}}`)
	require.Equal(t, "STOP", <-events)
	require.Equal(t, `SHUTDOWN{"guest":true}`, <-events)
}

func TestAnAnswerThatNeverComesEndsWithTheContext(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	heard := make(chan uint64)
	go func() {
		id, _, _ := fake.Hear()
		heard <- id
	}()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-heard; cancel() }()
	require.ErrorIs(t, c.Execute(ctx, "stop", nil, nil), context.Canceled)
}

func TestALateAnswerIsNotTakenForTheNextOne(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan uint64)
	go func() {
		id, _, _ := fake.Hear()
		cancel()
		first <- id
	}()
	require.ErrorIs(t, c.Execute(ctx, "slow", nil, nil), context.Canceled)
	late := <-first
	go func() {
		id, _, _ := fake.Hear()
		fake.Say(`{"return": "late", "id": ` + itoa(late) + `}`)
		fake.Say(`{"return": "right", "id": ` + itoa(id) + `}`)
	}()
	var got string
	require.NoError(t, c.Execute(t.Context(), "quick", nil, &got))
	require.Equal(t, "right", got)
}

func TestTheEndOfQEMUEndsEveryCommand(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	go func() { fake.Hear(); fake.Close() }()
	require.ErrorIs(t, c.Execute(t.Context(), "quit", nil, nil), ErrClosed)
	<-c.Done()
	require.ErrorIs(t, c.Execute(t.Context(), "stop", nil, nil), ErrClosed)
}

func TestALineThatIsNoJSONIsNamed(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	go func() { fake.Hear(); fake.Say("qemu: out of cheese") }()
	require.ErrorContains(t, c.Execute(t.Context(), "stop", nil, nil), `"qemu: out of cheese\n" is no QMP`)
}

func TestNoGreetingEndsWithTheContext(t *testing.T) {
	_, theirs := NewFake()
	theirs.Close()
	_, err := New(t.Context(), theirs, nil, nil)
	require.ErrorContains(t, err, "qmp greeting")
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
