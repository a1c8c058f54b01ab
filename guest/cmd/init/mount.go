package main

import (
	"errors"

	"guesthouse.example/guest/internal/disk"
	"guesthouse.example/guest/internal/modules"
	"guesthouse.example/guest/internal/share"
	"guesthouse.example/internal/wire"
)

// loadShareModules loads the kernel's modules for directories of the host, as far as they are there. The
// error says which are missing.
func (p *program) loadShareModules() error {
	if p.shareable.Load() {
		return nil // in a restored machine even a look is slow
	}
	err := errors.Join(modules.LoadFileSystem("fuse"), modules.LoadFileSystem("overlay"))
	p.shareable.Store(err == nil)
	return err
}

// Prepare lets Mount do less in a machine that is restored. A machine whose initramfs has a program has not
// loaded the modules, and does not need them.
func (p *program) Prepare() error {
	if !p.shareable.Load() {
		return nil
	}
	switch _, err := p.harness.Disk(); {
	case errors.Is(err, disk.ErrNone):
		return nil
	case err != nil:
		return err
	}
	return share.Prepare()
}

// Mount mounts directories of the host, in their order. After an error, the earlier ones stay mounted.
func (p *program) Mount(shares []wire.Share) error {
	d, err := p.harness.Disk()
	if err != nil {
		return err
	}
	missing := p.loadShareModules() // before a share hides the modules
	for _, s := range shares {
		if err := share.Mount(line(d, s.Channel), s); err != nil {
			return errors.Join(err, missing)
		}
	}
	return nil
}

// line returns what carries a share's requests over a channel of the disk.
func line(d *disk.Disk, channel uint32) share.Line {
	return func(request []byte, expect int, use func(answer []byte) error) error {
		s := d.Slot()
		defer s.Release()
		payload, err := s.Payload(len(request))
		if err != nil {
			return err
		}
		copy(payload, request)
		answer, err := s.Call(channel, len(request), expect)
		if err != nil {
			return err
		}
		return use(answer)
	}
}
