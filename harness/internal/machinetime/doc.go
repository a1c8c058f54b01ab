// Package machinetime measures time as an emulated machine has it, so that a busy host fails no
// deadline of a guest.
//
// QEMU is one process among others. On a busy host its threads wait for a processor, and if the
// host is a virtual machine, the host waits too. A guest that answers within one second on an idle
// host then needs ten, and a deadline on the wall clock would blame the guest. A [Clock] therefore
// subtracts from the wall clock the time in which QEMU was ready to run and could not:
//
//   - Its threads were queued for a processor (/proc/PID/task/*/schedstat). They queue side by
//     side, so the longest wait counts. Each processor of the guest is a thread, so a guest whose
//     processors are all busy on fewer processors of the host has less of the wall clock's time.
//   - A signal had stopped it (/proc/PID/stat).
//   - The host's processors ran other virtual machines (steal time, /proc/stat). Again the longest
//     counts.
//
// What remains is the machine's time. [Clock.WithDeadline] and [Clock.WithTimeout] are deadlines in
// it. They bound the wall clock too, at ten times their length, so that a wait ends on a host that
// never runs QEMU. [Clock.WithWatchdog] detects a guest that hangs, and [Clock.WaitIdle] waits for
// a guest that has finished its work.
//
// The time in which this process was suspended, by Ctrl-Z for example, counts on neither clock.
// QEMU has a process group of its own and may have run meanwhile, but nobody drained its console.
//
// On a kernel without these statistics the machine's time is the time of the wall clock.
package machinetime
