"""What a page shows of a detector in use: two videos as files, their moments, what counts in it, and the proof that it was loaded whole."""
import json
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from fvc.core.config import compose
from fvc.core.registry import spec_of
from fvc.core.workspace import Workspace
from fvc.learning.blocks import answer
from fvc.learning.clips import ClipInput
from fvc.learning.detector import Detector, Member, build, inputs_of
from fvc.learning.examples import Examples
from fvc.learning.feature_models import boosted_trees, importance
from fvc.learning.fitting import file_settings
from fvc.learning.inference import over_time, try_out, unlike_pair, yardstick
from fvc.learning.run_scores import SoftVote
from fvc.learning.runs import Run
from fvc.running.experiment import run_fold
from fvc.scores.tasks import Task
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SMALL = 'split.n_splits=2 experiment.mlflow=false training.epochs=1 data.frames=4 data.size=32 data.variants=1 '


@pytest.fixture(scope='module')
def place(corpus): return Workspace(corpus)


@pytest.fixture(scope='module')
def network(place): return run_fold('naive_cnn', 1, str(place), SMALL + 'profile=small data.span=0.3 data.views=3')


def row_of(place, detector, number=0):
    rows = ClipInput().rows(place, detector.cfg).filter(variant='original')
    return rows.with_columns(label=pl.lit(0)).row(number, named=True)


def test_a_frame_of_a_network_that_looks_at_frames_has_its_own_score(place, network):
    "The mean over frames of one window is the window's logit, and each frame's moment is that frame's sigmoid."
    detector = Run(place, network.run).detector(1)
    row = row_of(place, detector)
    found = over_time(detector, row, most=99)
    examples = Examples(pl.DataFrame([row]), inputs_of(detector.spec), place, detector.cfg, views=True)
    with torch.inference_mode():
        windows = [examples[i][0]['clip'] for i in range(3)]
        each = [[answer(detector.members[0].network, dict(clip=w[None, :, k:k + 1])).sigmoid().item() for k in range(4)] for w in windows]
        whole = [answer(detector.members[0].network, dict(clip=w[None])).sigmoid().item() for w in windows]
    assert [w['score'] for w in found['windows']] == pytest.approx(whole, abs=1e-6) and len(set(whole)) == 3
    said = {round(f['score'], 6) for f in found['frames']}
    assert said <= {round(s, 6) for part in each for s in part} and len(said) > 8
    assert [f['score'] for f in found['frames'][:4]] == pytest.approx(each[0], abs=1e-6), 'in the order of time'
    times = [f['time'] for f in found['frames']]
    assert times == sorted(set(times)) and found['windows'][0]['start'] == times[0] and found['windows'][-1]['end'] == times[-1]


def test_so_many_moments_spread_over_all_windows(place, network):
    detector = Run(place, network.run).detector(1)
    row = row_of(place, detector)
    all_of_them, few = (over_time(detector, row, most=n)['frames'] for n in (99, 5))
    assert len(few) == 5 and few[0] == pytest.approx(all_of_them[0]) and few[-1] == pytest.approx(all_of_them[-1])


def test_a_short_video_has_each_of_its_frames_once(place):
    cfg = compose('naive_cnn', 'data.frames=32 data.size=32', corpus=place.made_with())
    detector = Detector(spec_of('naive_cnn'), cfg, Task(), [Member(spec_of('naive_cnn').make(task=Task()))], place=place)
    row = row_of(place, detector)
    found = over_time(detector, row, most=99)
    assert found['windows'] == [] and len(found['frames']) == row['clip.frames'] < 32


def test_trees_on_what_a_network_says_have_moments(place):
    "Each is the trees' score of the embedding of a clip of one frame."
    words = 'model.backbone=test_resnet pretrained=false model.trees=5 profile=small data.size=64'
    result = run_fold('xgboost_pretrained_inception', 1, str(place), SMALL.replace('data.size=32', words))
    detector = Run(place, result.run).detector(1)
    row = row_of(place, detector)
    clip = Examples(pl.DataFrame([row]), inputs_of(detector.spec), place, detector.cfg)[0][0]['clip']
    with torch.inference_mode(): said = [answer(detector.members[0].network, dict(clip=clip[None, :, k:k + 1]), 'embed').numpy() for k in range(4)]
    by_hand = [detector.members[0].estimator.predict_proba(e)[0, 1] for e in said]
    assert [f['score'] for f in over_time(detector, row)['frames']] == pytest.approx(by_hand, abs=1e-6)
    assert yardstick(detector) == '50 to 200 ms (trees on embeddings)' and importance(detector) is None


def test_trees_on_a_run_that_was_needed_have_moments_by_its_networks(place):
    "The mean over members, each on what its own inner network says of the frame; the clip is the network's, not the trees'."
    spec, members = spec_of('vit_gru'), []
    own = compose(spec, saved=dict(spec.tiny), corpus=place.made_with())
    trees = compose('xgboost_vit_gru', 'data.frames=2', corpus=place.made_with())
    for seed in (0, 1):
        network = build(spec, replace(own, training=replace(own.training, seed=seed)), Task()).eval()
        estimator = boosted_trees(5, 2, 0.5, 1.0, seed).fit(np.random.default_rng(seed).normal(size=(40, 32)), np.arange(40) % 2)
        members.append(Member(estimator=estimator, source=Detector(spec, own, Task(), [Member(network)], place=place)))
    detector = Detector(spec_of('xgboost_vit_gru'), trees, Task(), members, about=dict(tables=file_settings(trees, [3])), place=place)
    row = row_of(place, detector)
    clip = Examples(pl.DataFrame([row]), inputs_of(spec), place, own)[0][0]['clip']
    still = dict(clip=clip[None, :, 2:3].expand(-1, -1, 4, -1, -1))
    with torch.inference_mode(): said = [m.estimator.predict_proba(answer(m.source.members[0].network, still, 'embed').numpy())[0, 1] for m in members]
    found = over_time(detector, row)['frames']
    assert len(found) == 4 and said[0] != said[1] and found[2]['score'] == pytest.approx(np.mean(said), abs=1e-6)
    assert yardstick(detector) == '50 to 200 ms (trees on embeddings)' and try_out(detector, pl.DataFrame([row]), {row['video_id']: 'gone.mp4'})['device'] == 'cpu'


def test_a_page_shows_the_detector_in_use(place, network):
    said = json.loads((network.folder / 'inference.json').read_text())
    rows = {r['video_id']: r for r in network.predictions.iter_rows(named=True)}
    assert len(said['videos']) == 2 and said['videos'][0]['truth'] != said['videos'][1]['truth'] and said['device'] == 'cpu'
    for video in said['videos']:
        row = rows[video['video_id']]
        assert video['reason'] is None and place.file(video['path']).is_file() and video['ms'] > 0
        assert video['score_of_row'] == pytest.approx(row['score'], abs=1e-6) == video['score']
        assert video['decision'] == Task().name(row['decision']) and video['truth'] == Task().name(row['label'])
    assert said['reloaded']['rows'] == min(8, len(rows)) and said['reloaded']['off'] <= 1e-6
    page = network._repr_html_()
    assert f"Run(Workspace.find(data), &#x27;{network.run}&#x27;).detector(1).score_paths([&#x27;{said['videos'][0]['path']}&#x27;" in page
    assert '100 to 500 ms on a GPU (networks)' in page and 'single frames held still' in page and 'No importance of columns' in page
    assert len(re.findall(r'^[\w.]+=', re.findall('<pre>(.*?)</pre>', page, re.S)[-1], re.M)) > 60, 'every setting'
    assert f'data.span={network.config["data"]["span"]}\n' in page


@pytest.mark.parametrize('model, words, unit', [('logistic_regression', '', 'log-odds'), ('gradient_boosting', '', 'gain'), ('svm', 'model.kernel=linear', 'calibration'), ('svm', '', None)])
def test_a_page_of_a_table_model_shows_what_counts(place, model, words, unit):
    result = run_fold(model, 1, str(place), f'split.n_splits=2 experiment.mlflow=false {words}')
    detector, page = Run(place, result.run).detector(1), result._repr_html_()
    assert 'No moments are shown' in page and 'less than 10 ms (baselines)' in page
    assert (result.folder / 'plots' / 'importance.png').is_file() == (unit is not None) == ('No importance of columns' not in page)
    if unit is None: return
    said, table = importance(detector)
    assert unit in said and table['column'].to_list() == inputs_of(detector.spec)[0].columns(detector.cfg)
    if model == 'gradient_boosting':
        booster, names = detector.members[0].estimator.get_booster(), table['column'].to_list()
        gain = {names[int(f[1:])]: g for f, g in booster.get_score(importance_type='gain').items()}
        weights = dict(table.select('column', 'weight').iter_rows())
        assert max(gain, key=gain.get) == max(weights, key=weights.get) and {c for c, w in weights.items() if w > 0} == set(gain)


def stacked(estimator, task, runs=('a', 'b')):
    return Detector(spec_of('ensemble'), compose('ensemble'), task, [Member(estimator=estimator)], needed=dict.fromkeys(runs, object()))


def test_a_stack_and_a_vote_say_what_each_member_counts():
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 2)), np.arange(60) % 2
    x[:, 1] += y
    unit, table = importance(stacked(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), Task()))
    assert table['column'].to_list() == ['a', 'b'] and abs(table['weight'][1]) > 3 * abs(table['weight'][0]) and 'log-odds' in unit
    unit, table = importance(stacked(SoftVote(1).fit(x, y), Task()))
    assert unit == 'share of the vote' and table['weight'].to_list() == [0.5, 0.5]


def test_a_member_of_an_ensemble_counts_for_each_label():
    task = Task('multilabel', ('dent', 'scratch'))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (80, 2))
    x = np.hstack([rng.random((80, 2)), y + 0.3 * rng.random((80, 2))])
    unit, table = importance(stacked(make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())).fit(x, y), task))
    assert table['column'].to_list() == ['a: dent', 'a: scratch', 'b: dent', 'b: scratch'] * 2
    best = {o: part['column'][part['weight'].abs().arg_max()] for (o,), part in table.group_by('output')}
    assert best == {'dent': 'b: dent', 'scratch': 'b: scratch'}
    _, table = importance(stacked(SoftVote(2).fit(x, y), task))
    assert table.drop_nulls('weight').select('column', 'output', 'weight').rows() == [('a: dent', 'dent', 0.5), ('b: dent', 'dent', 0.5), ('a: scratch', 'scratch', 0.5), ('b: scratch', 'scratch', 0.5)]
    assert yardstick(stacked(SoftVote(2), task)) == 'as much as its members take together'


@pytest.mark.parametrize('labels, places', [([0, 0, 1], [0, 2]), ([1, 1], [0, 1]), ([1], [0]), ([[0, 1], [0, 1], [1, 1]], [0, 2])])
def test_the_two_videos_are_unlike_where_they_can_be(labels, places):
    assert unlike_pair(pl.DataFrame(dict(label=labels, at=range(len(labels)))))['at'].to_list() == places


def test_a_file_that_cannot_be_read_is_shown_with_its_reason(place, network):
    detector = Run(place, network.run).detector(1)
    rows = ClipInput().rows(place, detector.cfg).filter(variant='original').with_columns(label=pl.lit(1))[:2]
    said = try_out(detector, rows, dict(zip(rows['video_id'], ['nowhere.mp4', place.read_index()['path'][0]])))
    assert said['videos'][0]['score'] is None and 'nowhere.mp4' in said['videos'][0]['reason'] and 0 < said['videos'][0]['score_of_row'] < 1
