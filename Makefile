# Two commands do everything on a fresh Debian machine with Python 3.11: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin


.PHONY: run all-models test mutants torture lab docs bench setup science airflow clean

run: setup  ## sample corpus, stages 0-4, four models on all folds, report
	$(BIN)/fvc run

all-models: run  ## every model on every fold of the sample, in its small profile; goes on where it was stopped
	$(BIN)/fvc train --all
	$(BIN)/fvc report

test: setup  ## every notebook's tests, the tests that cross notebooks, the state of the notebooks, the docs site
	bash .ci/test.sh

mutants: setup  ## plant known faults in a copy, one at a time, and see that a test fails; MUTANTS=intervals for a part
	PYTHONPATH=tests $(BIN)/python -m mutants $(MUTANTS)

torture: setup  ## kills, faults, damaged videos, full disks, signals against stages 0-4, killed jobs and nodes on a cluster; prints the counts; TORTURE="kills --seed 7" for a part
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m torture $(TORTURE)

lab: setup  ## JupyterLab on the notebooks, on this machine only
	$(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir nbs

docs: setup  ## the documentation site, in _docs/ (with Quarto when it is installed, else with smalldocs)
	$(BIN)/python .ci/docs.py

bench: setup  ## speed and memory against the targets; needs Debian's ffmpeg; options: make bench BENCH="--targets 2,3 --pairs 7"
	$(BIN)/python bench/run.py $(BENCH)

science: setup  ## does the sample measure what it should? thirty corpora, about an hour
	$(BIN)/python bench/science.py

airflow: setup airflow/.venv/.ready  ## the pipeline under Airflow, on this machine only; in an environment of its own
	bash airflow/start.sh

airflow/.venv/.ready: airflow/requirements.txt airflow/setup.sh
	PYTHON="$(PYTHON)" bash airflow/setup.sh

setup: $(VENV)/.ready

$(VENV)/.ready: constraints.txt requirements.txt settings.ini setup.py .ci/setup.sh .ci/torchvision_cpu.py
	PYTHON="$(PYTHON)" bash .ci/setup.sh

clean:  ## remove what was made, keep data and executed runs
	rm -rf $(VENV) _proc _docs build *.egg-info
