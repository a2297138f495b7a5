"""Networks in time: the publisher's weights, under the publisher's names, give the publisher's logits; and what else several of them promise."""
import numpy as np
import pytest
import torch
from pytorchvideo.models import hub
from torch import nn
from torch.nn.functional import linear

from fvc.core.config import compose
from fvc.core.registry import spec_of
from fvc.learning.detector import build
from fvc.learning.weights import KINETICS_FILES, MissingWeights
from fvc.scores.tasks import Task

CLASSES = Task('multiclass', tuple(f'action {k}' for k in range(400)))
PUBLISHED = {'i3d': ('i3d_r50', hub.i3d_r50, 8), 'r2plus1d': ('r2plus1d_r50', lambda: hub.r2plus1d_r50(head_activation=None), 16),
             'x3d': ('x3d_m', lambda: hub.x3d_m(head_activation=None), 16), 'slowfast': ('slowfast_r50', hub.slowfast_r50, 32)}  # name in FVC_WEIGHTS, network, frames
FROM_KINETICS = {**{name: weights for name, (weights, _, _) in PUBLISHED.items()}, 'slowfast_attention': 'slowfast_r50', 'slowfast_multiscale': 'slowfast_r50',
                 'xgboost_i3d': 'i3d_r50', 'xgboost_r2plus1d': 'r2plus1d_r50'}
NETWORKS = [name for name in FROM_KINETICS if not name.startswith('xgboost')]


def strong(network):
    "Weights strong enough that a wrong step would show: std 1.5 / sqrt(fan in), biases 0.3, statistics away from 0 and 1."
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.ndim > 1: p.normal_(0, 1.5 / p[0].numel() ** 0.5, generator=generator)
            elif name.endswith('bias'): p.normal_(0, 0.3, generator=generator)
            else: p.uniform_(0.5, 1.5, generator=generator)
        for name, b in network.named_buffers():
            if name.endswith('running_mean'): b.normal_(0, 0.3, generator=generator)
            if name.endswith('running_var'): b.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def pathways(clip):
    "A clip as the publisher packs it for SlowFast."
    slow = torch.index_select(clip, 2, torch.linspace(0, clip.shape[2] - 1, clip.shape[2] // 4).long())
    return [slow, clip]


@pytest.fixture
def publish(tmp_path, monkeypatch):
    "Write a network's tensors as the publisher does, into the folder of one's own."
    monkeypatch.setenv('FVC_WEIGHTS', str(tmp_path))
    def write(name, network): torch.save({'model_state': network.state_dict()}, tmp_path / f'{name}.pyth')
    return write


def made(name, task=CLASSES, words='', **given):
    spec = spec_of(name)
    found = build(spec, compose(spec, words, saved=given.get('saved')), task)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize('name', list(PUBLISHED))
def test_published_weights_give_the_published_logits(name, publish):
    weights, theirs, frames = PUBLISHED[name]
    reference = strong(theirs())
    publish(weights, reference)
    network = made(name).eval()
    assert network.origin.startswith(f'FVC_WEIGHTS, {weights}.pyth, sha256 ')
    network.head[1].load_state_dict(reference.blocks[-1].proj.state_dict())
    clip = torch.rand(1, 3, frames, 224, 224, generator=torch.Generator().manual_seed(1))
    def wanted(clip):
        normal = (clip - 0.45) / 0.225
        return reference(pathways(normal) if name == 'slowfast' else normal)
    with torch.inference_mode(): ours, right, wrong = network(clip), wanted(clip), wanted(clip.flip(2))
    scale = right.abs().max()
    assert ours.shape == right.shape and right.std() > 0.1
    assert (ours - right).abs().max() < 1e-4 * scale
    assert (ours - wrong).abs().max() > 1e-3 * scale  # another order of frames would show


def test_slow_frames_are_those_of_the_published_network(publish):
    "Every fourth frame instead would be seen."
    reference = strong(hub.slowfast_r50())
    publish('slowfast_r50', reference)
    network = made('slowfast').eval()
    network.head[1].load_state_dict(reference.blocks[-1].proj.state_dict())
    clip = torch.rand(1, 3, 32, 224, 224, generator=torch.Generator().manual_seed(1))
    normal = (clip - 0.45) / 0.225
    with torch.inference_mode(): assert (network(clip) - reference([normal[:, :, ::4], normal])).abs().max() > 1e-2


def test_the_other_users_of_slowfast_start_from_its_weights(publish):
    reference = strong(hub.slowfast_r50())
    publish('slowfast_r50', reference)
    wanted = reference.state_dict()
    for name, trunks in (('slowfast_attention', ['backbone.']), ('slowfast_multiscale', ['backbone.0.'])):
        state = made(name, Task()).state_dict()
        for trunk in trunks:
            for key in ('blocks.0.multipathway_fusion.conv_fast_to_slow.weight', 'blocks.4.multipathway_blocks.1.res_blocks.2.branch2.norm_c.running_var'):
                assert torch.equal(state[trunk + key], wanted[key]), (name, key)
    own = made('slowfast_multiscale', Task(), 'model.shared=false').state_dict()
    key = 'blocks.2.multipathway_blocks.0.res_blocks.0.branch2.conv_b.weight'
    assert all(torch.equal(own[f'backbone.{i}.{key}'], wanted[key]) for i in range(3))


@pytest.mark.parametrize('size', ['XS', 'S', 'M', 'L'])
def test_each_size_of_x3d_has_weights_of_its_own(size, publish):
    reference = getattr(hub, f'x3d_{size.lower()}')()
    publish(f'x3d_{size.lower()}', reference)
    network = made('x3d', Task(), [] if size == 'M' else [f'variant={size.lower()}'])
    assert network.origin.startswith(f'FVC_WEIGHTS, x3d_{size.lower()}.pyth')
    assert torch.equal(network.backbone.blocks[3].res_blocks[2].branch2.conv_b.weight, reference.blocks[3].res_blocks[2].branch2.conv_b.weight)
    assert network.checkpointing == (size == 'L')


@pytest.mark.parametrize('name', list(FROM_KINETICS))
def test_absent_weights_are_named(name, tmp_path, monkeypatch):
    def offline(*args, **kwargs): raise OSError('no network')
    monkeypatch.setenv('FVC_WEIGHTS', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr('urllib.request.urlopen', offline)
    weights = FROM_KINETICS[name]
    with pytest.raises(MissingWeights, match=f"{weights}.*{KINETICS_FILES[weights]} .no network.*FVC_WEIGHTS.*pretrained=false"): made(name, Task())


@pytest.mark.parametrize('name', NETWORKS)
def test_too_small_clips_are_refused_in_words(name):
    network = made(name, Task(), saved=dict(spec_of(name).tiny))
    with pytest.raises(ValueError, match='at least . frames of 33x33 px'): network(torch.rand(1, 3, 4, 32, 64))
    assert torch.isfinite(network.train()(torch.rand(1, 3, 4, 33, 33))).all()  # a batch of one at the least size can be trained on
    if name in ('i3d', 'slowfast_attention', 'slowfast_multiscale'):
        with pytest.raises(ValueError, match='at least [24] frames'): network(torch.rand(1, 3, 1, 64, 64))


@pytest.mark.parametrize('name, words, what', [
    ('slowfast', 'model.alpha=8', 'alpha=8'), ('slowfast_attention', 'model.alpha=2', 'alpha=2'), ('slowfast_multiscale', 'model.alpha=2', 'alpha=2'),
    ('x3d', 'model.depth=1.0', 'model.depth=1.0'), ('x3d', 'model.width=1.0', 'model.width=1.0'), ('x3d', 'model.size=XXL', 'X3D comes in XS, S, M, L'), ('slowfast_multiscale', 'model.rates=[0]', 'model.rates'),
    ('slowfast_attention', 'model.heads=3 pretrained=false', 'model.heads=3'), ('slowfast', 'model.beta=3 pretrained=false', 'beta=3')])
def test_options_without_published_weights_are_refused(name, words, what):
    with pytest.raises(ValueError, match=what.replace('[', r'\[')): made(name, Task(), words)


OPTIONS = [('i3d', 'width', 4, 8), ('r2plus1d', 'width', 4, 8), ('slowfast', 'width', 8, 16), ('slowfast', 'alpha', 2, 4), ('slowfast', 'beta', 4, 2),
           ('slowfast_attention', 'attention', 32, 16), ('slowfast_attention', 'heads', 2, 4), ('slowfast_attention', 'alpha', 2, 1),
           ('slowfast_multiscale', 'rates', [1, 2], [1]), ('slowfast_multiscale', 'shared', True, False), ('x3d', 'depth', 1.0, 1.5), ('x3d', 'width', 1.0, 2.0), ('x3d', 'size', 'M', 'L')]


@pytest.mark.parametrize('name, option, one, other', OPTIONS, ids=lambda x: str(x))
def test_every_option_changes_the_network(name, option, one, other):
    clip, said = torch.rand(1, 3, 8, 48, 48, generator=torch.Generator().manual_seed(0)), []
    for value in (one, other):
        tiny = {k: v for k, v in spec_of(name).tiny.items() if not (option == 'size' and k == 'model.depth')}
        network = made(name, Task(), saved=tiny | {f'model.{option}': value}).eval()
        with torch.inference_mode(): said.append(network.embed(clip))
    assert said[0].shape != said[1].shape or (said[0] - said[1]).abs().max() > 1e-5


def test_dropout_is_before_the_head():
    for name in NETWORKS:
        network = made(name, Task(), saved=dict(spec_of(name).tiny) | {'model.dropout': 0.2})
        drops = [m for m in network.modules() if isinstance(m, nn.Dropout) and m.p]
        assert [m.p for m in drops] == [0.2] and drops[0] is network.head[0], name
        features = torch.rand(2, network.head[1].in_features)
        assert torch.allclose(network.eval().head(features), linear(features, network.head[1].weight, network.head[1].bias))


def test_two_streams_take_as_many_fields_as_they_were_built_for():
    network = spec_of('two_stream').make(task=Task(), shapes=dict(flow=(2, 4, 64, 64)), backbone='test_resnet', pretrained=False).eval()
    with pytest.raises(ValueError, match='built for 4 flow fields and got 5: data.frames'): network(torch.rand(1, 3, 4, 64, 64), torch.rand(1, 2, 5, 64, 64))


def test_motion_starts_from_the_filters_of_pictures(publish, tmp_path):
    "Each of the twenty channels has the mean over colours of the published filter."
    import timm
    reference = timm.create_model('test_resnet')
    torch.save(reference.state_dict(), tmp_path / 'test_resnet.pth')
    network = spec_of('two_stream').make(task=Task(), shapes=dict(flow=(2, 10, 64, 64)), backbone='test_resnet')
    def first(net): return next(m for m in net.modules() if isinstance(m, nn.Conv2d)).weight
    assert network.origin.startswith('FVC_WEIGHTS, test_resnet.pth')
    assert torch.equal(first(network.appearance), first(reference)) and torch.equal(first(network.motion), first(reference).mean(1, keepdim=True).expand(-1, 20, -1, -1))


def test_checkpointing_of_x3d_keeps_less():
    clip, kept = torch.rand(1, 3, 4, 64, 64), []
    for checkpointing in (False, True):
        network, sizes = made('x3d', Task(), saved=dict(spec_of('x3d').tiny) | {'model.checkpointing': checkpointing}).train(), []
        def keep(tensor):
            sizes.append(tensor.numel())
            return tensor
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t): network(clip)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2, kept


def test_attention_adds_to_the_trunk():
    "Where what is heard is nothing, the network is SlowFast."
    network = made('slowfast_attention', Task(), saved=dict(spec_of('slowfast_attention').tiny)).eval()
    for asks in (network.slow_asks, network.fast_asks): nn.init.zeros_(asks.out.weight), nn.init.zeros_(asks.out.bias)
    clip = torch.rand(2, 3, 4, 64, 64)
    with torch.inference_mode(): assert torch.allclose(network.embed(clip), network.backbone(network.normalize(clip)), atol=1e-6)


@pytest.mark.parametrize('option, value', [('trees', 5), ('depth', 1), ('learning_rate', 0.3), ('column_share', 0.9), ('seed', 7)])
@pytest.mark.parametrize('name', ['xgboost_i3d', 'xgboost_r2plus1d'])
def test_every_option_changes_the_trees(name, option, value):
    rng = np.random.default_rng(0)
    x, said = rng.normal(size=(60, 12)), []
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
    for given in ({}, {option: value}):
        network, trees = spec_of(name).make(task=Task(), pretrained=False, **{'trees': 30} | given)
        said.append(trees.fit(x, y).predict_proba(x))
    assert network is None and np.abs(said[0] - said[1]).max() > 1e-3
