package wire

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAMessageArrivesAsItWasSent(t *testing.T) {
	var line bytes.Buffer
	guest, harness := NewGuest(&line), NewHarness(&line)
	for i := range uint32(3) {
		seq, err := guest.Send(Message{Type: Event, Answers: 7, Payload: []byte("text")})
		require.NoError(t, err)
		require.Equal(t, i, seq)
		m, err := harness.Receive()
		require.NoError(t, err)
		require.Equal(t, Message{Type: Event, Sequence: i, Answers: 7, Payload: []byte("text")}, m)
	}
	_, err := harness.Receive()
	require.Equal(t, io.EOF, err)
}

func TestAGuestFollowsIntoANewEpochOnlyWithRestored(t *testing.T) {
	var down, up bytes.Buffer
	guest := NewGuest(struct {
		io.Reader
		io.Writer
	}{&down, &up})
	harness := NewHarness(struct {
		io.Reader
		io.Writer
	}{&up, &down})
	_, err := guest.Send(Message{Type: Hello})
	require.NoError(t, err)
	_, err = harness.Receive()
	require.NoError(t, err)

	harness.Open(5)
	_, err = harness.Send(Message{Type: Restored})
	require.NoError(t, err)
	_, err = guest.Receive()
	require.NoError(t, err)
	require.EqualValues(t, 5, guest.Epoch())
	_, err = guest.Send(Message{Type: Restored})
	require.NoError(t, err)
	_, err = harness.Receive()
	require.NoError(t, err, "sequence numbers start again in both directions")

	harness.Open(6)
	_, err = harness.Send(Message{Type: Statistics})
	require.NoError(t, err)
	_, err = guest.Receive()
	require.EqualError(t, err, "frame at byte 28: statistics of epoch 6 in a conversation of epoch 5")
}

func TestTheErrorOfABadFrameSaysWhatIsWrongAndWhere(t *testing.T) {
	good := func() []byte { return appendFrame(nil, 0, Message{Type: Event, Payload: []byte("text")}) }
	for _, c := range []struct {
		says   string
		change func([]byte) []byte
	}{
		{`it begins with "XHAG", not with "GHAG"`, func(b []byte) []byte { b[0] = 'X'; return b }},
		{"protocol version 1 instead of 5: build guest and harness from the same source", func(b []byte) []byte { b[5] = 1; return b }},
		{"checksum", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		{"checksum", func(b []byte) []byte { b[11] ^= 1; return b }},
		{"event has a payload of 4278190084 bytes: the limit is 65536", func(b []byte) []byte { b[20] = 0xff; return b }},
		{"event has a payload of 65537 bytes: the limit is 65536", func([]byte) []byte {
			return appendFrame(nil, 0, Message{Type: Event, Sequence: 1, Payload: make([]byte, MaxText+1)})
		}},
		{"the line ended after 9 bytes of the header: unexpected EOF", func(b []byte) []byte { return b[:9] }},
		{"the line ended after 3 of 4 bytes of the payload of event: unexpected EOF", func(b []byte) []byte { return b[:len(b)-1] }},
		{"event has sequence number 0 instead of 1: frames were lost or repeated", func(b []byte) []byte { return good() }},
		{"unknown message type 99", func([]byte) []byte { return appendFrame(nil, 0, Message{Type: 99, Sequence: 1}) }},
	} {
		c2 := NewHarness(bytes.NewBuffer(append(good(), c.change(good())...)))
		_, err := c2.Receive()
		require.NoError(t, err)
		_, err = c2.Receive()
		require.ErrorContains(t, err, "frame at byte 32: ")
		require.ErrorContains(t, err, c.says)
	}
}

// A text at the limit is sent and received. A longer one is refused before it is sent, and before it
// is read.
func TestTheLengthOfTextsIsLimited(t *testing.T) {
	for kind, limit := range map[Type]int{Event: MaxText, PowerOff: MaxText, Failed: MaxText, Remark: MaxText, Ended: exitSize + MaxText, Statistics: maxPayload} {
		var line bytes.Buffer
		_, err := NewGuest(&line).Send(Message{Type: kind, Payload: make([]byte, limit)})
		require.NoError(t, err)
		m, err := NewHarness(&line).Receive()
		require.NoError(t, err)
		require.Len(t, m.Payload, limit)
		_, err = NewGuest(&line).Send(Message{Type: kind, Payload: make([]byte, limit+1)})
		require.ErrorContains(t, err, "the limit is")
		require.Zero(t, line.Len())
	}
}

func TestPayloadsAreDecodedAsTheyWereEncoded(t *testing.T) {
	restore := Restore{Boot: BootID{1, 15: 2}, Now: time.Unix(3, 4), Entropy: bytes.Repeat([]byte{5}, MinEntropy), Network: someNetwork}
	got, err := DecodeRestore(restore.Encode())
	require.NoError(t, err)
	require.Equal(t, restore, got)
	_, err = DecodeRestore(restore.Encode()[:26+MinEntropy-1])
	require.EqualError(t, err, "restored: a payload of 57 bytes: boot identity, clock and entropy take at least 58")

	id, err := ParseBootID(restore.Boot.String() + "\n")
	require.NoError(t, err)
	require.Equal(t, restore.Boot, id)
	_, err = ParseBootID("0102")
	require.EqualError(t, err, `boot identity "0102": 2 bytes, not 16`)

	stats := Stats{Boot: BootID{9}, Uptime: time.Second, MemoryTotal: 2, MemoryAvail: 1,
		Services: []Service{{"a", 1, 2, 3, 4, 5}, {"bb", 6, 7, 8, 9, 10}}}
	gotStats, err := DecodeStats(stats.Encode())
	require.NoError(t, err)
	require.Equal(t, stats, gotStats)
	_, err = DecodeStats(stats.Encode()[:50])
	require.EqualError(t, err, "statistics: the payload ends too early")

	for _, exit := range []Exit{{}, {Status: 255}, {Signal: 9, Why: "Out of memory"}, {Signal: 15, Asked: true}} {
		got, err := DecodeExit(exit.Encode())
		require.NoError(t, err)
		require.Equal(t, exit, got)
	}
	_, err = DecodeExit([]byte{1, 2})
	require.EqualError(t, err, `exit status: malformed payload "\x01\x02"`)

	for _, subscribed := range []bool{false, true} {
		reseeded := Reseeded{time.Unix(1, 2), subscribed}
		got, err := DecodeReseeded(reseeded.Encode())
		require.NoError(t, err)
		require.Equal(t, reseeded, got)
	}
	_, err = DecodeReseeded(make([]byte, 8))
	require.ErrorContains(t, err, "restored: malformed answer")
}

// A frame that is decoded is encoded as the same bytes, and no payload makes a decoder panic.
func FuzzReceive(f *testing.F) {
	f.Add(appendFrame(nil, 0, Message{Type: Hello, Payload: make([]byte, 16)}))
	f.Add(appendFrame(nil, 0, Message{Type: Statistics, Payload: Stats{Services: []Service{{Name: "a"}}}.Encode()}))
	f.Add(appendFrame(nil, 9, Message{Type: Restored, Payload: Restore{Entropy: make([]byte, 32)}.Encode()}))
	program, _ := Program{Args: []string{"a", ""}, Env: []string{"K=V"}}.Encode()
	f.Add(appendFrame(nil, 0, Message{Type: Run, Payload: program}))
	look, _ := LookRequest{What: ReadFile, Path: "/a", Offset: 1, Length: 2}.Encode()
	f.Add(appendFrame(nil, 0, Message{Type: Look, Payload: look}))
	command, _ := Command{Args: []string{"a", ""}, Env: []string{"K=V"}, Piped: [Streams]bool{true, false, true}}.Encode()
	f.Add(appendFrame(nil, 0, Message{Type: Execute, Payload: command}))
	f.Fuzz(func(t *testing.T, b []byte) {
		epoch, m, n, err := decode(bytes.NewReader(b))
		if err == nil {
			require.Equal(t, b[:n], appendFrame(nil, epoch, m))
			DecodeReseeded(m.Payload)
			DecodeRestore(m.Payload)
			if e, err := DecodeExit(m.Payload); err == nil && len(e.Why) <= MaxText {
				require.Equal(t, m.Payload, e.Encode())
			}
			if s, err := DecodeStats(m.Payload); err == nil {
				require.Equal(t, m.Payload, s.Encode())
			}
			if p, err := DecodeProgram(m.Payload); err == nil {
				again, err := p.Encode()
				require.NoError(t, err)
				require.Equal(t, m.Payload, again)
			}
			if c, err := DecodeCommand(m.Payload); err == nil {
				again, err := c.Encode()
				require.NoError(t, err)
				require.Equal(t, m.Payload, again)
			}
			if r, err := DecodeLookRequest(m.Payload); err == nil {
				again, err := r.Encode()
				require.NoError(t, err)
				require.Equal(t, m.Payload, again)
			}
			DecodeCopyRequest(m.Payload)
			DecodeFileInfos(m.Payload)
		}
	})
}
