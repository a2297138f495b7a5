"""The check of every model sees what it promises: each toy breaks one thing."""
import pytest
import torch
from fvc.core import registry
from fvc.core.registry import Clip, Spec
from fvc.core.workspace import Workspace
from fvc.learning import checks
from fvc.learning.checks import check_model, list_models
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn


class Large(nn.Module):
    "Tells its examples apart by every pixel."
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3 * 2 * 64, 64), nn.Linear(64, 1)

    def forward(self, clip): return self.head(torch.relu(self.body(nn.functional.adaptive_avg_pool3d(clip, (2, 8, 8)).flatten(1) * 20 - 10)))


class Dead(Large):
    "A part whose gradients are all zero."
    def __init__(self):
        super().__init__()
        self.dead = nn.Linear(1, 1)

    def forward(self, clip): return super().forward(clip) + 0 * self.dead(clip.mean((1, 2, 3, 4))[:, None])


class Forgetful(Large):
    "A part that is no parameter and is not kept."
    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, clip):
        if self.training: self.asked = 1.0
        return super().forward(clip) + self.asked


class Blind(nn.Module):
    "Sees the mean of a clip alone, which is the same of all noise."
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 1)

    def forward(self, clip):
        Blind.trained += self.training
        return self.head(clip.mean((1, 2, 3, 4))[:, None])


class Wordless(Large):
    "Refuses a size without saying which one it takes."
    def forward(self, clip):
        if clip.shape[-1] % 2: raise ValueError('not this size')
        return super().forward(clip)


def spec(build, **fields): return Spec(build.__name__.lower(), lambda: build(), clip=Clip(2, 16), serves=('binary',), tiny={'data.frames': 2, 'data.size': 16}, **fields)


def test_a_sound_network_passes_and_says_how_soon():
    seen = check_model(spec(Large))
    assert 5 <= seen['steps'] <= 200


@pytest.mark.parametrize('build, why', [(Dead, 'no gradient reaches dead'), (Forgetful, 'other scores after saving and loading'), (Wordless, 'without saying which size')])
def test_a_network_that_breaks_one_thing_is_named(build, why):
    with pytest.raises(AssertionError, match=why): check_model(spec(build))


def test_the_steps_that_are_allowed_are_counted():
    for steps in (3, 7):
        Blind.trained = 0
        with pytest.raises(AssertionError, match=f'after {steps} steps'): check_model(spec(Blind), steps=steps)
        assert Blind.trained == steps


MODULE = '''
from fvc.core.registry import register_model, Clip
from torch import nn
import torch

class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(384, 64), nn.Linear(64, 1)

    def forward(self, clip):
        with open({log!r}, 'a') as f: f.write('x')
        return self.head(torch.relu(self.body(nn.functional.adaptive_avg_pool3d(clip, (2, 8, 8)).flatten(1) * {gain} - 10)))

@register_model('remembered', clip=Clip(2, 16), serves=('binary',), tiny={{'data.frames': 2, 'data.size': 16}})
def remembered(): return Large()
'''


def test_what_was_checked_is_remembered_until_the_code_changes(tmp_path, monkeypatch):
    (tmp_path / 'w').mkdir()
    Workspace(tmp_path / 'w').index.touch()
    monkeypatch.setattr(registry, '_models', dict(registry._models))
    monkeypatch.setenv('FVC_USE', '')
    log, asked = tmp_path / 'log', []
    for k, gain in enumerate((20, 20, 21)):
        registry._models.pop('remembered', None)
        module = tmp_path / f'own_{k}.py'
        module.write_text(MODULE.format(log=str(log), gain=gain))
        registry.use(module)
        seen = check_model(registry.spec_of('remembered'), str(tmp_path / 'w'))
        asked.append(log.stat().st_size)
        assert seen['steps'] >= 5 and seen['parameters'] == 24705
    assert 0 < asked[0] == asked[1] < asked[2], 'the same code is looked at once, another code again'
    check_model(registry.spec_of('remembered'))
    assert log.stat().st_size > asked[2], 'without a workspace nothing is remembered'


def test_an_estimator_that_tells_nothing_apart_is_named():
    def build(): return DummyClassifier(strategy='most_frequent')
    with pytest.raises(AssertionError, match='does not separate rows that differ'):
        check_model(Spec('dummy', build, kind='estimator', inputs=('features',), serves=('binary',)))


def test_models_are_listed_by_the_task_they_serve(monkeypatch):
    def one(): return LogisticRegression()
    both = [Spec('two_kinds', one, kind='estimator', inputs=('features',), serves=('binary', 'multiclass')), Spec('one_kind', one, kind='estimator', inputs=('features',), serves=('binary',))]
    monkeypatch.setattr(checks, 'all_specs', lambda: both)
    assert [m['name'] for m in list_models('multiclass')] == ['two_kinds'] and len(list_models('binary')) == len(list_models()) == 2
