"""Permuted labels, the floor: dealt to whole groups by a seed, of which 0 is one like any other."""
import numpy as np
import polars as pl
import pytest
from fvc.running.experiment import make_split
from fvc.learning.fitting import gather
from fvc.learning.rows import feature_columns
from fvc.scores.intervals import permuted_folds
from fvc.core.registry import spec_of
from fvc.learning.runs import resolve
from fvc.corpus.splits import kfold_split
from fvc.core.files import write_json
from fvc.core.table import write_table
from fvc.core.workspace import FORMAT, Workspace

SEEDS = (None, 0, 1, 2)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "Twenty groups of three videos in two folds, each video with a copy."
    place, group = Workspace(tmp_path_factory.mktemp('permuted')), np.repeat(np.arange(20), 3)
    rows = pl.DataFrame(dict(video_id=[f'v{i:02}' for i in range(60)], group=[f'g{g}' for g in group],
                             label=(group // 2 % 2).astype(np.int8), fold=(group % 2 + 1).astype(np.int8)))
    write_table(rows, place.folds, {})
    write_table(rows.select('video_id', sha256=pl.col('video_id')), place.index)
    copies = pl.concat([rows.select('video_id', variant=pl.lit(v), status=pl.lit('ok')) for v in ('original', 'flip')])
    write_table(copies.with_columns(pl.lit(0.5).alias(c) for c in feature_columns(2)), place.table(2), {})
    write_json(place.corpus, dict(format=FORMAT))
    return place, rows


@pytest.fixture(scope='module')
def settings():
    spec = spec_of('logistic_regression')
    return {s: resolve(spec, 'split.n_splits=2 variant=stage2' + ('' if s is None else f' data.permuted={s}')) for s in SEEDS}


def labels(rows):
    return dict(rows.select('video_id', 'label').iter_rows())


def test_every_seed_permutes_the_labels_of_the_rows(place, settings):
    place, true = place
    served = {s: gather(spec_of('logistic_regression'), cfg, place, make_split(cfg, place, 1)).rows for s, cfg in settings.items()}
    assert labels(served[None]) == labels(true), 'without a seed the labels are the true ones'
    for seed in SEEDS[1:]:
        assert labels(served[seed]) == labels(permuted_folds(true, seed)) != labels(true), seed
        assert served[seed].group_by('group').agg(pl.col('label').n_unique())['label'].max() == 1, 'a group and its copies have one label'
        assert served[seed].drop('label').equals(served[None].drop('label').select(served[seed].drop('label').columns)), 'rows keep their order'
    assert len({tuple(served[s]['label']) for s in SEEDS}) == len(SEEDS)


def test_inner_validation_of_a_permuted_run_is_cut_by_the_dealt_labels(place, settings):
    "The true labels, which the run never sees, have no part in it."
    place, true = place
    cuts = {}
    for seed, cfg in settings.items():
        known = true if seed is None else permuted_folds(true, seed)
        cuts[seed] = [make_split(cfg, place, fold).inner for fold in (1, 2)]
        assert cuts[seed] == [kfold_split(known, fold, cfg.split.seed).inner for fold in (1, 2)]
        for part in (part for inner in cuts[seed] for part in inner):
            assert {labels(known)[v] for v in part} == {0, 1}
    assert all(cuts[seed] != cuts[None] for seed in SEEDS[1:]), 'else the true labels would have done'
    assert {len(inner) for seed in SEEDS for inner in cuts[seed]} <= {2, 3, 4, 5}


def test_permuted_labels_have_as_many_inner_parts_as_their_groups_allow():
    "Eight groups in two folds: what is left to train on has two groups of each class, and so two parts."
    rows = pl.DataFrame(dict(video_id=[f'v{i:02}' for i in range(24)], group=[f'g{i // 3}' for i in range(24)],
                             label=[i // 3 % 2 for i in range(24)], fold=[i // 12 + 1 for i in range(24)]))
    for seed in range(5):
        dealt = permuted_folds(rows, seed)
        for fold in (1, 2):
            split = kfold_split(dealt, fold)
            assert len(split.inner) == 2 and split.rule == f'fold {fold} of 2, 2 inner parts'
            assert all({labels(dealt)[v] for v in part} == {0, 1} for part in split.inner)
