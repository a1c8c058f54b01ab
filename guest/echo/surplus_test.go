package echo_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestOverCapacity(t *testing.T) {
	const capacity = 3
	s, con := start(t, capacity)
	var in []net.Conn
	for range capacity {
		conn := dial(t, "tcp", "::1", s)
		roundtrip(t, conn, "x")
		in = append(in, conn)
	}
	for i := range 5 {
		over := dial(t, "tcp", "::1", s)
		_, err := io.WriteString(over, strings.Repeat("nobody reads this", 100))
		require.NoError(t, err)
		got, err := io.ReadAll(over)
		require.NoError(t, err, "must be an end and not a reset")
		require.Empty(t, got)
		con.expect(t, "Max capacity reached\n", i+1)
	}
	for _, conn := range in {
		roundtrip(t, conn, "still here")
	}
	require.NoError(t, in[0].Close())
	con.expect(t, " closed\n", 1)
	roundtrip(t, dial(t, "tcp", "::1", s), "room again")
}

// All clients connect at once, and each sends in several pieces. A client over the capacity
// can send all its bytes and reads the end of the stream. It is never reset, whenever its
// bytes arrive.
func TestNoClientOverTheCapacityIsReset(t *testing.T) {
	counts := []int{200, 2000}
	if testing.Short() {
		counts = counts[:1]
	}
	const capacity = 17
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	for _, n := range counts {
		require.Greater(t, int(limit.Cur), 2*n+100, "this test needs more descriptors: ulimit -n")
		noClientIsReset(t, "at once", n, capacity)
		noClientIsReset(t, "when all are connected", n, capacity)
	}
}

func noClientIsReset(t *testing.T, when string, n, capacity int) {
	t.Run(fmt.Sprint(n, " send ", when), func(t *testing.T) {
		s, con := start(t, capacity)
		s.TurnAwayFor(patience) // so that a slow host does not look like a stubborn client
		var served, ended, left atomic.Int32
		var wg, connected sync.WaitGroup
		connected.Add(n)
		allLeft := make(chan bool) // closed when all clients over the capacity have left
		leaves := func() {
			if left.Add(1) == int32(n-capacity) {
				close(allLeft)
			}
		}
		for i := range n {
			wg.Go(func() {
				text := strings.Repeat(fmt.Sprint("client ", i, " "), 10+i%200)
				err := func() error {
					conn, err := net.DialTimeout("tcp", fmt.Sprint("[::1]:", s.Port()), patience)
					connected.Done()
					if err != nil {
						return err
					}
					defer conn.Close()
					_ = conn.SetDeadline(time.Now().Add(patience))
					if when != "at once" {
						connected.Wait()
					}
					for part := range slices.Chunk([]byte(text), len(text)/4) {
						if _, err := conn.Write(part); err != nil {
							return err
						}
					}
					got := make([]byte, len(text))
					n, err := io.ReadFull(conn, got)
					switch {
					case err == nil && string(got) == text:
						served.Add(1)
						<-allLeft // the client keeps its slot until then
						return nil
					case err == io.EOF && n == 0:
						ended.Add(1)
						leaves()
						return nil
					}
					return fmt.Errorf("client %d read %d bytes: %w", i, n, err)
				}()
				if err != nil {
					t.Error(err)
					leaves()
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, capacity, served.Load())
		require.EqualValues(t, n-capacity, ended.Load())
		require.Equal(t, n-capacity, strings.Count(con.String(), "Max capacity reached\n"))
		con.expect(t, "Connection from ::1 closed\n", capacity)
		roundtrip(t, dial(t, "tcp", "::1", s), "room again")
	})
}

// Clients over the capacity that never end their connections do not harm others. The server
// goes on serving its clients, serves the next client when there is room, and after a while
// turns the next client away.
func TestClientsThatNeverEndTheirConnectionsDoNotHarmOthers(t *testing.T) {
	const surplus = 64 // how many the server turns away at once
	s, con := start(t, 2)
	s.TurnAwayFor(patience)
	first, second := dial(t, "tcp", "::1", s), dial(t, "tcp", "::1", s)
	roundtrip(t, first, "x")
	roundtrip(t, second, "x")
	var stubborn []net.Conn
	for range surplus {
		stubborn = append(stubborn, dial(t, "tcp", "::1", s))
	}
	con.expect(t, "Max capacity reached\n", surplus)
	next := dial(t, "tcp", "::1", s)
	_, err := io.WriteString(next, "waits")
	require.NoError(t, err)
	before := s.calls(t, "service_accept")
	for range 1000 {
		roundtrip(t, second, "served meanwhile")
	}
	require.Less(t, s.calls(t, "service_accept")-before, uint64(100), "the listener spins")
	require.Equal(t, surplus, strings.Count(con.String(), "Max capacity reached\n"))

	require.NoError(t, first.Close())
	got := make([]byte, len("waits"))
	_, err = io.ReadFull(next, got)
	require.NoError(t, err)
	require.Equal(t, "waits", string(got))

	// The server gives the stubborn clients up after a while.
	s.Stop()
	s, con = start(t, 1)
	s.TurnAwayFor(100 * time.Millisecond)
	roundtrip(t, dial(t, "tcp", "::1", s), "x")
	for range surplus {
		stubborn = append(stubborn, dial(t, "tcp", "::1", s))
	}
	_, err = io.ReadAll(dial(t, "tcp", "::1", s))
	require.NoError(t, err)
	con.expect(t, "Max capacity reached\n", surplus+1)
	for _, conn := range stubborn {
		_, err := io.ReadAll(conn)
		require.NoError(t, err)
	}
	require.NotContains(t, con.String(), "accept:", "it is no shortage")
}

func TestStopClosesConnectionsOverTheCapacity(t *testing.T) {
	s, con := start(t, 1)
	roundtrip(t, dial(t, "tcp", "::1", s), "x")
	over := dial(t, "tcp", "::1", s)
	con.expect(t, "Max capacity reached\n", 1)
	begin := time.Now()
	s.Stop()
	require.Less(t, time.Since(begin), 2*time.Second)
	_, err := io.ReadAll(over)
	require.NoError(t, err)
}

// Other code closes a client's socket. The server neither uses nor closes the number,
// and has room for another client.
func TestTheServerForgetsAClientWhoseSocketOtherCodeCloses(t *testing.T) {
	s, con := start(t, 1)
	conn := dial(t, "tcp", "::1", s)
	roundtrip(t, conn, "x")
	sockets := s.service(t, "service_tcp").Sockets()
	require.Len(t, sockets, 1)
	require.NoError(t, unix.Close(int(sockets[0].Fd)))
	con.expect(t, "Connection from ::1 closed\n", 1)
	roundtrip(t, dial(t, "tcp", "::1", s), "room again")
	require.EqualValues(t, 1, s.stats(t, "service_tcp").Errors)
}
