// Package initramfs names the files that package images writes into an initramfs and that the guest
// reads, and the words of the kernel command line that init reads.
package initramfs

// Program is the guest program. Init starts it. An initramfs without it is a platform: init waits for
// the harness, which delivers a program and has it started.
const Program = "/bin/uinit"

// ModulesFile lists the kernel modules that init loads, in this order, one name a line. Init skips
// blank lines and lines that begin with "#". A listed module may be built into the kernel.
//
// In /lib/modules/RELEASE, modules.dep has the dependencies of the modules, and modules.alias says
// which devices they drive. Init loads further modules for the devices that it finds.
//
// Every guest has this file and no other system does, so the file marks a guest.
const ModulesFile = "/etc/modules-load.d/guesthouse.conf"

// ModulesError is the environment variable that tells the guest program why init could not load one
// of these modules.
const ModulesError = "GUESTHOUSE_MODULES_ERROR"

// NetworkError is the environment variable that tells the guest program why init could not bring the
// network up.
const NetworkError = "GUESTHOUSE_NETWORK_ERROR"

// Ready is the line that init prints on the console of a platform when it waits for the harness.
const Ready = "init: ready"
