# What people call by hand and what CI calls are the same targets.
#
#   make qemu-run [TARGET=arm64]   boot the echo guest and give its serial console
#   make test [TARGET=arm64]       everything that has to pass
#   make integration [TARGET=…]    the tests on real QEMU alone, with out/junit.xml
#   make soak [N=200]              boots over and over, loaded and with faults, into out/soak.json
#   make nightly                   what takes too long for every change
#
# With TARGET=arm64 the tests that run on every target run on that one alone.

# It counts for tests only where somebody has chosen it.
export GUESTHOUSE_TARGETS := $(or $(GUESTHOUSE_TARGETS),$(TARGET))
TARGET ?= x86_64
GO     ?= go
# COLD=1 boots every machine of the tests, also where a template could be restored.
export GUESTHOUSE_COLD ?= $(COLD)

# Without cgo a machine needs no C compiler.
export CGO_ENABLED = 0
# Where a test that needs QEMU may not be skipped.
export GUESTHOUSE_REQUIRE ?= x86,x86_64,arm,arm64

guesthouse := out/guesthouse
# In front of what takes long: when make dies, also by kill -9, it dies with all it started.
leash = exec $(abspath $(dir $(guesthouse))leash) -parent $$PPID
# What checks and tests this project is in a module of its own, which no user of the library downloads.
tool := $(GO) tool -modfile=scripts/tools/go.mod
# Tests print their names as they end and a summary that counts them.
gotestsum := $(tool) gotestsum --format $(if $(CI),pkgname,testname) --format-hide-empty-pkg

.PHONY: qemu-run test unit integration soak nightly check qemu images lock bench-boot bench-socket bench-register figures pictures race clean $(guesthouse)

qemu-run: $(guesthouse)
	@scripts/install-qemu.sh $(guesthouse) $(TARGET)
	@$(leash) $(guesthouse) run -target $(TARGET) $(ARGS)

# -count=1: go's cache of results does not know the host, on which the tests of machines depend.
# The units (make unit) it may keep.
test: check qemu
	$(leash) $(gotestsum) --junitfile out/junit.xml -- -count=1 -timeout 40m ./...

# The units alone need neither QEMU nor a network.
unit: $(guesthouse)
	$(leash) $(gotestsum) -- $(shell $(GO) list ./... | grep -v -e /integration -e /images -e /example)

integration: qemu
	@mkdir -p out
	$(leash) $(gotestsum) --junitfile out/junit.xml -- -count=1 -timeout 40m -artifacts -outputdir $(CURDIR)/out ./harness/integration/... ./harness/harnesstest/...

# Ctrl-C ends it early; ARGS='-h' lists its flags. The records of flakes are in out/soak.
soak: qemu
	@$(GO) build -buildvcs=false -o out/guesthouse-soak ./harness/integration/soak
	@$(leash) out/guesthouse-soak -n $(or $(N),200) $(ARGS)

# The model test and the fuzz targets, at length.
nightly: $(guesthouse)
	$(leash) $(GO) test -run TestModel -timeout 60m ./guest/socketservice -rapid.checks=100000
	$(leash) $(GO) test -run '^$$' -fuzz FuzzModel -fuzztime 5m -fuzzminimizetime 1s ./guest/socketservice
	$(leash) $(GO) test -run '^$$' -fuzz FuzzJudge -fuzztime 2m ./harness/internal/outbound
	$(leash) $(GO) test -run '^$$' -fuzz FuzzStream -fuzztime 1m ./harness/internal/outbound
	$(leash) $(GO) test -run '^$$' -fuzz FuzzDetector -fuzztime 1m ./harness/internal/crash

check: $(guesthouse)
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt -w these files:"; echo "$$unformatted"; exit 1; } >&2
	$(leash) $(GO) vet ./...
	$(leash) $(tool) staticcheck ./...

# Every target's QEMU, where it is missing.
qemu: $(guesthouse)
	@scripts/install-qemu.sh $(guesthouse)

# Every target's kernel and initramfs: what the cache does not hold is made.
images: $(guesthouse)
	@$(leash) $(guesthouse) build -target all $(ARGS)

# For maintainers: the newest kernels of apt's sources become the tested ones.
lock: $(guesthouse)
	$(leash) $(GO) test -count=1 ./images -run 'TestLock$$' -update
	@if git diff --quiet internal/imagecache/lock.json; then echo "internal/imagecache/lock.json has the newest kernels"; else git --no-pager diff -U0 internal/imagecache/lock.json; fi

$(guesthouse):
	@mkdir -p $(@D) && $(GO) build -buildvcs=false -o $(@D) ./harness/cmd/guesthouse ./internal/leash

# The benchmarks are a module of their own, so that what they compare with is in nobody's go.mod: the
# targets above do not see it.
check-bench = staticcheck=$$($(tool) -n staticcheck) && cd bench && $(GO) vet $(1) && $$staticcheck $(1) && $(GO) test $(1)

# From the start of QEMU to the first echo: restored, booted, and booted by a peer, into out/bench.
bench-boot: qemu
	@$(call check-bench,./boot ./internal/...)
	@mkdir -p out/bench
	cd bench/boot && $(GO) build -buildvcs=false -o $(CURDIR)/out/bench/bench-boot . && \
		$(leash) $(CURDIR)/out/bench/bench-boot -out $(CURDIR)/out/bench $(ARGS)

# The socket service beside other event loops, into out/bench; QUICK=1 is for development.
bench-socket: $(guesthouse)
	@scripts/install-gcc.sh
	@$(call check-bench,./socket/... ./internal/...)
	@mkdir -p out/bench
	cd bench/socket && $(GO) build -buildvcs=false -o $(CURDIR)/out/bench/bench-socket . && \
		$(leash) $(CURDIR)/out/bench/bench-socket $(if $(QUICK),-quick) -out $(CURDIR)/out/bench $(ARGS)

# Puts the newest results of the benchmarks into docs/img and bench/*/README.md. Without a run in
# out/bench it draws those again that the pages have.
figures:
	cd bench/boot && $(GO) run . -figures -out $(CURDIR)/out/bench
	cd bench/socket && $(GO) run . -figures -out $(CURDIR)/out/bench

# Draws docs/img anew from the texts there.
pictures:
	$(GO) run ./docs/draw

# How soon Register is effective under a UDP flood: p50, p99 and max, into out/bench/register.txt.
bench-register: $(guesthouse)
	@mkdir -p out/bench
	@$(leash) sh -c '$(GO) test -run ^$$ -bench RegisterDuringAFlood -benchtime 10000x ./guest/echo >out/bench/register.txt; \
		status=$$?; cat out/bench/register.txt; exit $$status'

# The race detector needs cgo, and so a C compiler.
race: $(guesthouse)
	export CGO_ENABLED=1; $(leash) $(GO) test -race ./guest/... ./host/... ./harness/internal/... ./harness ./harness/cmd/...

clean:
	rm -rf out
