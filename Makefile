# Everything runs in .venv, which is made on the first call and left alone on the next.
#   make demo                        any torch that fits this machine
#   make demo BUDGET=2m              shorter than five minutes
#   make test TORCH=torch==2.13.0    this very torch
#   make test PYTHON=python3.12      this very Python
#   make test WITH=adapters,powers   with these extras: the tests that need them run and are not skipped
#   make test CONSTRAINTS=           the newest version of every package, not the tested ones of constraints.txt
#   make torture ONLY="disks clocks" only the rows whose names have one of these words

TORCH ?= torch
WITH ?=
ONLY ?=
BUDGET ?= 5m
PYTHON ?=
CONSTRAINTS ?= constraints.txt
comma := ,
export PYTHON CONSTRAINTS
BIN := .venv/bin

# A torch that was asked for by name and is not the one installed makes the environment again.
ifneq ($(TORCH),torch)
ifneq ($(TORCH),$(shell cat .venv/.torch 2>/dev/null))
$(shell rm -f .venv/.installed .venv/.installed-dev)
endif
endif

# The same for extras.
ifneq ($(WITH),)
ifneq ($(WITH),$(shell cat .venv/.with 2>/dev/null))
$(shell rm -f .venv/.installed-dev)
endif
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow torture lint format constraints audit vendor hooks clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.installed: pyproject.toml constraints.txt .ci/environment
	@.ci/environment '$(TORCH)'
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt .ci/environment
	@.ci/environment '$(TORCH)' '[dev$(if $(WITH),$(comma)$(WITH))]'
	@echo '$(WITH)' > .venv/.with
	@touch .venv/.installed $@

demo: .venv/.installed ## train, distil and judge a generator of garments in about five minutes: runs/demo
	@$(BIN)/python -m noisewise.app.demo --out runs/demo --budget $(BUDGET)

test: lint ## all checks and the default tests, in as many processes as there are cores, at most 4
	@OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: .venv/.installed-dev ## the tests that take more than a minute each
	@$(BIN)/pytest -m slow --timeout 1800

torture: .venv/.installed-dev ## kill, fill, damage and divide runs many times: takes long, and goes on when called again
	@$(BIN)/python tests/torture.py --out runs/torture $(if $(ONLY),--only $(ONLY))

lint: .venv/.installed-dev ## format, style, types, floors; changes nothing
	@echo 'ruff format' && $(BIN)/ruff format --check --quiet || { echo 'not formatted; mend it by: make format' >&2; exit 1; }
	@echo 'ruff check' && $(BIN)/ruff check --quiet
	@echo 'pyrefly' && $(BIN)/pyrefly check --summary=none
	@echo 'import-linter' && $(BIN)/lint-imports --no-logo
	@echo 'constraints' && $(BIN)/python .ci/constraints.py check

format: .venv/.installed-dev ## put the code into its format and mend what can be mended
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

constraints: .venv/.installed-dev ## write constraints.txt again, from the versions that are installed here
	@$(BIN)/python .ci/constraints.py write

audit: .venv/.installed-dev ## known vulnerabilities of the versions in constraints.txt; needs the network
	@.ci/audit

vendor: ## fetch ONNX Runtime Web from npm and pack it again; needs npm; VENDOR=1.30.0 for this version
	@python3 .ci/vendor.py write $(VENDOR)

hooks: .venv/.installed-dev ## run lint before each commit and test before each push
	@$(BIN)/pre-commit install --hook-type pre-commit --hook-type pre-push

clean: ## take away the environment and every cache; runs/ stays
	rm -rf .venv dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
