package traffic_test

import (
	"context"
	"fmt"
	"net"

	"guesthouse.example/host/traffic"
)

// A server in the same process is dialled by its address.
func Example() {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(buf[:n], from)
		}
	}()

	dial := func(ctx context.Context, network string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.LocalAddr().String())
	}
	ctx := context.Background()
	fmt.Println("echo:", traffic.Echo(ctx, dial, traffic.EchoConfig{}))

	load, err := traffic.Load(ctx, dial, traffic.LoadConfig{Clients: 2, Window: 4, Requests: 1000})
	fmt.Printf("load: %d of %d answered, error %v\n", load.Received, load.Sent, err)

	server.Close()
	<-ended

	// Output:
	// echo: <nil>
	// load: 1000 of 1000 answered, error <nil>
}

// The error names the payload, the offset and the bytes.
func ExampleEcho_altered() {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		buf := make([]byte, 1500)
		n, _ := far.Read(buf)
		far.Write([]byte("Hello, wOrld"[:n]))
	}()
	dial := func(context.Context, string) (net.Conn, error) { return near, nil }
	err := traffic.Echo(context.Background(), dial, traffic.EchoConfig{
		Payloads: [][]byte{[]byte("Hello, world")},
	})
	fmt.Println(err)

	// Output:
	// echo udp: payload[0] (12 bytes): altered: 1 of 12 bytes differ, first at offset 8: sent 6f 72 6c 64, got 4f 72 6c 64; 0 of 1 payloads answered, 1 in flight: [0]
}
