# Set-up and checks. `make demo` and `make test` are all a fresh machine needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup demo eval train bench-peers test test-rust test-gpu test-gpu-here test-gpu-library test-python fuzz lint doc check format clean

setup: $(VENV)/.ready
	cargo build --release

# The virtual environment holds libonnxruntime and the exporter. The file is written last: an interrupted set-up starts
# over.
$(VENV)/.ready: export/pyproject.toml export/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vintern needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint export/constraints.txt --editable 'export[dev]'
	touch $@

# Installs a wheel of a library apart from the virtual environment's own modules; there are some for Linux on x86-64.
define install_apart
	if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(1) $(2); \
	fi
	touch $@
endef

# A second ONNX Runtime library, which holds the OpenVINO provider: the tests swap providers for real. Its wheels are for
# Linux and Windows on x86-64; elsewhere those tests are skipped. It has a folder of its own because its module has the
# same name as the first one's.
OPENVINO := onnxruntime-openvino==1.24.1
$(VENV)/.openvino: $(VENV)/.ready
	$(call install_apart,$(VENV)/openvino,$(OPENVINO))

# A plugin library of an execution provider (7 MB): the tests register it.
PLUGIN := onnxruntime-ep-webgpu==0.4.0
$(VENV)/.plugin: $(VENV)/.ready
	$(call install_apart,$(VENV)/plugin,$(PLUGIN))

# Asks the bundled model about the bundled receipt; the times are printed apart, set-up with its downloads and builds first.
RECEIPT := models/demo/receipt.png
ask = printf '\nimage     %s\nquestion  %s\npreset    %s\n\n' $(RECEIPT) '$(2)' $(1) && \
	./target/release/vintern chat --model models/vintern-tiny --image $(RECEIPT) --preset $(1) -- '$(2)'
demo:
	@started=$$(date +%s) && $(MAKE) --no-print-directory setup && ready=$$(date +%s) && \
	$(call ask,describe,Đọc toàn bộ chữ trong ảnh.) && \
	$(call ask,ask,Tổng cộng là bao nhiêu?) && done=$$(date +%s) && \
	printf '\nset-up %s s, answers %s s\n' $$((ready - started)) $$((done - ready))

# Scores of a package on the held-out pages: make eval MODEL=DIR EVAL="--limit 5 -- --threads 1"
MODEL  ?= models/vintern-tiny
EVAL   ?=
eval: setup $(VENV)/.eval
	PYTHONPATH=models/train $(BIN)/python -m vintern_train.evaluate --model $(MODEL) $(EVAL)

$(VENV)/.eval: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check fonttools==4.68.0
	touch $@

# Trains the bundled model from nothing; stop it and run it again at will. Needs the Debian packages of fonts.txt.
TRAIN  := models/train/.venv
RUN    ?= target/train
TRAIN_FLAGS ?=
train: $(TRAIN)/.ready
	PYTHONPATH=models/train $(TRAIN)/bin/python -m vintern_train.train $(RUN) $(TRAIN_FLAGS)

$(TRAIN)/.ready: models/train/requirements.txt
	$(PYTHON) -m venv $(TRAIN)
	$(TRAIN)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Other engines on the same checkpoint, in turn with ours: benches/peers/README.md says what it takes.
PEERS  ?= transformers llama_cpp openvino onnxruntime_genai
PEERS_WORK ?= benches/peers/.work
PEERS_FLAGS ?=
bench-peers: setup
	$(BIN)/python benches/peers/run.py --peers "$(PEERS)" --work $(PEERS_WORK) $(PEERS_FLAGS)

test: test-rust test-python

test-rust: $(VENV)/.ready $(VENV)/.openvino $(VENV)/.plugin
	rm -rf target/tmp/packages
	cargo test --all-targets
	cargo test --doc

# What the library of the GPU wheel (255 MB) says on a machine without a GPU.
GPU_LIBRARY := onnxruntime-gpu==1.31.1
test-gpu-library: $(VENV)/.ready
	test -d $(VENV)/gpu || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/gpu $(GPU_LIBRARY)
	cargo test --test cli gpu_library -- --ignored

# The library of the GPU wheel on a machine with an NVIDIA GPU, with the libraries of CUDA, cuDNN and TensorRT that it needs;
# the driver is the machine's own.
GPU_NEEDS := onnxruntime-gpu[cuda,cudnn]==1.31.1 tensorrt-cu13-libs==10.13.3.9
$(VENV)/gpu/.needs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/gpu --upgrade $(GPU_NEEDS)
	touch $@

test-gpu:
	@if nvidia-smi -L 2>/dev/null; then $(MAKE) --no-print-directory test-gpu-here; \
	else echo 'There is no NVIDIA GPU on this machine: nothing was tested.'; fi

test-gpu-here: $(VENV)/gpu/.needs
	rm -rf target/tmp/packages
	LD_LIBRARY_PATH="$$(find $(CURDIR)/$(VENV)/gpu -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)" \
		cargo test --test device_cache --test golden_reference gpu -- --ignored --nocapture --test-threads 1

# The clients of the server; they start the release build.
$(VENV)/.clients: $(VENV)/.ready tests/clients/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt
	touch $@

test-python: setup $(VENV)/.eval $(VENV)/.clients
	cd export && ../$(BIN)/python -m pytest -q
	cd models/train && ../../$(BIN)/python -m pytest -q
	cd benches/peers && ../../$(BIN)/python -m pytest -q
	cd tests/clients && ../../$(BIN)/python -m pytest -q

# Feeds the server's request parser and its decoders of images what a fuzzer thinks of, each target for FUZZ_SECONDS; inputs
# that reach new code are kept in fuzz/corpus. cargo-fuzz asks for flags that a stable compiler has only when it is told to
# bootstrap. libjpeg's C code is checked for addresses; with FUZZ_CC=clang it guides the fuzzer, too. Many units of code build
# on all cores, where cargo-fuzz would have one.
FUZZ_SECONDS ?= 30
FUZZ_TARGETS ?= request image
FUZZ_CC ?=
CARGO_FUZZ := target/tools/bin/cargo-fuzz
comma := ,
fuzzer = RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Ccodegen-units=16 CFLAGS='-g1 -fsanitize=address$(if $(FUZZ_CC),$(comma)fuzzer-no-link)' \
	$(if $(FUZZ_CC),CC='$(FUZZ_CC)') $(CARGO_FUZZ)
# Bounds of one input. Images have few pixels here; 256 MiB is what the TIFF reader may reserve for a list, before it reads one.
FUZZ_BOUNDS := -max_len=16384 -timeout=20 -rss_limit_mb=1024 -malloc_limit_mb=288
FUZZ_SEEDS_request := fuzz/seeds/request
FUZZ_SEEDS_image := tests/images

fuzz: $(addprefix fuzz-,$(FUZZ_TARGETS))

fuzz-%: $(CARGO_FUZZ)
	mkdir -p fuzz/corpus/$*
	$(fuzzer) run $* fuzz/corpus/$* $(FUZZ_SEEDS_$*) -- \
		-max_total_time=$(FUZZ_SECONDS) -dict=fuzz/dictionaries/$*.dict $(FUZZ_BOUNDS)

$(CARGO_FUZZ):
	cargo install --quiet --locked --version 0.13.2 --root target/tools cargo-fuzz

lint: $(VENV)/.ready
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --all-targets -- -D warnings
	$(BIN)/ruff format --check export models/train benches/peers tests/clients
	$(BIN)/ruff check export models/train benches/peers tests/clients
	cd export && ../$(BIN)/mypy
	cd models/train && ../../$(BIN)/mypy --config-file mypy.ini
	cd benches/peers && ../../$(BIN)/mypy --config-file mypy.ini
	cd tests/clients && ../../$(BIN)/mypy --config-file mypy.ini

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

check: lint doc test

format: $(VENV)/.ready
	cargo fmt
	cargo fmt --manifest-path fuzz/Cargo.toml
	$(BIN)/ruff format export models/train benches/peers tests/clients

clean:
	rm -rf target fuzz/target $(VENV)
