"""Networks on frames: published weights give their publisher's answers, videos keep their shape, filling has no say, and a part that is joined counts."""
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from conftest import write_clip
from fvc.core.config import ConfigError, compose
from fvc.core.registry import spec_of
from fvc.core.workspace import Workspace
from fvc.corpus.splits import Split
from fvc.learning.blocks import answer
from fvc.learning.checks import check_model
from fvc.learning.clips import ClipInput
from fvc.learning.detector import build, load_detector
from fvc.learning.examples import Examples, make_loader
from fvc.learning.fitting import inner_parts
from fvc.learning.run_scores import member_scores
from fvc.learning.runs import Run
from fvc.learning.weights import MissingWeights
from fvc.models.ensemble import ensemble
from fvc.models.pretrained_inception import pretrained_inception
from fvc.running.experiment import run_fold
from fvc.scores.tasks import Task


def strong(network, seed=0):
    "Weights that let nothing be overlooked: of standard deviation 1.5 over the root of what comes in, biases and statistics of 0.3."
    torch.manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.dtype != torch.float32: continue
        if value.ndim > 1: value.normal_(0, 1.5 / math.sqrt(value[0].numel()))
        elif name.endswith('running_var'): value.uniform_(0.5, 1.5)
        else: value.normal_(1.0 if name.endswith('bn.weight') else 0.0, 0.3)
    return network.eval()


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    "torchvision's Inception-v3, and a folder with its weights as they are published."
    theirs = strong(torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False))
    folder = tmp_path_factory.mktemp('weights')
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, folder / 'inception_v3.safetensors')
    return theirs, folder


def test_inception_gives_what_torchvision_gives(published, monkeypatch):
    theirs, folder = published
    monkeypatch.setenv('FVC_WEIGHTS', str(folder))
    ours = pretrained_inception(Task()).eval()
    assert 'FVC_WEIGHTS, inception_v3.safetensors, sha256' in ours.origin
    frames = torch.rand(2, 3, 107, 139)
    with torch.inference_mode():
        logits = theirs.fc(ours.backbone(frames))
        expected = theirs((frames - 0.5) / 0.5)
    assert expected.std() > 0.1
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_frames_stay_in_their_places(published, monkeypatch):
    "The series that the blocks over time read is that of the frames, one by one."
    theirs, folder = published
    monkeypatch.setenv('FVC_WEIGHTS', str(folder))
    ours, seen = pretrained_inception(Task(), width=8).eval(), []
    ours.blocks[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    clip = torch.rand(2, 3, 3, 80, 75)
    with torch.inference_mode():
        ours(clip)
        each = torch.stack([torch.stack([ours.backbone(clip[n, :, t][None])[0] for t in range(3)], 1) for n in range(2)])
    assert (seen[0] - each).abs().max() < 1e-4 * each.abs().max()


def test_absent_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_HOME', str(tmp_path))
    monkeypatch.delenv('FVC_WEIGHTS', raising=False)
    import huggingface_hub.constants as constants
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(MissingWeights, match='inception_v3.*timm/inception_v3.*pretrained=false'): pretrained_inception(Task())


def test_small_frames_are_refused_in_words():
    with pytest.raises(ValueError, match='frames of 74x90 px are too small: at least 75 px'): pretrained_inception(Task(), pretrained=False)(torch.rand(1, 3, 2, 90, 74))


def test_a_frozen_network_stays_as_it_was():
    model = pretrained_inception(Task(), 'test_resnet', pretrained=False, frozen=True, width=16).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model(torch.rand(4, 3, 4, 64, 64)).sum().backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and not any(k.startswith('backbone.') for k in changed)


def test_embedding_follows_the_order_of_frames():
    torch.manual_seed(0)
    model = pretrained_inception(Task(), 'test_resnet', pretrained=False, width=16).eval()
    clip = torch.rand(2, 3, 6, 64, 64)
    with torch.inference_mode():
        said, shuffled = model.embed(clip), model.embed(clip[:, :, [3, 0, 5, 1, 4, 2]])
        assert torch.equal(model.head(said), model(clip))
    assert said.shape == (2, 16) and (said - shuffled).abs().max() > 1e-3


# Videos in their own shape

SHAPES = [(96, 54), (54, 96), (80, 80), (120, 50)]  # width, height


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    "Rows of four videos without any black edge."
    folder, rows = tmp_path_factory.mktemp('videos'), []
    for seed, (width, height) in enumerate(SHAPES):
        path = write_clip(folder / f'{seed}.mp4', seed, size=(width, height))
        rows.append({'video_id': f'v{seed}', 'variant': 'original', 'label': seed % 2, 'clip.path': str(path), 'clip.width': width, 'clip.height': height, 'clip.frames': 12, 'clip.duration': 1.0})
    return pl.DataFrame(rows)


def batches(videos, words, batch_size=4):
    cfg = compose('variable_ar_cnn', f'data.size=64 data.frames=4 {words}')
    return list(make_loader(Examples(videos, [ClipInput()], None, cfg), batch_size))


def test_a_clip_has_the_shape_of_its_video_and_no_bar(videos):
    seen = {}
    for batch in batches(videos, ''):
        assert 'mask' not in batch
        for row, clip in zip(batch['row'].tolist(), batch['clip']): seen[row] = clip
    for row, (width, height) in enumerate(SHAPES):
        clip = seen[row].float()
        assert max(clip.shape[-2:]) == 64 and abs(clip.shape[-1] - clip.shape[-2] * width / height) <= 1
        for edge in (clip[..., 0, :], clip[..., -1, :], clip[..., :, 0], clip[..., :, -1]): assert edge.mean() > 40 and edge.std() > 5


def test_batches_are_of_one_shape_or_filled_up(videos):
    assert sorted(len(b['row']) for b in batches(videos, '')) == [1, 1, 1, 1]
    whole, = batches(videos, 'data.pad_batches=true')
    assert whole['clip'].shape == (4, 3, 4, 64, 64) and whole['mask'].shape == (4, 4, 64, 64)
    assert [round(m.float().mean().item() * 64 * 64) for m in whole['mask']] == [64 * 36, 36 * 64, 64 * 64, 64 * 27]


def test_a_video_scores_in_a_filled_batch_as_alone(videos):
    torch.manual_seed(0)
    network = build(spec_of('variable_ar_cnn'), compose('variable_ar_cnn', 'data.size=64 data.frames=4'), Task()).eval()
    with torch.inference_mode():
        alone = {b['row'].item(): answer(network, b).item() for b in batches(videos, '')}
        whole, = batches(videos, 'data.pad_batches=true')
        among = answer(network, whole)[:, 0].tolist()
    assert np.ptp(among) > 1e-4
    assert max(abs(alone[row] - among[k]) for k, row in enumerate(whole['row'].tolist())) < 1e-6


def test_the_network_asks_for_its_own_shape():
    assert compose('variable_ar_cnn').data.fit == 'own' and compose('variable_ar_cnn', 'profile=small').data.fit == 'own'


# Fusion

@pytest.mark.parametrize('network', ['x3d', 'naive_cnn', 'variable_ar_cnn', 'pretrained_inception'])
def test_the_network_brings_its_settings(network):
    for profile in ('paper', 'small'):
        own, joined = (compose(model, f'profile={profile} {more}').to_dict() for model, more in ((network, ''), ('fusion', f'model.network={network}')))
        assert own['data'] == joined['data'] and own['optim'] == joined['optim'] and own['training'] == joined['training']
        differing = {k: v for k, v in own['model'].items() if v != compose(network).to_dict()['model'][k]}
        assert joined['model']['network_options'] == differing


def test_what_is_typed_beats_what_the_network_brings():
    cfg = compose('fusion', 'profile=small model.network_options={dropout:0.1} data.frames=6 optim.lr=0.5')
    assert cfg.model.network_options == {'depth': 1.0, 'width': 1.0, 'dropout': 0.1} and (cfg.data.frames, cfg.optim.lr) == (6, 0.5)
    assert compose('fusion', 'profile=small model.network_options.depth=1.5').model.network_options == {'depth': 1.5, 'width': 1.0}
    again = compose('fusion', saved=cfg.to_dict())
    assert again.to_dict() == cfg.to_dict() and again.hash() == cfg.hash()


def joined(words, **changed):
    "Logits of a small fusion, and what it is made of."
    cfg = compose('fusion', f'pretrained=false data.frames=4 data.size=48 {words}')
    network = build(spec_of('fusion'), cfg, Task()).eval()
    torch.manual_seed(1)
    batch = dict(clip=torch.rand(2, 3, 4, 48, 48), features=torch.randn(2, network.measured[0].in_features)) | changed
    with torch.inference_mode(): return answer(network, batch), network


@pytest.mark.parametrize('join', ['concatenation', 'gate', 'film'])
def test_both_sides_count(join):
    words = f'model.network=naive_cnn model.join={join}'
    said, network = joined(words)
    assert not torch.allclose(said, joined(words, features=torch.zeros(2, network.measured[0].in_features))[0], atol=1e-6)
    assert not torch.allclose(said, joined(words, clip=torch.zeros(2, 3, 4, 48, 48))[0], atol=1e-6)


def test_a_network_that_heeds_a_mask_gets_it():
    mask = torch.ones(2, 4, 48, 48, dtype=torch.bool)
    mask[:, :, 24:] = False
    words = 'model.network=variable_ar_cnn'
    assert not torch.allclose(joined(words, mask=mask)[0], joined(words)[0], atol=1e-6)
    assert torch.equal(joined('model.network=naive_cnn', mask=mask)[0], joined('model.network=naive_cnn')[0])


@pytest.mark.parametrize('words, error, why', [
    ('model.network=svm', ValueError, 'no network that sees clips alone'), ('model.network=fusion', ValueError, 'no network that sees clips alone'),
    ('model.network_options={dpth:1.0}', ConfigError, "did you mean 'model.depth'"), ('model.network=x3dd', KeyError, "did you mean 'x3d'"), ('model.join=sum', ValueError, 'choose one of concatenation, gate, film')])
def test_what_cannot_be_joined_is_refused(words, error, why):
    with pytest.raises(error, match=why): joined(words)


@pytest.mark.parametrize('model, words', [('fusion', 'model.join=film'), ('fusion', 'model.join=concatenation'), ('pretrained_inception', 'model.blocks=1'), ('variable_ar_cnn', 'model.blocks=3')])
def test_options_pass_the_check(model, words):
    "The check of every model, at its tiny size, with another option."
    key, value = words.split('=')
    spec = spec_of(model)
    assert check_model(replace(spec, tiny={**spec.tiny, key: int(value) if value.isdigit() else value}))['steps'] <= 200


# Ensemble

@pytest.fixture(scope='module')
def members(corpus):
    "A workspace whose fold 1 two table models and a network have been trained on."
    place = Workspace(corpus)
    for model in ('logistic_regression@stage2', 'gradient_boosting'):
        name, _, variant = model.partition('@')
        run_fold(name, 1, str(place), f"split.n_splits=2 experiment.mlflow=false variant='{variant}'")
    run_fold('naive_cnn', 1, str(place), 'split.n_splits=2 experiment.mlflow=false training.epochs=1 experiment.name=brief training.inner_folds=2')
    return place


TWO = 'split.n_splits=2 experiment.mlflow=false model.members=[logistic_regression@stage2,gradient_boosting]'


def test_a_vote_is_the_mean_of_what_the_members_report(members):
    result = run_fold('ensemble', 1, str(members), TWO)
    runs = [Run(members, name).fold(1).predictions for name in ('logistic_regression@stage2', 'gradient_boosting')]
    mean = {v: np.mean([dict(r.select('video_id', 'score').rows())[v] for r in runs]) for v in runs[0]['video_id']}
    assert {v: pytest.approx(s) for v, s in result.predictions.select('video_id', 'score').rows()} == mean


def test_a_stack_learns_from_inner_scores_alone(members):
    "Reported scores, whatever they are, change no weight; each inner score counts."
    result = run_fold('ensemble', 1, str(members), f'{TWO} model.method=stacking experiment.name=stack')
    stack = load_detector(result.folder / 'model', members, lambda run, fold, inner: Run(members, run).detector(fold, inner)).members[0].estimator
    rows = member_scores([Run(members, name) for name in ('logistic_regression@stage2', 'gradient_boosting')], 1)
    inner = rows.filter(pl.col('video_id').is_in(Split.from_json((result.folder / 'split.json').read_text()).train))
    label = dict(members.read_folds().select('video_id', 'label').rows())
    x = inner.select('scores.gradient_boosting', 'scores.logistic_regression@stage2').to_numpy()
    again = ensemble(Task(), ['a', 'b'], 'stacking').fit(x, np.array([label[v] for v in inner['video_id']]))
    assert np.allclose(again[-1].coef_, stack[-1].coef_)


def test_an_ensemble_scores_a_new_file_as_its_members_do(members):
    detector = Run(members, 'ensemble@stack').detector(1)
    row = members.read_index().filter(pl.col('status') == 'ok').row(0, named=True)
    said = detector.score_paths([members.file(row['path'])]).row(0, named=True)
    each = {name: Run(members, name).detector(1).score_paths([members.file(row['path'])])['score'][0] for name in ('logistic_regression@stage2', 'gradient_boosting')}
    x = np.array([[each['gradient_boosting'], each['logistic_regression@stage2']]])
    assert said['reason'] is None and said['score'] == pytest.approx(detector.members[0].estimator.predict_proba(x)[0, 1], abs=1e-9)


def test_members_that_scored_other_parts_are_joined(members):
    "A network that scored two inner parts leaves the rows of these."
    runs = [Run(members, name) for name in ('gradient_boosting', 'naive_cnn@brief')]
    rows = member_scores(runs, 1)
    each = [pl.concat([run.predictions('inner'), run.predictions()], how='diagonal_relaxed')['video_id'].to_list() for run in runs]
    assert set(rows['video_id']) == set(each[0]) & set(each[1])


@pytest.mark.parametrize('words, why', [('model.members=[svm]', 'name two runs or more'), ('model.members=[svm,svm]', 'each once'), ('model.method=sum', 'choose vote or stacking')])
def test_an_ensemble_of_nothing_is_refused(words, why):
    with pytest.raises(ValueError, match=why): build(spec_of('ensemble'), compose('ensemble', words), Task())


def test_a_member_that_is_not_trained_is_named(members):
    with pytest.raises(FileNotFoundError, match='the run svm is needed, and its fold 1 is not finished: fvc train svm'):
        run_fold('ensemble', 1, str(members), 'split.n_splits=2 model.members=[gradient_boosting,svm]')


class Part:
    "What `inner_parts` reads of a fit, with forty events of which some were scored."
    spec = spec_of('ensemble')

    def __init__(self, scored):
        videos = [f'v{i}' for i in range(40)]
        self.split = Split(tuple(videos), (), inner=tuple(tuple(videos[i::4]) for i in range(4)), rule='toy')
        chosen = [v for i in scored for v in videos[i::4]]
        self.rows = pl.DataFrame(dict(video_id=chosen, variant=['original'] * len(chosen), group=chosen, label=[int(v[1:]) // 4 % 2 for v in chosen]))


@pytest.mark.parametrize('scored', [(0, 1, 2, 3), (1, 3), (2,)])
def test_what_is_fitted_on_scores_is_judged_by_other_scores(scored):
    parts = inner_parts(Part(scored))
    assert list(parts) == ([i + 1 for i in scored] if len(scored) > 1 else [1, 2])
    for fitted, held in parts.values(): assert len(fitted) and len(held) and not set(fitted['group']) & set(held['group'])
    assert sorted(v for _, held in parts.values() for v in held['video_id']) == sorted(Part(scored).rows['video_id'])


def test_too_few_events_are_said():
    part = Part((2,))
    part.rows = part.rows.with_columns(group=pl.lit('g'))
    with pytest.raises(ValueError, match='training.inner_folds=2 or more'): inner_parts(part)
