"""Target 10: steps of every network, ratios to independent implementations, waiting for clips, five folds of trees on given weights, and what surrounds a fold.

Run by run.py; each measurement is a process of its own (`python bench/models.py WHAT …`), on one thread, that prints what it found as JSON.
"""
import json, os, statistics, subprocess, sys, time
from contextlib import redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measure import HERE, PYTHON, SURROUNDINGS, paired, say, spread
from verdict import Verdict

CORPUS = HERE / '.cache' / 'models' / 'work'  # two dozen cascades in five folds
CLIP = 'data.size=112'  # of a step
LONGER = {'slowfast': 8, 'slowfast_attention': 8, 'slowfast_multiscale': 8, 'vivit': 8}  # frames, where a network needs more
RATIO, WAIT, FOLDS, AROUND = 1.05, 0.05, 1.2, 6.0  # at most


# ---- in the measured process

def _step(network, ask) -> None:
    "Forward and backward; gradients of the step before are dropped."
    for p in network.parameters(): p.grad = None
    ask().square().mean().backward()


def step(name: str, steps: int) -> dict:
    "CPU seconds of each step of two clips at the default architecture, and memory above what the imports take."
    import torch
    from fvc.core.config import compose
    from fvc.core.registry import spec_of
    from fvc.learning.blocks import answer, count_parameters
    from fvc.learning.detector import build, inputs_of
    from fvc.scores.tasks import Task
    from serve import memory
    spec, base = spec_of(name), memory('VmRSS')
    words = f"{CLIP} pretrained=false data.frames={LONGER.get(name, 4)}"
    cfg = compose(spec, words)
    network, batch = build(spec, cfg, Task()).train(), {}
    for i in inputs_of(spec): batch |= i.like(cfg, Task(), 2)
    Path('/proc/self/clear_refs').write_text('5')
    took = []
    for _ in range(steps + 1):
        began = time.process_time()
        _step(network, lambda: answer(network, batch))
        took.append(time.process_time() - began)
    shapes = ', '.join(f'{k} {"x".join(map(str, v.shape))}' for k, v in batch.items())
    return dict(cpu=took[1:], peak=memory('VmHWM') - base, parameters=count_parameters(network)[1], shapes=shapes)


def _timesformer():
    from fvc.models.timesformer import timesformer
    from fvc.scores.tasks import Task
    from transformers import TimesformerConfig, TimesformerForVideoClassification
    theirs = TimesformerForVideoClassification(TimesformerConfig(image_size=112, num_frames=3, num_labels=1))
    return timesformer(Task(), {'clip': (3, 3, 112, 112)}, pretrained=False), theirs, (1, 3, 3, 112, 112), lambda net, x: net(x.transpose(1, 2)).logits


def _vivit():
    from fvc.models.vivit import vivit
    from fvc.scores.tasks import Task
    from transformers import VivitConfig, VivitForVideoClassification
    theirs = VivitForVideoClassification(VivitConfig(image_size=112, num_frames=8, num_labels=1))
    return vivit(Task(), {'clip': (3, 8, 112, 112)}, pretrained=False), theirs, (1, 3, 8, 112, 112), lambda net, x: net(x.transpose(1, 2)).logits


def _vit():
    from fvc.learning.weights import FrameViT
    from torch import nn
    from torchvision.models import vit_b_16
    theirs = vit_b_16(image_size=112)
    theirs.heads = nn.Identity()
    return FrameViT('vit_base_patch16_224', (112, 112), False, False), theirs, (1, 3, 4, 112, 112), lambda net, x: net(x[0].transpose(0, 1))


def _inception():
    from fvc.models.pretrained_inception import pretrained_inception
    from fvc.scores.tasks import Task
    from torch import nn
    from torchvision.models import inception_v3
    theirs = inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
    theirs.fc = nn.Identity()
    return pretrained_inception(Task(), pretrained=False).backbone.requires_grad_(True), theirs, (4, 3, 149, 149), lambda net, x: net(x)


RIVALS = {'timesformer': (_timesformer, 'transformers'), 'vivit': (_vivit, 'transformers'), 'vit (trunk of vit_gru and vit_transformer)': (_vit, 'torchvision'),
          'inception_v3 (trunk of pretrained_inception)': (_inception, 'torchvision')}


def ratio(name: str, pairs: int) -> dict:
    "CPU seconds of steps of ours and of the independent implementation, one after the other."
    import torch
    ours, theirs, shape, ask = RIVALS[name][0]()
    x = torch.rand(shape)

    def timed(network, asked):
        began = time.process_time()
        _step(network, asked)
        return time.process_time() - began
    mine, other = paired(lambda: timed(ours.train(), lambda: ours(x)), lambda: timed(theirs.train(), lambda: ask(theirs, x)), pairs)
    sizes = [sum(p.numel() for p in net.parameters()) for net in (ours, theirs)]
    return dict(ours=mine, theirs=other, shape='x'.join(map(str, shape)), parameters=sizes)


def loader(model: str, words: str) -> dict:
    "Share of the loop's processor time that goes into getting batches, in the epochs after the first."
    from fvc.core.registry import spec_of
    from fvc.core.workspace import Workspace
    from fvc.learning.blocks import answer
    from fvc.learning.detector import build, inputs_of
    from fvc.learning.examples import Examples, make_loader
    from fvc.learning.fitting import gather
    from fvc.learning.runs import resolve
    from fvc.running.experiment import make_split
    spec, place = spec_of(model), Workspace(CORPUS)
    cfg = resolve(spec, words, place)
    m = gather(spec, cfg, place, make_split(cfg, place, 1))
    network = build(spec, cfg, m.task).train()
    batches = make_loader(Examples(m.rows, inputs_of(spec), place, cfg, m.task, train=True), cfg.training.batch_size)
    shares = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        began, waited, iterator = time.process_time(), 0.0, iter(batches)
        for _ in range(len(batches)):
            asked = time.process_time()
            batch = next(iterator)
            waited += time.process_time() - asked
            _step(network, lambda: answer(network, batch))
        shares.append(waited / (time.process_time() - began))
    return dict(shares=shares, clips=len(batches.dataset), shown=inputs_of(spec)[0].describe(cfg))


def _weights(folder: Path, network: str, file: str):
    "Weights under the publisher's names, of a network that was never trained: what they cost does not depend on what they say."
    import torch
    from fvc.core.registry import get
    from fvc.scores.tasks import Task
    torch.manual_seed(0)
    state = get(network, task=Task(), pretrained=False).state_dict()
    torch.save({'model_state': {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}}, folder / file)


def folds(model: str, network: str, file: str) -> dict:
    "CPU seconds of the five folds of trees on a network whose weights are given, one after the other, and rows described."
    import polars as pl
    from serve import processor_seconds
    from fvc.core.workspace import Workspace
    from fvc.running.experiment import run_fold
    weights = HERE / '.cache' / 'models' / 'weights'
    weights.mkdir(exist_ok=True)
    _weights(weights, network, file)
    os.environ['FVC_WEIGHTS'] = str(weights)
    for left in Workspace(CORPUS).cache('embeddings').glob('*.arrow'): left.unlink()
    took = []
    for fold in range(1, 6):
        began = processor_seconds()
        run_fold(model, fold, str(CORPUS), 'profile=paper data.size=160 data.variants=2 experiment.again=true split.n_splits=5')
        took.append(processor_seconds() - began)
    return dict(cpu=took, rows=sum(len(pl.read_ipc(file, memory_map=False)) for file in Workspace(CORPUS).cache('embeddings').glob('*.arrow')))


def around(model: str, words: str) -> dict:
    "CPU seconds of a fold, interpreter and imports included, without those of the fit."
    from serve import processor_seconds
    from fvc.running import experiment
    fit, spent = experiment.fit, []

    def timed(*given, **more):
        began = processor_seconds()
        found = fit(*given, **more)
        spent.append(processor_seconds() - began)
        return found
    experiment.fit = timed
    experiment.run_fold(model, 1, str(CORPUS), f'{words} experiment.again=true split.n_splits=5')
    return dict(fit=spent[0], rest=processor_seconds() - spent[0])


def corpus() -> dict:
    "The corpus of the measurements, made once."
    from fvc.corpus.sample import SAMPLE_PASSWORD, make_sample
    from fvc.running import pipeline
    from fvc.stages.setup import setup
    words = ['split.n_splits=5', 'stages.augmentation.num_augmentations=2']
    setup(make_sample(CORPUS.parent / 'archives', n_cascades=24, seconds=1.0, side=160), str(CORPUS), ' '.join(words), SAMPLE_PASSWORD)
    for number in (1, 2, 3, 4): pipeline.run_one_stage(number, str(CORPUS), words)
    return {}


# ---- the verdict

def measured(what: str, *given, script: str = __file__) -> dict:
    "One measurement in a process of its own."
    say(f'  {what} {" ".join(map(str, given))}')
    ended = subprocess.run([PYTHON, script, what, *map(str, given)], env=dict(SURROUNDINGS, PYTHONPATH=str(HERE.parent)), capture_output=True, text=True)
    if ended.returncode: raise RuntimeError(f'{what} {given} failed ({ended.returncode}):\n{ended.stderr[-2000:]}')
    return json.loads(ended.stdout.splitlines()[-1])


def networks() -> list[str]:
    from fvc.core.registry import all_specs
    return [spec.name for spec in all_specs() if spec.kind == 'network']


def _row(t: dict) -> float:
    "CPU seconds that the first fold spends on describing a row: what it costs more than the others."
    return (t['cpu'][0] - statistics.mean(t['cpu'][1:])) / t['rows']


def _enough(t: dict) -> float:
    "Rows from which five folds cost no more than FOLDS times the first, where a later fold costs what it does here."
    later = statistics.mean(t['cpu'][1:])
    return (4 * later / (FOLDS - 1) - later) / _row(t)


def models_verdict(pairs: int) -> Verdict:
    "All of target 10."
    if not (CORPUS / 'features_stage4').is_dir(): measured('corpus')
    ratios = {name: measured('ratio', name, pairs) for name in RIVALS}
    medians = {name: statistics.median(a / b for a, b in zip(r['ours'], r['theirs'])) for name, r in ratios.items()}
    waits = {words: measured('loader', 'x3d', words) for words in ('profile=small data.span=null', 'profile=paper pretrained=false data.span=null data.frames=8 data.size=112 data.variants=1')}
    wait = max(max(w['shares'][1:]) for w in waits.values())
    trees = {model: measured('folds', model, *given) for model, given in (('xgboost_i3d', ('i3d', 'i3d_r50.pyth')), ('xgboost_r2plus1d', ('r2plus1d', 'r2plus1d_r50.pyth')))}
    costs = {model: sum(t['cpu']) / t['cpu'][0] for model, t in trees.items()}
    rests = {f'{model} {words}'.strip(): measured('around', model, words) for model, words in (('naive_cnn', 'profile=small'), ('logistic_regression', ''))}
    rest = max(r['rest'] for r in rests.values())
    lines = [*(f'{name}: {medians[name]:.2f} times {RIVALS[name][1]}: {spread(r["ours"])} and {spread(r["theirs"])} CPU-s a step of {r["shape"]}; '
               f'{r["parameters"][0]:,} and {r["parameters"][1]:,} parameters' for name, r in ratios.items()),
             *(f'waiting for batches, x3d, {w["clips"]} clips of {w["shown"]}: {", ".join(f"{s:.1%}" for s in w["shares"])} of three epochs; the first decodes' for w in waits.values()),
             *(f'{model}, folds one after the other: {", ".join(f"{c:.1f}" for c in t["cpu"])} CPU-s: five cost {costs[model]:.2f} times the first of {t["rows"]} rows, and {FOLDS} times '
               f'from {_enough(t):,.0f} rows on (describing one row costs {_row(t):.2f} CPU-s)' for model, t in trees.items()),
             *(f'{name}: {r["rest"]:.1f} CPU-s around the fit of {r["fit"]:.1f}' for name, r in rests.items())]
    for name in networks():
        one = measured('step', name, pairs)
        lines.append(f'{name}: {spread(one["cpu"])} CPU-s a step of {one["shapes"]}, {one["peak"]:.0f} MB above imports, {one["parameters"]:,} parameters')
    worst = max(medians.values())
    met = worst <= RATIO and wait <= WAIT and max(costs.values()) <= FOLDS and rest <= AROUND
    return Verdict(10, 'Models', f'forward and backward at most {RATIO} times the independent implementation, waiting for cached clips at most {WAIT:.0%}, five folds of trees on given '
                   f'weights at most {FOLDS} times one, at most {AROUND:.0f} CPU-s around a fit', f'ratio {worst:.2f}, waiting {wait:.1%}, five folds {max(costs.values()):.2f} times one, '
                   f'{rest:.1f} CPU-s around a fit', met, lines, ['python bench/models.py ratio NAME PAIRS', 'python bench/models.py loader x3d WORDS',
                   'python bench/models.py folds MODEL NETWORK FILE', 'python bench/models.py around MODEL WORDS', 'python bench/models.py step NAME STEPS'],
                   'processor time, one thread, a process each; both sides of a ratio take turns in one process, after one step each that is not counted',
                   'matrix products and convolutions, which are the same library on both sides; five folds extract embeddings once')


def main() -> None:
    import torch
    torch.set_num_threads(1)
    what, *given = sys.argv[1:]
    with redirect_stdout(sys.stderr): found = globals()[what](*(int(g) if g.isdigit() else g for g in given))
    print(json.dumps(found))


if __name__ == '__main__': main()
