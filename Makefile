# corpusmill. `make run` shows the whole job on the embedded sample site; `make test` runs the hermetic suite.
SHELL := /bin/bash
.DELETE_ON_ERROR:
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?= $(CORPUSMILL_TEST_DATA)
LEAN := .venv-lean
LEAN_READY := $(LEAN)/.ready
PYTHON312 ?= python3.12

.PHONY: run test test-slow test-data test-gpu test-browser test-services test-lean image-cpu image-cuda image-pins check audit golden format bench bench-build bench-agreement bench-extract bench-signals bench-pii bench-takedown bench-keywords bench-dedup bench-incremental bench-outage bench-memory bench-crawl bench-toxicity bench-frontier bench-perplexity bench-train bench-train-kills bench-cancel bench-soak bench-kills bench-watch bench-journal bench-up bench-ray bench-overhead real-pages lock clean

run: $(READY)
	$(BIN)/corpusmill run

test: $(READY)
	$(BIN)/pytest -n 2

test-slow: $(READY)
	$(BIN)/pytest -m slow --timeout 3600

test-data: $(READY)
	CORPUSMILL_TEST_DATA="$(DATA)" $(BIN)/pytest -m real_data --timeout 1800

test-gpu: $(READY)
	$(BIN)/pytest -m gpu

test-browser: $(READY)
	$(BIN)/pytest -m browser

# The team's services as processes: Postgres, a broker, Prefect, MLflow, S3, the proxy, workers. Needs Debian's packages
# postgresql and redis-server (or valkey); some minutes.
test-services: $(READY)
	$(BIN)/pytest -m services

# llm/ with what a GPU host has and no more: Python 3.12, the oldest torch that is promised, numpy, pyarrow, safetensors.
# Takes 6 GB where torch is served as a CUDA build. Left out is what compares with other libraries.
NOT_LEAN := test_bench_train.py test_export_model.py test_model.py
test-lean: $(LEAN_READY)
	@$(LEAN)/bin/python -c 'import sys, torch; print("Python", sys.version.split()[0], "with torch", torch.__version__)'
	@echo "Left out of tests/llm, since they need transformers, tokenizers or psutil: $(NOT_LEAN)"
	$(LEAN)/bin/pytest -v -rs --timeout 600 --confcutdir tests/llm -o pythonpath=". tests" $(NOT_LEAN:%=--ignore tests/llm/%) tests/llm

# TORCH_INDEX_URL=... says where CPU builds of torch are served.
image-cpu image-cuda: image-%:
	docker build --file infra/images/Dockerfile --build-arg VARIANT=$* --build-arg TORCH_INDEX_URL="$(TORCH_INDEX_URL)" \
		--tag corpusmill:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)-$* .

# Digests of the images that are named by tag, looked up in their registry.
image-pins:
	infra/images/pin.sh

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# ADVISORIES=FOLDER of OSV files asks no network; STRICT=1 fails where vulnerabilities could not be looked up.
audit: $(READY)
	$(BIN)/python infra/audit.py $(if $(ADVISORIES),--advisories "$(ADVISORIES)") $(if $(STRICT),--strict)

golden: $(READY)
	CORPUSMILL_WRITE_GOLDEN=1 $(BIN)/pytest tests/pipelines/test_golden.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-build bench-memory bench-crawl bench-frontier

# PEER=/path/to/python of an environment with datatrove[io,processing] and spacy measures the peer beside ours.
bench-build: $(READY)
	$(BIN)/python tests/benchmarks/bench_build.py $(if $(PEER),--peer-python $(PEER))

bench-agreement: $(READY)
	$(BIN)/python tests/benchmarks/bench_agreement.py $(PEER) pages $(TEXTS)

bench-extract: $(READY)
	$(BIN)/python tests/benchmarks/bench_extract.py "$(DATA)/extraction/scrapinghub"

bench-signals: $(READY)
	$(BIN)/python tests/benchmarks/bench_signals.py $(TEXTS)

bench-pii: $(READY)
	CORPUSMILL_TEST_DATA="$(DATA)" $(BIN)/python tests/benchmarks/bench_pii.py $(TEXTS)

bench-takedown: $(READY)
	$(BIN)/python tests/benchmarks/bench_takedown.py

bench-keywords: $(READY)
	$(BIN)/python tests/benchmarks/bench_keywords.py

# PEER=/path/to/python of an environment with datatrove[processing] and spacy measures the peer beside ours.
bench-dedup: $(READY)
	$(BIN)/python tests/benchmarks/bench_dedup.py pages pages $(if $(PEER),--peer-python $(PEER))
	$(BIN)/python tests/benchmarks/bench_dedup.py synthetic 100000 1000000

# FOLDERS="a b" names folders that infra/fetch_debian_docs.sh unpacked into.
bench-incremental: $(READY)
	$(BIN)/python tests/benchmarks/bench_incremental.py $(FOLDERS)

bench-outage: $(READY)
	$(BIN)/python tests/benchmarks/bench_outage.py

bench-memory: $(READY)
	$(BIN)/python tests/benchmarks/bench_memory.py

# PEER=/path/to/python of an environment with scrapy==2.19.0 and warcio measures the peer beside ours.
bench-crawl: $(READY)
	$(BIN)/python tests/benchmarks/bench_crawl.py $(if $(PEER),--peer-python $(PEER))

bench-toxicity: $(READY)
	$(BIN)/python tests/benchmarks/bench_toxicity.py "$(DATA)/toxicity"

bench-frontier: $(READY)
	$(BIN)/python tests/benchmarks/bench_frontier.py

# TEXTS="a.txt b.txt" measures real text in place of generated.
bench-perplexity: $(READY)
	$(BIN)/python tests/benchmarks/bench_perplexity.py $(TEXTS)

# DATA=... is the folder of test data, for loss and Muon; PARTS="speed muon" are some of the measurements. About half an hour.
bench-train: $(READY)
	CORPUSMILL_TEST_DATA="$(DATA)" $(BIN)/python tests/benchmarks/bench_train.py $(PARTS)

# Thirty random kills during training, on one process and on two; about ten minutes.
bench-train-kills: $(READY)
	$(BIN)/python tests/benchmarks/bench_train_kills.py

# A training that is cancelled as Prefect's UI does it: seconds until no process of it is left. About three minutes.
bench-cancel: $(READY)
	$(BIN)/python tests/benchmarks/bench_cancel.py
# Thirty scheduled refreshes of a site that changes, with kills of worker, servers, runs and database; about half an hour.
bench-soak: $(READY)
	$(BIN)/python tests/benchmarks/bench_soak.py

bench-kills: $(READY)
	$(BIN)/python tests/benchmarks/bench_kills.py

bench-watch: $(READY)
	$(BIN)/python tests/benchmarks/bench_watch.py

bench-journal: $(READY)
	$(BIN)/python tests/benchmarks/bench_journal.py

# From `corpusmill up` on a new workspace to a finished run of its refresh.
bench-up: $(READY)
	$(BIN)/python tests/benchmarks/bench_up.py
# Two Ray workers against one; five minutes on two quiet cores.
bench-ray: $(READY)
	$(BIN)/python tests/benchmarks/bench_ray.py

bench-overhead: $(READY)
	$(BIN)/python tests/benchmarks/bench_overhead.py

real-pages: $(READY)
	infra/fetch_debian_docs.sh pages
	$(BIN)/corpusmill run infra/recipes/debian-docs.yaml

lock:
	infra/lock.sh

clean:
	rm -rf $(VENV) $(LEAN) workspace build *.egg-info

# The environment is made once, and again only when the lock file or the project file changes.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "got Python %d.%d, wanted 3.11 or newer: pass PYTHON=python3.11" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q flows llm pipelines  # workers start in half the time, also where Python may write no bytecode
	touch $(READY)

$(LEAN_READY): tests/llm/lean-requirements.txt
	test -x $(LEAN)/bin/python || $(PYTHON312) -m venv $(LEAN)
	$(LEAN)/bin/pip install --quiet --disable-pip-version-check -r tests/llm/lean-requirements.txt
	touch $(LEAN_READY)
