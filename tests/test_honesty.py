"""Leak tripwires: what must never reach a fitted model, and what must never be built."""
import shutil

import numpy as np
import polars as pl
import pytest
from fvc.clips import feature_columns, load_rows
from fvc.experiment import make_split, run_fold
from fvc.floors import permutation_aucs
from fvc.registry import spec_of
from fvc.results import resolve
from fvc.splits import LeakageError, cut_folds
from fvc.table import read_table, table_metadata, write_table

WORDS = 'profile=small split.n_splits=2 experiment.mlflow=false data.frames=2 data.side=32 training.epochs=2'
TABLE = 'split.n_splits=2 experiment.mlflow=false'


@pytest.fixture
def copy(corpus, tmp_path):
    "The corpus's tables in a workspace of their own; videos are linked."
    place = tmp_path / 'work'
    place.mkdir()
    for p in corpus.iterdir():
        if p.is_file():
            shutil.copy(p, place / p.name)
        elif p.name in ('features_stage2', 'features_stage4'):
            shutil.copytree(p, place / p.name)
        elif p.name in ('scaled_videos', 'augmented_videos'):
            (place / p.name).mkdir()
            for q in p.iterdir():
                (shutil.copy if q.suffix == '.arrow' else lambda a, b: b.symlink_to(a))(q, place / p.name / q.name)
        elif p.name == 'videos':
            (place / p.name).symlink_to(p)
    return place


def rewrite(path, change):
    write_table(change(read_table(path)), path, table_metadata(path))


def weights(result):
    folder = result.folder / 'model'
    if (folder / 'weights.safetensors').is_file():
        from safetensors.numpy import load_file
        return load_file(folder / 'weights.safetensors')
    from fvc.fitting import load_estimator
    model = load_estimator(folder)
    return dict(coef=model[-1].coef_, mean=model[1].mean_, scale=model[1].scale_, median=model[0].statistics_)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('model, words', [('logistic_regression', TABLE), ('naive_cnn', WORDS)])
def test_labels_of_the_validation_fold_change_no_weight(copy, model, words):
    before = run_fold(model, 1, str(copy), words)
    old = weights(before)
    threshold = before.facts['threshold']
    shutil.rmtree(copy / 'stage5')
    flip = (pl.col('fold') == 1)
    rewrite(copy / 'folds.arrow', lambda t: t.with_columns(label=pl.when(flip).then(1 - pl.col('label')).otherwise('label')))
    after = run_fold(model, 1, str(copy), words)
    assert same(old, weights(after)) and after.facts['threshold'] == threshold
    assert after.metrics['val_auc_by_video'] == pytest.approx(1 - before.metrics['val_auc_by_video'])


def test_poisoned_validation_features_change_nothing_fitted(copy):
    before = run_fold('logistic_regression', 1, str(copy), TABLE)
    old, threshold, scores = weights(before), before.facts['threshold'], before.predictions['score']
    shutil.rmtree(copy / 'stage5')
    held = read_table(copy / 'folds.arrow').filter(pl.col('fold') == 1)['video_id'].to_list()
    poison = [pl.when(pl.col('video_id').is_in(held)).then(1e9).otherwise(c).alias(c) for c in feature_columns(2)]
    rewrite(copy / 'features_stage2' / 'features_metadata.arrow', lambda t: t.with_columns(poison))
    after = run_fold('logistic_regression', 1, str(copy), TABLE)
    assert same(old, weights(after)) and after.facts['threshold'] == threshold
    assert not np.array_equal(scores, after.predictions['score'])


def test_a_copy_planted_across_folds_raises(copy):
    folds = read_table(copy / 'folds.arrow')
    one, two = (folds.filter(pl.col('fold') == k)['video_id'][0] for k in (1, 2))
    index = read_table(copy / 'video_index_input.csv')
    sha = index.filter(pl.col('video_id') == one)['sha256'][0]
    write_table(index.with_columns(sha256=pl.when(pl.col('video_id') == two).then(pl.lit(sha)).otherwise('sha256')), copy / 'video_index_input.csv')
    with pytest.raises(LeakageError, match='sha256|content') as e:
        run_fold('logistic_regression', 1, str(copy), TABLE)
    assert one in str(e.value) or two in str(e.value)


def test_a_group_in_two_folds_raises(copy):
    first = read_table(copy / 'folds.arrow')['video_id'][0]
    move = pl.when(pl.col('video_id') == first).then(3 - pl.col('fold')).otherwise('fold').cast(pl.Int8)
    rewrite(copy / 'folds.arrow', lambda t: t.with_columns(fold=move))
    with pytest.raises(ValueError, match='group|Group'):
        make_split(resolve(spec_of('logistic_regression'), TABLE), copy, 1)


def test_deleting_five_videos_moves_no_fold(copy):
    index = read_table(copy / 'video_index_input.csv').filter(pl.col('label').is_not_null())
    stored = read_table(copy / 'folds.arrow')
    gone = stored['video_id'].gather(range(0, 25, 5)).to_list()
    rewrite(copy / 'features_stage2' / 'features_metadata.arrow', lambda t: t.filter(~pl.col('video_id').is_in(gone)))
    served = load_rows(copy, 2).select('video_id', 'fold').unique()
    assert served.join(stored, on='video_id', suffix='_stored').filter(pl.col('fold') != pl.col('fold_stored')).height == 0
    recut = cut_folds(index.filter(~pl.col('video_id').is_in(gone)), 2)
    assert recut.height == stored.height - 5, 'a fresh cut is what would have moved them'


def test_without_the_fold_table_nothing_is_served(copy):
    (copy / 'folds.arrow').unlink()
    with pytest.raises(FileNotFoundError, match='stage 0'):
        load_rows(copy, 3)


def test_only_originals_are_scored_and_copies_are_trained_on(copy):
    result = run_fold('logistic_regression', 1, str(copy), TABLE)
    assert set(result.predictions['variant']) == {'original'}
    held = read_table(copy / 'folds.arrow').filter(pl.col('fold') == 1)
    ok = set(load_rows(copy, 2)['video_id'])
    assert set(result.predictions['video_id']) == set(held['video_id']) & ok
    assert result.facts['training_rows'] == 3 * len(ok - set(held['video_id']))


def planted(rng):
    "Forty scenes, two videos each, four copies a video: features tell the scene and nothing else."
    scene = np.repeat(np.arange(40), 8)
    x = rng.normal(size=(40, 30))[scene] + 0.05 * rng.normal(size=(320, 30))
    table = dict(video_id=[f'{s}_{i // 4 % 2}' for i, s in enumerate(scene)], variant=['original', 'flip', 'blur', 'noise'] * 80,
                 label=(scene % 2).astype(np.int8), group=[f'g{s}' for s in scene], fold=(scene // 2 % 5 + 1).astype(np.int8))
    return pl.DataFrame(table | {f'f{i}': x[:, i] for i in range(30)}), [f'f{i}' for i in range(30)]


def test_permuted_labels_200_draws():
    "Grouped folds: nothing to learn. Row-wise folds: the leak shows."
    rows, columns = planted(np.random.default_rng(0))
    grouped, by_row = (permutation_aucs(rows, columns, 200, g).mean() for g in (True, False))
    assert abs(grouped - 0.5) < 0.04, grouped
    assert by_row > grouped + 0.15, (grouped, by_row)
