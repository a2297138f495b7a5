"""Plant each fault in a copy of the project, run the test that must fail, and say which faults were killed.

    make mutants                          all of them
    make mutants MUTANTS=intervals        those of a module; several words: any of them; an id works too
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from mutants.faults import Lost, faults, notebook_of, plant, restore

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LIMIT = 900  # seconds for one test


def project_copy(target: Path) -> Path:
    "What git knows of the project, and what it does not ignore."
    names = subprocess.run(['git', 'ls-files', '-zco', '--exclude-standard'], cwd=ROOT, check=True, capture_output=True).stdout.decode().split('\0')
    for name in filter(None, names):
        if not (ROOT / name).exists(): continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


def command(root: Path, fault) -> list[str]:
    "What runs a fault's test."
    if fault.test.startswith('tests/'): return [str(BIN / 'python'), '-m', 'pytest', '-qx', '-p', 'no:cacheprovider', fault.test]
    book = notebook_of(root, fault.module if fault.test == 'notebook' else fault.test)
    return [str(BIN / 'nbdev_test'), '--path', str(book), '--n_workers', '0', '--do_print']


def run_test(root: Path, words: list[str], store: Path | None) -> tuple[int, str]:
    "Exit code, and the last words of a test in a copy; 124 when it takes too long."
    shared = os.environ.get('FVC_SHARED', str(ROOT.parent / 'shared'))
    env = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1', MPLBACKEND='agg', FVC_SHARED=shared, PYTHONDONTWRITEBYTECODE='1')
    if store: env['FVC_TEST_CORPUS'] = str(store)
    try: ended = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired: return 124, f'not ended after {LIMIT} s'
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if 'Error' in line or line.startswith('E ')]
    return ended.returncode, (lines or (ended.stdout + ended.stderr).splitlines() or [''])[-1].strip()[:160]


def passes_clean(root: Path, chosen, store) -> set[str]:
    "The tests among those named that pass without any fault; the others prove nothing."
    sound, seen = set(), {' '.join(command(root, f)): command(root, f) for f in chosen}
    for name, words in seen.items():
        code, said = run_test(root, words, store)
        if code == 0: sound.add(name)
        else: print(f'FAILS WITHOUT A FAULT  {name}: {said}', flush=True)
    return sound


def verdict(root: Path, clean: Path, fault, store) -> tuple[str, str]:
    "'killed', 'survived' or 'lost', and why."
    words = command(root, fault)
    try: plant(root, fault)
    except (Lost, SyntaxError) as e: return 'lost', str(e)
    try: code, said = run_test(root, words, None if fault.fresh else store)
    finally: restore(root, clean, fault)
    return ('survived', 'the test passes') if code == 0 else ('killed', said)


def select(words: list[str], sample: int) -> list:
    "The faults named (a module, an id), or so many drawn by the commit."
    found = [f for f in faults() if not words or f.module in words or f.id in words]
    if not found: raise SystemExit(f'no fault of {words}: name a module or an id of tests/mutants/*.toml')
    if not sample or sample >= len(found): return found
    head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return random.Random(head).sample(found, sample)


def stored_corpus(place: Path, root: Path, chosen) -> Path | None:
    "The tests' corpus, made once by sound code."
    if all(f.fresh or not f.test.startswith('tests/') for f in chosen): return None
    env = dict(os.environ, PYTHONPATH=f'{root}{os.pathsep}{root / "tests"}', OMP_NUM_THREADS='1')
    subprocess.run([BIN / 'python', '-c', 'import sys; from pathlib import Path; from conftest import make_corpus; make_corpus(Path(sys.argv[1]))', str(place)],
                   cwd=root, env=env, check=True, capture_output=True)
    return place


def main():
    parser = argparse.ArgumentParser(prog='mutants', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('words', nargs='*', help='modules or ids; none: all')
    parser.add_argument('--sample', type=int, default=0, help='so many, drawn by the commit')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--trust', action='store_true', help='do not run the tests without a fault first')
    options = parser.parse_args()
    chosen, start = select(options.words, options.sample), time.time()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        clean, copies = project_copy(place / 'clean'), Queue()
        for i in range(options.workers): copies.put(project_copy(place / f'copy{i}'))
        store = stored_corpus(place / 'store', clean, chosen)
        sound = None if options.trust else passes_clean(clean, chosen, store)

        def judge(fault):
            if sound is not None and ' '.join(command(clean, fault)) not in sound: return fault, 'untested', 'its test fails without a fault'
            began, root = time.time(), copies.get()
            try: result = verdict(root, clean, fault, store)
            except Lost as e: result = 'lost', str(e)
            finally: copies.put(root)
            print(f'{result[0]:9} {fault.module}/{fault.id} ({time.time() - began:.0f} s) {fault.harm if result[0] != "killed" else ""} {result[1]}', flush=True)
            return fault, *result
        with ThreadPoolExecutor(options.workers) as pool: results = list(pool.map(judge, chosen))
    summarise(results, time.time() - start)
    raise SystemExit(any(state != 'killed' for _, state, _ in results))


def summarise(results, seconds):
    "Counts a module, the faults that were not killed, and the sum."
    print(f'\n{"module":24} killed of')
    planted, killed = Counter(f.module for f, *_ in results), Counter(f.module for f, state, _ in results if state == 'killed')
    for module, n in sorted(planted.items()): print(f'{module:24} {killed[module]:6} {n:2}')
    for fault, state, why in results:
        if state != 'killed': print(f'{state}: {fault.module}/{fault.id}, {fault.harm}: {why}')
    print(f'killed {sum(killed.values())} of {len(results)} in {seconds:.0f} s')


if __name__ == '__main__': main()
