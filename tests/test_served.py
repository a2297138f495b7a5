"""What models are served: rows with the labels of the fold table alone, inputs, transforms of known pictures, one draw an example, windows."""
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from conftest import write_clip
from fvc.core.config import compose
from fvc.core.table import read_table, table_metadata, write_table
from fvc.core.workspace import Workspace
from fvc.learning.clips import ClipInput
from fvc.learning.examples import Examples
from fvc.learning.fitting import file_settings
from fvc.learning.inputs import FeaturesInput, ImageInput, Input, NewFile, join_inputs
from fvc.learning.rows import labelled, load_rows, ok_rows
from fvc.learning.transforms import Draw
from fvc.scores.intervals import permuted_folds
from fvc.video.probe import VideoError


@pytest.fixture
def place(corpus, tmp_path):
    "A copy of the corpus's tables; videos are linked."
    for name in ('folds.arrow', 'corpus.json', 'features_stage2', 'features_stage4'):
        (shutil.copytree if (corpus / name).is_dir() else shutil.copy)(corpus / name, tmp_path / name)
    return Workspace(tmp_path)


def rewrite(path, change): write_table(change(read_table(path)), path, table_metadata(path))


def test_a_label_in_the_table_of_a_stage_is_not_believed(place):
    wanted = load_rows(place, 2)
    rewrite(place.table(2), lambda t: t.with_columns(label=pl.lit(1, pl.Int8), group=pl.lit('one'), fold=pl.lit(1, pl.Int8)))
    assert not {'label', 'group', 'fold'} & set(ok_rows(place, 2).columns)
    assert load_rows(place, 2).select(wanted.columns).equals(wanted) and wanted['label'].n_unique() == 2


def test_labels_dealt_by_chance_are_those_of_the_seed(place):
    rows, folds = ok_rows(place, 2), place.read_folds().with_columns(group=pl.col('video_id'))
    write_table(folds, place.folds, table_metadata(place.folds))
    served = {seed: labelled(rows, place, 'here', seed)['label'].to_list() for seed in (None, 0, 1, 2)}
    assert len({tuple(s) for s in served.values()}) == 4
    for seed in (0, 1, 2):
        dealt = dict(permuted_folds(folds, seed).select('video_id', 'label').iter_rows())
        assert served[seed] == [dealt[v] for v in rows['video_id'] if v in dealt]


def test_features_that_were_measured_anew_are_other_rows(place):
    cfg = compose('logistic_regression', corpus=place.made_with())
    before = FeaturesInput().rows(place, cfg)
    rewrite(place.table(4), lambda t: t.with_columns(source_hash=pl.lit('another')))
    after = FeaturesInput().rows(place, cfg)
    assert (before['features.lineage4'] != after['features.lineage4']).all() and before['features.lineage2'].equals(after['features.lineage2'])


class Nothing(FeaturesInput):
    name = 'nothing'

    def rows(self, place, cfg, **given): return pl.DataFrame(dict(video_id=['elsewhere'], variant=['original']))


def test_inputs_without_a_row_in_common_are_refused(place):
    with pytest.raises(ValueError, match='no row has all inputs .features has [0-9]+, nothing has 1.: run the stages'):
        join_inputs([FeaturesInput(), Nothing()], place, compose('logistic_regression', corpus=place.made_with()))


def test_a_new_file_is_measured_in_the_order_of_the_columns(corpus, tmp_path, monkeypatch):
    "Whatever order the measurements come in."
    from fvc.learning import inputs
    measure = inputs.measure
    monkeypatch.setattr(inputs, 'measure', lambda *given: dict(reversed(measure(*given).items())))
    cfg = compose('logistic_regression', 'variant=stage2', corpus=Workspace(corpus).made_with())
    settings = file_settings(cfg, [2])
    found = FeaturesInput().new_row(NewFile(write_clip(tmp_path / 'new.mp4', 1), settings, tmp_path), cfg)
    assert list(found) == FeaturesInput().columns(cfg)


def test_a_new_file_is_not_scaled_in_another_way_than_the_table(corpus, tmp_path):
    settings = file_settings(compose(corpus=Workspace(corpus).made_with()), [3])['3']
    file = write_clip(tmp_path / 'new.mp4', 1)
    assert NewFile(file, {'3': settings}, tmp_path).scaled[0].is_file()
    with pytest.raises(VideoError, match="not scaled by method='autoencoder'"): NewFile(file, {'3': dict(settings, method='autoencoder')}, tmp_path).scaled


def test_photographs_are_transformed_in_training(tmp_path):
    import cv2
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    cfg, row = compose('naive_cnn', 'data.size=32'), {'image.path': str(tmp_path / 'a.png')}
    draw = Draw('a', transforms=dict(hflip=dict(p=1.0)))
    plain, turned = (ImageInput().read(row, (None, cfg, {}), d)['image'] for d in (None, draw))
    assert torch.equal(turned, plain.flip(-1)) and not torch.equal(turned, plain)


BOARD = torch.zeros(3, 1, 40, 80, dtype=torch.uint8)
BOARD[..., 10:30, 20:60] = 255


def test_a_turned_mask_has_no_values_between():
    turned = [Draw(seed, transforms=dict(rotation=dict(p=1.0, degrees=30.0))).apply(BOARD[:1].clone(), 'mask') for seed in range(5)]
    assert all(set(t.unique().tolist()) == {0, 255} for t in turned) and not all(torch.equal(t, BOARD[:1]) for t in turned)


def test_a_wide_picture_is_turned_and_not_sheared():
    "A disc stays a disc, whatever the picture's ratio."
    y, x = np.mgrid[:48, :144]
    disc = torch.from_numpy((((x - 71.5)**2 + (y - 23.5)**2) < 20**2) * np.uint8(255)).expand(3, 1, 48, 144)
    for seed in range(5):
        turned = Draw(seed, transforms=dict(rotation=dict(p=1.0, degrees=40.0))).apply(disc.clone())
        assert (turned.int() - disc.int()).abs().float().mean() < 3


def test_every_transform_has_a_draw_of_its_own():
    transforms = dict(hflip=dict(p=0.5), rotation=dict(p=0.5, degrees=30.0))
    seen = set()
    for seed in range(40):
        one, two = (Draw(seed, transforms={n: transforms[n]}).apply(BOARD[:, :, :, :50]) for n in transforms)
        seen.add((torch.equal(one, BOARD[:, :, :, :50]), torch.equal(two, BOARD[:, :, :, :50])))
    assert len(seen) == 4, 'both, none, and each alone'


def rows_of(path, variants=('original',), frames=36):
    return pl.DataFrame([{'video_id': 'v', 'variant': v, 'clip.path': str(path), 'clip.width': 64, 'clip.height': 48, 'clip.frames': frames, 'clip.duration': frames / 12}
                         for v in variants])


def test_copies_of_a_video_are_transformed_unlike(tmp_path):
    rows = rows_of(write_clip(tmp_path / 'a.mp4', 1), ('original', *(f'copy_{i}' for i in range(7))), 12)
    cfg = compose('naive_cnn', 'data.frames=2 data.size=32 augment.brightness.p=1.0')
    examples = Examples(rows, [ClipInput()], None, cfg, train=True)
    clips = [examples[i][0]['clip'].numpy().tobytes() for i in range(8)]
    assert len(set(clips)) == 8
    plain = Examples(rows, [ClipInput()], None, cfg)
    assert len({plain[i][0]['clip'].numpy().tobytes() for i in range(8)}) == 1, 'not when they are scored'


class Stills(Input):
    "One window, whatever the row."
    name = 'stills'

    def read(self, row, state, draw=None, view=None): return dict(still=torch.zeros(1))


@pytest.mark.parametrize('inputs', [(Stills, ClipInput), (ClipInput, Stills), (ClipInput,)], ids=lambda i: '+'.join(c.name for c in i))
def test_windows_of_a_video_are_examples_and_unlike(tmp_path, inputs):
    cfg = compose('naive_cnn', 'data.frames=2 data.size=32 data.span=1.0')
    examples = Examples(rows_of(write_clip(tmp_path / 'a.mp4', 1, frames=36)), [c() for c in inputs], None, cfg, views=True)
    at = inputs.index(ClipInput)
    for turn in range(2):  # decoded, and from the cache
        clips = [examples[i][at]['clip'].numpy().tobytes() for i in range(len(examples))]
        assert len(examples) == 3 and len(set(clips)) == 3
