# The two doors: `make demo` and `make test`. Each sets up all it needs; nothing else has to be run before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all test-pythons e2e e2e-containers e2e-boots matrix agent-matrix canaries boot real lint generate benchmark benchmark-image benchmark-boot lock hooks clean

demo: $(READY)
	$(BIN)/cml-runner sandbox

# More than twice as many workers as processors: most of the time is waiting, for processes and their timers.
test: lint tests/node_modules/.ready
	$(MAKE) --no-print-directory --jobs 2 test-all test-pythons

test-all:
	$(BIN)/python -m pytest -n 5 --dist worksteal --ignore tests/e2e --ignore tests/boot --ignore tests/real
test-pythons:
	$(BIN)/python -m tests.pythons

# MATRIX: which of the kill matrix, HOSTILE: which lives with a hostile job; all of them by default. AGENT: which of
# the agent's kill matrix, of which the whole takes more than an hour (`make agent-matrix`). What users start, run by readers of CI files that others wrote. What cannot be had here is skipped, loudly.
e2e: $(READY) tests/node_modules/.ready
	command -v rsync >/dev/null || { apt-get update -qq && apt-get install -qq -y rsync >/dev/null; } || echo "rsync is missing: gitlab-ci-local cannot run without it"
	$(BIN)/python -m tests.matrix $(MATRIX)
	$(BIN)/python -m tests.matrix --agent $(or $(AGENT),--sample=50)
	$(BIN)/python -m tests.hostile $(HOSTILE)
	test -n "$(HOSTILE)" || $(BIN)/python -m pytest -n 4 -m "e2e or not e2e" tests/hostile/test_pod.py
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target e2e-containers e2e-boots

# Side by side: the one waits for Docker and downloads, the other has an emulated processor to itself.
e2e-containers:
	$(BIN)/python -m pytest tests/e2e
e2e-boots:
	$(BIN)/python -m pytest -m e2e tests/boot

# Every call of a launch, on every cloud and forge, and all that can happen to it: docs/reliability.md. Some ten minutes.
matrix: $(READY)
	$(BIN)/python -m tests.matrix

# Every effect of the agent on its machine, and all that can happen at it: docs/reliability.md. An hour or so; AGENT="--sample=30 --seed=1" for less.
agent-matrix: $(READY)
	$(BIN)/python -m tests.matrix --agent $(AGENT)

# Every place for a secret, every odd character, cloud, CI and road, and every variable of an SDK with values that no one can use. Half an hour or more.
canaries: $(READY)
	$(BIN)/python -m tests.canaries

# Whole lives of virtual machines, each from the user data of a launch. QEMU is installed where it may be; elsewhere they are skipped, loudly.
boot: $(READY)
	$(BIN)/python -m pytest -p no:randomly -n 2 tests/boot

# With programs that you have: make real GITLAB_RUNNER=path, and DOCKER=yes where no other containers can be lost. Without them its tests are skipped, loudly.
real: $(READY)
	$(BIN)/python -m pytest -n 2 tests/real

# GitHub's own API description, which the forge's tests are held to, and gitlab-ci-local. Without npm those tests are skipped, loudly.
tests/node_modules/.ready: tests/package-lock.json
	if command -v npm >/dev/null; then npm ci --prefix tests --no-progress --loglevel=error && touch $@; else echo "npm is missing: tests against GitHub's API description and with gitlab-ci-local will be skipped"; fi

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python schema/generate.py --check
	$(BIN)/python -m tests.prose
	$(BIN)/zizmor --offline --quiet --config .github/zizmor.yml .github action.yml examples
	$(BIN)/vermin --no-tips --violations --target=3.9- runner_action/agent

# What `lint` checks, before each commit: .pre-commit-config.yaml.
hooks: $(READY)
	$(BIN)/pre-commit install

generate: $(READY)
	$(BIN)/python schema/generate.py

benchmark: $(READY)
	test -x .venv-launcher/bin/python || $(BIN)/python -m venv .venv-launcher
	$(BIN)/uv pip sync -q --python .venv-launcher/bin/python --require-hashes requirements/launcher.txt
	$(BIN)/python -m benchmarks.launch .venv-launcher/bin/python
	$(BIN)/python -m benchmarks.count .venv-launcher/bin/python
	$(BIN)/python -m benchmarks.agent
	$(BIN)/python -m benchmarks.sizes

benchmark-boot: $(READY)
	$(BIN)/python -m benchmarks.boot

benchmark-image: $(READY)
	$(BIN)/python -m benchmarks.image

# With the SHA-256 of every file that a release consists of, for all platforms; no address of an index stands in them.
COMPILE := $(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --no-annotate
lock: $(READY)
	$(COMPILE) --python-version 3.11 -c requirements/dev.txt -o requirements/launcher.txt pyproject.toml
	$(COMPILE) --python-version 3.11 --extra sandbox --group test --group lint --group build -o requirements/dev.txt pyproject.toml
	$(COMPILE) --python-version 3.9 --no-python-downloads --group agent -o requirements/agent.txt
	$(COMPILE) --python-version 3.11 --group installer -o requirements/uv.txt

# uv, since the resolver of older pips does not end on this set of SDKs; from the lock, so that nothing is resolved at all, and only what the lock's
# hashes name is installed.
$(READY): requirements/dev.txt requirements/uv.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) .venv-launcher .venv-agent-* tests/node_modules
