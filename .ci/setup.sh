#!/usr/bin/env bash
# Make .venv with everything fvc needs. Run from the project's root; `make` calls it when a version or requirement changed.
set -euo pipefail
PYTHON=${PYTHON:-python3.11}
missing=()
command -v "$PYTHON" >/dev/null || missing+=(python3.11)
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3.11-venv)
"$PYTHON" -c 'import ctypes.util, sys; sys.exit(ctypes.util.find_library("archive") is None)' 2>/dev/null || missing+=(libarchive13)
command -v git >/dev/null || missing+=(git)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  else
    echo "fvc needs these packages of Debian: sudo apt-get install ${missing[*]}" >&2
    exit 2
  fi
fi
echo "setting up .venv (a few minutes, about 3 GB)"
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
pip() { .venv/bin/python -m pip --quiet --disable-pip-version-check "$@"; }
pip install -c constraints.txt setuptools wheel
[ -n "$(.venv/bin/python -c 'import importlib.util as u; print(u.find_spec("torch") or "")')" ] || pip install "$(grep '^torch==' constraints.txt)"
pip install -c constraints.txt -r requirements.txt
pip install --no-deps --no-build-isolation -e .
.venv/bin/python .ci/torchvision_cpu.py
.venv/bin/python -m pip check
touch .venv/.ready
