// Package initramfs names the files that package images writes into an initramfs and that the guest
// reads. It has no code.
package initramfs

// Program is the guest program. Init starts it.
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
