// Package echoguest boots and restores guesthouse's own guest, an echo service, and waits for its first echo.
package echoguest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"guesthouse.example/harness"
	"guesthouse.example/images"
)

// Port is the guest's port, over UDP and TCP.
const Port = 4242

// Guests builds the images and saves the templates that the cases of a benchmark share, each at its first
// use. An error is kept too: the next call returns it at once.
type Guests struct {
	Source  string // the folder of the module that has the guest
	Dir     string // for the templates
	Package string // of the guest; guesthouse's own guest if it is empty

	images    map[string]outcome[images.Image]
	templates map[string]outcome[*harness.Template]
}

type outcome[T any] struct {
	value T
	err   error
}

// once returns the outcome of the first call of do for a key.
func once[T any](all *map[string]outcome[T], key string, do func() (T, error)) (T, error) {
	o, done := (*all)[key]
	if !done {
		o.value, o.err = do()
		if *all == nil {
			*all = map[string]outcome[T]{}
		}
		(*all)[key] = o
	}
	return o.value, o.err
}

// Cold returns a Spec that boots the guest, which is built into its initramfs.
func (g *Guests) Cold(ctx context.Context, target string) (harness.Spec, error) {
	image, err := once(&g.images, target, func() (images.Image, error) {
		return images.Build(ctx, target, cmp.Or(g.Package, "guesthouse.example/guest/cmd/uinit"), images.Options{Dir: g.Source, Log: os.Stderr, Progress: os.Stderr})
	})
	return harness.Spec{Target: target, Kernel: image.Kernel, Initramfs: image.Initramfs, Ports: []string{"udp/4242", "tcp/4242"}, From: harness.Cold}, err
}

// Restored returns a Spec that restores the guest.
func (g *Guests) Restored(ctx context.Context, target string) (harness.Spec, error) {
	spec, err := g.Cold(ctx, target)
	if err != nil {
		return spec, err
	}
	return g.Saved(ctx, spec, "echo-"+target)
}

// Saved returns a Spec that restores the machine of another Spec, from the template of that name.
func (g *Guests) Saved(ctx context.Context, spec harness.Spec, name string) (harness.Spec, error) {
	spec.Accel, spec.From = harness.TCG, harness.Cold
	saved, err := once(&g.templates, name, func() (*harness.Template, error) {
		m, err := harness.Boot(ctx, spec) // which also brings the files into the page cache
		if err != nil {
			return nil, err
		}
		defer m.Close()
		return m.Save(ctx, filepath.Join(g.Dir, name))
	})
	spec.From = saved
	return spec, err
}

// Boot boots or restores a machine and waits for its first echo over a network. It fails if a machine boots
// that was to be restored.
func Boot(ctx context.Context, spec harness.Spec, network string) (*harness.Machine, error) {
	m, err := harness.Boot(ctx, spec)
	if err != nil {
		return nil, err
	}
	if _, restores := spec.From.(*harness.Template); restores && m.Result().Boot != harness.BootRestored {
		m.Close()
		return nil, fmt.Errorf("the machine was booted and not restored: %s", m.Result().Why)
	}
	conn, err := m.Dial(ctx, network, Port)
	if err == nil {
		err = Wait(ctx, conn)
		conn.Close()
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}
