# A thin front: tools/setup installs what is missing, CMake builds, ctest tests.
# `make help` lists what there is.

LAKE ?= ./lake
PORT ?= 6390
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
EFFORT ?= 1

.PHONY: help build run test check bench torture install clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

build: ## install what a build needs, build, leave the program at build/vexlake
	@tools/setup build
	@cmake --preset release >build/release.log || { cat build/release.log; exit 1; }
	@cmake --build build/release -j $(JOBS) --target vexlake_program libvexlake.so vexlake_merged
	@ln -sfn release/vexlake build/vexlake

run: build ## build and serve LAKE (./lake) on 127.0.0.1, PORT (6390); a new lake gets the sample
	@tools/setup run
	@ls "$(LAKE)"/packages/data/_delta_log/*.json >/dev/null 2>&1 || build/vexlake import \
	    --lake "$(LAKE)" --into packages --metric cosine examples/packages.parquet
	@exec build/vexlake serve --lake "$(LAKE)" --port "$(PORT)"

test: build ## build with sanitizers and run every test
	@tools/setup test
	@tools/test

check: build ## format, include arrows, banned functions, exports, a build by clang
	@tools/setup test
	@tools/check all

bench: build ## run the benchmarks and print their figures
	@tools/setup bench
	@bench/run

torture: build ## every test with full counts of random trials: hours
	@tools/setup test
	@EFFORT=$(or $(filter-out 1,$(EFFORT)),20) tools/test

install: ## after make build: install under PREFIX (/usr/local), staged below DESTDIR if given
	@DESTDIR="$(DESTDIR)" cmake --install build/release --prefix "$(PREFIX)"

clean: ## remove what was built, keep fetched sources and packages
	@rm -rf build/release build/dev build/tsan build/clang build/vexlake build/*.log
