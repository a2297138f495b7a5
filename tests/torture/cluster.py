"""Runs on a SLURM of two nodes whose jobs are killed, whose nodes go and come back, and whose controller is started anew: tables and scores must be those of a run here that nothing disturbed."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster as slurm

MODELS = ('logistic_regression', 'svm', 'gradient_boosting', 'logistic_regression_stage2', 'svm_stage4', 'naive_cnn')
STAGES = ('stage1', 'stage2', 'stage3', 'stage4')
WORDS = ['stages.augmentation.num_augmentations=1', 'stages.augmentation.kinds=[flip]', 'stages.workers=1', 'data.size=32', 'training.epochs=2']
PROFILE = 'gpus: 0\nmem: 2G\ncpus: 2\ntime: "0:50:00"\nshards: 2\n'
NODE_BACK = 3  # seconds that a node is away
PATIENCE = 300  # seconds without any change: no job here takes so long


class Lab:
    "A project, a corpus cut into folds, and `fvc` in both."

    def __init__(self, folder, folds):
        self.folder, self.folds, self.project = Path(folder) / 'cluster', folds, Path(folder) / 'cluster' / 'project'
        self.project.mkdir(parents=True)
        root = Path(__file__).resolve().parents[2]
        shutil.copy(root / 'settings.ini', self.project)
        shutil.copytree(root / 'nbs', self.project / 'nbs', ignore=lambda d, names: [n for n in names if Path(d, n).is_dir()])
        clean = {k: v for k, v in os.environ.items() if not k.startswith(('FVC_', 'SLURM_'))}
        self.env = clean | dict(PYTHONPATH=str(root), OMP_NUM_THREADS='1', FVC_USE_TRACKING='false', FVC_ARCHIVE_PASSWORD='fvc-sample')
        self.words = [*WORDS, f'split.n_splits={folds}']

    def fvc(self, place, *words, check=True):
        "One command of fvc over a workspace."
        done = subprocess.run([Path(sys.executable).with_name('fvc'), words[0], '--data', place, *map(str, words[1:])], cwd=self.project, env=self.env, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
        if check and done.returncode: raise RuntimeError(f'fvc {" ".join(map(str, words))} ended with {done.returncode}: {done.stderr[-1500:]}{done.stdout[-1500:]}')
        return done.stdout

    def corpus(self):
        "Two workspaces of one corpus, stage 0 done."
        from fvc.corpus.sample import make_sample
        make_sample(self.folder / 'archives', n_cascades=max(12, 4 * self.folds + 4), seconds=0.4, side=64)
        for name in ('local', 'remote'): self.fvc(self.folder / name, 'setup', '--source', self.folder / 'archives', self.words[-1])
        (self.folder / 'remote' / 'slurm.yaml').write_text(PROFILE)
        return self.folder / 'local', self.folder / 'remote'

    def states(self, place):
        "State and reason of every task, by part and number."
        return {(r['part'], r['task']): (r['state'], r['reason']) for r in json.loads(self.fvc(place, 'status', '--json')) if 'task' in r}

    def cluster_says(self):
        "Jobs and nodes as SLURM shows them."
        jobs, nodes = (slurm.ask(self.folder / 'slurm', *words).splitlines() for words in (('squeue', '-r', '-h', '-o', '%F_%K %j %T %r %N'), ('sinfo', '-h', '-N', '-o', '%N %T %E')))
        return f'{"; ".join(jobs) or "no jobs"} on {"; ".join(nodes) or "no nodes"}'

    def hurry(self):
        "Tasks that SLURM holds back for two minutes after their node was lost, or until they are released where their node did not take them, begin now."
        for line in slurm.ask(self.folder / 'slurm', 'squeue', '-r', '-h', '-t', 'PENDING', '-o', '%F_%K %r').splitlines():
            job, why = line.split(maxsplit=1)
            if why == 'BeginTime': slurm.ask(self.folder / 'slurm', 'scontrol', 'update', f'JobId={job}', 'StartTime=now')
            if 'held' in why.lower(): slurm.ask(self.folder / 'slurm', 'scontrol', 'release', job)


def running(lab):
    "Process ids of every job, by its number and node."
    found = {}
    for pid in slurm.processes(lab.folder / 'slurm'):
        given = slurm.environ(pid)
        if 'SLURM_JOB_ID' in given: found.setdefault((given['SLURM_JOB_ID'], given.get('SLURMD_NODENAME', '')), []).append(pid)
    return found


def job_runs(lab, seconds=15):
    "Whether a job runs now, or begins soon."
    end = time.monotonic() + seconds
    while not running(lab) and time.monotonic() < end: time.sleep(0.1)
    return bool(running(lab))


def kill(pids):
    for pid in pids:
        try: os.kill(pid, signal.SIGKILL)
        except ProcessLookupError: continue  # it has just ended


def kill_job(lab, draw):
    "kill -9 of a job: of all its processes, or of the first alone, whose children have to notice."
    jobs = running(lab)
    if not jobs: return ''
    (number, node), pids = draw.choice(sorted(jobs.items()))
    whole = draw.random() < 0.5
    kill(pids if whole else [min(pids)])
    return f'killed {"all" if whole else "the first"} of the {len(pids)} processes of job {number} on {node}'


def lose_node(lab, draw):
    "A node with all that runs on it, and back."
    name, folder = draw.choice([f'n{k}' for k in range(1, slurm.NODES + 1)]), lab.folder / 'slurm'
    lost = [pid for (_, node), pids in running(lab).items() if node == name for pid in pids]
    slurm.stop(folder, f'slurmd.{name}', signal.SIGKILL)
    kill(lost)
    slurm.ask(folder, 'scontrol', 'update', f'nodename={name}', 'state=down', 'reason=torture')
    time.sleep(NODE_BACK)
    slurm.node(folder, name)
    slurm.ask(folder, 'scontrol', 'update', f'nodename={name}', 'state=resume')
    return f'lost node {name} with {len(lost)} processes'


def restart_controller(lab, draw):
    "The controller killed, and started again a second later."
    folder = lab.folder / 'slurm'
    slurm.stop(folder, 'slurmctld', signal.SIGKILL)
    time.sleep(1)
    slurm.controller(folder)
    slurm.eventually(lambda: slurm.ask(folder, 'squeue', '-h', '-o', 'up %A') or slurm.ask(folder, 'sinfo', '-h'), 60)
    return 'restarted the controller'


def at_work(states): return any(state in ('waiting', 'running', 'requeued') for state, _ in states.values())


def disturbed(lab, place, models, events, draw, tell):
    "Submit, do to the cluster what is listed while jobs run, and submit again until all is done; what was done, and how many rounds it took."
    done, seen, since = [], {}, time.monotonic()
    for rounds in range(1, 12):
        lab.fvc(place, 'submit', *STAGES * (rounds == 1), *models, *lab.words)
        while at_work(states := lab.states(place)):
            if states != seen: seen, since = states, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                tell(f'nothing changed in {PATIENCE} s: {lab.cluster_says()}')
                return done, rounds
            lab.hurry()
            while events and job_runs(lab):
                time.sleep(draw.uniform(0, 4))
                if told := events[0](lab, draw):
                    done.append(events.pop(0).__name__)
                    tell(f'{done[-1]}: {told}')
                lab.hurry()
            time.sleep(1)
        if set(state for state, _ in lab.states(place).values()) == {'done'}: return done, rounds
        tell('; '.join(f'{part} {task}: {state}, {reason}' for (part, task), (state, reason) in lab.states(place).items() if state != 'done')[:600])
    return done, rounds


def _metrics(fold): return json.loads((fold / 'metadata.json').read_text())['metrics']


def differences(local, remote, models):
    "What is other after the disturbed run than after the one that nothing disturbed."
    import polars as pl
    from fvc.core.table import read_table
    from fvc.core.workspace import Workspace
    one, other, found = Workspace(local), Workspace(remote), []
    for stage in (1, 2, 3, 4):
        tables = [read_table(place.tables(stage)[0]).sort('video_id', 'variant') for place in (one, other)]
        columns = ['video_id', 'variant', 'status', *(c for c, t in tables[0].schema.items() if t.is_float())]
        if not tables[0].select(columns).equals(tables[1].select(columns)): found.append(f'stage {stage}: other rows')
    if one.runs() != other.runs(): found.append(f'runs {one.runs()} and {other.runs()}')
    for name in one.runs():
        for fold in sorted(one.run(name).glob('fold_*')):
            there = other.run(name) / fold.name
            if not (there / 'metadata.json').is_file(): found.append(f'{name} {fold.name}: not finished')
            elif not pl.read_ipc(fold / 'predictions.arrow').equals(pl.read_ipc(there / 'predictions.arrow')): found.append(f'{name} {fold.name}: other predictions')
            elif _metrics(fold) != _metrics(there): found.append(f'{name} {fold.name}: other metrics')
    return found


def on_cluster(folder, models, folds, kills, seed, tell):
    "Counts of what was done to the cluster, and what was other in the end."
    if why := slurm.missing(): return f'skipped: {why}', 0
    draw, lab, models = random.Random(seed), Lab(folder, folds), MODELS[:models]
    local, remote = lab.corpus()
    lab.fvc(local, 'submit', *STAGES, *models, '--local', '2', *lab.words)
    tell(f'{len(models)} models x {folds} folds here: done')
    events = [*[kill_job] * kills, lose_node, restart_controller]
    draw.shuffle(events)
    lab.env['SLURM_CONF'] = str(slurm.up(lab.folder / 'slurm', owned=True))
    try:
        done, rounds = disturbed(lab, remote, models, events, draw, tell)
        left = {k: v for k, v in lab.states(remote).items() if v[0] != 'done'}
    finally: slurm.down(lab.folder / 'slurm')
    wrong = [*([f'after {rounds} submissions not done: {left}'] if left else []), *([f'not done to it: {[e.__name__ for e in events]}'] if events else []), *differences(local, remote, models)]
    tell(f'{len(models)} models x {folds} folds on the cluster: {rounds} submissions', '; '.join(wrong)[:1500])
    return {name: done.count(name) for name in sorted(set(done))} | dict(submissions=rounds), len(wrong)
