package vm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"
	"sync"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/until"
	"guesthouse.example/internal/filetree"
	"guesthouse.example/internal/wire"
)

// errNoDisk says that the machine has no initramfs, and thus no agent and no disk.
var errNoDisk = errors.New("the machine has no disk for the guest's agent, because it has no initramfs")

// copyName returns the name of a copy of path in a directory that exists, as cp chooses it.
func copyName(p string) string {
	switch base := path.Base(p); {
	case strings.HasSuffix(p, "/."), base == "..", base == "/":
		return "."
	default:
		return base
	}
}

// CopyIn copies a file or a tree of the host into the guest.
func (v *VM) CopyIn(ctx context.Context, hostPath, guestPath string) error {
	info, err := os.Lstat(hostPath)
	if err != nil {
		return err
	}
	expect := filetree.MaxBatch
	if info.Mode().IsRegular() {
		expect = expected(info)
	}
	return v.copyIn(ctx, wire.CopyRequest{Path: guestPath, Name: copyName(hostPath), Expect: expect}, func(emit func([]byte) error) error {
		return filetree.Send(hostPath, emit)
	})
}

// expected returns the size of the first batch with a file.
func expected(info fs.FileInfo) int {
	const records = 256 // bytes
	return int(min(info.Size()+records, filetree.MaxBatch))
}

// Deliver writes an open file of the host to a path of the guest, where it replaces a file. It makes directories
// that are missing. The file appears in the guest only if its SHA-256, in hexadecimal, is sum.
func (v *VM) Deliver(ctx context.Context, f *os.File, guestPath string, perm fs.FileMode, sum string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	request := wire.CopyRequest{Path: guestPath, Exact: true, Expect: expected(info)}
	return v.copyIn(ctx, request, func(emit func([]byte) error) error {
		return filetree.SendFile(f, perm, checked(f, sum, emit))
	})
}

// checked returns a function that calls emit, but fails at the last batch if the file's SHA-256 is not sum. It
// computes the hash while the file is sent.
func checked(f *os.File, sum string, emit func([]byte) error) func([]byte) error {
	hashed := make(chan error, 1)
	go func() {
		hash := sha256.New()
		_, err := io.Copy(hash, io.NewSectionReader(f, 0, math.MaxInt64))
		if is := hex.EncodeToString(hash.Sum(nil)); err == nil && is != sum {
			err = fmt.Errorf("%s: its content has changed: the SHA-256 is %s, not %s", f.Name(), is, sum)
		}
		hashed <- err
	}()
	return func(batch []byte) error {
		if filetree.IsLast(batch) {
			if err := <-hashed; err != nil {
				return err
			}
		}
		return emit(batch)
	}
}

// copyIn makes the guest's agent write the stream that send emits.
func (v *VM) copyIn(ctx context.Context, request wire.CopyRequest, send func(emit func([]byte) error) error) error {
	if v.Disk == nil {
		return errNoDisk
	}
	batches := make(chan []byte)
	sent := make(chan struct{}) // closed when send has returned
	var sendErr error
	sending, stop := context.WithCancel(ctx)
	defer stop()
	channel := v.Disk.Open(func(ctx context.Context, _ []byte) ([]byte, error) {
		select {
		case b := <-batches:
			return b, nil
		case <-sent:
			return nil, fmt.Errorf("the host ended the copy: %v", sendErr)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	defer channel.Close()
	go func() {
		defer close(sent)
		sendErr = send(func(b []byte) error {
			select {
			case batches <- b:
				return nil
			case <-sending.Done():
				return context.Cause(sending)
			}
		})
	}()
	request.Channel = channel.Number
	err := v.copy(ctx, wire.CopyIn, request, channel.Close)
	select {
	case <-sent:
		err = cmp.Or(sendErr, err) // the guest fails too if the host does
	default:
		stop()
		<-sent
	}
	return err
}

// CopyOut copies a file or a tree of the guest to the host. It leaves out setuid and setgid bits: the copy
// belongs to the user of this process, and the guest chooses the content.
func (v *VM) CopyOut(ctx context.Context, guestPath, hostPath string) error {
	if v.Disk == nil {
		return errNoDisk
	}
	var mu sync.Mutex
	var failed error
	to := filetree.NewReceiver(filetree.Destination{Path: hostPath, Name: copyName(guestPath), Unnamed: true, NoSetID: true})
	channel := v.Disk.Open(func(_ context.Context, batch []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = to.Write(batch)
		}
		if failed != nil {
			return nil, fmt.Errorf("the host ended the copy: %w", failed)
		}
		return nil, nil
	})
	err := v.copy(ctx, wire.CopyOut, wire.CopyRequest{Channel: channel.Number, Path: guestPath}, channel.Close)
	channel.Close()
	switch {
	case failed != nil:
		err = failed
	case err == nil && !to.Done():
		err = errors.New("the guest's agent ended the copy too early")
	}
	if left := to.Close(); left != nil && err != nil {
		err = fmt.Errorf("%w; %w", err, left)
	}
	return err
}

// copy asks the guest's agent to copy and waits until it has done so. When ctx ends, copy ends the channel, and
// waits a little for the agent to remove what is incomplete.
func (v *VM) copy(ctx context.Context, kind wire.Type, request wire.CopyRequest, end func()) error {
	ctx, cancel := v.UnlessCrashed(ctx)
	defer cancel()
	call, err := v.begin(ctx, kind, request.Encode)
	if err != nil {
		return v.OrCrash(ctx, err)
	}
	defer call.Release()
	if _, err = call.Await(ctx); err == nil {
		return nil
	}
	if ctx.Err() == nil {
		return v.OrCrash(ctx, err)
	}
	end()
	answered := make(chan error, 1)
	go func() {
		undo, cancel := context.WithTimeout(context.Background(), undoWithin)
		defer cancel()
		_, err := call.Await(undo)
		answered <- err
	}()
	until.Receive(ctx, answered, undoWithin)
	return v.OrCrash(ctx, err)
}

// begin begins a call of the guest's agent. The caller releases the call.
func (v *VM) begin(ctx context.Context, kind wire.Type, encode func() ([]byte, error)) (*agent.Call, error) {
	payload, err := encode()
	if err != nil {
		return nil, err
	}
	if err := v.AwaitAgent(ctx); err != nil {
		return nil, err
	}
	return v.Agent.Begin(ctx, kind, payload)
}

// Look asks the guest's agent about a file and returns the data of its answer.
func (v *VM) Look(ctx context.Context, request wire.LookRequest) ([]byte, error) {
	ctx, cancel := v.UnlessCrashed(ctx)
	defer cancel()
	call, err := v.begin(ctx, wire.Look, request.Encode)
	if err != nil {
		return nil, v.OrCrash(ctx, err)
	}
	defer call.Release()
	data, err := call.Await(ctx)
	if err != nil {
		return nil, v.OrCrash(ctx, err)
	}
	return data, nil
}
