"""The check of every model sees what it promises: each toy breaks one thing."""
from dataclasses import replace

import pytest
import torch
from fvc.core import registry
from fvc.core.config import compose
from fvc.core.registry import Clip, Spec, all_specs, spec_of
from fvc.core.workspace import Workspace
from fvc.learning import checks
from fvc.learning.blocks import step_memory
from fvc.learning.checks import check_model, list_models
from fvc.learning.detector import build
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


NETWORKS = [spec.name for spec in all_specs() if spec.kind == 'network' and spec.build.__module__.startswith('fvc.models.')]


@pytest.mark.parametrize('name', NETWORKS)
def test_a_step_with_the_papers_settings_fits_a_gpu_of_16_gb(name):
    "With a quarter left for what a calculation does not see: kernels' workspaces, fragments, other losses."
    known = spec_of(name)
    assert 0 < checks._step_gib(known, checks.TASKS[known.serves[0]]) < 12


def test_a_step_of_more_clips_takes_more():
    x3d = spec_of('x3d')
    eight = checks._step_gib(x3d, checks.TASKS['binary'])
    two = checks._step_gib(replace(x3d, defaults=x3d.defaults | {'training.batch_size': 2}), checks.TASKS['binary'])
    assert eight > 3.5 * two > 3


def test_a_calculation_agrees_with_a_real_step():
    known, task = spec_of('vivit'), checks.TASKS['binary']
    def made(**options): return build(known, compose(known, saved=dict(known.tiny, **options)), task)
    batch, _ = checks._batch(known, compose(known, saved=dict(known.tiny)), task, 2)
    kept = {checkpointing: step_memory(made(**{'model.checkpointing': checkpointing}), batch) for checkpointing in (False, True)}
    with torch.device('meta'): network = made(**{'model.checkpointing': False})
    assert step_memory(network, {k: v.to('meta') for k, v in batch.items()}) == pytest.approx(kept[False], rel=0.1), 'attention keeps a little more where it has no kernel of its own'
    assert kept[True]['states'] == kept[False]['states'] and kept[True]['activations'] < kept[False]['activations'] / 2


class Curious(Large):
    "Looks at the numbers of what it is shown."
    def forward(self, clip): return super().forward(clip) * (1 if clip.mean() > 0 else 2)


def test_a_network_that_looks_at_numbers_has_no_calculation():
    assert check_model(spec(Curious))['step_gib'] is None and check_model(spec(Large))['step_gib'] is not None
