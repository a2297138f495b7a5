#!/usr/bin/env bash
# Make airflow/.venv, the environment that Airflow has to itself. Run from the project's root; `make airflow` calls it when the requirements changed.
set -euo pipefail
PYTHON=${PYTHON:-python3.11}
echo "setting up airflow/.venv (a minute or two, about 300 MB)"
[ -x airflow/.venv/bin/python ] || "$PYTHON" -m venv airflow/.venv
airflow/.venv/bin/python -m pip --quiet --disable-pip-version-check install -r airflow/requirements.txt
airflow/.venv/bin/python -m pip check
touch airflow/.venv/.ready
