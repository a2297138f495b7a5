"""Mistakes that were made before, here or by the system before this one, and the test that each would fail.

| mistake | seen by |
|---|---|
| folds cut by row, so that siblings stand on both sides | tests/test_honesty.py::test_a_group_in_two_folds_raises |
| augmentation drawn anew for every frame: flicker | test_a_transform_is_one_draw_for_all_frames |
| every window of a video samples the whole of it | test_windows_follow_one_another |
| normalised floats cast to bytes by a cache of frames | test_what_the_cache_gives_is_what_was_decoded |
| warm-up writes one rate to all groups of parameters | test_every_group_keeps_its_rate_through_warm_up |
| a search and the final training share a folder | tests/test_runs.py::test_a_search_sees_inner_rows_alone |
| trees on an embedding that is another one when they predict | tests/test_proofs.py::test_trees_on_a_network_that_was_trained_here |
| features named after a recurrent network that is never called | test_embeddings_feel_the_order_of_frames |
| attention that is built and not in the forward pass | tests/test_checks.py::test_a_network_that_breaks_one_thing_is_named |
| the same, of the network that is named after it | tests/test_video_networks.py::test_attention_adds_to_the_trunk |
| optical flow of values outside [0, 1] | test_flow_is_that_of_frames_in_their_range |
| blockiness measured inside blocks | nbs/forensics/02_signals.ipynb |
| letterbox bars among what is learnt | tests/test_frame_models.py::test_a_clip_has_the_shape_of_its_video_and_no_bar |
| the best epoch picked by the reported fold | tests/test_honesty.py::test_labels_of_the_validation_fold_change_no_weight |
| a missing input gives an empty table and exit code 0 | tests/test_rows.py::test_a_folder_that_is_away_ends_the_run_and_changes_nothing |
| a process or a garbage collection a frame | test_reading_a_clip_starts_no_process |
| a failed row in place of a good one | tests/test_rows.py::test_one_original_that_is_gone_costs_no_good_row |
| a cache of embeddings keyed by where the weights came from | test_embeddings_of_two_networks_are_kept_apart |
| a run "finished before" on features that have changed | tests/test_runs.py::test_a_fold_is_trained_again_when_the_rows_it_reads_have_changed |
| an inner validation of the smallest events | tests/test_inner.py::test_inner_parts_look_like_folds |
| the outer score logged under the inner one's name | test_scores_are_logged_under_their_own_names |
| an interval of 95% that covers less | nbs/scores/03_intervals.ipynb |
| accuracy at one half beside thresholds that nobody uses | tests/test_runs.py::test_what_is_kept_follows_from_the_scores |
| models that cannot be loaded again | test_all_models_come_back_in_a_fresh_process |
| absolute paths of a workspace in a copy of it | tests/test_workspace.py::test_a_copied_workspace_leaves_the_first_alone |
| calibration by rows over copies | tests/test_feature_models.py::test_calibrated_rows_are_of_other_groups |
| near-duplicates sought on a grid from the first frame | nbs/corpus/11_near_duplicates.ipynb |
| a temporary file removed as if it were a folder | test_temporary_files_of_others_are_left_alone |
| a run that goes on from a checkpoint draws other numbers | nbs/learning/14_training.ipynb |
| a last step of fewer batches weighs as much as a whole one | nbs/learning/14_training.ipynb |
| a last batch of one and a batch norm | test_a_last_example_alone_trains_with_batch_norm |
| tests that cannot fail | tests/mutants/__main__.py |
| notebooks found from the working directory | nbs/running/02_notebooks.ipynb |
"""
import gc
import json
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from conftest import ROOT
from fvc.core.config import OptimConfig, compose
from fvc.core.registry import all_specs, spec_of
from fvc.core.workspace import Workspace
from fvc.learning.blocks import Head
from fvc.learning.checkpoints import CheckpointManager
from fvc.learning.clips import ClipInput
from fvc.learning.detector import Detector, Member, build, embeddings
from fvc.learning.examples import Examples, make_loader
from fvc.learning.flow import iter_flow
from fvc.learning.optim import build_optimizer, build_scheduler
from fvc.learning.runs import Run
from fvc.learning.training import train_one_epoch
from fvc.learning.transforms import Draw
from fvc.running.experiment import run_fold
from fvc.scores.tasks import Task
from fvc.video.toy_videos import write_toy_video


def test_every_mistake_has_a_test_that_exists():
    "The table above, read; a test that was renamed is missed."
    rows = re.findall(r'^\| (.+?) \| (\S+) \|$', __doc__, re.M)
    assert len(rows) > 30 and len({what for what, _ in rows}) == len(rows)
    for what, where in rows:
        file, _, name = where.rpartition('::') if '::' in where else ('', '', where) if where.startswith('test_') else (where, '', '')
        text = (ROOT / (file or 'tests/test_pitfalls.py')).read_text(encoding='utf-8')
        assert not name or f'def {name}(' in text, f'{what}: there is no {where}'


# What a network is shown

PIXELWISE = {'hflip': {'p': 1.0}, 'brightness': {'p': 1.0, 'low': 0.5, 'high': 1.5}, 'contrast': {'p': 1.0, 'low': 0.5, 'high': 1.5}, 'rotation': {'p': 1.0, 'degrees': 20.0}}


def test_a_transform_is_one_draw_for_all_frames():
    "Frames that were alike stay alike; noise alone is a sensor's, new in each."
    still = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).expand(-1, 6, -1, -1)
    for seed in range(5):
        clip = Draw('v', seed, transforms=PIXELWISE).apply(still)
        assert (clip == clip[:, :1]).all() and not torch.equal(clip, still)
    noisy = Draw('v', 0, transforms={'gaussian_noise': {'p': 1.0, 'most': 0.1}}).apply(still)
    assert not (noisy == noisy[:, :1]).all()


def rising(path, frames=48):
    "A row of a video whose brightness rises from frame to frame by four."
    write_toy_video(path, [np.full((32, 32), 20 + 4 * i, np.uint8) for i in range(frames)], 12)
    return pl.DataFrame([{'video_id': 'v', 'variant': 'original', 'label': 1, 'clip.path': str(path), 'clip.width': 32, 'clip.height': 32, 'clip.frames': frames, 'clip.duration': frames / 12}])


def test_windows_follow_one_another(tmp_path):
    "Four windows of a second each hold frames of their own second, in order."
    row = rising(tmp_path / 'rising.mp4')
    examples = Examples(row, [ClipInput()], None, compose('naive_cnn', 'data.frames=4 data.size=32 data.span=1.0'), views=True)
    levels = [examples[i][0]['clip'].float().mean((0, 2, 3)) for i in range(len(examples))]
    frames = [((level - 20) / 4).round().int().tolist() for level in levels]
    assert len(frames) == 4 and [n // 12 for window in frames for n in window] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert frames[0] == sorted(frames[0]) and len(set(frames[0])) == 4


def test_what_the_cache_gives_is_what_was_decoded(tmp_path):
    "Bytes in, the same bytes out: nothing is normalised before it is kept."
    row = rising(tmp_path / 'rising.mp4')
    def shown(): return Examples(row, [ClipInput()], None, compose('naive_cnn', 'data.frames=8 data.size=32'))
    examples = shown()
    first, kept, fresh = examples[0][0]['clip'], examples[0][0]['clip'], shown()[0][0]['clip']
    assert first.dtype == kept.dtype == torch.uint8 and torch.equal(first, kept) and torch.equal(kept, fresh)
    assert kept.max() > 190 and len(kept.unique()) >= 8
    assert examples.states[0][2].get(('v', 'original', 0)) is not None, 'the second one came from the cache'


def test_reading_a_clip_starts_no_process(tmp_path, monkeypatch):
    row = rising(tmp_path / 'rising.mp4')

    def refused(*_, **__): raise AssertionError('a process or a collection while a clip is read')
    for owner, name in ((subprocess, 'Popen'), (gc, 'collect')): monkeypatch.setattr(owner, name, refused)
    examples = Examples(row, [ClipInput()], None, compose('naive_cnn', 'data.frames=4 data.size=32 data.span=1.0'), views=True)
    assert len([examples[i] for i in range(len(examples))]) == 4


def test_flow_is_that_of_frames_in_their_range(tmp_path):
    "A texture that moves by three pixels a frame moves by three pixels a frame."
    import cv2
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (96, 160), dtype=np.uint8), (0, 0), 2)
    texture = np.rint((texture - texture.min()) * (255 / (texture.max() - texture.min()))).astype(np.uint8)
    path = tmp_path / 'moving.mp4'
    write_toy_video(path, [texture[:, 3 * i:3 * i + 96] for i in range(6)], 12, crf=10)
    fields = np.stack([field for _, field in iter_flow(path)])[:, 16:-16, 16:-16]
    assert np.median(fields[..., 0]) == pytest.approx(-3, abs=0.15) and abs(np.median(fields[..., 1])) < 0.15


# What is learnt

@pytest.mark.parametrize('name, schedule', [(n, s) for n in ('adamw', 'adam', 'sgd') for s in ('cosine', 'step')])
def test_every_group_keeps_its_rate_through_warm_up(name, schedule):
    net = torch.nn.Module()
    net.body, net.head = torch.nn.Linear(4, 4), Head(4, 1)
    cfg = OptimConfig(name=name, schedule=schedule, lr=0.01, head_lr_scale=5, warmup_epochs=1, step_epochs=1)
    optimizer = build_optimizer(net, cfg)
    scheduler, seen = build_scheduler(optimizer, cfg, 4, 3), []
    for _ in range(12):
        seen.append({g['name']: g['lr'] for g in optimizer.param_groups})
        optimizer.step()
        scheduler.step()
    assert all(r['head'] / r['backbone'] == pytest.approx(5) and r['head'] == r['head_no_decay'] for r in seen)
    assert seen[0]['backbone'] < seen[3]['backbone'] and max(r['backbone'] for r in seen) == pytest.approx(0.01 if schedule == 'cosine' else 0.008)


@pytest.mark.parametrize('rows, trained_on', [(9, 8), (10, 10), (1, 1)])
def test_a_last_example_alone_trains_with_batch_norm(tmp_path, rows, trained_on):
    "One left over is left out of this epoch: a batch norm has nothing to say of it; where it is all there is, it is trained on."
    table = pl.concat([rising(tmp_path / 'rising.mp4').with_columns(video_id=pl.lit(f'v{i}'), label=pl.lit(i % 2)) for i in range(rows)])
    cfg, seen = compose('naive_cnn', 'data.frames=2 data.size=32'), []
    net = torch.nn.Module()
    net.norm, net.head = torch.nn.BatchNorm2d(3), Head(3, 1)

    def forward(clip):
        seen.extend(clip[:, 0, 0, 0, 0].tolist())
        return net.head(net.norm(clip.mean(2)).mean((2, 3)))
    net.forward = forward
    examples = Examples(table, [ClipInput()], None, cfg, train=True)
    train_one_epoch(net, make_loader(examples, 4), build_optimizer(net, cfg.optim))
    assert len(seen) == trained_on


@pytest.mark.parametrize('model, words', [('vit_gru', ''), ('vit_transformer', ''), ('i3d', ''), ('r2plus1d', '')])
def test_embeddings_feel_the_order_of_frames(model, words):
    "What the trees of these names read is made by the part over time."
    spec = spec_of(model)
    network = build(spec, compose(spec, words, saved=dict(spec.tiny)), Task()).eval()
    clip = torch.rand(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(): said, shuffled = (network.embed(c) for c in (clip, clip[:, :, [2, 0, 3, 1]]))
    assert (said - shuffled).abs().max() > 1e-4 * said.abs().max()


def test_embeddings_of_two_networks_are_kept_apart(corpus):
    "Both are trained from scratch, both have the same settings, and they are not the same."
    spec, place = spec_of('vit_gru'), Workspace(corpus)
    cfg = compose(spec, 'training.device=cpu', corpus=place.made_with(), saved=dict(spec.tiny))
    rows, found = ClipInput().rows(place, cfg)[:3], []
    for change in (0.0, 0.5):
        network = build(spec, cfg, Task())
        with torch.no_grad(): next(p for n, p in network.named_parameters() if 'gru' in n.lower() or 'weight_ih' in n).add_(change)
        found.append(embeddings(Detector(spec, cfg, Task(), [Member(network)], place=place), rows))
    assert not np.allclose(*found)


# What a run leaves

def test_scores_are_logged_under_their_own_names(corpus):
    "What the reported fold says stands under val_ in the phase `report`, once; what chose the epoch under inner_, every epoch."
    words = 'profile=small split.n_splits=2 data.frames=1 data.size=32 training.epochs=2 experiment.mlflow=false experiment.name=logged'
    result = run_fold('naive_cnn', 1, str(corpus), words)
    lines = [json.loads(line) for line in open(result.folder / 'metrics.jsonl')]
    phases = {}
    for line in lines: phases.setdefault(line['metric'].split('_')[0], set()).add(line['phase'])
    assert phases['val'] == {'report'} and phases['inner'] == {'inner'} and phases['train'] == {'train'}
    said = {line['metric']: line['value'] for line in lines if line['phase'] == 'report'}
    assert said['val_auc'] == pytest.approx(result.metrics['val_auc'], nan_ok=True) and len([1 for line in lines if line['metric'] == 'inner_loss']) == 2
    inner = Run(Workspace(corpus), result.run).predictions('inner')
    assert not set(inner['video_id']) & set(result.predictions['video_id'])


def test_temporary_files_of_others_are_left_alone(tmp_path):
    (tmp_path / '.tmp-metrics.jsonl').write_text('written just now by the tracker')
    (tmp_path / '.tmp-half').mkdir()
    CheckpointManager(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['.tmp-metrics.jsonl']


def what_it_says(detector, given):
    "Scores of a tiny model by its network or its estimator, on inputs that were kept."
    from fvc.learning.blocks import answer
    member, said = detector.members[0], []
    if member.network is not None:
        method = 'forward' if member.estimator is None else 'embed'
        with torch.inference_mode(): said.append(answer(member.network.eval(), given['batch'], method).double().numpy())
    if member.estimator is not None: said.append(np.asarray(member.estimator.predict_proba(given['x'].numpy())))
    return said


def tiny_detector(spec):
    "A model at its tiny size, its estimator fitted on a few rows, and inputs to ask it with."
    from fvc.learning.checks import TASKS, _batch
    from fvc.learning.detector import inputs_of
    task, rng = TASKS[spec.serves[0]], np.random.default_rng(0)
    cfg = compose(spec, saved=dict(spec.tiny))
    made = build(spec, cfg, task)
    network, estimator = made if isinstance(made, tuple) else (made, None) if isinstance(made, torch.nn.Module) else (None, made)
    given = {}
    if network is not None: given['batch'] = _batch(spec, cfg, task)[0]
    if estimator is not None:
        width = 24 if isinstance(made, tuple) else sum(shape[0] for i in inputs_of(spec) for shape in i.shapes(cfg, task).values())
        truth = np.arange(60) % 2
        x = rng.normal(size=(60, width)) + truth[:, None]
        more = dict(groups=np.arange(60)) if 'groups' in estimator.fit.__code__.co_varnames else {}
        if 'early_stopping_rounds' in estimator.get_params(): estimator.set_params(early_stopping_rounds=None)
        given['x'] = torch.from_numpy(x)
        estimator.fit(x, truth, **more)
    return Detector(spec, cfg, task, [Member(network, estimator)]), given


def compare(folder):
    "In a process that has seen nothing: what each kept model says of the inputs kept beside it."
    from fvc.learning.detector import load_detector
    for place in sorted(folder.iterdir()):
        kept = torch.load(place / 'kept.pt', weights_only=True)
        said = what_it_says(load_detector(place / 'model'), kept['given'])
        assert len(said) == len(kept['said']) and all(np.array_equal(a, b.numpy()) for a, b in zip(said, kept['said'])), f'{place.name} says something else'
        print(place.name)


def test_all_models_come_back_in_a_fresh_process(tmp_path):
    ours = [spec for spec in all_specs() if spec.build.__module__.startswith('fvc.models.')]
    for spec in ours:
        detector, given = tiny_detector(spec)
        detector.save(tmp_path / spec.name / 'model')
        torch.save(dict(given=given, said=[torch.from_numpy(s) for s in what_it_says(detector, given)]), tmp_path / spec.name / 'kept.pt')
    code = 'import sys; from pathlib import Path; from test_pitfalls import compare; compare(Path(sys.argv[1]))'
    run = subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=ROOT / 'tests', capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == [spec.name for spec in ours] and len(run.stdout.split()) >= 24
