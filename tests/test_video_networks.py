"""Networks in time: the publisher's weights, under the publisher's names, give the publisher's logits."""
import pytest
import torch
from torch import nn

from fvc.core.config import compose
from fvc.core.registry import spec_of
from fvc.learning.blocks import count_parameters
from fvc.learning.weights import MissingWeights
from fvc.scores.tasks import Task

CLASSES = Task('multiclass', tuple(f'action {k}' for k in range(400)))


def strong(network, seed=0):
    "Weights strong enough that a wrong step would show: std 1.5 / sqrt(fan in), running statistics away from 0 and 1."
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.ndim > 1: p.normal_(0, 1.5 / p[0].numel() ** 0.5, generator=generator)
            elif name.endswith('bias'): p.normal_(0, 0.3, generator=generator)
            else: p.uniform_(0.5, 1.5, generator=generator)
        for name, b in network.named_buffers():
            if name.endswith('running_mean'): b.normal_(0, 0.3, generator=generator)
            if name.endswith('running_var'): b.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def theirs(name):
    "The publisher's network, without softmax."
    from pytorchvideo.models import hub
    return {'i3d': lambda: hub.i3d_r50(), 'r2plus1d': lambda: hub.r2plus1d_r50(head_activation=None)}[name]()


FILES = {'i3d': 'i3d_r50', 'r2plus1d': 'r2plus1d_r50'}
FRAMES = {'i3d': 8, 'r2plus1d': 16}


@pytest.fixture
def published(tmp_path, monkeypatch):
    "Write a network's tensors as the publisher does, into the folder of one's own."
    monkeypatch.setenv('FVC_WEIGHTS', str(tmp_path))
    def write(name, network): torch.save({'model_state': network.state_dict()}, tmp_path / f'{name}.pyth')
    return write


def same_logits(network, reference, clip, feed=lambda clip: clip):
    "The largest difference of logits, relative to their size; the head is the reference's own classifier."
    network.head[1].load_state_dict(reference.blocks[-1].proj.state_dict())
    with torch.inference_mode():
        ours, wanted = network.eval()(clip), reference(feed((clip - 0.45) / 0.225))
    assert ours.shape == wanted.shape and wanted.std() > 0.1
    return ((ours - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize('name', list(FILES))
def test_published_weights_give_the_published_logits(name, published):
    reference = strong(theirs(name))
    published(FILES[name], reference)
    network = spec_of(name).make(task=CLASSES, shapes={}, dropout=0.5, pretrained=True)
    assert network.origin.startswith(f'FVC_WEIGHTS, {FILES[name]}.pyth, sha256 ')
    clip = torch.rand(1, 3, FRAMES[name], 224, 224, generator=torch.Generator().manual_seed(1))
    assert same_logits(network, reference, clip) < 1e-4
    assert same_logits(network, reference, clip, lambda c: c.flip(2)) > 1e-3  # another order of frames would show


@pytest.mark.parametrize('name', list(FILES))
def test_absent_weights_are_named(name, tmp_path, monkeypatch):
    monkeypatch.setenv('FVC_WEIGHTS', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda *a, **k: (_ for _ in ()).throw(OSError('no network')))
    with pytest.raises(MissingWeights, match=f'{FILES[name]}.*pytorchvideo/model_zoo.*FVC_WEIGHTS.*pretrained=false'):
        spec_of(name).make(task=Task(), shapes={})
    assert compose(spec_of(name)).pretrained is None  # null: as the paper does


@pytest.mark.parametrize('name', list(FILES))
def test_too_small_clips_are_refused_in_words(name):
    network = spec_of(name).make(task=Task(), shapes={}, pretrained=False, **{k.removeprefix('model.'): v for k, v in spec_of(name).tiny.items() if k.startswith('model.')})
    with pytest.raises(ValueError, match='at least . frames of 33x33 px'): network(torch.rand(1, 3, 4, 32, 64))
    network.train()(torch.rand(1, 3, 4, 33, 33))  # a batch of one at the least size can be trained on
