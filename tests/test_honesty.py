"""Leak tripwires: what must never reach a fitted model, and what must never be built."""
import shutil
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from conftest import write_clip
from fvc.core.workspace import Workspace
from fvc.learning.rows import feature_columns, load_rows
from fvc.running.experiment import make_split, run_fold
from fvc.evidence.floors import permutation_aucs
from fvc.video.frames import pick_frames
from fvc.corpus.near_duplicates import FINGERPRINT, fingerprint, near_duplicate_pairs
from fvc.core.registry import spec_of
from fvc.learning.runs import resolve
from fvc.corpus.scenes import encode
from fvc.corpus.splits import LeakageError, Split, cut_folds
from fvc.stages.setup import setup
from fvc.core.table import StaleConfiguration, read_table, table_metadata, write_table

WORDS = 'profile=small split.n_splits=2 experiment.mlflow=false data.frames=2 data.size=32 training.epochs=2'
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
    from fvc.learning.estimators import load_estimator
    model = load_estimator(folder)
    impute, collinear, scale, fitted = (model[k] for k in range(4))
    return dict(coef=fitted.coef_, mean=scale.mean_, scale=scale.scale_, median=impute.statistics_, kept=np.array(collinear.kept_))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('model, words', [('logistic_regression', TABLE), ('naive_cnn', WORDS)])
def test_labels_of_the_validation_fold_change_no_weight(copy, model, words):
    before = run_fold(model, 1, str(copy), words)
    old = weights(before)
    thresholds = before.facts['thresholds']
    shutil.rmtree(copy / 'stage5')
    flip = (pl.col('fold') == 1)
    rewrite(copy / 'folds.arrow', lambda t: t.with_columns(label=pl.when(flip).then(1 - pl.col('label')).otherwise('label')))
    after = run_fold(model, 1, str(copy), words)
    assert same(old, weights(after)) and after.facts['thresholds'] == thresholds
    assert after.metrics['val_auc_by_video'] == pytest.approx(1 - before.metrics['val_auc_by_video'])


def test_poisoned_validation_features_change_nothing_fitted(copy):
    before = run_fold('logistic_regression', 1, str(copy), TABLE)
    old, thresholds, scores = weights(before), before.facts['thresholds'], before.predictions['score']
    shutil.rmtree(copy / 'stage5')
    held = read_table(copy / 'folds.arrow').filter(pl.col('fold') == 1)['video_id'].to_list()
    for stage in (2, 4):
        poison = [pl.when(pl.col('video_id').is_in(held)).then(1e9).otherwise(c).alias(c) for c in feature_columns(stage)]
        rewrite(Workspace(copy).table(stage), lambda t: t.with_columns(poison))
    after = run_fold('logistic_regression', 1, str(copy), TABLE)
    assert same(old, weights(after)) and after.facts['thresholds'] == thresholds
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


def test_a_re_encoded_copy_across_folds_raises(copy):
    "Half the size, encoded anew, in another cascade: no column of any table tells, only the frames do."
    folds = read_table(copy / 'folds.arrow')
    index = read_table(copy / 'video_index_input.csv')
    known = read_table(copy / 'videos' / 'fingerprints.arrow').filter(pl.col('hashes').list.len() > 3)  # not a night sky
    rows = index.filter(pl.col('status') == 'ok', pl.col('video_id').is_in(known['video_id'])).join(folds.select('video_id', 'fold'), on='video_id')
    one, two = (rows.filter(pl.col('fold') == k).row(0, named=True) for k in (1, 2))
    assert not set(one['cascades'].split(';')) & set(two['cascades'].split(';')) and one['group'] != two['group']
    planted = copy / 'planted.mp4'
    frames = pick_frames(copy / one['path'], indices=lambda shown: np.arange(len(shown)), size=lambda w, h: (w // 4 * 2, h // 4 * 2)).images
    encode(str(planted), frames, Fraction(one['fps']).limit_denominator(1001), crf=26)
    prints = [dict(video_id=r['video_id'], **fingerprint(path)) for r, path in ((one, copy / one['path']), (two, planted))]
    pairs = near_duplicate_pairs(pl.DataFrame(prints, schema=dict(video_id=pl.String) | FINGERPRINT))
    assert len(pairs) == 1
    listed = pl.read_csv(copy / 'near_duplicates.csv', infer_schema=False).select('video_a', 'video_b')
    pl.concat([listed, pairs.select('video_a', 'video_b')]).write_csv(copy / 'near_duplicates.csv')
    both = {one['video_id'], two['video_id']}
    own = copy / 'own.csv'
    folds.select('video_id', part=pl.when(pl.col('fold') == 1).then(pl.lit('val')).otherwise(pl.lit('train'))).write_csv(own)
    for words in (TABLE, f'{TABLE} split.kind=file split.file={own}'):
        with pytest.raises(LeakageError, match='near-duplicates') as e:
            make_split(resolve(spec_of('logistic_regression'), words), Workspace(copy), 1)
        assert all(f"'{v}'" in str(e.value) for v in both)
    listed.write_csv(copy / 'near_duplicates.csv')
    assert make_split(resolve(spec_of('logistic_regression'), TABLE), Workspace(copy), 1), 'without the planted pair the split stands'


def test_a_group_in_two_folds_raises(copy):
    first = read_table(copy / 'folds.arrow')['video_id'][0]
    move = pl.when(pl.col('video_id') == first).then(3 - pl.col('fold')).otherwise('fold').cast(pl.Int8)
    rewrite(copy / 'folds.arrow', lambda t: t.with_columns(fold=move))
    with pytest.raises(ValueError, match='group|Group'):
        make_split(resolve(spec_of('logistic_regression'), TABLE), Workspace(copy), 1)


def test_deleting_five_videos_moves_no_fold(tmp_path):
    "Stage 0 run again on the source without five of its videos: the others keep their fold, where a fresh cut would move them."
    source, place, words = tmp_path / 'source', tmp_path / 'work', 'split.n_splits=3 stages.setup.near_duplicates=false'
    for i in range(24):
        write_clip(source / ('real', 'fake')[i % 2] / f'{i:02}.mp4', i, frames=2, size=(32, 32))
    setup(source, str(place), words)
    stored, cut = read_table(place / 'folds.arrow'), table_metadata(place / 'folds.arrow')
    assert stored.height == 24 and stored['fold'].n_unique() == 3
    gone = stored.sort('fold', 'video_id')['video_id'].gather(range(0, 20, 4)).to_list()
    for video_id in gone:
        next(source.rglob(f'{video_id.partition("__")[2]}.mp4')).unlink()
    index = setup(source, str(place), words)
    assert set(index['video_id']) == set(stored['video_id']) - set(gone), 'the index speaks of what is there'
    now = read_table(place / 'folds.arrow')
    assert now.equals(stored) and table_metadata(place / 'folds.arrow') == cut
    fresh = cut_folds(index, 3).join(stored, on='video_id', suffix='_stored')
    assert fresh.height == 19 and fresh.filter(pl.col('fold') != pl.col('fold_stored')).height > 0, 'a fresh cut is what would have moved them'
    write_clip(source / 'fake' / '99.mp4', 99, frames=2, size=(32, 32))
    setup(source, str(place), words)
    grown = read_table(place / 'folds.arrow')
    assert grown.filter(pl.col('video_id') != 'fake__99').equals(stored) and grown.height == 25
    setup(source, str(place), words + ' stages.setup.recut=true')
    anew = read_table(place / 'folds.arrow')
    assert set(anew['video_id']) == set(stored['video_id']) - set(gone) | {'fake__99'}, 'only who asks gets new folds'


def test_a_split_of_ones_own_is_checked_like_any_other(copy):
    folds = read_table(copy / 'folds.arrow').sort('fold', 'video_id')
    groups = sorted(set(folds['group']))
    mine = {g: ('train', 'train', 'train', 'train', 'val', 'val')[i % 6] for i, g in enumerate(groups)}
    members = {part: tuple(v for v, g in folds.select('video_id', 'group').iter_rows() if mine[g] == part) for part in set(mine.values())}
    result = run_fold('logistic_regression', 1, str(copy), TABLE + ' experiment.name=mine', Split(**members))
    assert set(result.predictions['video_id']) == set(members['val']) & set(load_rows(Workspace(copy), 2)['video_id'])
    moved = dict(members, train=members['train'][1:], val=members['val'] + members['train'][:1])
    with pytest.raises(LeakageError):
        run_fold('logistic_regression', 1, str(copy), TABLE + ' experiment.name=moved', Split(**moved))
    inner = make_split(resolve(spec_of('logistic_regression'), TABLE), Workspace(copy), 1, Split(**members)).inner
    other = dict(members, inner=inner[::-1])  # the same videos, chosen by in another order
    with pytest.raises(StaleConfiguration, match='another split'):
        run_fold('logistic_regression', 1, str(copy), TABLE + ' experiment.name=mine', Split(**other))
    group = dict(folds.select('video_id', 'group').iter_rows())
    many = next(v for v in inner[0] if sum(group[w] == group[v] for w in inner[0]) > 1)
    torn = dict(members, inner=([v for v in inner[0] if v != many], [*inner[1], many], *inner[2:]))
    with pytest.raises(LeakageError, match='share the group'):
        run_fold('logistic_regression', 1, str(copy), TABLE + ' experiment.name=torn', Split(**torn))


def test_without_the_fold_table_nothing_is_served(copy):
    (copy / 'folds.arrow').unlink()
    with pytest.raises(FileNotFoundError, match='stage 0'):
        load_rows(Workspace(copy), 3)


def test_only_originals_are_scored_and_copies_are_trained_on(copy):
    result = run_fold('logistic_regression', 1, str(copy), TABLE)
    assert set(result.predictions['variant']) == {'original'}
    held = read_table(copy / 'folds.arrow').filter(pl.col('fold') == 1)
    ok = set(load_rows(Workspace(copy), 2)['video_id'])
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
