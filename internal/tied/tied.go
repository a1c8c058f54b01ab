// Package tied starts processes that die with the one that started them, however that
// dies.
package tied

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a command in a process group of its own, so that Ctrl-C at the terminal
// reaches us alone and we end it in order. When this process dies, by kill -9 too, the
// kernel kills it (PR_SET_PDEATHSIG); what it has started itself the kernel leaves alone:
// see StartGroup.
//
// The channel gets what cmd.Wait returns; do not call that.
func Start(cmd *exec.Cmd) (ended <-chan error, err error) {
	return StartOn(func() error { return nil }, cmd)
}

// StartOn is Start on a thread that prepare changes first: what a thread has of its own, as a
// umask after unshare(CLONE_FS), the command inherits. The thread ends with the command.
func StartOn(prepare func() error, cmd *exec.Cmd) (ended <-chan error, err error) {
	return start(prepare, cmd, syscall.SIGKILL)
}

// guard is a shell that runs a command and kills its process group, and so itself, at SIGTERM.
const guard = `trap 'kill -KILL 0' TERM; "$@" & wait $!`

// StartGroup is Start, and what the command has started itself dies with this process too, as
// long as it stays in its process group: the compilers of a go command, for example. A
// shell, the group's leader, is told of our death and kills the group. The command has no
// standard input. One that a signal ends has the exit status of the shell, 128 and its number.
func StartGroup(cmd *exec.Cmd) (ended <-chan error, err error) {
	if cmd.Err == nil { // else Start says so
		// The shell would say it on the command's standard error.
		if cmd.Path, cmd.Err = exec.LookPath(cmd.Path); cmd.Err == nil {
			cmd.Args = append([]string{"sh", "-c", guard, "sh", cmd.Path}, cmd.Args[1:]...)
			cmd.Path = "/bin/sh"
		}
	}
	return start(func() error { return nil }, cmd, syscall.SIGTERM)
}

// start has the kernel send a signal to the command when this process dies.
func start(prepare func() error, cmd *exec.Cmd, atDeath syscall.Signal) (ended <-chan error, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = atDeath
	started, waited := make(chan error), make(chan error, 1)
	go func() {
		// The kernel takes the end of the thread that forked for ours. So it stays
		// until the command has ended. It is never unlocked, so that nobody else runs
		// on a thread that prepare has changed.
		runtime.LockOSThread()
		err := prepare()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			waited <- cmd.Wait()
		}
	}()
	return waited, <-started
}
