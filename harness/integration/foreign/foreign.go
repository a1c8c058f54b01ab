// Package foreign pins other projects' modules that talk to the kernel. Their own tests run in machines:
//
//	make foreign
//
// The script test.sh lists their packages, and says why it leaves out a test.
package foreign

import (
	_ "github.com/cilium/ebpf/features"
	_ "github.com/cilium/ebpf/rlimit"
	_ "github.com/containerd/cgroups/v3/cgroup2"
	_ "github.com/mdlayher/netlink"
	_ "github.com/mdlayher/packet"
	_ "github.com/mdlayher/socket"
	_ "github.com/mdlayher/vsock"
	_ "github.com/vishvananda/netlink"
)
