#!/usr/bin/env bash
# Open Airflow on this machine only; Ctrl-C ends it. `make airflow` calls it. Its database, its logs and the password of its page lie in airflow/home.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export AIRFLOW_HOME=$here/home AIRFLOW__CORE__DAGS_FOLDER=$here/dags AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=False
export AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT=${AIRFLOW_PORT:-8080} AIRFLOW__API__BASE_URL=http://127.0.0.1:${AIRFLOW_PORT:-8080}
export PYTHONPATH=$here/config  # airflow_local_settings.py: its log servers, too, on the loopback only
export PATH=$here/.venv/bin:$PATH  # standalone starts its parts by name
mkdir -p "$AIRFLOW_HOME"
echo "http://127.0.0.1:$AIRFLOW__API__PORT, user admin, password in $AIRFLOW_HOME/simple_auth_manager_passwords.json.generated"
exec airflow standalone
