# Two commands do everything on a fresh Debian machine with Python 3.11: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin


.PHONY: run test lab docs setup science clean

run: setup  ## sample corpus, stages 0-4, four models on all folds, report
	$(BIN)/fvc run

test: setup  ## every notebook's tests, the tests that cross notebooks, the state of the notebooks, the docs site
	bash .ci/test.sh

lab: setup  ## JupyterLab on the notebooks, on this machine only
	$(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir nbs

docs: setup  ## the documentation site, in _docs/ (with Quarto when it is installed, else with smalldocs)
	$(BIN)/python .ci/docs.py

science: setup  ## does the sample measure what it should? thirty corpora, about an hour
	$(BIN)/python bench/science.py

setup: $(VENV)/.ready

$(VENV)/.ready: constraints.txt requirements.txt settings.ini setup.py .ci/setup.sh .ci/torchvision_cpu.py
	PYTHON="$(PYTHON)" bash .ci/setup.sh

clean:  ## remove what was made, keep data and executed runs
	rm -rf $(VENV) _proc _docs build *.egg-info
