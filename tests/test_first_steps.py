"""What stops somebody in the first hour: an option that a library refuses, counts of another network than the trained one, what a failure leaves behind."""
import json
import os
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from fvc.core import registry
from fvc.core.config import compose
from fvc.core.files import write_json
from fvc.core.registry import Spec, spec_of
from fvc.core.table import write_table
from fvc.core.workspace import Workspace
from fvc.evidence.report import compare_runs, leaderboard
from fvc.learning import checks
from fvc.learning.detector import build
from fvc.learning.runs import Run, summarise
from fvc.running import pipeline
from fvc.running.cli import main
from fvc.running.experiment import run_fold
from fvc.scores.tasks import Task

WORDS = 'split.n_splits=2 training.device=cpu data.frames=2 data.size=32 data.variants=0 training.epochs=1 experiment.mlflow=false'

REFUSING = '''
from pytorchvideo.models.resnet import create_resnet
from fvc.core.registry import Clip, register_model

@register_model('deep', clip=Clip(frames=4, size=32), defaults={'training.epochs': 1})
def deep(task, depth: int = 50, stem: str = 'wide'):
    "A network of a library, which knows some depths."
    return create_resnet(model_depth=depth, model_num_class=task.outputs, stem_dim_out=dict(wide=16)[stem])
'''


def test_an_option_that_a_library_refuses_is_said_with_what_it_allows(corpus, tmp_path, capsys, monkeypatch):
    "Before any notebook is started, and with nothing written."
    monkeypatch.setenv('FVC_USE', '')
    mine = tmp_path / 'deep_models.py'
    mine.write_text(REFUSING)
    words = ['--use', str(mine), '--folds', '1', '--data', str(corpus), 'split.n_splits=2']
    assert main(['train', 'deep', *words, 'model.depth=34']) == 2
    said = capsys.readouterr().err.strip()
    assert said == "fvc: deep cannot be built with model.depth=34: AssertionError, 34 is not in dict_keys([50, 101, 152])"
    assert main(['train', 'deep', *words, 'model.stem=narrow']) == 2
    assert "deep cannot be built with model.stem=narrow: KeyError, 'narrow'" in capsys.readouterr().err
    assert not (corpus / 'stage5').exists()


def test_a_builder_that_is_wrong_by_itself_is_no_wrong_option():
    def odd(width: int = 3): raise KeyError('missing')
    with pytest.raises(KeyError, match='missing'):
        build(Spec('odd', odd, kind='estimator', inputs=('features',)), compose(Spec('odd', odd, inputs=('features',))), Task())


def test_the_board_and_the_list_show_the_network_that_was_trained(corpus, capsys, monkeypatch):
    run_fold('naive_cnn', 1, str(corpus), f'{WORDS} model.width=4 experiment.name=narrow')
    network = build(spec_of('naive_cnn'), compose('naive_cnn', 'model.width=4'), Task())
    count = sum(p.numel() for p in network.parameters())
    line = next(r for r in leaderboard(str(corpus), 20).to_dicts() if r['run'] == 'naive_cnn@narrow')
    assert line['parameters'] == count
    monkeypatch.setattr(checks, 'all_specs', lambda: [spec_of('naive_cnn'), spec_of('svm')])
    capsys.readouterr()
    assert main(['models', '--json', '--data', str(corpus)]) == 0
    listed = {m['name']: m for m in json.loads(capsys.readouterr().out)}
    assert listed['naive_cnn']['trained'] == f'naive_cnn@narrow: {count}' and listed['naive_cnn']['trainable'] > 10 * count
    assert listed['svm']['trained'] == ''
    assert checks.list_models()[0]['trained'] == ''


def test_a_run_that_fails_leaves_no_folder(corpus, monkeypatch):
    "Nor a lock that is held: the same run trains afterwards."
    before = sorted(p.relative_to(corpus) for p in corpus.rglob('*') if 'stage5/.locks' not in str(p))
    spec = spec_of('naive_cnn')
    from fvc.models.naive_cnn import NaiveCNN
    with monkeypatch.context() as m:
        m.setattr(NaiveCNN, 'forward', lambda self, clip: 1 / 0)
        with pytest.raises(ZeroDivisionError): run_fold(spec, 2, str(corpus), f'{WORDS} experiment.name=failing')
    after = sorted(p.relative_to(corpus) for p in corpus.rglob('*') if 'stage5/.locks' not in str(p))
    assert [str(p) for p in after if p not in before] == []
    assert run_fold(spec, 2, str(corpus), f'{WORDS} experiment.name=failing').metrics


def test_the_models_of_fvc_run_stand_in_one_place():
    "Whoever names them, names them from there; the documents count them."
    assert len(set(pipeline.MODELS)) == 4 and all(spec_of(m) for m in pipeline.MODELS)
    elsewhere = [p for p in (ROOT / 'fvc').rglob('*.py') if p.stem != 'pipeline' and all(f"'{m}'" in p.read_text() for m in pipeline.MODELS)]
    assert not elsewhere
    assert 'fvc run' in (ROOT / 'Makefile').read_text() and not re.search(r'fvc run.*--models', (ROOT / 'Makefile').read_text())


@pytest.mark.parametrize('name', ['out.ipynb', 'nbs/out.ipynb', 'out.failed.ipynb'])
def test_what_the_readme_makes_is_ignored_by_git(name, tmp_path):
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    (tmp_path / '.gitignore').write_text((ROOT / '.gitignore').read_text())
    assert subprocess.run(['git', 'check-ignore', '-q', name], cwd=tmp_path).returncode == 0
    assert subprocess.run(['git', 'check-ignore', '-q', 'nbs/5q_x3d.ipynb'], cwd=tmp_path).returncode == 1


def test_a_process_knows_the_parts_of_the_file_that_is_named(tmp_path):
    "As kernels and further processes do: the environment names the file."
    mine = tmp_path / 'my_loss.py'
    mine.write_text("from fvc.core.registry import register_loss\n@register_loss('hinge')\ndef hinge(logits, target, *, margin: float = 1.0): return (margin - logits * (2 * target - 1)).clamp(min=0).mean(1)\n")
    script = "from fvc.core.config import compose; from fvc.models.naive_cnn import spec; print(compose(spec, 'loss=hinge').loss.margin)"
    env = {**os.environ, 'FVC_USE': str(mine), 'PYTHONPATH': str(ROOT)}
    assert subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=env).stdout == '1.0\n'


def finished_fold(place, run, fold, scores, metrics):
    "A finished fold as training leaves it, as far as a comparison reads it."
    rows = place.read_folds().filter(pl.col('fold') == fold)
    folder = place.run(run) / f'fold_{fold}'
    write_json(folder / 'metadata.json', dict(run=run, fold=fold, metrics=metrics, facts=dict(inner={})))
    write_json(folder / 'config.json', compose('naive_cnn', 'split.n_splits=2').to_dict())
    table = rows.select('video_id', variant=pl.lit('original'), group='group', fold=pl.col('fold').cast(pl.Int64), part=pl.lit('val'), label='label',
                        score=pl.Series([scores[int(y)] for y in rows['label']]), threshold=pl.lit(0.5))
    write_table(table.with_columns(decision=(pl.col('score') >= 0.5).cast(pl.Int64)), folder / 'predictions.arrow', {})


@pytest.fixture
def brier(monkeypatch):
    "A metric that is registered for one test."
    monkeypatch.setitem(registry._parts, 'metric', {'brier': lambda outcome, weights: np.average(((outcome.scores - outcome.labels) ** 2).mean(1), weights=weights)})


def test_runs_are_compared_by_a_metric_of_ones_own_on_their_scores(corpus, brier):
    place = Workspace(corpus)
    for k in (1, 2):
        finished_fold(place, 'naive_cnn@sure', k, (0.1, 0.9), dict(val_auc=1.0))
        finished_fold(place, 'naive_cnn@unsure', k, (0.4, 0.6), dict(val_auc=1.0))
    found = compare_runs('naive_cnn@unsure', 'naive_cnn@sure', str(corpus), 'brier')
    assert found['difference'] == pytest.approx(0.16 - 0.01)
    assert compare_runs('naive_cnn@unsure', 'naive_cnn@sure', str(corpus), 'acc')['difference'] == 0


def test_a_metric_that_came_later_is_summarised_where_all_folds_have_it(corpus):
    place = Workspace(corpus)
    finished_fold(place, 'naive_cnn@late', 1, (0.1, 0.9), dict(val_auc=1.0, val_brier=0.2))
    finished_fold(place, 'naive_cnn@late', 2, (0.1, 0.9), dict(val_auc=0.5))
    summary = summarise(Run(place, 'naive_cnn@late'))
    assert summary['mean_val_auc'] == 0.75 and 'mean_val_brier' not in summary
