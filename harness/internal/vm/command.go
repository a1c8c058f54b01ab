package vm

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/until"
)

// Run runs a command in the guest and waits until it exits. When ctx ends, Run kills the command. It returns
// what the command has written, also with an error.
func (v *VM) Run(ctx context.Context, args []string) (agent.Output, error) {
	ctx, cancel := v.UnlessCrashed(ctx)
	defer cancel()
	if err := v.AwaitAgent(ctx); err != nil {
		return agent.Output{}, err
	}
	command, err := v.Agent.Start(ctx, args)
	if err != nil {
		return agent.Output{}, v.OrCrash(ctx, err)
	}
	select {
	case <-command.Done():
	case <-v.Agent.Done():
		err = v.OrCrash(ctx, v.Agent.Err())
	case <-ctx.Done():
		killed := make(chan error, 1)
		go func() {
			killed <- v.kill(command)
			command.Release()
		}()
		err = context.Cause(ctx)
		failed, ok := until.Receive(ctx, killed, undoWithin)
		if !ok {
			return command.Output(), fmt.Errorf("%w; it is killed when the guest's agent answers", err)
		}
		if failed != nil {
			err = fmt.Errorf("%w; it could not be killed: %w", err, failed)
		}
	}
	command.Release()
	return command.Output(), err
}

// killWithin bounds, in the machine's time, how long kill waits.
const killWithin = 5 * time.Second

// kill kills a command and all processes that it has started, and waits until the command has ended. It does
// nothing if the guest has crashed or QEMU has ended.
func (v *VM) kill(command *agent.Command) error {
	select {
	case <-v.Process.Done:
		return nil
	default:
	}
	if v.Crashed() != nil {
		return nil
	}
	ctx, cancel := v.Within(context.Background(), killWithin)
	defer cancel()
	return command.Kill(ctx)
}
