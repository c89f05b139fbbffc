# `make help` lists the targets. Anything longer than a few lines is Rust or .ci/setup.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Every cargo below links the RocksDB that .ci/setup builds once per machine.
export ROCKSDB_LIB_DIR := $(shell .ci/setup rocksdb-dir)
export ROCKSDB_STATIC := 1

# $(call step,name,seconds,command): says how long it took, so that a slow run shows where its time went. In CI what hangs
# is ended, so that the run fails and says where; each limit is several times what the step takes. A developer has Ctrl-C,
# which timeout(1) would keep from the command.
step = @began=$$SECONDS; echo "== $(1)"; \
	$(if $(CI),timeout --kill-after=30 $(2)) bash -euo pipefail -c '$(3)' || { code=$$?; \
	[ $$code -ne 124 ] || echo "== $(1): ended, it took longer than $(2) s" >&2; exit $$code; }; \
	echo "== $(1): $$((SECONDS - began)) s"

# What mounts by the mode of the environment. The others choose it themselves, or mount nothing.
FUSE_TESTS := fidelity model lazy http damage full_disk lifecycle identity posix modes semantics run_cmd crash debian

.PHONY: help setup build demo node image system image-lock boot test test-boot check bench bench-boot soak fuzz clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install Debian packages and build RocksDB, once per machine
	$(call step,setup,3000,.ci/setup)

build: setup ## Build everything, optimised
	$(call step,build,3000,cargo build --release --locked)

demo: setup ## Pack a Debian tree, mount it by its CID, run python3 in it (root)
	$(call step,build,3000,cargo build --release --locked -p flist-tools -p benchmarks)
	@target/release/demo

node: setup ## Run a node for developing, in target/node (root); its redis is on the loopback, Ctrl-C ends it
	$(call step,build,3000,cargo build --release --locked -p core0)
	@target/release/core0 run --dev target/node

image: setup ## Build kernel, initramfs, UKI, disk image and ISO into target/image; ARGS=--minimal for those of the tests
	$(call step,build,3000,cargo build --release --locked -p core0 -p initramfs)
	@target/release/initramfs build $(ARGS)

system: setup ## Write the tree of the system flist into target/image/system and pack it; its CID is for the bootstrap file
	$(call step,build,3000,cargo build --release --locked -p core0 -p initramfs -p flist-tools)
	@target/release/initramfs system $(ARGS)
	@target/release/flist pack --owner 0:0 --clamp-mtime 0 target/image/system

image-lock: setup ## Lock the Debian packages of the image and the system flist in the versions of today
	$(call step,build,3000,cargo build --release --locked -p core0 -p initramfs)
	@target/release/initramfs lock

# Emulated, with one processor and without an instruction that qemu 7.2 emulates wrongly: that works on every machine.
boot: ## Boot what `make image` built, in qemu; redis is on 127.0.0.1:16379, its password g8os; Ctrl-A X ends it
	@qemu-system-x86_64 -accel tcg,thread=single -cpu max,-cx16 -smp 1 -machine q35 -m 1024 -nodefaults -no-user-config \
		-display none -no-reboot -serial mon:stdio -device virtio-rng-pci -device virtio-net-pci,netdev=n0,romfile= \
		-netdev user,id=n0,hostfwd=tcp:127.0.0.1:16379-:6379 -kernel target/image/vmlinuz \
		-initrd target/image/initramfs.cpio.zst \
		-append "console=ttyS0 quiet panic=-1 redis.sha256=$$(printf g8os | sha256sum | cut -c 1-64) $(ARGS)"

test: setup ## Run all tests (root)
	$(call step,IPFS nodes,2200,.ci/setup ipfs)
	$(call step,Python environments,2500,.ci/setup venvs)
	$(call step,build,2400,cargo build --locked --workspace && cargo test --locked --workspace --no-run && cargo test --locked -p integration-tests --no-run)
	$(call step,all tests and mounts in mode kernel,2700,G8_MODE=kernel cargo test --locked --workspace --no-fail-fast)
	$(call step,integration tests in mode fuse,1500,G8_MODE=fuse cargo test --locked -p integration-tests --no-fail-fast $(addprefix --test ,$(FUSE_TESTS)))

test-boot: setup ## Boot ISO, disk and ISO by URL in BIOS and UEFI (root); some minutes
	$(call step,build,2400,cargo build --locked --workspace)
	$(call step,boots,1500,cargo test --locked -p integration-tests --test boot_media -- --ignored --nocapture --test-threads 1)

check: setup ## Formatting, lints, licences
	$(call step,fmt,60,cargo fmt --all --check)
	$(call step,clippy,2400,cargo clippy --locked --workspace --all-targets -- -D warnings)
	$(call step,doc,1200,RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --document-private-items)
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed: licences not checked"; fi

bench: setup ## Compare with nydus, EROFS, squashfs, tar, ext4 (root); ARGS=--quick for a look; results in benches/results/
	$(call step,build,3000,cargo build --release --locked -p flist-tools -p benchmarks)
	$(call step,IPFS nodes,2200,.ci/setup ipfs)
	$(call step,build the rival,3000,cargo build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir target/peers)
	$(call step,a node,3000,cargo bench --locked -p core0 --bench node --bench network --bench containers)
	@G8_NYDUS_PEER=$(CURDIR)/target/peers/release/nydus-peer target/release/compare $(ARGS)

bench-boot: setup ## How long a node takes until redis answers, beside a bare machine of the same image, emulated; ARGS="--rounds N"
	$(call step,build,3000,cargo build --release --locked -p core0 -p initramfs -p benchmarks)
	@target/release/bench-boot $(ARGS)

soak: setup ## Mounts, readers and failures of every kind at once for ten minutes (root); ARGS="--minutes N --seed N"
	$(call step,build,3000,cargo build --release --locked -p flist-tools -p integration-tests --bin flist --bin soak)
	@target/release/soak $(ARGS)

fuzz: ## Fuzz the parsers for a minute each (needs cargo-fuzz and a nightly toolchain)
	@cd fs/fuzz && for target in root shard map tree frame car profile elf; do cargo +nightly fuzz run $$target -- -max_total_time=60; done
	@cd core/fuzz && cargo +nightly fuzz run bootstrap -- -max_total_time=60

clean: ## Remove what cargo built
	cargo clean
