"""The stage engine under torture, in a reduced form: `make torture` is the full one (see tests/torture/)."""
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def torture(*arguments):
    "Exit code and what was printed; in a process of its own, since it forks."
    environment = dict(os.environ, PYTHONPATH=str(TESTS), OMP_NUM_THREADS='1')
    try: ended = subprocess.run([sys.executable, '-m', 'torture', *arguments], env=environment, capture_output=True, text=True, timeout=1500)
    except subprocess.TimeoutExpired as e: raise AssertionError(f'torture did not end; its last lines: {e.stdout[-2000:].decode()}') from None
    print(ended.stdout[-20000:], ended.stderr[-3000:])
    return ended.returncode, ended.stdout


def test_nothing_is_lost():
    "Kills, write boundaries, damaged videos and files, full and failing disks, signals, rivals, shards, many rows."
    code, text = torture('--reduced', '--seed', '0')
    assert code == 0 and 'losses: 0' in text


def test_torture_notices_an_engine_that_believes_what_it_finds():
    code, text = torture('vandals', '--others', '2', '--seed', '0', '--sabotage', 'blind')
    assert code == 1 and 'losses: 2' in text
