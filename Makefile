# SPDX-License-Identifier: Apache-2.0
#
# The targets of Provost. `make` alone lists them. Everything is installed, built and run from here: CI does nothing
# else. Go is needed; the Debian packages that a target wants are installed by it, or named in one line.

SHELL       := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOFLAGS_ALL := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
AGENT_LIMIT := 9000000  # bytes: the agent must fit into an initrd that 2,000 nodes fetch at once
AGENT_TAGS  := nethttpomithttp2  # HTTP/1.1 is all that the agent needs: 370 kB less
AGENT_COLD  := -gcflags=go.yaml.in/yaml/v3=-l -gcflags=golang.org/x/crypto/ssh=-l  # nothing of these is inlined: 80 kB less

export CGO_ENABLED ?= 0
# Else a program with the race detector takes a second to end, and tests start thousands.
export GORACE ?= atexit_sleep_ms=0

.PHONY: help build test check demo e2e e2e-debian e2e-fai soak bench dist clean FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

build: bin/provost-agent bin/provostd bin/provost bin/mkinitrd ## the static programs, in bin/

bin/provost-agent: FORCE
	@go build -tags '$(AGENT_TAGS)' $(AGENT_COLD) $(GOFLAGS_ALL) -o $@ ./agent/cmd/provost-agent
bin/provostd: FORCE
	@go build $(GOFLAGS_ALL) -o $@ ./collector/cmd/provostd
bin/provost: FORCE
	@go build $(GOFLAGS_ALL) -o $@ ./collector/cmd/provost
bin/mkinitrd: FORCE
	@go build $(GOFLAGS_ALL) -o $@ ./initrd/cmd/mkinitrd

test: build ## unit, race, command line and shell tests, and the VM tests of the main ways (some 12 minutes on 2 cores)
	sh initrd/e2e/setup.sh test
	CGO_ENABLED=1 go test -race -vet=off -timeout 30m ./... # make check vets
	go test -tags e2e -count=1 -timeout 1h -run '^(TestKickstart|TestHappy|TestStepFailsWithItsCode|TestCollectorDownFromSealToFirstBoot|TestKills|TestPowerCut)$$' -v ./initrd/e2e

check: build ## formatting, vet, staticcheck, tidy modules, shellcheck, the agent's size
	sh initrd/e2e/setup.sh check
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not formatted by gofmt:"; echo "$$out"; exit 1; }
	go vet ./...
	go vet -tags e2e ./initrd/e2e/...
	go tool staticcheck ./...
	go mod tidy -diff
	git ls-files -z | xargs -0 grep -lzE '^#!/bin/(ba)?sh' | tr '\0' '\n' | grep -v testdata/ | xargs shellcheck -x -P postscripts/lib
	@size=$$(stat -c %s bin/provost-agent); test "$$size" -le $(AGENT_LIMIT) || { echo "bin/provost-agent has $$size bytes, more than $(AGENT_LIMIT)"; exit 1; }; \
	 echo "agent: $$size bytes of $(AGENT_LIMIT)"

demo: build ## the main job, for real, from nothing: two virtual machines, one good, one with a failing step
	sh initrd/e2e/setup.sh test
	go run ./initrd/e2e/demo

e2e: build ## every VM test but those of the two targets below (as root)
	sh initrd/e2e/setup.sh e2e
	go test -tags e2e -count=1 -timeout 3h -skip '^Test(DebianInstaller|FAI)' -v ./initrd/e2e

e2e-debian: build ## debian-installer itself, in VMs (about 25 minutes; PROVOST_MIRROR=http://HOST/debian: all of it from there)
	sh initrd/e2e/setup.sh test
	go test -tags e2e -count=1 -timeout 90m -run '^TestDebianInstaller' -v ./initrd/e2e

e2e-fai: build ## FAI itself, in VMs (about 20 minutes, as root; what it fetches is made once, in 5)
	sh initrd/e2e/setup.sh test
	go test -tags e2e -count=1 -timeout 90m -run '^TestFAI' -v ./initrd/e2e

soak: build ## 200 kills and 20 power cuts of the collector, 10,000 agents, kills of the agent at each point, each fuzz test for a minute or FUZZ=SECONDS (about 2 hours)
	sh initrd/e2e/setup.sh test
	EVIDENCE_LARGE_MB=1024 go test -count=1 -timeout 30m -run 'Large$$' -v ./collector/internal/evidence
	PROVOST_SOAK=1 go test -count=1 -timeout 60m ./agent/internal/run ./collector/internal/store ./collector/internal/registry
	PROVOST_SOAK=1 go test -count=1 -timeout 60m -run TestAgentSuite ./agent/cmd/provost-agent
	PROVOST_KILLS=200 PROVOST_CUTS=20 PROVOST_AGENTS=10000 PROVOST_OVER=10m \
	 go test -tags e2e -count=1 -timeout 2h -run '^(TestKills|TestPowerCut|TestLoad)$$' -v ./initrd/e2e
	go run ./collector/cmd/collectorbench -full -runs 1 -only P9,P10,P11
	sh initrd/e2e/fuzz.sh $(or $(FUZZ),60)

bench: build ## the figures beside their yardsticks (10 minutes); BENCH=full is all of the size (an hour), ONLY=P4,P9 some of them
	@ulimit -n $$(ulimit -Hn) && go run ./collector/cmd/collectorbench $(if $(filter full,$(BENCH)),-full) $(if $(ONLY),-only $(ONLY))
	@test -n "$(ONLY)" || PROVOST_AGENTS=$(if $(filter full,$(BENCH)),10000 PROVOST_OVER=10m,1000 PROVOST_OVER=40s) \
	 go test -tags e2e -count=1 -timeout 1h -run '^TestLoad$$' -v ./initrd/e2e | sed -n 's/^.*load_test.go:[0-9]*: //p; /^--- /p'
	@test -n "$(ONLY)" || go run ./agent/cmd/agentbench

dist: ## packages: not there yet
	@echo "make dist: deb and rpm packages are not made yet; make build gives the static programs in bin/" >&2; exit 1

clean: ## remove what build made
	rm -rf bin dist
