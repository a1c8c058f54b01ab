package qemu

import (
	"fmt"
	"regexp"
	"strings"
)

// slirpAssertion matches what assert and glib's g_assert print about libslirp, QEMU's user network. QEMU has no
// files of its own under these names in a folder src.
var slirpAssertion = regexp.MustCompile(`/src/(?:arp_table|bootp|cksum|dhcpv6|dnssearch|if|ip6?_\w+|mbuf|misc|ncsi|ndp_table|sbuf|slirp|socket|state|stream|tcp_\w+|tftp|udp6?|util|vmstate)\.c:\d+: ?(\w+): .*`)

// ExplainEnd adds to an error about QEMU's end that libslirp aborted QEMU, if QEMU's standard error says so.
func ExplainEnd(end error, stderr string) error {
	found := slirpAssertion.FindStringSubmatch(stderr)
	if found == nil {
		return end
	}
	what, do := strings.TrimSpace(strings.TrimPrefix(found[0], "/src/")), "a machine on a network of package lan (Spec.Net) does not use it"
	if found[1] == "soread" {
		return fmt.Errorf("%w: a fault of its user network (libslirp: %s): a client reset its connection to a forwarded port while the guest had not taken the client's data; let the client read to the end of the stream before it closes, or connect with Machine.Dial; %s", end, what, do)
	}
	return fmt.Errorf("%w: a fault of its user network (libslirp: %s); %s", end, what, do)
}
