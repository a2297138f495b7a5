"""The pipeline as an Airflow DAG: every task is one `fvc` command, which submits its stage and waits for it.

Where there is sbatch the stage's work is done by SLURM, else on this machine. Only Airflow and the standard library are imported here: Airflow lives in an
environment of its own, and `fvc` is called by its path."""
import os
import re
import shutil
import signal
import subprocess
from collections import deque
from datetime import timedelta
from pathlib import Path

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

PROJECT = Path(__file__).resolve().parents[2]
FVC = PROJECT / '.venv' / 'bin' / 'fvc'
MODELS = ['logistic_regression', 'svm', 'i3d']
ENDED_BADLY = re.compile(r'\S+ \d+: (failed|cancelled)')  # e.g. 'stage3 2: failed (no space left)'


def failure_sentence(said):
    "What went wrong, from the last lines of a command: its tasks that failed, else the sentence it ended with."
    tasks = [line for line in said if ENDED_BADLY.match(line)]
    sentences = [line for line in said if line.startswith('fvc: ')]
    if tasks or sentences: return '; '.join(tasks or sentences[-1:])
    return said[-1] if said else 'fvc said nothing'


class FvcOperator(BaseOperator):
    "One `fvc` command; what it says goes into the task's log. A task that is ended ends the command, which cancels its jobs."
    child = None

    def words(self, asked):  # the form's values
        "Words of the command."
        raise NotImplementedError

    def execute(self, context):
        asked = context['params']
        command = [str(FVC), *self.words(asked), *(['--data', asked['data']] if asked['data'] else [])]
        if not FVC.is_file(): raise AirflowFailException(f'{FVC} is absent: run "make setup" in {PROJECT} first')
        self.log.info('%s', ' '.join(command))
        said = deque(maxlen=200)
        self.child = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace',
                                      start_new_session=True)  # it outlives this process as long as it takes to cancel its jobs
        for line in self.child.stdout:
            said.append(line.strip())
            self.log.info('%s', line.rstrip())
        code = self.child.wait()
        if code: raise AirflowException(failure_sentence(said))

    def on_kill(self):
        if self.child is not None and self.child.poll() is None: self.child.send_signal(signal.SIGTERM)


class SubmitOperator(FvcOperator):
    "Submit a stage, or the models, and wait until all of it has ended."
    def __init__(self, *, stage, **rest):
        super().__init__(**rest)
        self.stage = stage

    def words(self, asked):
        place = [] if shutil.which('sbatch') else ['--local', str(os.cpu_count())]
        options = [*(['--profile', asked['profile']] if asked['profile'] else []), '--wait', *place]
        if self.stage < 5: return ['submit', f'stage{self.stage}', *asked['overrides'], *options]
        return ['submit', *asked['models'], *asked['overrides'], *options, *(['--folds', asked['folds']] if asked['folds'] else [])]


class ReportOperator(FvcOperator):
    "Leaderboard and guided tour, as pages."
    def words(self, asked): return ['report']


PARAMS = dict(
    models=Param(MODELS, type='array', items=dict(type='string'), description='Models to train, as "fvc models" lists them; or all.'),
    folds=Param(None, type=['null', 'string'], description='Folds to train, e.g. 2, 1-5 or 1,3; empty: all.'),
    profile=Param(None, type=['null', 'string'], description='File with the site settings of the cluster; empty: slurm.yaml of the workspace.'),
    overrides=Param([], type='array', items=dict(type='string'), description='Settings of stages and models, one key=value a line, e.g. optim.lr=1e-4.'),
    data=Param(None, type=['null', 'string'], description='The workspace, which "fvc setup" has indexed; empty: FVC_DATA, else data/ of the project.'),
)
ADDRESS = os.environ.get('FVC_FAILURE_EMAIL', '')
MAIL = SmtpNotifier(to=ADDRESS, subject='fvc_pipeline: {{ ti.task_id }} failed', html_content='{{ exception }}<br>{{ ti.log_url }}') if ADDRESS else None

with DAG('fvc_pipeline', description='Stages 1 to 4, models, report: on SLURM where there is one, else on this machine', schedule=None, catchup=False,
         tags=['fvc', 'video-classification', 'ml'], params=PARAMS,
         default_args=dict(retries=1, retry_delay=timedelta(minutes=5), on_failure_callback=MAIL)) as dag:
    stage1, stage2, stage3, stage4, stage5 = (SubmitOperator(task_id=f'stage{n}', stage=n) for n in (1, 2, 3, 4, 5))
    report = ReportOperator(task_id='report')
    stage1 >> [stage2, stage3]
    stage3 >> stage4
    [stage2, stage4] >> stage5 >> report
