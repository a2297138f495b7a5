"""What a run keeps of all its folds together, from folds as training leaves them."""
import json
import re

import numpy as np
import polars as pl
import pytest
from fvc.core.files import write_json
from fvc.core.table import write_table
from fvc.core.workspace import FORMAT, Workspace
from fvc.evidence.figures import report_run, run_curves, run_summary
from fvc.learning.runs import FoldResult, Run
from fvc.learning.tracking import ExperimentTracker
from fvc.scores.intervals import group_bootstrap
from sklearn.metrics import confusion_matrix

PLOTS = ['confusion_matrix', 'cv_fold_comparison', 'prediction_distribution', 'roc_pr_curves', 'training_curves']
AUC = {1: .9, 2: .6}
LOSSES = {1: [.7, .5, .4], 2: [.8, .6]}


def fold(place, run, k, epochs=True):
    "A fold of twenty videos in ten groups, its threshold far from one half."
    rng = np.random.default_rng(k)
    label = np.arange(20) // 2 % 2
    score = np.clip(.2 + .4 * label + rng.normal(size=20) * .25, 0, 1)
    pred = pl.DataFrame(dict(video_id=[f'v{k}{i}' for i in range(20)], variant='original', group=[f'g{k}{i // 2}' for i in range(20)], label=label, score=score,
                             decision=(score >= .25 * k).astype(int), threshold=.25 * k, fold=k, part='val')).with_columns(pl.col('fold').cast(pl.Int8))
    folder = place.run(run) / f'fold_{k}'
    write_table(pred, folder / 'predictions.arrow', {})
    write_json(folder / 'config.json', dict(profile='small', data=dict(permuted=None), split=dict(kind='kfold', n_splits=2)))
    tracker = ExperimentTracker(folder)
    for epoch, loss in enumerate(LOSSES[k] if epochs else [], 1):
        tracker.log(dict(train_loss=loss, inner_loss=loss + .1, train_acc=.5, inner_f1=float('nan') if epoch == 1 else .6), step=epoch, epoch=epoch, phase='train')
    tracker.log(dict(val_auc=AUC[k]), step=9, epoch=9, phase='report')
    metrics = {f'val_{m}': AUC[k] - i / 100 for i, m in enumerate(('auc', 'ap', 'acc', 'f1', 'precision', 'recall'))} | dict(val_loss=.5)
    FoldResult(run, k, folder, metrics, dict(inner=dict(auc=.7, chosen_by=.7))).save({})
    return pred


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    place = Workspace(tmp_path_factory.mktemp('figures'))
    write_json(place.corpus, dict(format=FORMAT, data_hash='here'))
    for run, epochs in (('naive_cnn', True), ('svm', False)):
        for k in (1, 2): fold(place, run, k, epochs)
        report_run(Run(place, run))
    return place


def test_the_plots_of_a_run_stand_in_its_folder(place):
    "A model without epochs has no training curves."
    for run, wanted in (('naive_cnn', PLOTS), ('svm', PLOTS[:-1])):
        home = Run(place, run).folder
        assert sorted(p.name for p in (home / 'plots').iterdir()) == sorted([*(f'{name}.png' for name in wanted), 'metrics_summary.json'])
        assert all(p.stat().st_size > 3000 for p in home.glob('plots/*.png')) and (home / 'metrics.json').is_file()


def test_curves_are_of_epochs_and_of_every_fold(place):
    curves = run_curves(Run(place, 'naive_cnn'))
    assert curves['train_loss'] == [LOSSES[1], LOSSES[2]] and curves['inner_loss'] == [[v + .1 for v in LOSSES[k]] for k in (1, 2)]
    assert np.isnan(curves['inner_f1'][0][0]) and curves['inner_f1'][1][1] == .6 and set(curves) == {'train_loss', 'inner_loss', 'train_acc', 'inner_f1'}
    assert run_curves(Run(place, 'svm')) == {}


def test_the_summary_is_of_all_folds(place):
    summary = json.loads((Run(place, 'naive_cnn').folder / 'plots' / 'metrics_summary.json').read_text())
    pred = Run(place, 'naive_cnn').predictions()
    lead = group_bootstrap(pred, 'auc')
    assert summary['headline'] == dict(metric='auc', value=lead.value, low=lead.low, high=lead.high)
    assert summary['metrics']['auc'] == dict(mean=pytest.approx(.75), std=pytest.approx(np.std([.9, .6], ddof=1)), by_fold={'1': .9, '2': .6})
    assert summary['metrics']['f1']['by_fold'] == {'1': pytest.approx(.87), '2': pytest.approx(.57)}
    assert summary['confusion'] == confusion_matrix(pred['label'], pred['decision']).tolist()
    assert (summary['run'], summary['folds'], summary['expected'], summary['videos'], summary['groups']) == ('naive_cnn', [1, 2], 2, 40, 20)


def test_a_run_shows_itself(place, tmp_path):
    run = Run(place, 'naive_cnn')
    page, lead = run._repr_html_(), run_summary(run)['headline']
    assert f"AUC is {lead['value']:.3f}, every group alike (95% interval {lead['low']:.3f} to {lead['high']:.3f})" in page and '2 of 2 folds are finished' in page
    assert re.findall('<th>(.*?)</th>', page) == ['metric', 'mean of folds', 'standard deviation', 'fold 1', 'fold 2']
    assert re.findall('<td class="word">AUC</td>(.*?)</tr>', page) == [''.join(f'<td class="number">{v:.3f}</td>' for v in (.75, np.std([.9, .6], ddof=1), .9, .6))]
    assert page.count('<img ') == 5 and Run(place, 'svm')._repr_html_().count('<img ') == 4
    assert 'No fold is finished' in Run(place, 'x3d')._repr_html_()


@pytest.mark.filterwarnings('error::RuntimeWarning')
def test_a_fold_of_one_class_and_an_unfinished_run_are_drawn_too(tmp_path):
    place = Workspace(tmp_path)
    write_json(place.corpus, dict(format=FORMAT, data_hash='here'))
    pred = fold(place, 'svm', 1)
    write_table(pred.with_columns(label=pl.lit(1)), place.run('svm') / 'fold_1' / 'predictions.arrow', {})
    report_run(Run(place, 'svm'))
    assert len(list((place.run('svm') / 'plots').glob('*.png'))) == 5 and '1 of 2 folds are finished' in Run(place, 'svm')._repr_html_()
