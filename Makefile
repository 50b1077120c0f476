# Each environment is made once; it is made again when what it is made of changes.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The two onnxruntime wheels exclude each other: the GPU one where there is a GPU that answers.
ACCELERATOR ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
INPUTS = pyproject.toml constraints.txt
BENCH_DATA ?= ../shared/data

.PHONY: run demo test quick lint lock audit demo-model bench-calibration bench-serving bench-drift bench-training bench-sam bench-crash torture soak bench-control bench-set-check bench-zeros clean

run: $(VENV)/.run
	@exec $(VENV)/bin/python -m trueprob_service serve

# A minute; on the service of `make run`, or its own. DEMO='--seed 3', DEMO='--own --speed 10', …
demo: $(VENV)/.run
	@exec $(VENV)/bin/python -m examples.demo $(DEMO)

# Two at a time, a file in one process. TESTS=tests/trueprob runs a part.
TESTS ?=
PYTEST = $(VENV)/bin/python -m pytest -n 2 --dist loadfile

test: $(VENV)/.test
	$(PYTEST) $(TESTS)

# No system package, no service of its own, no network to train.
quick: $(VENV)/.test
	OMP_NUM_THREADS=1 $(PYTEST) -m "not integration and not slow" $(TESTS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

# The packages of the images with the hashes of their files: after a change of the requirements.
UV = $(VENV)-lock/bin/uv pip compile pyproject.toml --constraint constraints.txt --quiet --universal \
	--python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	--custom-compile-command "make lock" --upgrade
lock: $(VENV)-lock/.done
	$(UV) --extra service --extra cpu --extra postgres --extra oidc --extra otel --output-file locks/service.txt
	$(UV) --extra service --extra gpu --extra postgres --extra oidc --extra otel --output-file locks/service-gpu.txt
	$(UV) --extra trainer --extra cpu --extra cli --output-file locks/trainer.txt

# Known vulnerabilities of what the images install; asks PyPI's advisory database.
audit: $(VENV)-lock/.done
	for lock in locks/*.txt; do $(VENV)-lock/bin/pip-audit --require-hashes --disable-pip --requirement $$lock || exit 1; done

$(VENV)-lock/.done: Makefile
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv==0.13.9 pip-audit==2.10.1 && touch $@

demo-model: $(VENV)/.test
	$(VENV)/bin/python -m trueprob_trainer train --data noisy-digits --network digits-cnn --optimiser sam --rho 0.05 --seed 0 --run runs/digits --overwrite
	$(VENV)/bin/python -m trueprob_trainer register --run runs/digits --name digits --models var/demo-models --compare-with models/digits/1

# BENCH='--small' takes the smaller sets, BENCH='--only speed' one part, BENCH=--no-write prints only.
bench-calibration: $(VENV)/.bench
	BENCH_DATA=$(BENCH_DATA) $(VENV)/bin/python -m benchmarks.calibration $(BENCH)

# The other servers have an environment each; one that does not install is named in the tables.
bench-serving: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.serving.environments
	$(VENV)/bin/python -m benchmarks.serving $(BENCH)

# The same options; the parts are promise, quiet, delay, real-shifts and cost.
bench-drift: $(VENV)/.bench
	BENCH_DATA=$(BENCH_DATA) $(VENV)/bin/python -m benchmarks.drift $(BENCH)

# With a GPU that torch sees, the same on the GPU.
bench-training: $(VENV)/.bench
	$(VENV)/bin/python -m benchmarks.training $(BENCH)

# Goes on where it was stopped; BENCH='--part digits' runs one part, BENCH=--smoke tries it out.
bench-sam: $(VENV)/.test
	BENCH_DATA=$(BENCH_DATA) $(VENV)/bin/python -m benchmarks.sam $(BENCH)

# BENCH='--rounds 20' is quicker; BENCH='--database-url postgresql://…' takes an empty database.
bench-crash: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.crash $(BENCH)

# Each fault once on SQLite and PostgreSQL, with requests going on. TORTURE='--rounds 5 --seed 7', or
# TORTURE='--url https://… --model NAME --key-file F --fault kill="kubectl delete pod …"': yours.
torture: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.torture $(TORTURE)

# Mixed requests for so long; nothing may grow, fail or be lost. SOAK='--rate 100'.
MINUTES ?= 30
soak: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.soak --minutes $(MINUTES) $(SOAK)

# The parts are labels, beside-fit, admission, scrape and remembered; BENCH=--small is quicker.
bench-control: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.control $(BENCH)

# The parts are broken, other-inputs, honest and cost; BENCH=--small is quicker.
bench-set-check: $(VENV)/.test
	BENCH_DATA=$(BENCH_DATA) $(VENV)/bin/python -m benchmarks.set_check $(BENCH)

# Zeros in probabilities and wild scales, with the input stage and without it.
bench-zeros: $(VENV)/.test
	BENCH_DATA=$(BENCH_DATA) $(VENV)/bin/python -m benchmarks.zeros $(BENCH)

$(VENV)/.run: $(INPUTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[service,cli,client,$(ACCELERATOR)]' && touch $@

$(VENV)/.test: $(INPUTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[service,cli,$(ACCELERATOR),trainer,postgres,dev]' && touch $@

$(VENV)/.bench: $(VENV)/.test benchmarks/requirements.txt
	$(PIP) --no-deps -r benchmarks/requirements.txt && touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
