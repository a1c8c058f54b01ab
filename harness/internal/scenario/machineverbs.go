package scenario

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"guesthouse.example/harness"
)

// verbs are all verbs of the language.
var verbs = slices.Concat(machineVerbs, consoleVerbs, networkVerbs, guestVerbs, scriptVerbs)

var machineVerbs = []verb{
	{
		name: "boot", args: "[-m NAME] [flags of guesthouse run] [IMAGE]", summary: "boot a machine and wait until it is ready",
		detail: []string{
			"Without -m the machine's name is main.",
			"The flags are those of guesthouse run that describe a machine, such as -guest PACKAGE, -kernel KERNEL, -board BOARD, -port udp/4242, -memory MIB, -cpus N and -cold. Relative paths begin at $DIR.",
			"Without -cold the machine is restored from a template if there is one.",
		},
		raw: (*call).boot,
	},
	{
		name: "shutdown", args: "[-m NAME]", summary: "power the machine off", setup: noFlags(func(c *call) error {
			c.m.mayEnd = true
			return c.m.Shutdown(c.ctx)
		}),
	},
	{
		name: "wait", args: "[-m NAME] [-status N]", summary: "wait until the machine ends by itself",
		detail: []string{"The guest's program must end with the status N, or 0."},
		setup: func(flags *flag.FlagSet) func(c *call) error {
			status := flags.Int("status", 0, "the exit `status` of the guest's program")
			return func(c *call) error {
				c.m.mayEnd = true
				if *status == 0 {
					return c.m.Wait(c.ctx)
				}
				return c.m.WaitExit(c.ctx, *status)
			}
		},
	},
	{
		name: "reset", args: "[-m NAME]", summary: "end the machine as a power cut does, and boot it again",
		detail: []string{"The machine boots its kernel, as after a power cut. Its disks have their first content again."},
		setup: noFlags(func(c *call) error {
			spec := c.m.Spec()
			spec.From, spec.Dir = harness.Cold, ""
			c.m.mayEnd = true
			if err := c.m.Close(); err != nil {
				return err
			}
			return c.start(c.name, spec)
		}),
	},
	{
		name: "save", args: "[-m NAME] STATE", summary: "save the state of the machine for restore; the machine goes on",
		minArgs: 1, maxArgs: 1, setup: noFlags((*call).save),
	},
	{
		name: "restore", args: "[-m NAME] STATE", summary: "start a machine from a saved state",
		detail: []string{"Without -m the machine's name is STATE. Several machines may start from one state."},
		bare:   true, minArgs: 1, maxArgs: 1,
		setup: func(flags *flag.FlagSet) func(c *call) error {
			name := flags.String("m", "", "the `name` of the machine")
			return func(c *call) error { return c.restore(*name) }
		},
	},
	{
		name: "link", args: "[-m NAME] up|down", summary: "plug the machine's network cable in, or pull it out",
		minArgs: 1, maxArgs: 1, setup: noFlags(func(c *call) error {
			if c.args[0] != "up" && c.args[0] != "down" {
				return wrongf("%q is neither up nor down", c.args[0])
			}
			return c.m.SetLink(c.ctx, c.args[0] == "up")
		}),
	},
	{
		name: "stat", args: "[-m NAME]", summary: "print the guest's statistics on stdout",
		detail: []string{"It prints one line for the machine, and one for each socket service, such as: service udp: sockets 1, calls 3, errors 0"},
		setup: noFlags(func(c *call) error {
			s, err := c.m.Stats(c.ctx)
			if err != nil {
				return err
			}
			var b strings.Builder
			fmt.Fprintf(&b, "uptime %v, memory %d MiB, free %d MiB\n", s.Uptime, s.MemoryTotal>>20, s.MemoryFree>>20)
			for _, v := range s.Services {
				fmt.Fprintf(&b, "service %s: sockets %d, calls %d, errors %d\n", v.Name, v.Sockets, v.Calls, v.Errors)
			}
			c.stdout = b.String()
			return nil
		}),
	},
}

// boot boots a machine. Its arguments are flags of guesthouse run, but for -m.
func (c *call) boot(args []string) error {
	name := "main"
	for i, arg := range args {
		if arg == "-m" || arg == "--m" {
			if i+1 == len(args) {
				return wrongf("-m needs the name of the machine")
			}
			name, args = args[i+1], slices.Delete(slices.Clone(args), i, i+2)
			break
		}
	}
	if !machineName.MatchString(name) {
		return wrongf("the name %q of a machine: want letters, digits and hyphens", name)
	}
	spec, err := c.Boot(c.run.ctx, c.Target, c.dir, args, c.log)
	if err != nil {
		return err
	}
	spec.Savable = spec.Savable || c.savable
	spec.Test = c.Name
	return c.start(name, spec)
}

var machineName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*$`)

// start boots a machine and gives it its files.
func (c *call) start(name string, spec harness.Spec) error {
	if old := c.machines[name]; old != nil && !old.mayEnd {
		return wrongf("a machine of the name %q runs: name the new one with -m", name)
	}
	if spec.Dir == "" {
		dir, err := c.recordDir(name)
		if err != nil {
			return err
		}
		spec.Dir = dir
	}
	m, err := harness.Start(c.run.ctx, spec)
	if err != nil {
		return err
	}
	booted := &machine{Machine: m, name: name}
	c.machines[name], c.current = booted, name
	c.order = append(c.order, booted)
	if err := m.WaitReady(c.run.ctx); err != nil {
		booted.mayEnd = true // the error has the reason
		return err
	}
	r := m.Result()
	c.logf("%s is ready after %.2f s (%s, %s)", name, r.ReadySeconds, r.Boot, r.Accel)
	return c.copyFiles(booted)
}

// copyFiles copies the script's files below guest/ into a machine.
func (c *call) copyFiles(m *machine) error {
	entries, err := os.ReadDir(filepath.Join(c.work, "guest"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := m.Within(c.run.ctx, within)
	defer cancel()
	for _, e := range entries {
		if err := copyTree(ctx, m, filepath.Join(c.work, "guest", e.Name()), "/"+e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies a file, or the files of a directory into a directory of the guest. CopyIn of the whole directory
// would give directories of the guest, such as /tmp, the modes of the script's.
func copyTree(ctx context.Context, m *machine, host, guest string) error {
	return filepath.WalkDir(host, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(host, path)
		if err != nil {
			return err
		}
		to := filepath.Join(guest, rel)
		if err := m.Command(ctx, "mkdir", "-p", filepath.Dir(to)).Run(); err != nil {
			return err
		}
		return m.CopyIn(ctx, path, to)
	})
}

func (c *call) save() error {
	state := c.args[0]
	if _, there := c.saved[state]; there {
		return wrongf("a state of the name %q is saved already", state)
	}
	dir, err := os.MkdirTemp(c.work, ".saved-")
	if err != nil {
		return err
	}
	template, err := c.m.Save(c.ctx, filepath.Join(dir, "template"))
	if err != nil {
		return err
	}
	c.saved[state] = saved{c.m.Spec(), template}
	return nil
}

func (c *call) restore(name string) error {
	state := c.args[0]
	s, ok := c.saved[state]
	if !ok {
		return wrongf("no state of the name %q is saved", state)
	}
	spec := s.spec
	spec.From, spec.Dir = s.template, ""
	if name == "" {
		name = state
	}
	return c.start(name, spec)
}
