# make course   play the course once, end to end         make test    all tests
# make env      the environment in .venv                 make parity  values and gradients against PyTorch
# make lint     ruff and mypy                            make audit   try the graded cells on wrong solutions
# make clean    remove what was made                     make grading time grading a class, here and by nbgrader alone
# make milestones  run them all, MNIST too (fetched)     make verdicts  many students, isolated and in a kernel
# make cifar10  train the CNN on photographs: 15 minutes
# make bench    time and memory against PyTorch and HIPS autograd, on a quiet machine

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PARITY := $(VENV)/.parity
JOBS ?= 2
# several run at once, so none may have its matrix products computed by several threads, which wait for each other
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: course test parity lint audit verdicts grading bench milestones cifar10 env export clean

course: env
	$(BIN)/python -m tito.grading.demo

test: lint
	$(BIN)/tito export --check
	$(PYTEST) -n $(JOBS) --dist loadgroup tests/modules tests/course tests/regression tests/attacks

parity: $(PARITY)
	$(BIN)/python -m pytest tests/parity

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check tito tests milestones tinytorch/__init__.py tinytorch/_face.py tinytorch/nn tinytorch/optim \
	  tinytorch/utils
	$(BIN)/mypy

audit: env
	$(BIN)/tito audit

verdicts: env
	TINYTORCH_STUDENTS=20 $(PYTEST) -n $(JOBS) --dist loadgroup tests/course/test_verdicts.py

grading: env
	$(BIN)/python benchmarks/grading.py

bench: $(PARITY)
	$(BIN)/python benchmarks/speed.py

milestones: env
	$(BIN)/tito data get mnist
	$(BIN)/tito milestone run 01
	$(BIN)/tito milestone run 02
	$(BIN)/tito milestone run 03
	$(BIN)/tito milestone run 03 --data mnist
	$(BIN)/tito milestone run 04
	$(BIN)/tito milestone run 04 --data mnist
	$(BIN)/tito milestone run 05
	$(BIN)/tito milestone run 05 --task shakespeare

cifar10: env
	$(BIN)/tito data get cifar10
	$(BIN)/tito milestone run 04 --data cifar10

export: env
	$(BIN)/tito export

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "TinyTorch needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[course,dev]'
	@touch $@

$(PARITY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[course,dev,parity]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
