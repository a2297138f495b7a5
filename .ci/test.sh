#!/usr/bin/env bash
# Everything `make test` checks, in the order of what fails fastest. Run from the project's root after set-up.
set -euo pipefail
export MPLBACKEND=agg OMP_NUM_THREADS=1  # two notebooks at a time on two cores
bin=$PWD/.venv/bin
step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }
step 'notebooks and library: in step, clean, within the house limits'
"$bin/python" -m pytest -q tests/test_notebooks.py
step 'the documentation site'
"$bin/python" .ci/docs.py
step 'the tests in the notebooks'
"$bin/python" .ci/lessons.py
step 'the tests that cross notebooks'
"$bin/python" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 20 tests --ignore tests/test_notebooks.py  # two files at a time
step 'twenty planted faults, drawn by the commit, are noticed'
PYTHONPATH=tests "$bin/python" -m mutants --sample 20 --trust
step 'all passed'
