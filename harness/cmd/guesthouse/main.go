// Guesthouse boots a guest in an emulated machine and connects you to its serial
// console. It also builds what the machine boots from and sends traffic to it.
//
//	guesthouse run [-target T] [-guest PACKAGE] …   boot a machine and connect to its console
//	guesthouse exec [flags] PROGRAM [ARGUMENT …]    run a program in a fresh machine, as go test -exec does
//	guesthouse test [flags] [packages]              run go test in machines of several targets and kernels
//	guesthouse check [flags] [FILE|DIRECTORY …]     run scenarios: tests of machines as scripts, without Go
//	guesthouse build [-target T] [-guest PACKAGE]   build a kernel and an initramfs and print their paths
//	guesthouse bundle RECORD                        pack a record with its kernel and initramfs, to boot it elsewhere
//	guesthouse traffic NETWORK ADDRESS …            check or load an echo service
//	guesthouse doctor                               check whether this host can run guests
//	guesthouse targets                              list the targets
//	guesthouse templates [-clear]                   list or remove the saved machines
//	guesthouse images [-clear]                      list or remove the cached kernels and initramfs
//	guesthouse kernels [-target T]                  list the kernels to boot, by name
//
// With -h, each command prints its flags. The exit status is 0 for success, 1
// for a failure, 2 for a wrong command line, and 128 plus the signal's number
// if a signal ends guesthouse. Run exits with the status of the guest's program, or with
// 128 plus the number of the signal that ended the program, and with 125 if guesthouse
// itself fails or the machine is lost.
package main

import (
	"os"

	"guesthouse.example/harness/internal/cli"
)

func main() { os.Exit(cli.Main(nil)) }
