package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/harness/internal/limiter"
	"guesthouse.example/harness/internal/testreport"
	"guesthouse.example/internal/target"
)

const checkUsage = `guesthouse check [flags] [FILE|DIRECTORY …]

Runs scenarios: tests of machines as scripts, without Go. A FILE is a scenario, NAME.txtar.
From a DIRECTORY, check runs all scenarios in it and below it. Without an argument, check
runs those of the current directory. guesthouse help scenario explains the language.

check runs as many scenarios at once as the host carries. If a scenario fails, check prints
the lines that it ran with their output, and for each of its machines the end of the console
and the directory of the record. The exit status is 0 if all scenarios pass, and 1 if one
fails.`

// A checkLine is the command line of check.
type checkLine struct {
	targets         []target.Target
	run             *regexp.Regexp
	verbose, asJSON bool
	update          bool
	junit           string
	shard, shards   int
	cache           string
	bootArgs        []string
	files           []string
}

func parseCheck(args []string, std stdio) (*checkLine, error) {
	var c checkLine
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	targets := flags.String("target", "", "the `targets`, such as x86_64,arm64, or all (default: that of this host)")
	only := flags.String("run", "", "run only scenarios whose path matches a regular `expression`")
	shard := flags.String("shard", "", "run a part of the scenarios: `I/N` is the part I of N, from 1 on")
	flags.BoolVar(&c.verbose, "v", false, "print the lines of every scenario with their output")
	flags.BoolVar(&c.asJSON, "json", false, "print the events of go test -json")
	flags.Func("boot", "an `argument` to put behind those of each boot, such as -boot=-memory=512; may be repeated", appendTo(&c.bootArgs))
	flags.StringVar(&c.junit, "junit", "", "write the results as JUnit's XML into a `file`")
	flags.BoolVar(&c.update, "update", false, "write the texts that cmp finds different into the scenarios")
	flags.StringVar(&c.cache, "cache", "", cacheUsage)
	if err := parse(flags, args, std, checkUsage); err != nil {
		return nil, err
	}
	wrong := func(err error) (*checkLine, error) { return nil, fmt.Errorf("check: %w (%w; see -h)", err, errUsage) }
	var err error
	if c.targets, err = targetsOf(*targets); err != nil {
		return wrong(err)
	}
	if c.update && len(c.targets) > 1 {
		return wrong(errors.New("-update works with one target"))
	}
	if c.run, err = regexp.Compile(*only); err != nil {
		return wrong(fmt.Errorf("-run: %w", err))
	}
	c.shard, c.shards = 1, 1
	if *shard != "" {
		if n, _ := fmt.Sscanf(*shard, "%d/%d", &c.shard, &c.shards); n != 2 || fmt.Sprintf("%d/%d", c.shard, c.shards) != *shard || c.shard < 1 || c.shard > c.shards {
			return wrong(fmt.Errorf("-shard %s: want I/N, such as 1/4, with I from 1 to N", *shard))
		}
	}
	files := flags.Args()
	if len(files) == 0 {
		files = []string{"."}
	}
	for _, name := range files {
		found, err := scenariosIn(name)
		if err != nil {
			return nil, fmt.Errorf("check: %w", err)
		}
		c.files = append(c.files, found...)
	}
	slices.Sort(c.files)
	c.files = slices.Compact(c.files)
	if len(c.files) == 0 {
		return nil, fmt.Errorf("check: no scenario: want files NAME.txtar in %s", strings.Join(files, ", "))
	}
	c.files = slices.DeleteFunc(c.files, func(name string) bool { return !c.run.MatchString(name) })
	if len(c.files) == 0 {
		return nil, fmt.Errorf("check: no scenario in %s matches -run %s", strings.Join(files, ", "), *only)
	}
	return &c, nil
}

// scenariosIn returns the file, or the scenarios in and below the directory.
func scenariosIn(name string) (files []string, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if filepath.Ext(name) != ".txtar" {
			return nil, fmt.Errorf("%s: the name of a scenario ends with .txtar", name)
		}
		return []string{filepath.Clean(name)}, nil
	}
	err = filepath.WalkDir(name, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Ext(path) == ".txtar" {
			files = append(files, filepath.Clean(path))
		}
		return err
	})
	return files, err
}

func checkCommand(ctx context.Context, args []string, std stdio) error {
	began := time.Now()
	c, err := parseCheck(args, std)
	if err != nil {
		return err
	}
	report := testreport.New(std.out, testreport.Options{JSON: c.asJSON, Verbose: c.verbose})
	limit := limiter.New(nil)
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var all sync.WaitGroup
	var failed atomic.Bool
	job := 0
	for _, t := range c.targets {
		byDir := make(map[string][]string)
		for _, file := range c.files {
			if job++; (job-1)%c.shards == c.shard-1 {
				byDir[filepath.Dir(file)] = append(byDir[filepath.Dir(file)], file)
			}
		}
		for dir, files := range byDir {
			events := &checkEvents{report: report, run: "[" + t.Name + "]", dir: filepath.ToSlash(dir), giveUp: giveUp}
			all.Go(func() {
				if !c.checkDirectory(ctx, t.Name, files, limit, events) {
					failed.Store(true)
				}
			})
		}
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if c.junit != "" {
		if err := writeJUnit(c.junit, report); err != nil {
			return fmt.Errorf("check: %w", err)
		}
	}
	fmt.Fprint(std.err, report.Summary(len(c.targets), time.Since(began)))
	if failed.Load() {
		return silentStatus(1)
	}
	return nil
}
