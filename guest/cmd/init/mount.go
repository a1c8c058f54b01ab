package main

import (
	"errors"

	"guesthouse.example/guest/internal/disk"
	"guesthouse.example/guest/internal/modules"
	"guesthouse.example/guest/internal/share"
	"guesthouse.example/internal/wire"
)

// loadShareModules loads the kernel's modules for directories of the host, as far as they are there. The
// error says which are missing. The template of a platform has them already.
func loadShareModules() error {
	return errors.Join(modules.LoadFileSystem("fuse"), modules.LoadFileSystem("overlay"))
}

// Mount mounts directories of the host, in their order. After an error, the earlier ones stay mounted.
func (p *program) Mount(shares []wire.Share) error {
	d, err := p.harness.Disk()
	if err != nil {
		return err
	}
	missing := loadShareModules() // before a share hides the modules
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
