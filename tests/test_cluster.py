"""A real SLURM on the loopback: stages in shards, models in folds, through success, a failing cell, a time limit, a cancelled job, a node that fails, and submission again."""
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cluster as slurm
import nbformat
import polars as pl
import pytest
from cluster import eventually
from conftest import ROOT
from fvc.core.table import read_table
from fvc.core.workspace import Workspace

FVC = Path(sys.executable).with_name('fvc')
NOT_HERE = slurm.missing()
WORDS = ['split.n_splits=2', 'stages.augmentation.num_augmentations=2', 'stages.workers=1']
TIMED = ['--name', 'timed', *WORDS, 'data.size=32', 'training.epochs=4']
PLAIN = 'gpus: 0\nmem: 2G\ncpus: 1\ntime: "0:20:00"\ngrace: 300\nshards: 2\nexport: [FVC_GATE]\n'
GATE = '''#| train
import os, time
from pathlib import Path
import fvc.learning.training as loop
one_epoch = loop._one_epoch
def gated(run, epoch, *rest):
    while epoch > 2 and not Path(os.environ['FVC_GATE']).exists(): time.sleep(0.1)
    return one_epoch(run, epoch, *rest)
loop._one_epoch = gated'''
FAILS = '''#| train
import json, os
from pathlib import Path
Path(os.environ['FVC_GATE'] + f'.env{fold}').write_text(json.dumps(dict(os.environ)))
if fold == 2: raise RuntimeError('this cell fails')'''


@pytest.fixture(scope='module')
def conf(tmp_path_factory):
    "The cluster; its slurm.conf."
    if NOT_HERE: pytest.skip(NOT_HERE)
    folder = tmp_path_factory.mktemp('slurm')
    try: yield slurm.up(folder, owned=True)
    finally: slurm.down(folder)


class Lab:
    "A project with notebooks of its own, and a workspace with an index."
    def __init__(self, folder, corpus, conf=None):
        self.project, self.data, self.gate = folder / 'project', folder / 'work', folder / 'gate'
        (self.project / 'nbs').mkdir(parents=True)
        shutil.copy(ROOT / 'settings.ini', self.project)
        for notebook in (ROOT / 'nbs').glob('*.ipynb'): shutil.copy(notebook, self.project / 'nbs')
        shutil.copytree(corpus, self.data, symlinks=True, ignore=shutil.ignore_patterns('augmented_videos', 'features_*', 'scaled_videos', 'stage5', 'submitted', 'mlflow*', 'mlartifacts', 'cache', 'out.ipynb'))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(('FVC_', 'SLURM_'))}
        self.env = clean | dict(PYTHONPATH=str(ROOT), FVC_GATE=str(self.gate), OMP_NUM_THREADS='1') | (dict(SLURM_CONF=str(conf)) if conf else {})
        self.place = Workspace(self.data)

    def fvc(self, *words, code=0, **env):
        "Standard output of a command that ends with `code`."
        done = subprocess.run([FVC, words[0], '--data', self.data, *map(str, words[1:])], cwd=self.project, env=self.env | env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout if code != 2 else done.stderr

    def refused(self, *words, **env):
        "The one sentence that a command is refused with."
        lines = self.fvc(*words, code=2, **env).strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith('fvc: '), lines
        return lines[0]

    def profile(self, text): self.place.site.write_text(text)

    def edit(self, stem, cell):
        "Put a cell into the project's copy of a notebook, before the one that trains."
        file = self.project / 'nbs' / f'{stem}.ipynb'
        book = nbformat.read(file, 4)
        at = next(n for n, c in enumerate(book.cells) if 'run_fold(' in c.source and c.source.startswith('#| train'))
        book.cells.insert(at, nbformat.v4.new_code_cell(cell))
        nbformat.write(book, file)

    def mend(self, stem): shutil.copy(ROOT / 'nbs' / f'{stem}.ipynb', self.project / 'nbs')

    def states(self):
        "State of every task, and the rows themselves."
        rows = [r for r in json.loads(self.fvc('status', '--json')) if 'task' in r]
        return {(r['part'], r['task']): r['state'] for r in rows}, {(r['part'], r['task']): r for r in rows}

    def slurm(self, *words): return subprocess.run(words, env=self.env, capture_output=True, text=True, check=True).stdout

    def epochs(self, run, fold):
        "Epochs that a fold has logged whole lines of."
        file = self.place.run(run) / f'fold_{fold}' / 'metrics.jsonl'
        return {json.loads(line)['epoch'] for line in file.read_text().split('\n')[:-1]} if file.is_file() else set()

    def marker(self, step, task):
        file = self.place.submitted / step / f'{task}.json'
        return json.loads(file.read_text()) if file.is_file() else {}


@pytest.fixture(scope='module')
def lab(tmp_path_factory, corpus, conf):
    return Lab(tmp_path_factory.mktemp('lab'), corpus, conf)


@pytest.fixture(scope='module')
def submitted(lab):
    "Three models with their stages on two nodes: naive_cnn that waits in its third epoch, svm with a cell that fails for fold 2; both watched until they stand."
    lab.edit('5b_svm', FAILS)
    lab.edit('5c_naive_cnn', GATE)
    lab.profile(PLAIN)
    said = [lab.fvc('submit', 'logistic_regression', 'svm', *WORDS, FVC_ARCHIVE_PASSWORD='open sesame', FVC_DELETE_EXISTING='0', FVC_NUM_FRAMES='3')]
    said.append(lab.fvc('submit', 'logistic_regression', 'svm', *WORDS, FVC_NUM_FRAMES='3', FVC_USE_TRACKING='false'))
    said.append(lab.fvc('submit', 'naive_cnn', *TIMED, FVC_USE_TRACKING='false'))
    return said


def test_everything_is_chained_and_submitted_once(lab, submitted):
    first, again, timed = submitted
    assert [line.split()[1:] for line in first.splitlines()[:4]] == [['fvc_stage1:', 'stage1,', '2', 'tasks'], ['fvc_stage1:', 'stage1-merge,', '1', 'task'],
                                                                    ['fvc_stage2:', 'stage2,', '2', 'tasks'], ['fvc_stage2:', 'stage2-merge,', '1', 'task']]
    assert 'fvc_stage5a: logistic_regression, 2 tasks' in first and 'fvc_stage5b: svm, 2 tasks' in first and 'fvc_stage5_tracking' in first
    assert f'fvc wait --data {lab.data}' in first and 'squeue -u root' in first
    assert again.startswith('all of it is at work already\nwatch it')
    assert timed.splitlines()[0].split()[1:] == ['fvc_stage5c:', 'naive_cnn@timed,', '2', 'tasks']  # after the stages that are at work already


def test_a_time_limit_queues_a_job_again_and_it_goes_on_from_its_last_epoch(lab, submitted):
    two_epochs = lambda: all(lab.epochs('naive_cnn@timed', k) == {1, 2} for k in (1, 2))
    eventually(two_epochs, 400, 0.5)
    job = lab.marker('naive_cnn@timed', 1)['job'].partition('_')[0]
    for k in (1, 2):  # so that its end is nearer than the notice that the profile asks for, whatever the machine was busy with before
        minutes = 2 + int(lab.slurm('squeue', '-h', '-j', f'{job}_{k}', '-o', '%M').strip().split(':')[-2])
        lab.slurm('scontrol', 'update', f'JobId={job}_{k}', f'TimeLimit={minutes}')
    requeued = lambda: all(lab.marker('naive_cnn@timed', k).get('state') == 'requeued' for k in (1, 2))
    eventually(requeued, 200, 0.5)
    states, rows = lab.states()
    assert states['naive_cnn@timed', 1] == 'requeued' and 'time was up' in rows['naive_cnn@timed', 1]['reason'], rows
    assert lab.epochs('naive_cnn@timed', 1) == {1, 2}
    lab.gate.touch()
    lab.slurm('scancel', f'{job}_2')
    eventually(lambda: 'PENDING' in lab.slurm('squeue', '-h', '-j', f'{job}_1', '-o', '%T'), 60, 0.2)
    lab.slurm('scontrol', 'update', f'JobId={job}_1', 'StartTime=now', 'TimeLimit=20')
    lab.fvc('wait', '--every', '0.5', 'naive_cnn@timed', code=1)
    states, rows = lab.states()
    assert states['naive_cnn@timed', 1] == 'done' and states['naive_cnn@timed', 2] == 'cancelled'
    assert lab.marker('naive_cnn@timed', 1)['restarts'] == 1
    said = Path(rows['naive_cnn@timed', 1]['log']).read_text()
    rows = [json.loads(line) for line in (lab.place.run('naive_cnn@timed') / 'fold_1' / 'metrics.jsonl').read_text().splitlines() if '"inner_loss"' in line]
    assert [r['epoch'] for r in rows] == list(range(1, len(rows) + 1)) and len(rows) > 2  # each epoch once: the first two are those of the job whose time was up
    assert rows[1]['timestamp'] < lab.marker('naive_cnn@timed', 1)['started'] < rows[2]['timestamp'] and 'Fold 1 completed' in said


def test_a_failing_cell_fails_its_job_and_leaves_its_notebook(lab, submitted):
    lab.fvc('wait', '--every', '0.5', 'svm', 'logistic_regression', 'tracking', code=1)
    states, rows = lab.states()
    assert {k: s for k, s in states.items() if not k[0].startswith('naive')} == {
        **{(f'stage{n}', k): 'done' for n in (1, 2, 3, 4) for k in (1, 2)}, **{(f'stage{n}-merge', 1): 'done' for n in (1, 2, 3, 4)},
        ('logistic_regression', 1): 'done', ('logistic_regression', 2): 'done', ('svm', 1): 'done', ('svm', 2): 'failed', ('tracking', 1): 'done'}
    assert rows['svm', 2]['reason'] == 'RuntimeError: this cell fails' and 0 <= rows['svm', 1]['score'] <= 1
    reports = Path(subprocess.run([sys.executable, '-c', f'from fvc.core.workspace import Workspace; print(Workspace.find({str(lab.data)!r}).reports)'], cwd=lab.project, env=lab.env,
                                  capture_output=True, text=True, check=True).stdout.strip())
    failed = json.loads((reports / '5b_svm_fold_2.failed.ipynb').read_text())
    assert any(o['output_type'] == 'error' and o['ename'] == 'RuntimeError' for c in failed['cells'] for o in c.get('outputs', []))
    assert not (reports / '5b_svm_fold_2.ipynb').exists() and (reports / '5b_svm_fold_1.ipynb').exists()
    table = lab.fvc('status')
    assert 'svm 2: failed, RuntimeError: this cell fails' in table and f"done {rows['svm', 1]['score']:.3f}" in table
    assert 'this cell fails' in lab.fvc('logs', 'svm', '--fold', '2')


def test_logs_stand_where_people_look_for_them(lab, submitted):
    lab.fvc('wait', '--every', '0.5', 'logistic_regression')
    logs = lab.project / 'logs'
    job = lab.marker('logistic_regression', 2)['job']
    said = (logs / 'stage5' / f'stage5a_{job}.log').read_text()
    assert 'Fold 2 completed\n' in said and '✓ Stage 5 (logistic_regression) completed successfully in ' in said and 'Execution time: ' in said
    assert len(list((logs / 'stage5').glob('stage5a-*.out'))) == 2 == len(list((logs / 'stage5').glob('stage5a-*.err')))
    assert len(list((logs / 'stage1').glob('stage1-*.out'))) == 3 and list(logs.glob('stage5_training_*.log'))


def test_a_job_is_given_no_password(lab, submitted):
    lab.fvc('wait', '--every', '0.5', 'logistic_regression')
    eventually(lambda: lab.marker('svm', 1).get('state') in ('done', 'failed'), 200)
    given = json.loads(Path(f'{lab.gate}.env1').read_text())
    assert given['FVC_NUM_FRAMES'] == '3' and given['FVC_USE_TRACKING'] == 'false'
    assert not [k for k in given if 'PASSWORD' in k or k == 'FVC_DELETE_EXISTING'] and 'open sesame' not in given.values()


def test_tables_of_shards_are_those_of_one_run(lab, submitted, corpus):
    lab.fvc('wait', '--every', '0.5', 'logistic_regression')
    for stage in (1, 2, 3, 4):
        one, shards = (read_table(place.tables(stage)[0]).sort('video_id', 'variant').drop('sha256', 'bytes', strict=False) for place in (Workspace(corpus), lab.place))
        assert one.select('video_id', 'variant', 'status').equals(shards.select('video_id', 'variant', 'status')), stage
        numbers = [c for c, t in one.schema.items() if t.is_float()]
        assert one.select(numbers).equals(shards.select(numbers)), stage


def test_again_only_what_is_not_done(lab, submitted, conf):
    "The mended notebook is another job for both folds of svm; of the cancelled run one fold is left. A node that fails gives its job to the other one."
    lab.fvc('wait', '--every', '0.5', 'svm', 'logistic_regression', 'tracking', code=1)
    lab.gate.touch()
    lab.mend('5b_svm')
    lab.profile(PLAIN)
    said = lab.fvc('submit', 'naive_cnn', 'logistic_regression', *TIMED, '--dry-run')
    assert '#SBATCH --array=2\n' in said and 'naive_cnn@timed: fold 1 done before' in said
    lab.gate.unlink()
    said = lab.fvc('submit', 'logistic_regression', 'svm', *WORDS, FVC_NUM_FRAMES='3', FVC_USE_TRACKING='false') + lab.fvc('submit', 'naive_cnn', *TIMED)
    assert 'naive_cnn@timed, 1 task\n' in said and 'logistic_regression: fold 1, 2 done before' in said and 'stage1' not in said.split('watch it')[0]
    eventually(lambda: lab.marker('naive_cnn@timed', 2).get('state') == 'running', 100, 0.2)
    job, node = lab.marker('naive_cnn@timed', 2)['job'], lab.slurm('squeue', '-h', '-j', lab.marker('naive_cnn@timed', 2)['job'], '-o', '%N').strip()
    lab.slurm('scontrol', 'update', f'nodename={node}', 'state=down', 'reason=test')
    eventually(lambda: 'PENDING' in lab.slurm('squeue', '-h', '-j', job, '-o', '%T'), 60, 0.2)
    assert lab.states()[0]['naive_cnn@timed', 2] == 'requeued'
    up = lambda: lab.slurm('sinfo', '-h', '-n', node, '-o', '%T').strip() in ('idle', 'mixed', 'allocated')
    subprocess.run(['scontrol', 'update', f'nodename={node}', 'state=resume'], env=lab.env, capture_output=True)  # it may be back already
    eventually(up, 30)
    for line in lab.slurm('squeue', '-r', '-h', '-t', 'PENDING', '-o', '%F_%K %r').splitlines():  # SLURM waits two minutes otherwise
        if line.endswith('BeginTime'): lab.slurm('scontrol', 'update', f'JobId={line.split()[0]}', 'StartTime=now')
    lab.fvc('wait', '--every', '0.5', 'svm')
    lab.gate.touch()  # what records it all comes after it
    lab.fvc('wait', '--every', '0.5', 'naive_cnn@timed', 'tracking')
    assert lab.marker('naive_cnn@timed', 2)['restarts'] >= 1
    assert set(lab.states()[0].values()) == {'done'}
    assert all((lab.place.run(run) / f'fold_{k}' / 'mlflow.json').is_file() for run in ('naive_cnn@timed', 'svm', 'logistic_regression') for k in (1, 2))


def test_a_killed_job_says_so_and_is_trained_on(lab, submitted):
    "kill -9 of its first process alone: nothing of it goes on in the background, which would keep the next one from the fold."
    lab.gate.unlink(missing_ok=True)
    asked = ['naive_cnn', '--folds', '1', '--name', 'killed', *TIMED[2:]]
    lab.fvc('submit', *asked, FVC_USE_TRACKING='false')
    eventually(lambda: lab.epochs('naive_cnn@killed', 1) == {1, 2}, 400, 0.5)
    folder = Path(lab.env['SLURM_CONF']).parent
    job = lab.marker('naive_cnn@killed', 1)['job'].partition('_')[0]
    mine = [p for p in slurm.processes(folder) if slurm.environ(p).get('SLURM_ARRAY_JOB_ID') == job]
    assert len(mine) >= 4, mine  # task, train, papermill, kernel
    os.kill(min(mine), signal.SIGKILL)
    eventually(lambda: not set(mine) & set(slurm.processes(folder)), 30)
    eventually(lambda: lab.states()[0]['naive_cnn@killed', 1] == 'failed', 60, 0.5)
    assert 'killed, or its node failed' in lab.states()[1]['naive_cnn@killed', 1]['reason']
    lab.gate.touch()
    lab.fvc('submit', *asked, FVC_USE_TRACKING='false')
    lab.fvc('wait', '--every', '0.5', 'naive_cnn@killed')
    rows = [json.loads(line) for line in (lab.place.run('naive_cnn@killed') / 'fold_1' / 'metrics.jsonl').read_text().splitlines() if '"inner_loss"' in line]
    assert [r['epoch'] for r in rows] == list(range(1, len(rows) + 1)) and rows[1]['timestamp'] < lab.marker('naive_cnn@killed', 1)['started'] < rows[2]['timestamp']


def test_who_waits_cancels_when_he_is_ended(lab, submitted, tmp_path, corpus):
    "TERM to `fvc submit --wait`: its jobs, which are held, leave the queue."
    other = Lab(tmp_path, corpus)
    other.env = lab.env
    other.profile(PLAIN + 'options: ["--hold"]\n')
    child = subprocess.Popen([FVC, 'submit', 'stage1', '--wait', '--data', other.data, *WORDS], cwd=other.project, env=other.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in child.stdout:
        if line.startswith('stage1-merge 1: waiting'): break
    waiting = lambda: set(other.states()[0].values())
    assert waiting() == {'waiting'}
    job = other.place.submitted / 'jobs.json'
    job = json.loads(job.read_text())['stage1']['tasks']['2']['job']
    assert f'SLURM holds it (JobHeldUser): "scontrol release {job}_2" lets it begin' in other.fvc('status')
    child.terminate()
    said = child.communicate(timeout=60)[0]
    assert child.returncode == 130 and 'stage1 2: cancelled' in said and 'stage1-merge 1: cancelled' in said, said
    assert waiting() == {'cancelled'}


def test_the_same_here_without_slurm(lab, submitted, tmp_path, corpus):
    "The same steps and markers, and the same scores."
    lab.fvc('wait', '--every', '0.5', 'logistic_regression')
    here = Lab(tmp_path, corpus)
    for stage in (2, 4): shutil.copytree(corpus / f'features_stage{stage}', here.data / f'features_stage{stage}')
    for name in ('augmented_videos', 'scaled_videos'): shutil.copytree(corpus / name, here.data / name)
    os.environ.pop('SLURM_CONF', None)
    asked = ['submit', 'logistic_regression', '--folds', '1', '--local', '2', 'split.n_splits=2']
    said = here.fvc(*asked, FVC_USE_TRACKING='false')
    assert 'logistic_regression 1: done' in said and 'tracking' not in said and 'squeue' not in said
    assert here.states()[0] == {('logistic_regression', 1): 'done'}
    one, other = (pl.read_ipc(place.run('logistic_regression') / 'fold_1' / 'predictions.arrow') for place in (here.place, lab.place))
    assert one.equals(other)
    assert 'nothing is left to do' in here.fvc(*asked, FVC_USE_TRACKING='false')


def test_what_cannot_be_is_said_in_one_sentence_and_nothing_is_submitted(lab, corpus, tmp_path):
    other = Lab(tmp_path, corpus)
    other.env = lab.env
    jobs = lambda: lab.slurm('squeue', '-h', '-a', '-o', '%A')
    before = jobs()
    assert 'there is no sbatch on this machine' in other.refused('submit', 'stage1', *WORDS, PATH='/nowhere')
    other.profile('partition: a100\n')
    assert 'sbatch: invalid partition specified: a100' in other.refused('submit', 'stage1', *WORDS)
    other.profile('partitions: gpu\n')
    assert "slurm.yaml: unknown key 'partitions', did you mean 'partition'?" in other.refused('submit', 'stage1', *WORDS)
    other.profile(PLAIN)
    assert "'svm'" in other.refused('submit', 'svmm', *WORDS)
    assert 'name logistic_regression too' in other.refused('submit', 'ensemble', *WORDS)
    assert 'name models' in other.refused('submit', 'profile=small')
    assert 'nothing was submitted' in other.refused('wait')
    assert not (other.place.submitted / 'jobs.json').exists() or json.loads((other.place.submitted / 'jobs.json').read_text()) == {}
    assert jobs() == before


def test_a_full_disk_is_found_before_anything_is_submitted(lab, tmp_path):
    full, before = tmp_path / 'full', lab.slurm('squeue', '-h', '-a', '-o', '%A')
    full.mkdir()
    script = (f'mount -t tmpfs -o size=1m none {full} && cp {lab.place.index} {lab.place.corpus} {lab.place.folds} {full} && '
              f'(cat /dev/zero > {full}/rest 2> /dev/null; exec {FVC} submit stage1 --data {full})')
    done = subprocess.run(['unshare', '-m', 'sh', '-c', script], cwd=lab.project, env=lab.env, capture_output=True, text=True)
    if 'unshare' in done.stderr or 'mount' in done.stderr: pytest.skip('this machine lets nobody mount')
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and 'is full: free space' in done.stderr and 'nothing was submitted' in done.stderr, done.stderr
    assert lab.slurm('squeue', '-h', '-a', '-o', '%A') == before


def test_a_workspace_that_nodes_cannot_see_is_found(lab, corpus, tmp_path):
    "Mounted for this command alone, it is not there for a node."
    assert 'sees' in lab.fvc('doctor', '--probe', code=0)
    hidden = tmp_path / 'hidden'
    hidden.mkdir()
    script = f'mount -t tmpfs none {hidden} && cp {lab.place.index} {lab.place.corpus} {lab.place.folds} {lab.place.site} {hidden} && exec {FVC} doctor --probe --data {hidden}'
    done = subprocess.run(['unshare', '-m', 'sh', '-c', script], cwd=lab.project, env=lab.env, capture_output=True, text=True)
    if 'unshare' in done.stderr or 'mount' in done.stderr: pytest.skip('this machine lets nobody mount')
    assert done.returncode == 1 and 'does not see' in done.stdout, done.stdout + done.stderr


def test_a_cluster_ends_with_who_brought_it_up(tmp_path):
    "kill -9 of the process: its daemons and jobs go; where who looks after them is killed too, the next cluster removes them."
    if NOT_HERE: pytest.skip(NOT_HERE)
    code = f"import cluster, os, subprocess; from pathlib import Path; d = Path({str(tmp_path)!r}, 'one'); cluster.up(d, owned=True); " + \
           "subprocess.run(['sbatch', '--wrap', 'sleep 300', '--output=/dev/null', '--mem=10M'], env=cluster.environment(d), check=True); " + \
           "cluster.eventually(lambda: len(cluster.processes(d)) > 6); print('up', flush=True); {then}os.kill(os.getpid(), 9)"
    for then, kept in (('', 0), ("os.kill(int((d / 'keeper.pid').read_text()), 9); ", 6)):
        done = subprocess.run([sys.executable, '-c', code.replace('{then}', then)], cwd=ROOT / 'tests', capture_output=True, text=True)
        assert done.returncode == -9 and 'up' in done.stdout, done.stderr
        if not kept: eventually(lambda: not slurm.processes(tmp_path / 'one'), 20)
        if not kept: shutil.rmtree(tmp_path / 'one')
    assert len(slurm.processes(tmp_path / 'one')) > kept
    slurm.reap()
    assert not slurm.processes(tmp_path / 'one')


def test_a_script_can_be_submitted_by_hand(conf, tmp_path):
    "sbatch takes every one of them as it stands."
    if NOT_HERE: pytest.skip(NOT_HERE)
    for name in ('slurm_stage1_augmentation.sh', 'slurm_stage5a.sh', 'slurm_stage5_training.sh'):
        done = subprocess.run(['sbatch', '--test-only', '--gres=none', ROOT / 'scripts' / 'slurm_jobs' / name], env=dict(os.environ, SLURM_CONF=str(conf)), cwd=tmp_path, capture_output=True, text=True)
        assert 'to start at' in done.stderr or 'Requested node configuration is not available' in done.stderr, done.stderr
