"""The report's numbers, computed again from what the folds left on disk."""
import shutil

import numpy as np
import polars as pl
import pytest
from fvc.core.config import compose
from fvc.learning.detector import inputs_of
from fvc.learning.rows import feature_columns, load_rows
from fvc.evidence.floors import cross_validate, majority_floor, metadata_floor
from fvc.scores.intervals import group_bootstrap, paired_comparison
from fvc.core.registry import get, spec_of
from fvc.evidence.report import compare_runs, leaderboard, metadata_effect, trained_on
from fvc.learning.runs import FoldResult, Run, finished_runs, library_hash, source_of
from fvc.core.files import write_json
from fvc.core.table import read_table, table_metadata, write_table
from fvc.core.workspace import FORMAT, Workspace
from sklearn.metrics import accuracy_score, f1_score

THRESHOLDS = {1: .3, 2: .8}  # of the two folds: far from one half, and from each other


def videos(seed=0):
    "Sixty-six videos in twenty groups of one to six, two folds."
    rng, sizes = np.random.default_rng(seed), [1 + i % 6 for i in range(20)]
    group = np.repeat(np.arange(20), sizes)
    return pl.DataFrame(dict(video_id=[f'v{i:02}' for i in range(len(group))], group=[f'g{g:02}' for g in group],
                             label=(group // 2 % 2).astype(np.int8), fold=(group % 2 + 1).astype(np.int8))), rng


def finish(place, run, fold, rows, score, permuted=None, val_auc=.5, facts=None, split=None):
    "A fold as `run_fold` leaves it."
    folder = place.run(run) / f'fold_{fold}'
    here = rows['fold'] == fold
    pred = rows.with_columns(variant=pl.lit('original'), score=pl.Series(score), threshold=pl.lit(THRESHOLDS[fold]), part=pl.lit('val')).filter(here)
    pred = pred.with_columns(decision=(pl.col('score') >= THRESHOLDS[fold]).cast(pl.Int64))
    write_table(pred.select('video_id', 'variant', 'group', 'label', 'score', 'decision', 'threshold', 'fold', 'part'), folder / 'predictions.arrow', dict(run=run))
    write_json(folder / 'config.json', dict(profile='small', data=dict(permuted=permuted), split=split or dict(kind='kfold', n_splits=2)))
    write_json(folder / 'about.json', dict(corpus='here', code='now', library=library_hash()))
    result = FoldResult(run, fold, folder, dict(val_auc=val_auc), dict(thresholds=[THRESHOLDS[fold]], inner=dict(auc=.7, chosen_by=.7)) | (facts or {}))
    result.save({})
    return result


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "Three runs and a permuted one; the first three videos were scored by one run only."
    place = Workspace(tmp_path_factory.mktemp('report'))
    write_json(place.corpus, dict(format=FORMAT, data_hash='here'))
    rows, rng = videos()
    write_table(rows, place.folds, {})
    n = rows.height
    index = rows.select('video_id').with_columns(
        status=pl.lit('ok'), width=pl.Series(rng.integers(100, 900, n)), height=pl.Series(rng.integers(100, 900, n)), fps=25.,
        duration=pl.Series(rng.random(n)), bit_rate=pl.Series(rng.integers(1, 9, n)), bytes=1, frames=9, rotation=0,
        platform=pl.lit('youtube'), container=pl.lit('mp4'), codec=pl.lit('h264'), pix_fmt=pl.lit('yuv420p'))
    write_table(index.join(rows.select('video_id', 'label'), on='video_id'), place.index)
    scored = rows[3:]
    y, shift = scored['label'].to_numpy(), np.where(scored['fold'] == 1, .1, .5)  # fold 2 scores everything higher
    good = y * .3 + rng.random(len(y)) * .35 + shift - .1
    good[np.flatnonzero((y == 1) & (scored['fold'] == 1).to_numpy())[0]] = THRESHOLDS[1]  # a score at the threshold decides for fake
    for k, auc in ((1, .9), (2, .7)):
        finish(place, 'naive_cnn', k, scored, good, val_auc=auc, facts=dict(weights='from scratch'))
        finish(place, 'logistic_regression@weak', k, rows, rng.random(n), val_auc=.55 if k == 1 else float('nan'))
        finish(place, 'x3d@permuted', k, scored, rng.random(len(y)), permuted=0, val_auc=float('nan'), facts=dict(weights='kinetics'))
    finish(place, 'onesided', 1, rows.with_columns(label=pl.lit(1, pl.Int8)), rng.random(n), val_auc=float('nan'), split=dict(kind='holdout', n_splits=2))
    finish(place, 'naive_cnn@half', 1, scored, y, val_auc=1.)
    write_json(place.run('begun') / 'fold_1' / 'config.json', dict(data=dict(permuted=None)))
    return place


@pytest.fixture(scope='module')
def board(place):
    return {r['run']: r for r in leaderboard(str(place), 20).iter_rows(named=True)}


def decided(place, run):
    "Truth, decision at the fold's own threshold, weight of each video."
    pred = Run(place, run).predictions().with_columns(size=pl.len().over('group'))
    said = [s >= THRESHOLDS[f] for s, f in pred.select('score', 'fold').iter_rows()]
    return pred['label'].to_numpy(), np.array(said), 1 / pred['size'].to_numpy()


def test_runs_are_those_with_a_finished_fold(place, tmp_path):
    names = [run.name for run in finished_runs(place)]
    assert names == ['logistic_regression@weak', 'naive_cnn', 'naive_cnn@half', 'onesided', 'x3d@permuted'] and finished_runs(Workspace(tmp_path)) == []


def test_accuracy_is_what_each_fold_decides_at_its_own_threshold(place, board):
    at_half = {}
    for run in ('naive_cnn', 'logistic_regression@weak', 'x3d@permuted'):
        truth, said, weight = decided(place, run)
        own = accuracy_score(truth, said, sample_weight=weight)
        assert board[run]['acc'] == pytest.approx(own, abs=1e-12)
        at_half[run] = own - group_bootstrap(Run(place, run).predictions(), 'acc', 10).value
    assert abs(at_half['naive_cnn']) > .1, 'else one half would do'


def test_a_line_of_the_leaderboard(place, board):
    row = leaderboard(str(place)).row(by_predicate=pl.col('run') == 'naive_cnn', named=True)
    pred = Run(place, 'naive_cnn').predictions()
    auc, video = group_bootstrap(pred, 'auc', 1000), group_bootstrap(pred, 'auc', 1000, weighting='video')
    assert (row['auc'], row['low'], row['high'], row['auc_by_video']) == (auc.value, auc.low, auc.high, video.value) and auc.value != video.value
    assert (row['folds'], row['groups'], row['videos'], row['weights']) == (2, 18, 63, 'from scratch')
    assert row['coverage'] == 63 / 66
    assert board['logistic_regression@weak']['weights'] == '' and board['x3d@permuted']['weights'] == 'kinetics'
    assert board['onesided']['folds'] == 1, 'folds are those that are finished'
    assert (row['fold_mean'], row['fold_std']) == pytest.approx((.8, np.std([.9, .7], ddof=1)), abs=1e-12)
    assert board['naive_cnn']['low'] == group_bootstrap(pred, 'auc', 20).low, 'as many draws as were asked for'


def test_the_best_stands_first_and_an_undefined_one_last(board):
    "A run of which folds are missing is no competitor, however good they are."
    assert list(board)[0] == 'naive_cnn' and list(board)[-2:] == ['onesided', 'naive_cnn@half'] and board['naive_cnn@half']['auc'] == 1
    aucs = np.array([r['auc'] for r in board.values()], float)[:-1]
    assert (np.diff(aucs[:-1]) <= 0).all() and np.isnan(aucs[-1])


def test_a_fold_without_an_auc_is_left_out_of_the_spread(board):
    assert (board['logistic_regression@weak']['fold_mean'], board['logistic_regression@weak']['fold_std']) == (.55, None)
    assert (board['x3d@permuted']['fold_mean'], board['x3d@permuted']['fold_std']) == (None, None)


def test_floors_are_called_floors(place, board):
    assert {run: r['kind'] for run, r in board.items()} == {
        'naive_cnn': 'model', 'naive_cnn@half': 'part (1 of 2 folds)', 'logistic_regression@weak': 'model', 'onesided': 'model', 'x3d@permuted': 'floor',
        'metadata only': 'floor', 'majority class': 'floor'}
    for name, floor in (('metadata only', metadata_floor(place)), ('majority class', majority_floor(place))):
        assert (board[name]['auc'], board[name]['acc'], board[name]['videos']) == (
            group_bootstrap(floor, 'auc', 20).value, group_bootstrap(floor, 'acc', 10).value, 66)


def test_two_runs_are_compared_on_what_both_scored(place):
    a, b = (Run(place, r).predictions() for r in ('naive_cnn', 'logistic_regression@weak'))
    wanted = paired_comparison(a, b)
    assert compare_runs('naive_cnn', 'logistic_regression@weak', str(place)) == dict(
        a='naive_cnn', b='logistic_regression@weak', metric='auc', value_a=wanted.a, value_b=wanted.b, difference=wanted.a - wanted.b,
        low=wanted.difference.low, high=wanted.difference.high, videos=63, only_a=0, only_b=3)
    turned = compare_runs('logistic_regression@weak', 'naive_cnn', str(place))
    assert (turned['difference'], turned['only_a'], turned['only_b']) == (wanted.b - wanted.a, 3, 0)
    assert compare_runs('naive_cnn', 'logistic_regression@weak', str(place), 'ap')['difference'] == paired_comparison(a, b, 'ap').difference.value


@pytest.mark.parametrize('metric, by_hand', [('acc', accuracy_score), ('f1', f1_score)])
def test_decisions_are_compared_at_the_folds_thresholds(place, metric, by_hand):
    found = compare_runs('naive_cnn', 'x3d@permuted', str(place), metric)
    values = []
    for run in ('naive_cnn', 'x3d@permuted'):
        truth, said, weight = decided(place, run)
        values.append(by_hand(truth, said, sample_weight=weight))
    assert (found['value_a'], found['value_b']) == pytest.approx(values, abs=1e-12)
    assert found['low'] <= found['difference'] <= found['high'] and found['difference'] == pytest.approx(values[0] - values[1], abs=1e-12)


def test_a_run_that_is_not_there_is_named_with_its_neighbour(place, tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run 'naive_cmn' in .*: did you mean 'naive_cnn'"):
        compare_runs('logistic_regression@weak', 'naive_cmn', str(place))
    with pytest.raises(FileNotFoundError, match="'begun'"):
        compare_runs('begun', 'naive_cnn', str(place))
    with pytest.raises(FileNotFoundError, match='set the corpus up first'):
        compare_runs('naive_cnn', 'naive_cnn', str(tmp_path))
    write_json(Workspace(tmp_path).corpus, dict(format=FORMAT))
    with pytest.raises(FileNotFoundError, match='train one first'):
        compare_runs('naive_cnn', 'naive_cnn', str(tmp_path))


def test_what_a_run_was_shown(tmp_path):
    rows, rng = videos()
    said, words = {}, dict(logistic_regression='data.stages=[2]', naive_cnn='data.frames=8 data.size=[112,64]', xgboost_pretrained_inception='data.frames=8 data.size=112')
    for run, facts in (('logistic_regression@mine', dict(columns=3)), ('naive_cnn', dict(weights='from scratch', epochs=9, best_epoch=4)),
                       ('xgboost_pretrained_inception', dict(weights='ImageNet'))):
        spec = spec_of(run.split('@')[0])
        shown = inputs_of(spec)[0].describe(compose(spec, words[spec.name]))
        said[run] = trained_on(finish(Workspace(tmp_path), run, 1, rows, rng.random(rows.height), facts=dict(facts, shown=shown)))
    assert said == {'logistic_regression@mine': f'profile small, {len(feature_columns(2))} columns of stage 2',
                    'naive_cnn': 'profile small, 8 frames of 112x64 px, from scratch, 9 epochs, of which epoch 4 is kept',
                    'xgboost_pretrained_inception': 'profile small, 8 frames of 112 px, ImageNet'}


def test_the_board_says_which_runs_would_not_come_out_so_today(tmp_path):
    place, (rows, rng) = Workspace(tmp_path), videos()
    write_json(place.corpus, dict(format=FORMAT, data_hash='here'))
    runs = {name: finish(place, name, 1, rows, rng.random(rows.height)).folder / 'about.json' for name in ('naive_cnn', 'x3d', 'logistic_regression', 'my_own')}
    now = source_of(spec_of('naive_cnn'))['code']
    for name, about in dict(naive_cnn=dict(corpus='here', code=now), x3d=dict(corpus='here', code='of old'), logistic_regression=dict(corpus='elsewhere', code=now),
                            my_own=dict(corpus='here', code='0' * 16)).items(): write_json(runs[name], about)
    assert {run.name: run.stale() for run in finished_runs(place)} == dict(
        naive_cnn='', x3d='fold 1 was trained by another version of x3d', logistic_regression='fold 1 was trained on another state of the corpus',
        my_own='its model my_own is not known here (--use names the module it was in)')


def test_metadata_that_gives_the_label_away_is_seen_in_its_own_line(corpus, tmp_path):
    table = tmp_path / Workspace(corpus).table(2).relative_to(corpus)
    table.parent.mkdir()
    for name in ('folds.arrow', 'corpus.json'): shutil.copy(corpus / name, tmp_path)
    shutil.copy(Workspace(corpus).table(2), table)
    truth = dict(read_table(tmp_path / 'folds.arrow').select('video_id', 'label').iter_rows())
    rows = read_table(table)
    given_away = pl.Series([float(truth.get(v, 0)) for v in rows['video_id']])
    marked = [c for c in feature_columns(2, True) if c not in feature_columns(2)]
    write_table(rows.with_columns(given_away.alias(c) for c in marked), table, table_metadata(table))
    seen = metadata_effect(str(tmp_path))
    plain, told = (group_bootstrap(cross_validate(lambda: get('logistic_regression'), load_rows(Workspace(tmp_path), 2), feature_columns(2, extra)), 'auc')
                   for extra in (False, True))
    assert seen == {'signal columns': str(plain), 'with metadata columns': str(told)} and told.value > plain.value
