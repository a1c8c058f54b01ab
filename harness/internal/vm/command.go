package vm

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/until"
	"guesthouse.example/internal/wire"
)

// StartCommand starts a command in the guest, and returns when it runs or when the agent has refused it. After
// an error the command does not run, or is killed as soon as the agent answers.
func (v *VM) StartCommand(ctx context.Context, request wire.Command) (*agent.Command, error) {
	ctx, cancel := v.UnlessCrashed(ctx)
	defer cancel()
	if err := v.AwaitAgent(ctx); err != nil {
		return nil, err
	}
	command, err := v.Agent.Start(ctx, request)
	if err == nil {
		err = v.await(ctx, command, command.Answered())
	}
	if err != nil {
		return nil, v.OrCrash(ctx, err)
	}
	return command, nil
}

// FollowCommand waits until a command has exited. When ctx ends, it kills the command with all processes that
// the command has started, and returns an error.
func (v *VM) FollowCommand(ctx context.Context, command *agent.Command) error {
	ctx, cancel := v.UnlessCrashed(ctx)
	defer cancel()
	return v.await(ctx, command, command.Exited())
}

// await waits for an event of a command. After an error it has killed the command, and released it or will
// release it when the guest's agent answers.
func (v *VM) await(ctx context.Context, command *agent.Command, event <-chan struct{}) error {
	select {
	case <-event:
		return nil
	case <-v.Agent.Done():
		select {
		case <-event:
			return nil
		default:
		}
		command.Release()
		return v.OrCrash(ctx, v.Agent.Err())
	case <-ctx.Done():
	}
	killed := make(chan error, 1)
	go func() { killed <- v.kill(command) }()
	err := context.Cause(ctx)
	failed, ok := until.Receive(ctx, killed, undoWithin)
	switch {
	case !ok:
		return fmt.Errorf("%w; it is killed when the guest's agent answers", err)
	case failed != nil:
		return fmt.Errorf("%w; it could not be killed: %w", err, failed)
	}
	return err
}

// killWithin bounds, in the machine's time, how long kill waits.
const killWithin = 5 * time.Second

// kill kills a command and all processes that it has started, and waits until the command has ended. If that
// fails, it releases the command. It does not try if the guest has crashed or QEMU has ended.
func (v *VM) kill(command *agent.Command) (err error) {
	select {
	case <-v.Process.Done:
		command.Release()
		return nil
	default:
	}
	if v.Crashed() != nil {
		command.Release()
		return nil
	}
	ctx, cancel := v.Within(context.Background(), killWithin)
	defer cancel()
	if err = command.Kill(ctx); err == nil {
		select {
		case <-command.Exited():
			return nil
		case <-v.Agent.Done():
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	command.Release()
	return err
}
