// Soak boots, restores and checks machines over and over, several at once, on a loaded host and with
// injected faults. It counts unexpected outcomes (flakes) and processes, descriptors, files,
// goroutines and memory that are left behind (leaks).
//
//	make soak N=200 ARGS='-machines 4 -targets arm,arm64 -seed 7'
//
// Its exit status is 0 only without flakes and leaks, and 130 after Ctrl-C. It writes the result in
// every case.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

const echoGuest = "guesthouse.example/guest/cmd/uinit"

func main() {
	if os.Getenv(busyVariable) != "" {
		compute()
	}
	os.Exit(soak())
}

// compute keeps a processor busy until the process is killed.
func compute() {
	for sum := [sha256.Size]byte{}; ; sum = sha256.Sum256(sum[:]) {
	}
}

// soak is the whole program and returns the exit status.
func soak() int {
	n := flag.Int("n", 200, "the `number` of boots")
	machines := flag.Int("machines", 4, "the `number` of concurrent machines")
	load := flag.Int("load", 2*runtime.NumCPU(), "the `number` of busy processes that load the host")
	seed := flag.Uint64("seed", rand.Uint64(), "the seed, a `number`, of the order of boots and the moments of faults")
	targets := flag.String("targets", strings.Join(target.Names(), ","), "the targets, a `list`")
	faults := flag.String("faults", usual, "the faults to inject, a `list`; a repeated fault happens more often")
	out := flag.String("out", "out", "the `directory` for soak.json and the records of flakes")
	flag.Parse()
	if *n < 1 || *machines < 1 || *load < 0 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "soak: want -n and -machines of at least 1, -load of at least 0, and no arguments (see -h)")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// A killed soak leaves its templates here.
	templates := &harness.TemplateCache{Dir: filepath.Join(*out, "soak-templates")}
	os.RemoveAll(templates.Dir)
	defer os.RemoveAll(templates.Dir)
	cfg := config{
		boots: *n, machines: *machines, load: *load, seed: *seed,
		hows: []how{cold, restored}, faults: strings.Split(*faults, ","), sizes: sizes{floodLines, killWithin},
		boot: boot, templates: templates, patience: 20 * time.Second,
		records: filepath.Join(*out, "soak"), log: os.Stdout,
	}
	for _, fault := range cfg.faults {
		if checks[fault] == nil {
			fmt.Fprintf(os.Stderr, "soak: unknown fault %q: want some of %s\n", fault, strings.Join(slices.Sorted(maps.Keys(checks)), ","))
			return 2
		}
	}
	for _, name := range strings.Split(*targets, ",") {
		image, err := images.Build(ctx, name, echoGuest, images.Options{Log: os.Stderr})
		if err != nil {
			fmt.Fprintln(os.Stderr, "soak:", err)
			return 1
		}
		cfg.specs = append(cfg.specs, harness.Spec{Target: name, Kernel: image.Kernel, Initramfs: image.Initramfs})
	}
	r, err := run(ctx, cfg)
	if err == nil {
		err = writeResult(filepath.Join(*out, "soak.json"), r)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "soak:", err)
		return 1
	case r.bad():
		return 1
	case r.Interrupted:
		return 130
	}
	return 0
}

func writeResult(file string, r result) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s\n", text)
	return errors.Join(err, os.MkdirAll(filepath.Dir(file), 0o777), os.WriteFile(file, append(text, '\n'), 0o666))
}
