// Package initramfs names the files by which package images, which writes an initramfs, and the
// guest, which runs from it, find each other. It has no code.
package initramfs

// Program is the guest program. Init starts it.
const Program = "/bin/uinit"

// ModulesFile names the kernel modules that the guest loads, in this order: one name a line. Blank
// lines and lines that begin with "#" are skipped. A name may be that of a module that is built
// into the kernel.
//
// The dependencies of the modules are in the modules.dep of /lib/modules/RELEASE. Its
// modules.alias says which devices they drive; init loads others there for the devices that it
// finds.
//
// Every guest has this file and no other system does, so that the file marks a guest.
const ModulesFile = "/etc/modules-load.d/guesthouse.conf"

// ModulesError is the environment variable that tells the guest program why init could not load one
// of these modules.
const ModulesError = "GUESTHOUSE_MODULES_ERROR"
