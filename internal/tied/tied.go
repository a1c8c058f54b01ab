// Package tied starts processes that die when this process dies, even by kill -9.
package tied

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a command in a process group of its own, so that Ctrl-C at the terminal
// reaches only this process, which then ends the command. When this process dies, the
// kernel kills the command (PR_SET_PDEATHSIG), but not the processes that the command has
// started; see StartGroup.
//
// The channel gets the result of cmd.Wait. The caller must not call cmd.Wait.
func Start(cmd *exec.Cmd) (ended <-chan error, err error) {
	return StartOn(func() error { return nil }, cmd)
}

// StartOn is like Start, but first calls prepare on the thread that starts the command. The
// command inherits the thread's own state, such as its umask after unshare(CLONE_FS). The
// thread ends with the command.
func StartOn(prepare func() error, cmd *exec.Cmd) (ended <-chan error, err error) {
	return start(prepare, cmd, syscall.SIGKILL)
}

// guard is a shell script that runs a command. At SIGTERM it kills its process group, which
// includes the shell itself.
const guard = `trap 'kill -KILL 0' TERM; "$@" & wait $!`

// StartGroup is like Start, but the processes of the command's whole process group die with
// this process: also the compilers of a go command, for example. The kernel signals the death
// of this process to a shell, which leads the group and kills it. The command has no standard
// input. If a signal ends the command, the exit status is the shell's: 128 plus the number of
// the signal.
func StartGroup(cmd *exec.Cmd) (ended <-chan error, err error) {
	if cmd.Err == nil { // otherwise cmd.Start returns the error
		// Look the program up here. The shell would report a missing program on the command's
		// standard error.
		if cmd.Path, cmd.Err = exec.LookPath(cmd.Path); cmd.Err == nil {
			cmd.Args = append([]string{"sh", "-c", guard, "sh", cmd.Path}, cmd.Args[1:]...)
			cmd.Path = "/bin/sh"
		}
	}
	return start(func() error { return nil }, cmd, syscall.SIGTERM)
}

// start starts the command and makes the kernel send it a signal when this process dies.
func start(prepare func() error, cmd *exec.Cmd, atDeath syscall.Signal) (ended <-chan error, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = atDeath
	started, waited := make(chan error), make(chan error, 1)
	go func() {
		// The kernel sends the signal when the thread that forked ends. So the thread
		// stays until the command has ended. It is never unlocked, because prepare may
		// have changed it and no other goroutine may run on it.
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
