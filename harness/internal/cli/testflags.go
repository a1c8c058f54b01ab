package cli

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

// A testLine is the command line of guesthouse test.
type testLine struct {
	targets      []target.Target
	kernels      []string
	environ      []string // of go test
	junit        string
	image        imageFlags
	execArgs     []string // for guesthouse exec
	goArgs       []string // for go test, without those in the fields below
	dir          string   // the value of -C
	coverProfile string
	outputDir    string
	goFlags      map[string]bool // the names of the flags of go test
}

func (c *testLine) has(goFlag string) bool { return c.goFlags[goFlag] }

// parseTest separates our flags from those of go test, which has no flag of the same name.
func parseTest(args []string, std stdio) (*testLine, error) {
	c := &testLine{environ: os.Environ(), goFlags: make(map[string]bool)}
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	var targets, kernels string
	flags.StringVar(&targets, "target", "", "the `targets`, such as x86_64,arm64, or all (default: the target of GOARCH, or of this host)")
	flags.StringVar(&kernels, "kernel", "", "the `kernels`, such as debian,gokrazy,host: a list of what the flag -kernel of guesthouse exec takes (default: that of exec)")
	flags.StringVar(&c.image.modules, "modules", "", modulesUsage)
	flags.StringVar(&c.image.cache, "cache", "", cacheUsage)
	flags.StringVar(&c.junit, "junit", "", "write the results as JUnit's XML into a `file`")
	new(machineFlags).register(flags)
	var own []string
	for i := 0; i < len(args); i++ {
		name, value, hasValue := splitFlag(args[i])
		if name == "args" {
			c.goArgs = append(c.goArgs, args[i:]...)
			break
		}
		takeValue := func() error {
			if !hasValue && i+1 == len(args) {
				return fmt.Errorf("test: -%s needs a value (%w; see -h)", name, errUsage)
			}
			if !hasValue {
				i++
				value = args[i]
			}
			return nil
		}
		ours := flags.Lookup(name)
		switch {
		case name == "":
			c.goArgs = append(c.goArgs, args[i])
		case name == "h" || name == "help":
			own = []string{"-h"}
			i = len(args)
		case ours != nil:
			if b, ok := ours.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
				own = append(own, args[i])
				continue
			}
			if err := takeValue(); err != nil {
				return nil, err
			}
			own = append(own, "-"+name+"="+value)
		default:
			name = strings.TrimPrefix(name, "test.")
			into := map[string]*string{"C": &c.dir, "coverprofile": &c.coverProfile, "outputdir": &c.outputDir}[name]
			if into != nil {
				if err := takeValue(); err != nil {
					return nil, err
				}
				*into = value
			} else if name != "json" {
				c.goArgs = append(c.goArgs, args[i])
			}
			c.goFlags[name] = value != "false" && value != "0"
		}
	}
	if err := parse(flags, own, std, testUsage); err != nil {
		return nil, err
	}
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "target", "kernel", "junit":
		case "modules", "cache":
			c.execArgs = append(c.execArgs, "-"+f.Name+"="+absoluteIn("", f.Value.String()))
		case "share", "env":
			for _, value := range *f.Value.(*listValue) {
				c.execArgs = append(c.execArgs, "-"+f.Name+"="+value)
			}
		default:
			c.execArgs = append(c.execArgs, "-"+f.Name+"="+f.Value.String())
		}
	})
	if err := c.choose(targets, kernels); err != nil {
		return nil, fmt.Errorf("test: %w (%w; see -h)", err, errUsage)
	}
	return c, nil
}

// splitFlag splits "-name=value" or "--name". The name is empty if arg is no flag.
func splitFlag(arg string) (name, value string, hasValue bool) {
	name, ok := strings.CutPrefix(arg, "-")
	if !ok {
		return "", "", false
	}
	name, value, hasValue = strings.Cut(strings.TrimPrefix(name, "-"), "=")
	return name, value, hasValue
}

// sanitizers are the flags of go test that need cgo.
var sanitizers = []string{"race", "msan", "asan"}

// profiles are the flags of go test with which a run writes files for the user. Several runs would write
// the same files.
var profiles = []string{"blockprofile", "cpuprofile", "memprofile", "mutexprofile", "trace", "fuzz", "o", "c"}

// choose fills in the targets and kernels, and refuses what does not work together.
func (c *testLine) choose(targets, kernels string) error {
	var err error
	if c.targets, err = targetsOf(targets); err != nil {
		return err
	}
	c.kernels = []string{""}
	if kernels != "" {
		if c.kernels, err = images.KernelNames(kernels); err != nil {
			return err
		}
	}
	for i, name := range c.kernels { // go test runs guesthouse exec in the directories of packages
		if !images.IsKernelName(name) {
			c.kernels[i] = absoluteIn("", name)
		}
	}
	for _, t := range c.targets {
		for _, sanitizer := range sanitizers {
			if c.has(sanitizer) && t.GOARCH != runtime.GOARCH {
				return fmt.Errorf("-%s needs cgo and therefore a target of this host's architecture, %s; the target is %s", sanitizer, runtime.GOARCH, t.Name)
			}
		}
	}
	if c.has("exec") {
		return errors.New("-exec does not work here: the machines are the command that runs the tests")
	}
	if len(c.targets)*len(c.kernels) == 1 {
		return nil
	}
	for _, name := range profiles {
		if c.has(name) {
			return fmt.Errorf("-%s works with one target and one kernel", name)
		}
	}
	return nil
}

// absoluteIn returns the absolute path of a file that is named in a directory, which may be empty.
func absoluteIn(dir, file string) string {
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}
