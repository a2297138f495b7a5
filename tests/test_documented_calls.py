"""The calls that earlier documents print work as they are written there."""
import json
import os
import shutil
from datetime import datetime

import numpy as np
import polars as pl
import pytest
import torch
from conftest import ROOT, write_clip
from fvc.core.config import ALIASES, compose
from fvc.core.table import read_table
from fvc.core.workspace import Workspace
from fvc.corpus.existing import filter_existing_videos
from fvc.learning.blocks import FrameMean, Head
from fvc.learning.checkpoints import CheckpointManager
from fvc.learning.runs import Run
from fvc.learning.tracking import ExperimentTracker, create_mlflow_tracker
from fvc.learning.training import EarlyStopping, OptimConfig, TrainConfig, collect_logits_and_labels, fit_with_tracking, make_accelerator, precision_of
from fvc.running.cli import main
from fvc.running.experiment import run_fold
from fvc.running.model_training import stage5_train_models
from fvc.scores.metrics import basic_classification_metrics, confusion_matrix
from fvc.video.frames import pick_frames
from torch import nn
from torch.utils.data import DataLoader

PLAIN = 'split.n_splits=2 experiment.mlflow=false'


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "Sixteen clips read from real videos, of which the fakes are darker."
    folder, found = tmp_path_factory.mktemp('clips'), []
    for k in range(16):
        images, _ = pick_frames(write_clip(folder / f'{k}.mp4', seed=k), 4)
        clip = torch.from_numpy(np.stack(images)).permute(3, 0, 1, 2).float() / 255 * (1 - 0.5 * (k % 2))
        found.append(dict(clip=clip, label=torch.tensor([float(k % 2)])))
    return found


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = FrameMean(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        self.head = Head(4, 1)

    def forward(self, clip): return self.head(self.body(clip))


@pytest.fixture(scope='module')
def trained(clips, tmp_path_factory):
    "The training loop of the documents, as it is written there, and what it leaves."
    fold_dir, device = tmp_path_factory.mktemp('fold'), torch.device('cpu')
    torch.manual_seed(0)
    model, train_loader, val_loader = Small(), DataLoader(clips, 4, shuffle=True), DataLoader(clips[:8], 8)
    tracker, ckpt_manager = ExperimentTracker(str(fold_dir)), CheckpointManager(str(fold_dir))
    optim_cfg = OptimConfig(lr=1e-4, weight_decay=1e-4)
    train_cfg = TrainConfig(num_epochs=3, device=device, use_amp=True, gradient_accumulation_steps=16)
    trained_model = fit_with_tracking(model, train_loader, val_loader, optim_cfg, train_cfg, tracker, ckpt_manager)
    return fold_dir, model, trained_model, tracker, val_loader


def test_a_training_returns_the_model_with_its_summary(trained):
    fold_dir, model, trained_model, tracker, _ = trained
    assert trained_model is model and trained_model.fit_result.epochs == 3
    assert {'metrics.jsonl', 'config.json'} <= {p.name for p in fold_dir.iterdir()} and list(fold_dir.glob('epoch_*'))
    config = json.loads((fold_dir / 'config.json').read_text())
    assert (config['optim']['lr'], config['optim']['weight_decay']) == (1e-4, 1e-4)
    assert (config['training']['epochs'], config['training']['accumulate'], config['training']['mixed_precision']) == (3, 16, 'bf16')
    steps = tracker.frame().filter(pl.col('metric') == 'train_loss')['step'].to_list()
    assert steps == [1, 2, 3], 'sixteen batches make a step, and an epoch has four'


def test_a_configuration_that_was_given_stays(tmp_path):
    tracker = ExperimentTracker(str(tmp_path), config=dict(whole=1))
    tracker.keep_config(dict(part=1))
    assert json.loads((tmp_path / 'config.json').read_text()) == dict(whole=1)


def test_mixed_precision_is_what_the_device_has():
    assert precision_of(TrainConfig(use_amp=True, device='cpu')) == 'bf16'
    assert make_accelerator(TrainConfig(use_amp=True, device=torch.device('cpu'))).mixed_precision == 'bf16'
    assert make_accelerator(TrainConfig(use_amp=False, device='cpu')).mixed_precision == 'no'
    if torch.cuda.is_available():
        assert make_accelerator(TrainConfig(use_amp=True, device=torch.device('cuda'))).mixed_precision in ('bf16', 'fp16')


def test_a_gpu_without_bf16_trains_in_fp16(monkeypatch):
    "What PyTorch says of a GPU is stood in for, since there may be none."
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for has, word in ((True, 'bf16'), (False, 'fp16')):
        monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True, has=has: has)
        assert precision_of(TrainConfig(use_amp=True)) == word
        assert precision_of(TrainConfig(use_amp=True, device='cpu')) == 'bf16'


def test_early_stopping_by_mode():
    up, down = EarlyStopping(patience=2, mode='max'), EarlyStopping(patience=2, mode='min')
    for value in (0.5, 0.7, 0.6, 0.65):
        up.update(value)
        down.update(value)
    assert (up.best_epoch, up.stop, down.best_epoch, down.stop) == (2, True, 1, True)


def test_metrics_of_what_a_network_says(trained):
    *_, trained_model, _, val_loader = trained
    logits, labels = collect_logits_and_labels(trained_model, val_loader)
    found = basic_classification_metrics(logits=logits, labels=labels)
    assert found == pytest.approx(basic_classification_metrics(labels.numpy(), torch.sigmoid(logits).double().numpy()), nan_ok=True)
    far = logits * 100
    with pytest.raises(ValueError, match='is no probability: pass what a network says as logits='):
        basic_classification_metrics(labels, far)
    counts = confusion_matrix(labels, torch.sigmoid(logits), as_dict=True)
    assert set(counts) == {'TP', 'TN', 'FP', 'FN'} and sum(counts.values()) == 8
    assert (counts['TP'] + counts['FN'], counts['TN'] + counts['FP']) == (4, 4)


def test_only_videos_that_show_something(tmp_path):
    write_clip(tmp_path / 'good.mp4', 1)
    whole = (tmp_path / 'good.mp4').read_bytes()
    (tmp_path / 'torn.mp4').write_bytes(whole[:200])
    df = pl.DataFrame(dict(video_id=['g', 't', 'm'], path=['good.mp4', 'torn.mp4', 'missing.mp4']))
    with pytest.warns(UserWarning, match='1 of 3 video files are missing'):
        assert filter_existing_videos(df, tmp_path)['video_id'].to_list() == ['g', 't']
    with pytest.warns(UserWarning, match='1 of 3 video files in .* show no frame; the first: torn.mp4'):
        assert filter_existing_videos(df, tmp_path, check_frames=True)['video_id'].to_list() == ['g']


def test_mlflow_as_documented(tmp_path, monkeypatch):
    monkeypatch.setenv('FVC_DATA', str(tmp_path))
    assert create_mlflow_tracker(experiment_name='x3d', use_mlflow=False) is None and not any(tmp_path.iterdir())
    tracker = create_mlflow_tracker(experiment_name='x3d', use_mlflow=True)
    tracker.log_config({'optim': {'lr': 0.01}, 'training': {'batch_size': 4}})
    tracker.log_metrics({'val_loss': 0.5}, step=3)
    tracker.set_tag('note', 7)
    (tmp_path / 'model.bin').write_bytes(b'weights')
    tracker.log_artifact(tmp_path / 'model.bin', artifact_path='models')
    tracker.end_run()
    run = tracker.client.get_run(tracker.run_id)
    assert tracker.client.get_experiment(run.info.experiment_id).name == 'x3d' and run.info.status == 'FINISHED'
    assert run.data.params == {'optim.lr': '0.01', 'learning_rate': '0.01', 'training.batch_size': '4', 'batch_size': '4'}
    assert [(m.step, m.value) for m in tracker.client.get_metric_history(tracker.run_id, 'val_loss')] == [(3, 0.5)]
    assert run.data.tags['note'] == '7' and tracker.artifacts() == ['models/model.bin']


def test_metadata_names_its_run(corpus):
    result = run_fold('logistic_regression', 1, str(corpus), f'{PLAIN} experiment.name=named')
    about = json.loads((result.folder / 'metadata.json').read_text())
    assert {about['run_id']} == set(ExperimentTracker(result.folder).frame()['run_id'])
    assert datetime.fromisoformat(about['timestamp']).tzinfo is not None


def test_a_floor_on_rows(corpus):
    words = f'{PLAIN} experiment.name=floor data.min_rows='
    with pytest.raises(ValueError, match=r'has \d+ rows for logistic_regression, data.min_rows=3000 asks for more'):
        run_fold('logistic_regression', 1, str(corpus), f'{words}3000')
    assert not (corpus / 'stage5' / 'logistic_regression@floor').exists()
    assert run_fold('logistic_regression', 1, str(corpus), f'{words}10').fold == 1


@pytest.fixture
def copied(corpus, tmp_path, monkeypatch):
    "A project whose workspace is its folder `data`, and reports that go nowhere else."
    shutil.copytree(corpus, tmp_path / 'data', symlinks=True, ignore=shutil.ignore_patterns('stage5', 'mlflow*', 'mlartifacts', 'cache'))
    monkeypatch.setattr(Workspace, 'reports', tmp_path / 'reports')
    return tmp_path


def paths_with(project, stage2=None):
    place = Workspace(project / 'data')
    tables = dict(scaled_metadata_path=place.table(3), features_stage2_path=stage2 or place.table(2), features_stage4_path=place.table(4))
    return {name: str(table.relative_to(project)) for name, table in tables.items()}


def test_stage_5_is_called_by_paths(copied, capsys):
    "Two models and their ensemble on both folds; then one of them anew."
    moved = copied / 'disk' / 'features'
    shutil.move(copied / 'data' / 'features_stage2', moved)
    table = next(moved.glob('*.arrow'))
    given = dict(project_root=copied, **paths_with(copied, table), model_types=['logistic_regression', 'svm'], n_splits=2, num_frames=8, output_dir='data/stage5',
                 use_tracking=False, use_mlflow=True, delete_existing=False)
    outcomes = stage5_train_models(**given, train_ensemble=True, resume=True)
    assert [o.state for o in outcomes] == ['done'] * 6, [o.note for o in outcomes]
    place = Workspace(copied / 'data')
    assert {o.job.folder.parent.name.partition('@')[0] for o in outcomes} == {'logistic_regression', 'svm', 'ensemble'}
    assert {o.job.folder.parents[1] for o in outcomes} == {copied / 'data' / 'stage5'} and not (copied / 'data' / 'mlflow.db').exists()
    assert 'FVC_STAGE2_OUTPUT_DIR' not in os.environ
    assert all((o.job.folder / 'metrics.jsonl').stat().st_size and (o.job.folder / 'config.json').is_file() for o in outcomes), 'only MLflow is left out'
    one = dict(given, model_types=['svm'], use_tracking=True, use_mlflow=False)
    stamp = lambda: [(o.folder / 'metadata.json').stat().st_mtime_ns for o in Run(place, 'svm').folds]
    before = stamp()
    stage5_train_models(**one, resume=False)
    assert all(a < b for a, b in zip(before, stamp())) and not (copied / 'data' / 'mlflow.db').exists()


def test_stage_5_says_what_it_cannot_do(copied):
    with pytest.raises(ValueError, match='n_splits=5, but the folds of .* were cut as 2: pass n_splits=2, or cut them anew with "fvc setup --data .* split.n_splits=5 stages.setup.recut=true"'):
        stage5_train_models(project_root=copied, **paths_with(copied), model_types=['svm'], n_splits=5)
    with pytest.raises(FileNotFoundError, match='Metadata file not found'):
        stage5_train_models(project_root=copied, **{**paths_with(copied), 'features_stage4_path': 'data/none.arrow'}, model_types=['svm'], n_splits=2)


def test_existing_folds_are_removed_when_asked(copied, monkeypatch):
    "What becomes of the folder of a fold is looked at; nothing is trained."
    from fvc.running import model_training
    monkeypatch.setattr(model_training, 'execute_all', lambda jobs, workers, name: [job.folder for job in jobs])
    given = dict(project_root=copied, **paths_with(copied), model_types=['svm'], n_splits=2)
    folders = stage5_train_models(**given)
    for folder in folders: (folder / 'model').mkdir(parents=True)
    stage5_train_models(**given, resume=False)
    assert all(f.is_dir() for f in folders)
    jobs = model_training.training_jobs(['svm'], [1, 2], copied / 'data', 'split.n_splits=2 experiment.again=true')
    for job in jobs: job.mark('done')
    assert {job.state for job in jobs} == {'done'}
    stage5_train_models(**given, resume=False)
    assert {job.state for job in jobs} == {'not yet'}, 'anew means anew, a second time too'
    stage5_train_models(**given, delete_existing=True)
    assert not any(f.exists() for f in folders)


def test_aliases_of_keys_stand_in_one_place():
    "Each means what it says, and no other module names it."
    for alias, key in ALIASES.items():
        value = {'training.use_amp': 'true'}.get(alias, '3')
        said, own = (compose('x3d', f'{name}={typed}').hash() for name, typed in ((alias, value), (key, 'auto' if alias == 'training.use_amp' else value)))
        assert said == own != compose('x3d').hash(), alias
    elsewhere = [p for p in (ROOT / 'fvc').rglob('*.py') if p.name not in ('config.py', '_modidx.py') and any(f"'{alias}'" in p.read_text() for alias in ALIASES)]
    assert len(ALIASES) == 7 and elsewhere == []


def test_resolution_is_the_name_of_bilinear(copied):
    assert compose(None, 'stages.scaling.method=resolution').hash() == compose(None, '').hash()
    place = copied / 'data'
    words = ['--data', str(place), '--num-augmentations', '2', '--target-size', '64']
    assert main(['stage', '3', *words, '--method', 'resolution', 'stages.workers=1']) == 0
    scaled = Workspace(place).read_rows(3, compose(None, 'stages.augmentation.num_augmentations=2 stages.scaling.target_size=64'))
    assert set(scaled.filter(pl.col('status') == 'ok').select(pl.max_horizontal('width', 'height')).to_series()) == {64}
    assert main(['stage', '4', *words, '--num-frames', '3', '--method', 'bilinear', 'stages.workers=1']) == 0
    cfg = compose(None, 'stages.augmentation.num_augmentations=2 stages.scaling.target_size=64 stages.scaled_features.num_frames=3')
    assert read_table(Workspace(place).table(4, cfg)).height == scaled.height
    assert main(['stage', '2', '--data', str(place), '--num-augmentations', '2', '--num-frames', '3', 'stages.workers=1']) == 0
    few = compose(None, 'stages.augmentation.num_augmentations=2 stages.features.num_frames=3')
    assert read_table(Workspace(place).table(2, few)).height == scaled.height and Workspace(place).table(2, few) != Workspace(place).table(2, compose(None, 'stages.augmentation.num_augmentations=2'))
    assert main(['stage', '2', '--data', str(place), '--target-size', '64']) == 2
