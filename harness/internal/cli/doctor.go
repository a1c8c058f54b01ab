package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/kvm"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/kernelfile"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/sys"
	"guesthouse.example/internal/target"
)

const doctorUsage = `guesthouse doctor [flags]

Checks whether this host can run guests. It checks QEMU, the acceleration and the kernel of
each target, and looks at the caches, the terminal and QEMU processes that were left behind.
The exit status is 1 if doctor finds a problem. Doctor does not count a missing or broken
KVM as a problem, because machines then use TCG.`

// A finding is the result of one check.
type finding struct {
	Check   string `json:"check"`
	Problem bool   `json:"problem"`
	Says    string `json:"says"`
	Hint    string `json:"hint,omitempty"`
}

func doctorCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	only := flags.String("target", "", "the only `target` to check (default: all targets)")
	cache := flags.String("cache", "", cacheUsage)
	asJSON := flags.Bool("json", false, "print the findings as JSON")
	if err := parseFlags(flags, args, std, doctorUsage); err != nil {
		return err
	}
	targets, err := chosenTargets(*only)
	if err != nil {
		return fmt.Errorf("doctor: %w", err)
	}
	// The targets are checked at once, because a KVM that opens but does not work costs each of them seconds.
	of := make([][]finding, len(targets))
	var checks sync.WaitGroup
	for i, t := range targets {
		checks.Go(func() {
			kernel, err := cachedKernel(*cache, t.Name)
			file := ""
			if err == nil {
				file = kernel.Path()
			}
			of[i] = []finding{checkQEMU(ctx, t), checkAcceleration(ctx, t, file), checkKernel(t, kernel, err)}
		})
	}
	checks.Wait()
	all := append(slices.Concat(of...), checkCache(ctx, *cache), checkTemplates(), checkOrphans(), checkTerminal(std))
	if err := ctx.Err(); err != nil {
		return err // an interrupted check proves nothing
	}
	problems := 0
	for i := range all {
		f := &all[i]
		f.Says, f.Hint = printable.Text(f.Says), printable.Text(f.Hint) // both may quote QEMU
		if f.Problem {
			problems++
		}
	}
	if *asJSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "\t")
		if err := enc.Encode(map[string]any{"usable": problems == 0, "checks": all}); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
		for _, f := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\n", map[bool]string{false: "ok", true: "PROBLEM"}[f.Problem], f.Check, f.Says)
			if f.Hint != "" {
				fmt.Fprintf(w, "\t\thint: %s\n", f.Hint)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if problems > 0 {
		return fmt.Errorf("doctor: problems found: %d", problems)
	}
	return nil
}

const (
	versionWithin = time.Minute // bounds the wait for qemu --version
	oldestQEMU    = 5           // the first major version with -machine memory-backend=
)

var qemuVersion = regexp.MustCompile(`version (\d+)\.`)

func checkQEMU(ctx context.Context, t target.Target) finding {
	f := finding{Check: t.Name + " QEMU"}
	path, err := exec.LookPath(t.QEMU)
	if err != nil {
		missing := &harness.MissingQEMUError{Binary: t.QEMU, Package: t.QEMUPackage, Err: err}
		return finding{f.Check, true, err.Error(), missing.Hint()}
	}
	ctx, cancel := context.WithTimeout(ctx, versionWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	first, _, _ := strings.Cut(string(out), "\n")
	if err != nil {
		return finding{f.Check, true, fmt.Sprintf("%s --version: %v: %s", path, err, first), "install it again: " + t.QEMUPackage}
	}
	f.Says = path + ": " + first
	if v := qemuVersion.FindStringSubmatch(first); v == nil {
		f.Problem, f.Hint = true, "install it again: "+t.QEMUPackage
	} else if major, err := strconv.Atoi(v[1]); err != nil || major < oldestQEMU {
		f.Problem, f.Hint = true, fmt.Sprintf("install version %d or later: %s", oldestQEMU, t.QEMUPackage)
	}
	return f
}

// checkAcceleration boots a kernel under KVM if there is one, and otherwise only opens the device.
func checkAcceleration(ctx context.Context, t target.Target, kernel string) finding {
	evidence, err := probeKVM(ctx, qemu.Machine{Target: t, Kernel: kernel})
	return acceleration(t.Name, evidence, err)
}

func probeKVM(ctx context.Context, m qemu.Machine) (evidence string, err error) {
	if m.Kernel != "" {
		if err := kernelfile.Check(m.Kernel, m.Target); err != nil {
			return "", err
		}
		if m.Binary, err = exec.LookPath(m.Target.QEMU); err != nil {
			return "", &harness.MissingQEMUError{Binary: m.Target.QEMU, Package: m.Target.QEMUPackage, Err: err}
		}
	}
	return kvm.NewProber().Probe(ctx, m, false)
}

// acceleration returns the finding of a probe of KVM.
func acceleration(name, evidence string, err error) finding {
	f := finding{Check: name + " acceleration"}
	var failed *kvm.Error
	switch {
	case err == nil:
		f.Says = "kvm: " + evidence
	case errors.As(err, &failed):
		f.Says, f.Hint = "tcg: "+failed.What+": "+failed.Evidence, failed.Cure
	default:
		f.Says = "tcg: KVM could not be tried: " + err.Error()
	}
	return f
}

// cachedKernel returns the kernel that a build for a target takes from the cache in a directory.
func cachedKernel(dir, target string) (imagecache.Kernel, error) {
	tested, err := imagecache.Tested(target)
	if err != nil {
		return imagecache.Kernel{}, err
	}
	gokrazy, err := imagecache.Gokrazy(target)
	if err != nil {
		return imagecache.Kernel{}, err
	}
	cache, err := imagecache.Open(dir)
	if err != nil {
		return imagecache.Kernel{}, err
	}
	k, err := cache.Kernel(target, tested)
	if errors.Is(err, fs.ErrNotExist) && len(gokrazy) > 0 && !hasApt() {
		return cache.OpenKernel(gokrazy, gokrazy)
	}
	return k, err
}

func hasApt() bool {
	_, err := exec.LookPath("apt-get")
	return err == nil
}

// checkKernel looks for the kernel in the cache. The next build fetches a missing one.
func checkKernel(t target.Target, k imagecache.Kernel, err error) finding {
	f := finding{Check: t.Name + " kernel"}
	var noCache *imagecache.Error
	switch {
	case errors.As(err, &noCache):
		f.Says = "unknown, because the cache cannot be opened" // checkCache reports the problem
		return f
	case err == nil:
		f.Says = "in the cache: " + k.Set[0].String()
		if !k.Tested {
			f.Says += ", which guesthouse was not tested with"
		}
		return f
	case errors.Is(err, fs.ErrNotExist):
		f.Says = "not in the cache yet: the first build fetches it from the network"
	default:
		f.Says = "the kernel in the cache is damaged: " + err.Error()
	}
	f.Hint = "fetch it with: guesthouse build -target " + t.Name
	if gokrazy, err := imagecache.Gokrazy(t.Name); err == nil && len(gokrazy) == 0 && !hasApt() {
		f.Problem, f.Hint = true, "this host has no apt-get: give your own kernel and its modules with -kernel FILE -modules DIR"
	}
	return f
}

const leastFree = 256 << 20 // bytes; the kernel, modules and image of one target take less

func checkCache(ctx context.Context, dir string) finding {
	f := finding{Check: "cache"}
	cache, err := imagecache.Open(dir)
	if err == nil {
		dir, err = cache.Check(ctx)
	}
	var failed *imagecache.Error
	if errors.As(err, &failed) {
		return finding{f.Check, true, failed.Cause(), failed.Hint}
	}
	free, err := sys.DiskFree(dir)
	if err != nil {
		return finding{f.Check, true, err.Error(), "name another directory with -cache DIR"}
	}
	f.Says = fmt.Sprintf("%s: %d MiB used; %d MiB free on the disk", dir, sys.DiskUsage(dir)>>20, free>>20)
	if free < leastFree {
		f.Problem, f.Hint = true, fmt.Sprintf("make %d MiB free, or name another directory with -cache DIR", leastFree>>20)
	}
	return f
}

// checkTemplates never finds a problem, because machines can boot without templates.
func checkTemplates() finding {
	f := finding{Check: "templates"}
	cache, err := template.OpenCache("")
	if err != nil {
		f.Says, f.Hint = "machines boot instead of being restored: list templates: "+err.Error(), "make the user's cache directory writable, or name another in XDG_CACHE_HOME"
		return f
	}
	var bytes int64
	all := cache.List()
	for _, t := range all {
		bytes += t.Bytes
	}
	f.Says = fmt.Sprintf("%d saved machines, %d MiB", len(all), bytes>>20)
	return f
}

func checkOrphans() finding {
	f := finding{Check: "processes", Says: "no QEMU was left behind"}
	pids, err := qemu.Orphans()
	switch {
	case err != nil:
		f.Problem, f.Says, f.Hint = true, err.Error(), "mount /proc"
	case len(pids) > 0:
		numbers := strings.Trim(fmt.Sprint(pids), "[]")
		f.Problem, f.Says, f.Hint = true, "QEMU processes without an owner: "+numbers, "end them with: kill "+numbers
	}
	return f
}

func checkTerminal(std stdio) finding {
	f := finding{Check: "terminal", Says: "none: guesthouse run types the lines of its standard input to the guest"}
	out, isFile := std.out.(*os.File)
	if isFile && term.IsTerminal(int(std.in.Fd())) && term.IsTerminal(int(out.Fd())) {
		f.Says = "yes: guesthouse run connects it to the guest"
	}
	return f
}
