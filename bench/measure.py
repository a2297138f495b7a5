"""Costs of commands and of functions in a warm process: processor seconds (user + system) and peak memory, in pairs whose order swaps."""
import json, os, statistics, subprocess, sys, time
from dataclasses import dataclass
from pathlib import Path

from fvc.engine.workers import ENVIRONMENT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHON = ROOT / '.venv' / 'bin' / 'python'
SURROUNDINGS = dict(os.environ, **ENVIRONMENT, TQDM_DISABLE='1')  # of both sides: what fvc gives its workers


@dataclass(frozen=True)
class Cost:
    "What one run took."
    cpu: float  # seconds of processor time, of the process and of all that it waited for
    peak: float  # MB resident, of the largest process
    wall: float = 0.0  # seconds


def command(words: list,  # program and arguments
            env: dict | None = None) -> Cost:
    "Run a command to its end; raises RuntimeError with its last words when it fails."
    began = time.monotonic()
    process = subprocess.Popen([str(w) for w in words], env=env or SURROUNDINGS, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode: raise RuntimeError(f'{" ".join(map(str, words))} failed ({process.returncode}):\n{said[-2000:]}')
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, time.monotonic() - began)


class Server:
    "A process that has imported its library and then does one thing after the other, saying what each took."
    def __init__(self, library: str,  # fvc, torchcodec, approximate or decord: see serve.py
                 python: Path = PYTHON):
        self.process = subprocess.Popen([python, HERE / 'serve.py', library], env=SURROUNDINGS, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.imported = self._answer()['peak']  # MB

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line: raise RuntimeError(f'the measuring process ended with exit code {self.process.wait()}; its message is above')
        return json.loads(line)

    def __call__(self, task: str, **arguments) -> dict:  # cpu (s), above (MB above what the imports take), value
        self.process.stdin.write(json.dumps(dict(task=task, arguments=arguments), default=str) + '\n')
        self.process.stdin.flush()
        return self._answer()

    def __enter__(self): return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def paired(ours, theirs, pairs: int) -> tuple[list, list]:
    "Both sides' results, after one run of each that is not counted; who begins changes from pair to pair."
    ours(), theirs()
    results = [], []
    for turn in range(pairs):
        for side in (0, 1) if turn % 2 == 0 else (1, 0): results[side].append((ours, theirs)[side]())
    return results


def spread(values: list[float], digits: int = 2) -> str:
    "Median, least and most."
    return f'{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})'


def say(*words): print(*words, file=sys.stderr, flush=True)
