package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/wire"
)

// Run makes init start the guest program of a platform, /bin/uinit. It returns when the program runs,
// or with an error that wraps guestfault.ErrGuest if it could not be started. The platform then waits
// for another Run. When the program has ended, Exit returns how, and the machine powers off.
func (c *Client) Run(ctx context.Context, p wire.Program) error {
	payload, err := p.Encode()
	if err != nil {
		return err
	}
	why, err := c.ask(ctx, wire.Run, payload)
	if err != nil {
		return err
	}
	return refused("start the guest program", why)
}

// Deliver writes a file in the guest. It reads f.Size bytes from content, whose SHA-256 in hexadecimal
// the caller knows. The file appears at its path, complete and with its mode, only if the content has
// that hash; it replaces a file of that name, and directories that are missing are made. If the guest
// refuses the file, for example because its memory is full, the error wraps guestfault.ErrGuest.
func (c *Client) Deliver(ctx context.Context, f wire.File, content io.Reader, sum string) error {
	if err := c.takeTurn(ctx); err != nil { // for all chunks, so that no save comes between them
		return err
	}
	defer c.endTurn()
	chunk := wire.Chunk{File: f}
	hash := sha256.New()
	buf := make([]byte, min(f.Size, wire.MaxChunk))
	for {
		n, err := io.ReadFull(content, buf[:min(f.Size-chunk.Offset, wire.MaxChunk)])
		if err != nil {
			return fmt.Errorf("deliver %s: its content ends after %d of %d bytes: %w", f.Path, chunk.Offset+int64(n), f.Size, err)
		}
		chunk.Data = buf[:n]
		hash.Write(chunk.Data)
		if chunk.Last() {
			if is := hex.EncodeToString(hash.Sum(nil)); is != sum {
				return fmt.Errorf("deliver %s: its content has changed: the SHA-256 is %s, not %s", f.Path, is, sum)
			}
		}
		payload, err := chunk.Encode()
		if err != nil {
			return err
		}
		why, err := c.askInTurn(ctx, wire.Deliver, payload)
		if err == nil {
			err = refused("deliver "+f.Path, why)
		}
		if err != nil || chunk.Last() {
			return err
		}
		chunk.Offset += int64(n)
	}
}

// refused returns the error for the guest's reason why it did not do what it was asked, or nil if it
// has given none.
func refused(what string, why []byte) error {
	if len(why) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", guestfault.ErrGuest, what, printable.Text(string(why)))
}
