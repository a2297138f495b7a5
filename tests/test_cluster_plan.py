"""What a submission comes to, without any cluster: order, what stays out, and what stops a chain."""
import os
import shutil

import pytest
from fvc.core.files import write_json
from fvc.core.workspace import Workspace
from fvc.running.array_tasks import marker
from fvc.running.cli import main
from fvc.running.job_list import plan_work, stage_steps
from fvc.running.job_scripts import job_scripts
from fvc.running.model_training import training_jobs
from fvc.running.submission import list_file, read_list
from conftest import ROOT

WORDS = ['split.n_splits=2']


def plan(place, *models, stages=(), words=(), tracking=True):
    return plan_work(place, list(stages), list(models), [*WORDS, *words], '', 2, '', tracking)


@pytest.fixture
def place(corpus, tmp_path):
    return Workspace(shutil.copytree(corpus, tmp_path / 'work', symlinks=True, ignore=shutil.ignore_patterns('stage5', 'submitted', 'mlflow*', 'mlartifacts', 'cache')))


def test_a_run_that_others_stand_on_comes_before_them(place):
    steps = {s.name: s for s in plan(place, 'xgboost_i3d', 'i3d').steps}
    assert list(steps) == ['i3d@small', 'xgboost_i3d@small', 'tracking']
    assert steps['xgboost_i3d@small'].after == ('i3d@small',) and steps['tracking'].after == ('i3d@small', 'xgboost_i3d@small')
    assert 'training.inner_folds=2' in steps['i3d@small'].words and steps['i3d@small'].job == 'fvc_stage5o'
    with pytest.raises(ValueError, match='xgboost_i3d@small needs the run i3d@small, whose fold 1 is not finished: name i3d@small too'): plan(place, 'xgboost_i3d')


def test_a_fold_that_is_done_stays_out(place):
    "Until a table that it may have read is made anew."
    job = training_jobs(['svm'], [1], place, WORDS)[0]
    try:
        job.mark('done')
        found = plan(place, 'svm')
        assert [(s.name, s.tasks) for s in found.steps] == [('svm', (2,)), ('tracking', (1,))] and found.done == {'svm': [1]}
        os.utime(place.tables(1)[0])
        names = {s.name: s.tasks for s in plan(place, 'svm', tracking=False).steps}
        assert names == {'stage2': (1, 2), 'stage2-merge': (1,), 'stage3': (1, 2), 'stage3-merge': (1,), 'stage4': (1, 2), 'stage4-merge': (1,), 'svm': (1, 2)}
    finally: job.marker('done').unlink()


def test_a_merge_that_was_killed_after_its_shards_had_made_the_table_is_no_failure(place, capsys):
    "The next submission of a model takes it out of the list, and no job of a stage that it does not stand on."
    steps, stamp = ('stage2-merge', 'stage1', 'stage3'), '2026-01-01T00:00:00+00:00'
    write_json(list_file(place), {step: dict(part=step[:6], submission=stamp, tasks={'1': dict(job='local-4194999', submission=stamp)}) for step in steps})
    for step, state in zip(steps, ('failed', 'done', 'failed')): write_json(marker(place, step, 1), dict(job='local-4194999', state=state, reason='killed', started=stamp))
    for job in training_jobs(['svm'], [1, 2], place, [*WORDS, 'variant=stage2']): job.mark('done')
    words, before = ['submit', 'svm', '--data', str(place.root), *WORDS, 'variant=stage2'], read_list(place)
    assert not main([*words, '--dry-run']) and read_list(place) == before
    assert not main(words) and 'nothing is left to do' in capsys.readouterr().out
    assert [*read_list(place)] == ['stage1', 'stage3']


def test_stages_keep_the_settings_that_the_tables_have(place):
    "Here there are two copies of a video, which nobody types again."
    step = plan(place, stages=[2], tracking=False).steps[0]
    assert 'stages.augmentation.num_augmentations=2' in step.words
    assert plan(place, 'svm', words=['experiment.mlflow=false'], tracking=False).steps[0].name == 'svm'


def test_a_video_that_cannot_be_read_stops_nothing(place, capsys):
    "A shard and a merge end well with it; a limit of the user's stops the chain."
    shutil.rmtree(place.folder(2))
    next(place.folder(1).glob('*/rotation.mp4')).write_bytes(b'no video')
    words = ['stages.augmentation.num_augmentations=2', 'stages.workers=1']
    codes = [main([*step.command(1), '--data', str(place)]) for step in (*stage_steps([2], words, 2), *stage_steps([2], words, 1, '0'))]
    assert codes == [0, 0, 3] and ' videos failed (1 for good)' in capsys.readouterr().out


def test_scripts_are_in_step():
    "Made by `fvc submit scripts`, from one function."
    folder = ROOT / 'scripts' / 'slurm_jobs'
    assert {p.name: p.read_text() for p in folder.glob('*.sh')} == job_scripts(), 'run fvc submit scripts'
