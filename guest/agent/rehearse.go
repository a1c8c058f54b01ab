package agent

import (
	"fmt"
	"net"
)

// rehearse opens a port that no service has and sends back what comes there, so that
// an emulated processor has translated the way of a datagram, through the kernel and
// the program, before one comes that counts.
func (a *Agent) rehearse() (port int, err error) {
	if a.rehearsal != nil {
		a.rehearsal.Close()
	}
	if a.rehearsal, err = net.ListenUDP("udp4", nil); err != nil {
		return 0, fmt.Errorf("rehearse: %w", err)
	}
	go func(conn *net.UDPConn) {
		buf := make([]byte, 1)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(buf[:n], from) // one that is lost is asked for again
		}
	}(a.rehearsal)
	return a.rehearsal.LocalAddr().(*net.UDPAddr).Port, nil
}
