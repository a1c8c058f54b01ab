#!/bin/sh
# Runs tests of other projects' modules in machines of a target with one kernel:
#
#	test.sh GUESTHOUSE TARGET KERNEL JUNIT_FILE
#
# Every test must pass, but for those that it leaves out with a reason below, and those that skip themselves.
# docs/exec.md says what such tests find in a machine.
set -eu
cd "$(dirname "$0")"

skip=
without() { skip=${skip:+$skip|}$1; }

# vishvananda/netlink
without '^TestGeneveCompareToIP$'     # runs "ip netns exec", which is iproute2's; the machine has u-root's ip
without '^TestRouteIifOption$'        # needs a default route and forwarding; a machine has neither without -net
without '^TestRouteViaAddDel$'        # fails on a plain host too: in its empty namespace no route leads to 2001::1
without '^TestXfrmMonitorExpire$'     # waits for ever if the kernel's timer is a second late; its own CI leaves it out
without '^TestReceiveTimeout$'        # measures how late a call returns, which depends on the host's load

# mdlayher/packet
without '^TestConnListen$'            # waits for a frame of another host; in a machine's network nobody else sends

# mdlayher/socket
without '^TestDialTCPContextCanceledDuring$'   # needs an address that never answers; a machine without -net
without '^TestDialTCPContextDeadlineExceeded$' # is refused at once

# mdlayher/vsock
without '^TestIntegrationListenerUnblockAcceptTimeout$' # gives up after 10 s, in which the kernel loads the module too

# cilium/ebpf
without '^TestHaveProgramType$/^LircMode2$'    # Debian's kernels are built without BPF_LIRC_MODE2

# containerd/cgroups: tests whose groups are units of systemd, which is not in the machine
without '^TestSystemdCgroup'
without '^TestErrorsWhenUnitAlreadyExists$'
without '^TestIgnoreUnitExistsWhenPidNegativeOne$'
without '^TestEventChanCleanupOnCgroupRemoval$'
without '^TestCPUQuotaPeriodUSec$'
# containerd/cgroups: other tests
without '^(TestKill|TestMoveTo)$'              # run "sleep infinity"; u-root's sleep knows no infinity and has several threads
without '^TestCgroupv2PSIStats$'               # a machine's kernel measures no pressure (psi=0), as that takes time
without '^TestStatFiltered$/^MemoryEventsOnly$' # needs a root group with the memory controller, as systemd makes it
without '^TestEventChanCleanupAfterOOMKill$'   # needs a dd that holds a block of 64 MiB; u-root's holds a small part

exec "$1" test -target "$2" -kernel "$3" -junit "$4" -timeout 30m -skip "$skip" \
	github.com/cilium/ebpf/features \
	github.com/cilium/ebpf/rlimit \
	github.com/containerd/cgroups/v3/cgroup2 \
	github.com/mdlayher/netlink \
	github.com/mdlayher/packet \
	github.com/mdlayher/socket \
	github.com/mdlayher/vsock \
	github.com/vishvananda/netlink \
	github.com/vishvananda/netlink/nl
