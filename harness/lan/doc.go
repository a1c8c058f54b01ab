// Package lan is a network in this process: an Ethernet switch to which machines and this process are connected. It
// carries IPv4 and IPv6, any port and ICMP. It needs no privileges and no port of the host, so any number of lans can
// exist side by side.
//
// The lan itself is a machine on the network, with the name host. Dial, Listen, ListenPacket and Ping use its
// TCP/IP stack. It answers DHCP, router solicitations and queries for the machines' names, and it forwards nothing:
// a guest reaches the other machines and what the test listens on, and nothing else.
//
// A link connects each machine with the switch. Links can lose, duplicate, reorder, delay, damage and cut off
// frames, and so a program meets a bad network. The fate of each frame follows from the seed of the lan, so a run
// can be repeated.
//
// Package lan is no simulation of a large network: all frames pass through this process, which also runs the test.
// Ordinary tests of one service need no lan. QEMU's user network, which a Spec without a lan has, is for them.
package lan
