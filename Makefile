# People and CI call the same targets:
#
#   make qemu-run [TARGET=arm64]   boot the echo guest and open its serial console
#   make test [TARGET=arm64]       run every check and test that has to pass
#   make integration [TARGET=…]    run only the tests on real QEMU, and write out/junit.xml
#   make soak [N=200]              boot again and again under load and with faults, and write out/soak.json
#   make rtos ELF=… BOARD=…        try the image of Zephyr, NuttX or another system, and print a table
#   make cover                     run all tests, and print the coverage of each package
#   make foreign                   run tests of other projects' modules in machines
#   make nightly                   run the tests that take too long for every change
#
# With TARGET=arm64, the tests that run on every target run only on that one.

# Only a TARGET that somebody has set limits the tests. The default below does not.
export GUESTHOUSE_TARGETS := $(or $(GUESTHOUSE_TARGETS),$(TARGET))
TARGET ?= x86_64
GO     ?= go
# With COLD=1 the tests boot every machine, and restore none from a template.
export GUESTHOUSE_COLD ?= $(COLD)

# Without cgo, no host needs a C compiler.
export CGO_ENABLED = 0
# For these targets, a test fails where it would be skipped because QEMU is missing.
export GUESTHOUSE_REQUIRE ?= x86,x86_64,arm,arm64

guesthouse := out/guesthouse
# The leash runs a long command. When make dies, even by kill -9, the leash ends all processes of the command.
leash = exec $(abspath $(dir $(guesthouse))leash) -parent $$PPID
# The tools have a module of their own, so that no user of the library downloads them.
tool := $(GO) tool -modfile=scripts/tools/go.mod
# The script builds guesthouse while it installs QEMU. In a variable, because make -n runs a line with $(MAKE).
prepare = scripts/install-qemu.sh 'env MAKEFLAGS= $(MAKE) -s $(guesthouse)' $(guesthouse)
# Machines wait most of the time, so twice as many tests run at once as there are processors.
parallel = -parallel $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
# gotestsum prints the name of each test that ends, and at last how many passed and failed.
gotestsum := $(tool) gotestsum --format $(if $(CI),pkgname,testname) --format-hide-empty-pkg

.PHONY: qemu-run test cover unit integration soak rtos foreign nightly check qemu images lock bench-boot bench-exec bench-lan bench-socket bench-register figures pictures race tidy clean $(guesthouse)

# With NET=lan,loss=5% the machine is on that network. Its command is built only then, because gVisor takes long to compile.
qemu-run:
	@$(prepare) $(TARGET)
	@$(if $(NET),cd harness/lan && $(leash) $(GO) build -buildvcs=false -o $(abspath $(guesthouse))-lan ./cmd/guesthouse)
	@$(leash) $(guesthouse)$(if $(NET),-lan) run -cold -target $(TARGET) $(if $(NET),-net '$(NET)') $(ARGS)

# -count=1, because tests of machines depend on the host, which Go's cache of results does not know.
# Unit tests (make unit) use that cache. With -vet=off, because go test would vet again what check has vetted.
# The package that takes longest begins first. The checks take the processor, the installation waits for the network.
test: $(guesthouse)
	@$(leash) $(MAKE) -j2 check qemu
	cd harness/lan && $(leash) $(GO) test -count=1 -vet=off -timeout 40m ./...
	$(leash) $(gotestsum) --junitfile out/junit.xml -- -count=1 -vet=off -timeout 40m $(parallel) ./harness/integration ./...

# Unit tests need no QEMU and no network.
unit: $(guesthouse)
	$(leash) $(gotestsum) -- $(shell $(GO) list ./... | grep -v -e /integration -e /images -e /example)
	cd harness/lan && $(leash) $(GO) test . ./internal/...

integration: qemu
	@mkdir -p out
	$(leash) $(gotestsum) --junitfile out/junit.xml -- -count=1 -timeout 40m $(parallel) -artifacts -outputdir $(CURDIR)/out ./harness/integration/... ./harness/harnesstest/...
	cd harness/lan && $(leash) $(GO) test -count=1 -timeout 40m -artifacts -outputdir $(CURDIR)/out ./integration/...

# Ctrl-C ends the run early. ARGS='-h' lists the flags. The records of flaky machines are in out/soak.
soak: qemu
	@$(GO) build -buildvcs=false -o out/guesthouse-soak ./harness/integration/soak
	@$(leash) out/guesthouse-soak -n $(or $(N),200) $(ARGS)

# The image is the user's own. ARGS='-h' lists the flags: the pattern of a ready system, a command and its answer,
# a command that crashes the system, the profile of an echo service.
rtos: $(guesthouse)
	@mkdir -p out
	@$(GO) build -buildvcs=false -o out/guesthouse-rtos ./harness/integration/rtos
	@$(leash) out/guesthouse-rtos -board "$(BOARD)" -elf "$(ELF)" $(ARGS)

# Tests of other projects' modules that talk to the kernel, on x86_64 and arm64, with Debian's kernels that have
# all drivers.
foreign: $(guesthouse)
	@mkdir -p out
	$(leash) harness/integration/foreign/test.sh $(abspath $(guesthouse)) x86_64 debian:linux-image-amd64 $(CURDIR)/out/foreign-x86_64.xml
	$(leash) harness/integration/foreign/test.sh $(abspath $(guesthouse)) arm64 debian:linux-image-arm64 $(CURDIR)/out/foreign-arm64.xml

# Every integration test on every target, once with guest programs that are delivered and once with
# programs in their initramfs; images of every target in an empty cache; the echo service on real-time
# kernels; the model test with many programs; a flood of a million packets, and eight machines of four targets on one lan;
# tshark's reading of a capture; and each fuzz target for minutes.
nightly: $(guesthouse)
	@for target in x86 x86_64 arm arm64; do $(MAKE) integration TARGET=$$target || exit 1; done
	@GUESTHOUSE_BUILTIN=1 $(MAKE) integration TARGET=arm64
	$(leash) env GUESTHOUSE_TEST_EVERY_TARGET=1 $(GO) test -count=1 -timeout 30m -run 'TestBuild$$' ./images
	@for target in x86_64:amd64 arm64:arm64; do \
		GUESTHOUSE_TARGETS=$${target%:*} GUESTHOUSE_TEST_KERNELS=debian:linux-image-rt-$${target#*:} \
			$(GO) test -count=1 -timeout 20m -run TestKernelsByName ./harness/integration || exit 1; \
	done
	$(leash) $(guesthouse) test -target x86_64,arm64 -tags inguest -junit out/inguest.xml ./harness/integration/inguest
	@$(MAKE) foreign
	GUESTHOUSE_TEST_OUTPUT=1024 $(leash) $(GO) test -count=1 -timeout 30m -run TestExecNeedsLittleMemoryForMuchOutput ./harness/internal/cli
	$(leash) $(GO) test -run TestModel -timeout 60m ./guest/socketservice -rapid.checks=100000
	$(leash) $(GO) test -run '^$$' -fuzz FuzzModel -fuzztime 5m -fuzzminimizetime 1s ./guest/socketservice
	$(leash) $(GO) test -run '^$$' -fuzz FuzzJudge -fuzztime 2m ./harness/internal/outbound
	$(leash) $(GO) test -run '^$$' -fuzz FuzzStream -fuzztime 1m ./harness/internal/outbound
	$(leash) $(GO) test -run '^$$' -fuzz FuzzDetector -fuzztime 1m ./harness/internal/crash
	$(leash) $(GO) test -run '^$$' -fuzz FuzzAnswer -fuzztime 1m ./harness/internal/hostfs
	cd harness/lan && GUESTHOUSE_TEST_FLOOD=1000000 GUESTHOUSE_TEST_EVERY_TARGET=1 $(leash) $(GO) test -count=1 -timeout 20m -run 'TestALanBearsHardship|TestEightMachinesExchangeTraffic' ./integration
	@scripts/install-tshark.sh
	cd harness/lan && GUESTHOUSE_TEST_TSHARK=1 $(leash) $(GO) test -count=1 -timeout 20m -run TestEchoOverABadLink ./integration
	cd harness/lan && $(leash) $(GO) test -run '^$$' -fuzz FuzzFrame -fuzztime 1m .
	cd harness/lan && $(leash) $(GO) test -run '^$$' -fuzz FuzzRead -fuzztime 1m ./internal/qemuport
	cd harness/lan && $(leash) $(GO) test -run '^$$' -fuzz FuzzAnswer -fuzztime 1m ./internal/services
	$(leash) $(GO) test -run '^$$' -fuzz FuzzReceiver -fuzztime 1m ./internal/filetree
	$(leash) $(GO) test -run '^$$' -fuzz FuzzReceive -fuzztime 1m ./internal/wire
	$(leash) $(GO) test -run '^$$' -fuzz FuzzNetwork -fuzztime 1m ./internal/wire

# The coverage of each package by all tests, with what ran in machines, on all targets or on TARGET. It
# builds every guest anew. ARGS are for go test, such as ARGS='-run TestDisks'.
cover: qemu
	@mkdir -p out
	$(leash) $(gotestsum) -- -count=1 -timeout 90m -coverpkg=./... -coverprofile=out/cover.out $(ARGS) ./...
	@awk -f scripts/cover.awk out/cover.out | sort -n

check: $(guesthouse)
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt -w these files:"; echo "$$unformatted"; exit 1; } >&2
	$(leash) $(GO) vet ./...
	$(leash) $(tool) staticcheck ./...
	cd bench && $(leash) $(GO) vet ./...
	cd harness/lan && $(leash) $(GO) vet ./...
	staticcheck=$$($(tool) -n staticcheck) && cd harness/lan && $(leash) $$staticcheck ./...

# Builds guesthouse. Meanwhile it installs QEMU for every target for which it is missing, and builds the images.
# Then it installs U-Boot, which tests boot as a guest that somebody else has made.
qemu:
	@$(prepare)
	@scripts/install-u-boot.sh

# Builds the kernel and the initramfs of every target that the cache lacks.
images: $(guesthouse)
	@$(leash) $(guesthouse) build -target all $(ARGS)

# For maintainers: makes the newest kernels of apt's sources and of gokrazy the tested ones.
lock: $(guesthouse)
	$(leash) $(GO) test -count=1 ./images -run 'TestLock$$' -update
	@if git diff --quiet internal/imagecache; then echo "internal/imagecache has the newest kernels"; else git --no-pager diff -U0 internal/imagecache; fi

# With -trimpath, as guests are built, so that Go compiles the standard library once for the command and
# for the guests of the host's architecture.
$(guesthouse):
	@mkdir -p $(@D) && $(GO) build -buildvcs=false -trimpath -ldflags='-X "guesthouse.example/images.sourceDir=$(CURDIR)"' -o $(@D) ./harness/cmd/guesthouse ./internal/leash

# The benchmarks have a module of their own, so that no user's go.mod lists the peers that they measure.
# Of the targets above, only check looks at that module: it must compile.
check-bench = staticcheck=$$($(tool) -n staticcheck) && cd bench && $(GO) vet $(1) && $$staticcheck $(1) && $(GO) test $(1)

# Measures the time from the start of QEMU to the first echo: of a restored machine, of a booted one,
# and of one that a peer boots. Writes into out/bench.
bench-boot: qemu
	@$(call check-bench,./boot ./internal/...)
	@mkdir -p out/bench
	cd bench/boot && $(GO) build -buildvcs=false -o $(CURDIR)/out/bench/bench-boot . && \
		$(leash) $(CURDIR)/out/bench/bench-boot -out $(CURDIR)/out/bench $(ARGS)

# Measures what a program in a machine costs: an empty test, an edit, copies, many machines. Writes into
# out/bench.
bench-exec: qemu
	@$(call check-bench,./exec/... ./internal/...)
	@mkdir -p out/bench
	cd bench/exec && $(GO) build -buildvcs=false -o $(CURDIR)/out/bench/bench-exec . && \
		$(leash) $(CURDIR)/out/bench/bench-exec -out $(CURDIR)/out/bench $(ARGS)

# Measures package lan beside QEMU's user network and passt. Writes into out/bench.
bench-lan: qemu
	@scripts/install-passt.sh
	@$(call check-bench,./lan/... ./internal/...)
	@mkdir -p out/bench
	cd bench/lan && $(GO) build -buildvcs=false -o $(CURDIR)/out/bench/bench-lan . && \
		$(leash) $(CURDIR)/out/bench/bench-lan -out $(CURDIR)/out/bench $(ARGS)

# Measures the socket service beside other event loops, and writes into out/bench. QUICK=1 is for development.
bench-socket: $(guesthouse)
	@scripts/install-gcc.sh
	@$(call check-bench,./socket/... ./internal/...)
	@mkdir -p out/bench
	cd bench/socket && $(GO) build -buildvcs=false -o $(CURDIR)/out/bench/bench-socket . && \
		$(leash) $(CURDIR)/out/bench/bench-socket $(if $(QUICK),-quick) -out $(CURDIR)/out/bench $(ARGS)

# Puts the newest results of the benchmarks into docs/img and bench/*/README.md. Without a run in
# out/bench it draws those again that the pages have.
figures:
	@status=0; for bench in boot exec lan socket; do \
		(cd bench/$$bench && $(GO) run . -figures -out $(CURDIR)/out/bench) || status=1; \
	done; exit $$status

# Draws docs/img anew from the texts there.
pictures:
	$(GO) run ./docs/draw

# Measures how soon Register takes effect under a UDP flood, and writes p50, p99 and the maximum into
# out/bench/register.txt.
bench-register: $(guesthouse)
	@mkdir -p out/bench
	@$(leash) sh -c '$(GO) test -run ^$$ -bench RegisterDuringAFlood -benchtime 10000x ./guest/echo >out/bench/register.txt; \
		status=$$?; cat out/bench/register.txt; exit $$status'

# The race detector needs cgo and therefore a C compiler.
race: $(guesthouse)
	export CGO_ENABLED=1; $(leash) $(GO) test -race ./guest/... ./host/... ./internal/... ./harness/internal/... ./harness ./harness/console ./harness/cmd/...
	export CGO_ENABLED=1; $(leash) $(GO) test -race -count=1 -exec '$(abspath $(guesthouse)) exec' ./internal/wire

# After a change of any dependency. Each of these go.mod files has a purpose of its own: see CONTRIBUTING.md.
tidy:
	$(GO) mod tidy
	$(GO) mod tidy -modfile=images/busybox.mod
	cd scripts/tools && $(GO) mod tidy
	cd harness/lan && $(GO) mod tidy
	cd bench && $(GO) mod tidy
	cd harness/integration/foreign && $(GO) mod tidy

clean:
	rm -rf out
