"""The pipeline under Airflow, executed: green, red at the stage that fails and with its reason, and ended in the middle."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import eventually
from conftest import ROOT
from fvc.core.workspace import Workspace
from fvc.running.array_tasks import read_marker

AIRFLOW = ROOT / 'airflow' / '.venv' / 'bin'
WORDS = ['split.n_splits=2', 'stages.augmentation.num_augmentations=2', 'stages.workers=1']


@pytest.fixture(scope='module')
def airflow(tmp_path_factory):
    "Variables of an Airflow with a database of its own, on a machine without SLURM."
    if not (AIRFLOW / 'airflow').is_file():
        done = subprocess.run(['bash', 'airflow/setup.sh'], cwd=ROOT, capture_output=True, text=True, env=os.environ | dict(PYTHON=sys.executable))
        if done.returncode: pytest.skip(f'airflow/.venv is absent and could not be made here, "make airflow" says why: {done.stderr.strip().splitlines()[-1]}')
    home, programs = tmp_path_factory.mktemp('airflow'), tmp_path_factory.mktemp('bin')
    for program in Path('/usr/bin').iterdir():
        if program.name != 'sbatch': (programs / program.name).symlink_to(program)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(('FVC_', 'SLURM_', 'AIRFLOW_'))}
    env = clean | dict(AIRFLOW_HOME=str(home), AIRFLOW__CORE__LOAD_EXAMPLES='False', AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / 'airflow' / 'dags'), FVC_USE_TRACKING='false',
                       PATH=f'{AIRFLOW}:{programs}', PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    subprocess.run([AIRFLOW / 'airflow', 'db', 'migrate'], check=True, capture_output=True, env=env)
    return env


@pytest.fixture
def place(corpus, tmp_path):
    "A workspace through stages 0 to 4."
    return Workspace(shutil.copytree(corpus, tmp_path / 'work', symlinks=True))


def start(airflow, place, done='', **form):
    "The DAG at work, in a process of its own."
    form = dict(data=str(place), models=['logistic_regression'], overrides=WORDS, **form)
    return subprocess.Popen([AIRFLOW / 'python', ROOT / 'tests' / 'dag_run.py', json.dumps(form), *([done] if done else [])], env=airflow, cwd=airflow['AIRFLOW_HOME'],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def states(process):
    "State and tries of every task, and all that was said."
    said = process.communicate(timeout=400)[0]
    assert process.returncode == 0, said
    found = json.loads(said.splitlines()[-1])
    return found['tasks'], said


def test_the_dag_is_as_documented(airflow):
    script = '''
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dag = bag.dags['fvc_pipeline']
print(json.dumps(dict(errors=bag.import_errors, tags=sorted(dag.tags), models=dag.params['models'], form=sorted(dag.params), after={t.task_id: sorted(t.upstream_task_ids) for t in dag.tasks},
                      retry=[(t.retries, t.retry_delay.seconds) for t in dag.tasks], mail=[[m.to for m in t.on_failure_callback] for t in dag.tasks], schedule=dag.schedule)))
'''
    done = subprocess.run([AIRFLOW / 'python', '-c', script, ROOT / 'airflow' / 'dags'], env=airflow | dict(FVC_FAILURE_EMAIL='lab@example.org'), capture_output=True, text=True, cwd=airflow['AIRFLOW_HOME'])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == dict(
        errors={}, tags=['fvc', 'ml', 'video-classification'], models=['logistic_regression', 'svm', 'i3d'], form=['data', 'folds', 'models', 'overrides', 'profile'],
        after=dict(stage1=[], stage2=['stage1'], stage3=['stage1'], stage4=['stage3'], stage5=['stage2', 'stage4'], report=['stage5']), retry=[[1, 300]] * 6, mail=[['lab@example.org']] * 6, schedule=None)


def test_only_airflow_and_the_standard_library_are_imported():
    text = (ROOT / 'airflow' / 'dags' / 'fvc_pipeline_dag.py').read_text()
    imported = {name.split('.')[0] for name in re.findall(r'^\s*(?:from|import) (\S+)', text, re.M)}
    assert 'airflow' in imported and imported - {'airflow'} <= set(sys.stdlib_module_names)


def test_green(airflow, place):
    "From copies to the report."
    for stage in (1, 2, 3, 4): shutil.rmtree(place.folder(stage))
    tasks, said = states(start(airflow, place))
    assert tasks == {name: ['success', 1] for name in ('stage1', 'stage2', 'stage3', 'stage4', 'stage5', 'report')}, said
    assert all(place.tables(stage) for stage in (1, 2, 3, 4)) and len(list(place.run('logistic_regression').glob('fold_*/metadata.json'))) == 2
    assert '6_report.html' in said and '--wait --local' in said


def test_ended_in_the_middle_and_red_at_the_stage_that_fails(airflow, place):
    "TERM reaches the command, which ends what it has begun; the second try goes on. Stage 3, whose folder cannot be made, fails twice, and nothing that needs it begins."
    shutil.rmtree(place.folder(1))
    shutil.rmtree(place.folder(3))
    place.folder(3).write_text('in the way')
    process = start(airflow, place, done='stage2')
    eventually(lambda: read_marker(place, 'stage1-merge', 1).get('state') == 'running', 60)
    process.send_signal(signal.SIGTERM)
    tasks, said = states(process)
    assert 'fvc: interrupted' in said, said
    assert tasks == dict(stage1=['success', 2], stage2=['success', 1], stage3=['failed', 2], stage4=['upstream_failed', 0], stage5=['upstream_failed', 0], report=['upstream_failed', 0]), said
    assert re.search(r'AirflowException: stage3-merge 1: failed \(.*scaled_videos', said), said
