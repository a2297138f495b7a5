"""Inner parts of the real corpus look like the folds that are reported: as many videos a group, both classes, every event whole."""
from collections import Counter

import numpy as np
import pytest
from fvc.core.table import read_table
from fvc.corpus.splits import holdout_split, kfold_split
from fvc.stages.setup import setup


@pytest.fixture(scope='module')
def folds(shared, tmp_path_factory):
    "The fold table of the real metadata, without any video."
    source = shared / 'fvc_metadata'
    if not (source / 'FVC.csv').is_file():
        pytest.skip(f'{source} is absent: the corpus is described there')
    place = tmp_path_factory.mktemp('metadata') / 'work'
    setup(source, str(place), 'stages.setup.metadata_only=true')
    return read_table(place / 'folds.arrow')


def sizes(videos, group):
    "Videos of each group."
    return np.array(list(Counter(group[v] for v in videos).values()))


def test_inner_parts_look_like_folds(folds):
    group, fake = (dict(folds.select('video_id', column).iter_rows()) for column in ('group', 'label'))
    means = [sizes(part['video_id'], group).mean() for _, part in folds.group_by('fold')]
    assert len(means) == 5
    for split in (*(kfold_split(folds, fold) for fold in range(6)), holdout_split(folds)):
        outer = means if 'folds' in split.rule or split.rule.startswith('fold') else [sizes(split.train, group).mean()]
        assert len(split.inner) == 5, split.rule
        shares = []
        for part in split.inner:
            assert 0.18 <= len(part) / len(split.train) <= 0.22, split.rule
            shares.append(len(sizes(part, group)) / len(sizes(split.train, group)))
            assert 0.9 * min(outer) <= sizes(part, group).mean() <= 1.1 * max(outer), (split.rule, sizes(part, group).mean(), outer)
            assert abs(np.mean([fake[v] for v in part]) - np.mean([fake[v] for v in split.train])) < 0.03
        assert 0.17 <= min(shares) and max(shares) <= 0.22, (split.rule, shares)


def test_a_held_out_part_has_events_of_every_size(folds):
    "Seventy, fifteen and fifteen of a hundred videos, of as many videos an event, as many of them fake."
    group, fake = (dict(folds.select('video_id', column).iter_rows()) for column in ('group', 'label'))
    whole, share, largest = sizes(folds['video_id'], group).mean(), folds['label'].mean(), set()
    for seed in range(6):
        split = holdout_split(folds, seed=seed)
        for part, due in zip((split.train, split.val, split.test), (0.7, 0.15, 0.15)):
            assert abs(len(part) / len(folds) - due) < 0.01, (seed, len(part) / len(folds))
            assert abs(sizes(part, group).mean() / whole - 1) < 0.15, (seed, sizes(part, group).mean(), whole)
            assert abs(np.mean([fake[v] for v in part]) - share) < 0.03
        largest.add(int(np.argmax([max(sizes(part, group)) for part in (split.train, split.val, split.test)])))
    assert len(largest) > 1, 'the largest event is not always trained on'


def test_no_event_is_divided_between_inner_parts(folds):
    group = dict(folds.select('video_id', 'group').iter_rows())
    for fold in range(6):
        split = kfold_split(folds, fold)
        assert sum(len({group[v] for v in part}) for part in split.inner) == len({group[v] for v in split.train})
        assert sorted(v for part in split.inner for v in part) == sorted(split.train)
        for j in range(1, 6):
            fitted, chosen = split.fit_on(j)
            assert not {group[v] for v in fitted} & {group[v] for v in chosen} and len(fitted) + len(chosen) == len(split.train)


def test_a_cut_inside_the_training_videos_of_a_part(folds):
    split = kfold_split(folds, 2)
    fitted, chosen = split.fit_on(1)
    inside = split.within(folds, fitted)
    group = dict(folds.select('video_id', 'group').iter_rows())
    assert inside.train == fitted and not inside.val and len(inside.inner) == 2
    assert all(0.45 < len(part) / len(fitted) < 0.55 for part in inside.inner)
    assert not {group[v] for v in inside.inner[0]} & {group[v] for v in inside.inner[1]}
