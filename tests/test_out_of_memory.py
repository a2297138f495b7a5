"""Out of memory: a run halves its batches, goes on, says so, and a resumed one knows; injected where a GPU raises it."""
import json
import warnings

import pytest
import torch
from fvc.core.config import OptimConfig, TrainConfig
from fvc.core.registry import spec_of
from fvc.core.workspace import Workspace
from fvc.evidence.report import trained_on
from fvc.learning import detector, training
from fvc.learning.blocks import Head, answer
from fvc.learning.checkpoints import CheckpointManager
from fvc.learning.clips import ClipInput
from fvc.learning.detector import Detector, Member, build
from fvc.learning.runs import resolve
from fvc.learning.tracking import ExperimentTracker
from fvc.learning.training import fit_with_tracking
from fvc.running.experiment import run_fold
from fvc.scores.tasks import Task
from torch.utils.data import DataLoader


class Memory:
    "A device that holds so many examples at once, and notes how many it was given."
    def __init__(self, room): self.room, self.given = room, []

    def __call__(self, network, batch, method='forward'):
        found = answer(network, batch, method)
        self.given.append(len(found))
        if len(found) > self.room: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
        return found


@pytest.fixture
def memory(monkeypatch):
    found = Memory(99)
    for module in (training, detector): monkeypatch.setattr(module, 'answer', found)
    warnings.filterwarnings('ignore', 'out of memory')
    return found


def network():
    torch.manual_seed(0)
    net = torch.nn.Module()
    net.body, net.head = torch.nn.Linear(6, 5), Head(5, 1)
    net.forward = lambda x: net.head(net.body(x).tanh())
    return net


def examples(seed, n):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return [dict(x=v, label=(v[:1] > 0).float()) for v in x]


def trained(folder, loss=None, epochs=4):
    tracker, checkpoints = ExperimentTracker(folder), CheckpointManager(folder / 'c')
    loader = DataLoader(examples(1, 19), 8, shuffle=True, generator=torch.Generator().manual_seed(2))
    result = fit_with_tracking(net := network(), loader, DataLoader(examples(3, 6), 6), OptimConfig(name='sgd', lr=0.3), TrainConfig(epochs=epochs, patience=0, accumulate=2, device='cpu'),
                               tracker, checkpoints, loss)
    return net, result.fit_result, tracker.frame(), checkpoints


def test_a_run_out_of_memory_ends_with_the_weights_of_one_that_was_not(tmp_path, memory):
    wide, _, plain, _ = trained(tmp_path / 'wide')
    memory.room, memory.given = 2, []
    tight, result, values, _ = trained(tmp_path / 'tight')
    assert result.halved == [4, 2] and memory.given[:2] == [8, 4] and max(memory.given[3:]) <= 6
    assert [n for n in memory.given if n > 2] == [8, 4] + [6, 3] * 4, 'training remembers; each evaluation finds out for itself'
    for a, b in zip(tight.parameters(), wide.parameters()): torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    said = values.filter(metric='micro_batch')
    assert said.select('epoch', 'step', 'value', 'phase').rows() == [(1, 2, 4.0, 'schedule'), (1, 2, 2.0, 'schedule')]
    rest = values.filter(values['metric'] != 'micro_batch')
    assert rest['metric'].to_list() == plain['metric'].to_list() and rest['value'].to_list() == pytest.approx(plain['value'].to_list(), abs=1e-5)
    assert 'micro_batch' not in ExperimentTracker(tmp_path / 'tight').best()


def test_a_resumed_run_goes_on_with_the_pieces_that_fitted(tmp_path, memory):
    memory.room = 2
    whole = trained(tmp_path / 'whole')[0]
    asked = []

    def killed(logits, label):
        asked.append(1)
        if len(asked) == 27: raise KeyboardInterrupt
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction='none').mean(1)
    with pytest.raises(KeyboardInterrupt): trained(tmp_path / 'cut', killed)
    assert (last := CheckpointManager(tmp_path / 'cut' / 'c').latest()).epoch == 2 and last.state['micro'] == dict(size=2, halved=[4, 2])
    assert 'micro' not in json.dumps(last.meta), 'what the machine could hold is no setting'
    memory.given = []
    resumed, result, values, _ = trained(tmp_path / 'cut')
    assert result.resumed_from == 2 and result.halved == [4, 2] and memory.given[0] <= 2
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters()))
    assert values.filter(metric='micro_batch')['epoch'].to_list() == [1, 1]


def test_one_example_that_does_not_fit_ends_the_run_in_one_sentence(tmp_path, memory):
    memory.room = 0
    with pytest.raises(torch.OutOfMemoryError, match=r'one example alone does not fit into memory .*: lower data.frames or data.size') as e: trained(tmp_path)
    assert '\n' not in str(e.value)


def test_a_fold_says_that_memory_ran_out_and_is_scored_all_the_same(corpus, memory):
    words = 'profile=small split.n_splits=2 data.frames=2 data.size=32 training.epochs=2 training.device=cpu experiment.mlflow=false experiment.name='
    wide = run_fold('naive_cnn', 1, str(corpus), f'{words}roomy')
    memory.room = 3
    tight = run_fold('naive_cnn', 1, str(corpus), f'{words}cramped')
    assert 'memory' not in wide.facts and tight.facts['memory'] == 'memory ran out, so batches were computed in pieces of 2'
    assert 'in pieces of 2' in trained_on(tight) and 'pieces' not in trained_on(wide)
    assert tight.facts['memory'] in tight._repr_html_()
    assert [json.loads(line)['value'] for line in open(tight.folder / 'metrics.jsonl') if 'micro_batch' in line] == [4.0, 2.0]


def test_scoring_halves_its_batches(corpus, memory):
    spec, place = spec_of('naive_cnn'), Workspace(corpus)
    cfg = resolve(spec, 'data.frames=1 data.size=32', place)
    found = Detector(spec, cfg, Task(), [Member(build(spec, cfg, Task()))], place=place)
    rows = ClipInput().rows(place, cfg)[:11]
    whole = found.score(rows)
    memory.room, memory.given = 1, []
    assert found.score(rows) == pytest.approx(whole, abs=1e-6) and memory.given == [8, 4, 2, *[1] * 11]
