"""Target 9: what the cluster adds to a job, and what a submission costs, on a SLURM of two nodes on the loopback.

`bench/orchestration.py cluster DIR` and `bench/orchestration.py alone DIR` do one side each, as processes of their own: what they and all their descendants take is
what the side costs. Needs root and Debian's munge, slurmctld, slurmd, slurm-client.
"""
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import PYTHON, ROOT, SURROUNDINGS, Cost, command, say, spread
from verdict import Verdict

sys.path.insert(0, str(ROOT / 'tests'))
import cluster as slurm

FVC = PYTHON.with_name('fvc')
FOLDS, SHARDS, STAGES = 5, 3, (1, 2, 3, 4)
MODELS = ('svm', 'logistic_regression', 'gradient_boosting', 'naive_cnn')  # that ask for no GPU: the loopback has none
WORDS = [f'split.n_splits={FOLDS}', 'stages.augmentation.num_augmentations=1', 'stages.augmentation.kinds=[flip]', 'stages.workers=1']
PROFILE = 'gpus: 0\nmem: 1G\ncpus: 4\ntime: "0:30:00"\noptions: ["--exclusive"]\n'
SUBREAPER = 36  # prctl: processes whose parent has ended become this one's children, so that their time counts


def environment(folder: Path) -> dict:
    return dict(SURROUNDINGS, PYTHONPATH=str(ROOT), FVC_USE_TRACKING='false', SLURM_CONF=str(folder / 'slurm' / 'slurm.conf'), PATH=f'{FVC.parent}:{os.environ["PATH"]}')


def stub(notebook: Path, target: Path) -> bool:
    "A notebook that does nothing: of a model's, the cell that names it and the one of its parameters."
    book = json.loads(notebook.read_text())
    first = ''.join(book['cells'][0]['source'])
    if not first.startswith('#| default_exp models.'): return False
    book['cells'] = [book['cells'][0], *(c for c in book['cells'] if 'parameters' in c['metadata'].get('tags', []))]
    target.write_text(json.dumps(book))
    return True


def prepare(folder: Path, models: int) -> list[tuple[str, str]]:
    "A project whose notebooks do nothing, and a small corpus; models, each with the name of a run."
    from fvc.corpus.sample import SAMPLE_PASSWORD, make_sample
    from fvc.stages.setup import setup
    nbs = folder / 'project' / 'nbs'
    nbs.mkdir(parents=True)
    shutil.copy(ROOT / 'settings.ini', nbs.parent)
    for notebook in sorted((ROOT / 'nbs').glob('5*.ipynb')): stub(notebook, nbs / notebook.name)
    setup(make_sample(folder / 'archives', n_cascades=16, seconds=0.4, side=64), str(folder / 'work'), ' '.join(WORDS[:1]), SAMPLE_PASSWORD)
    (folder / 'work' / 'slurm.yaml').write_text(PROFILE)
    return [(MODELS[k % len(MODELS)], f'n{k}') for k in range(models)]


def shard(stage: int, share: str) -> list:
    return [FVC, 'stage', stage, '--shard', share, '--allow-failures', '100%', *WORDS]


def alone(folder: Path, models: list[str]):
    "The same work without anything around it, two at a time: shards and their merges, then papermill."
    data, project = folder / 'work', folder / 'project'
    def run(words): subprocess.run([str(w) for w in words], cwd=project, env=environment(folder), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with ThreadPoolExecutor(slurm.NODES) as pool:
        for stage in STAGES:
            list(pool.map(run, ([*shard(stage, f'{k}/{SHARDS}'), '--data', data] for k in range(1, SHARDS + 1))))
            run([*shard(stage, '1/1'), '--data', data])
        (folder / 'out').mkdir()
        books = {p.stem.partition('_')[2]: p for p in (project / 'nbs').glob('*.ipynb')}
        list(pool.map(run, ([PYTHON, '-m', 'papermill', books[m], folder / 'out' / f'{m}_{name}_{k}.ipynb', '--cwd', project, '--autosave-cell-every', '2', '--no-progress-bar',
                             '--log-level', 'WARNING', '-y', json.dumps(dict(fold=k, data=str(data), overrides=' '.join(WORDS[:1])))] for k in range(1, FOLDS + 1) for m, name in models)))


def on_cluster(folder: Path, models: list[str]):
    "The same through `fvc submit` and `fvc wait`; every task must have ended well."
    def fvc(*words): return subprocess.run([str(w) for w in (FVC, words[0], '--data', folder / 'work', *words[1:])], cwd=folder / 'project', env=environment(folder), check=True,
                                           text=True, stdout=subprocess.PIPE).stdout
    fvc('submit', *(f'stage{n}' for n in STAGES), '--shards', SHARDS, *WORDS)
    for model, name in models: fvc('submit', model, '--name', name, '--shards', SHARDS, *WORDS)
    fvc('wait', '--every', '2', *(f'{model}@{name}' for model, name in models))
    states = [r['state'] for r in json.loads(fvc('status', '--json')) if 'task' in r]
    wanted = len(STAGES) * (SHARDS + 1) + FOLDS * len(models)
    if states != ['done'] * wanted: raise RuntimeError(f'{wanted} tasks were to be done: {states}')


def side(name: str, folder: Path):
    "One side to its end, with all processes that it has left behind."
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
    models = json.loads((folder / 'models.json').read_text())
    if name == 'alone': return alone(folder, models)
    try:
        slurm.up(folder / 'slurm')
        on_cluster(folder, models)
    finally: slurm.down(folder / 'slurm')
    try:
        while True: os.wait()  # the daemons, with what their jobs took
    except ChildProcessError: return


def measured_side(name: str, folder: Path) -> Cost:
    "What one side costs, on a fresh copy of the corpus in one place."
    place = folder / 'side'
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / 'start', place, symlinks=True)
    return command([PYTHON, Path(__file__), name, place], environment(place))


def asked(folder: Path, models: list[str]) -> Cost:
    "What it costs to ask all models once, as the first submission after a change of the code does."
    place, costs = folder / 'side', []
    for model, name in models:
        costs.append(command(['env', '-C', place / 'project', FVC, 'submit', model, '--name', name, '--dry-run', *WORDS, '--data', place / 'work'], environment(place)))
    return Cost(sum(c.cpu for c in costs), max(c.peak for c in costs), sum(c.wall for c in costs))


def submissions(folder: Path, repeats: int) -> dict[str, tuple[float, list[float], list[float]]]:
    "Seconds of `fvc submit` for one stage or model whose jobs are held: the first after the code has changed, then wall and processor seconds of the next."
    place, found = folder / 'submissions', {}
    shutil.copytree(folder / 'side', place, symlinks=True, ignore=shutil.ignore_patterns('slurm', 'submitted', 'cache'))
    (place / 'work' / 'slurm.yaml').write_text(PROFILE.replace(']', ', "--hold"]'))
    try:
        slurm.up(place / 'slurm')
        for what in ('stage2', 'svm', 'naive_cnn'):
            costs = []
            for turn in range(repeats + 1):
                named = [] if what == 'stage2' else ['--name', 'held']
                costs.append(command(['env', '-C', place / 'project', FVC, 'submit', what, *named, *WORDS, '--data', place / 'work'], environment(place)))
                command(['env', '-C', place / 'project', FVC, 'cancel', '--data', place / 'work'], environment(place))
            found[what] = costs[0].wall, [c.wall for c in costs[1:]], [c.cpu for c in costs[1:]]
    finally: slurm.down(place / 'slurm')
    return found


def orchestration(repeats: int, models: int = 24) -> Verdict:
    "Both sides on one corpus, and single submissions."
    title, limit = 'Two nodes on the loopback: 12 shards and 120 papermill runs that do nothing', 'at most 0.3 s a job on top of the same notebooks alone, one submission at most 2 s'
    if why := slurm.missing(): return Verdict(9, title, limit, why, None, [], [])
    with tempfile.TemporaryDirectory(prefix='fvc-bench-') as d:
        folder = Path(d)
        names = prepare(folder / 'side', models)
        (folder / 'side' / 'models.json').write_text(json.dumps(names))
        first = asked(folder, names)
        shutil.copytree(folder / 'side', folder / 'start', symlinks=True)
        costs = {name: measured_side(name, folder) for name in ('alone', 'cluster')}
        say({name: vars(c) for name, c in costs.items()})
        took = submissions(folder, repeats)
    jobs = len(STAGES) * (SHARDS + 1) + FOLDS * len(names)
    more, longer = ((getattr(costs['cluster'], k) - getattr(costs['alone'], k)) / jobs for k in ('cpu', 'wall'))
    slowest = max(statistics.median(wall) for _, wall, _ in took.values())
    lines = [f'{jobs} jobs ({SHARDS} shards and a merge of {len(STAGES)} stages each, {FOLDS} folds of {len(names)} runs): alone, two at a time, {costs["alone"].cpu:.0f} CPU-s, '
             f'{costs["alone"].wall:.0f} s; on the cluster {costs["cluster"].cpu:.0f} CPU-s, {costs["cluster"].wall:.0f} s: {more:.2f} CPU-s and {longer:.2f} s a job more',
             f'all {len(names)} runs asked what they are called, read and need, once after a change of the code and not counted above: {first.cpu:.0f} CPU-s',
             *(f'fvc submit {what}: {spread(wall)} s, {spread(cpu)} CPU-s; the first after the code has changed {cold:.1f} s' for what, (cold, wall, cpu) in took.items())]
    return Verdict(9, title, limit, f'{longer:.2f} s ({more:.2f} CPU-s) a job, a submission {slowest:.1f} s', longer <= 0.3 and slowest <= 2, lines,
                   ['fvc stage N --shard I/3, and papermill NOTEBOOK, two at a time', 'fvc submit stage1 … stage4; fvc submit MODEL --name NAME, one a run; fvc wait'],
                   'wall time from the first command to the last, divided by the jobs, and processor time of everything, daemons, sbatch and waiting included; each node does one job at a time, '
                   'so that both sides do two; four models under six names each, whose notebooks are reduced to the cell of parameters',
                   'two more Python processes a job, `fvc task` and the `fvc train` that it watches')


if __name__ == '__main__': side(sys.argv[1], Path(sys.argv[2]))
