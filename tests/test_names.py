"""The page of names tells the truth: it has every name of the earlier documents, and what it says is somewhere, is there."""
import configparser
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from fvc.core.config import compose, flattened
from fvc.core.settings import DataConfig, OptimConfig
from fvc.core.workspace import Workspace
from fvc.forensics.signals import feature_names
from fvc.running.cli import parser
from fvc.running.experiment import run_fold
from fvc.running.pipeline import BEFORE
from fvc.stages.augmentation import SPATIAL, TEMPORAL, variants

PAGE = '\n'.join(''.join(c['source']) for c in json.loads((ROOT / 'nbs' / 'names.ipynb').read_text())['cells'])
KEPT = ('Functions and classes that kept their names', "This project's own earlier modules")

LIBRARY = '''handcrafted_features video_paths video_data video_modeling _read_video_wrapper uniform_sample_indices video_training trainer fit video_metrics mlops_core
lib/mlops/config mlops_utils aggressive_gc log_memory_stats safe_execute mlflow_tracker model_factory lib/augmentation/pipeline lib/features/pipeline lib/scaling/pipeline
lib/training/pipeline features/scaled training/visualization _linear LogisticRegressionBaseline _svm SVMBaseline _cnn NaiveCNNBaseline _transformer_gru vit_gru ViTGRUModel _transformer
vit_transformer ViTTransformerModel SlowFastModel X3DModel VideoDataset _train_baseline_model_fold _train_pytorch_model_fold _train_xgboost_model_fold'''.split()
SCRIPTS = ['setup_fvc_dataset', 'run_new_pipeline', 'run_new_pipeline --only-stage', 'run_stage1_augmentation --num-augmentations', 'run_stage2_features --num-frames',
           'run_stage4_scaled_features --num-frames', 'run_stage3_scaling --target-size --method', 'run_stage5_training --model-types', 'run_stage5_training --n-splits',
           'validate_stage5_imports', 'sanity_check_features', 'generate_model_notebooks', 'MODEL_CONFIGS', 'notebook_utils', 'notebooks/executed', 'nbconvert --execute',
           'validate_notebooks_comprehensive', '00_MASTER_PIPELINE_JOURNEY', 'generate_paper_figures', 'scripts/slurm_jobs/*', 'mlflow ui --port 5000', 'airflow webserver']
FILES = ['data/FVC_dup.csv', '.npy', 'video_path', 'model.pt', 'model.joblib', 'scaler.joblib', 'xgboost_model.json', 'checkpoint.pt', 'metrics.json', 'data/training_results',
         'mlruns/…/artifacts/models', 'learning_rate', 'batch_size', 'phase', 'metric']
OTHERS = ['code/train.py', 'config/train_config.yaml', 'core.models.registry', 'core.losses.registry', 'BaseLoss', 'FocalLoss', 'AugmentationPipeline.build', 'StratifiedSplitter', 'Trainer',
          'callbacks', 'compute_metrics', 'model_final.pt', 'caption_boundaries.models.registry', 'Experiment', 'ARCHITECTURE_GUIDE.md']


def rows():
    "Heading of each table with the first and second column, and the third and fourth, of its rows."
    heading = ''
    for line in PAGE.splitlines():
        if line.startswith('## '): heading = line[3:]
        columns = [c.strip() for c in line.split('|')[1:-1]]
        named = [i for i in range(0, len(columns) - 1, 2) if columns[i].startswith('`') or heading not in KEPT]
        yield from ((heading, *columns[i:i + 2]) for i in named if set(columns[i]) != {'-'} and columns[i + 1])


def reasons(): return PAGE.partition('## Why it is otherwise')[2]


def spans(text): return re.findall('`([^`]+)`', text)


def told():
    "Every word in code that the page says of today."
    return [span for _, _, now in rows() for span in spans(now)] + spans(reasons())


def is_there(name):
    "Whether a dotted name is a module, or what is found in one."
    words = name.split('.')
    for n in range(len(words), 0, -1):
        try: found = importlib.import_module('.'.join(words[:n]))
        except ModuleNotFoundError: continue
        for word in words[n:]: found = getattr(found, word, None)
        return found is not None
    return False


@pytest.mark.parametrize('name', [*LIBRARY, *SCRIPTS, *FILES, *OTHERS])
def test_every_earlier_name_has_a_line(name):
    assert [now for _, before, now in rows() if name in spans(before)], f'{name} stands in the first column of no table'


def test_every_module_that_is_named_is_there():
    named = {m for span in told() for m in re.findall(r'^fvc(?:\.[A-Za-z_0-9]+)+', span)}
    assert len(named) > 90
    assert [name for name in sorted(named) if not is_there(name)] == []


def test_every_function_is_where_the_page_says():
    "Where a row of what kept its name gives one module, all the names before it are found there."
    checked = 0
    for heading, before, now in rows():
        modules, names = re.findall(r'`(fvc\.[a-z_0-9.]+)`', now), re.findall(r'`([A-Za-z_]\w*)`', before)
        if heading not in KEPT or len(modules) != 1 or before.startswith('`fvc'): continue
        for name in names:
            assert hasattr(importlib.import_module(modules[0]), name), (name, modules[0])
            checked += 1
    assert checked > 30


def test_every_command_is_one_of_fvc():
    "The command, its options and its settings."
    commands = parser()._subparsers._group_actions[0].choices
    typed = [shlex.split(span) for span in told() if span.startswith('fvc ')]
    keys, used = dict(flattened(compose('x3d').to_dict())), set()
    for words in typed:
        assert words[1] in commands, words
        assert [w for w in words if w.startswith('--') and w not in commands[words[1]]._option_string_actions] == [], words
        assert [w for w in words[2:] if '=' in w and w.partition('=')[0] not in keys] == [], words
        used.add(words[1])
    assert used >= {'setup', 'stage', 'run', 'train', 'doctor', 'new', 'report', 'submit'}
    assert [w for span in told() if re.match('make [a-z]+$', span) for w in span.split()[1:] if f'\n{w}:' not in (ROOT / 'Makefile').read_text()] == []


def test_mlflow_takes_the_options_that_are_named():
    said = subprocess.run([str(Path(sys.executable).parent / 'mlflow'), 'ui', '--help'], capture_output=True, text=True).stdout
    options = re.findall('--[a-z-]+', next(span for span in told() if span.startswith('mlflow ui')))
    assert options and [o for o in options if o not in said] == []


def test_every_setting_is_one():
    keys = dict(flattened(compose('x3d').to_dict()))
    named = {word.partition('=')[0] for span in told() for word in span.split() if re.match(r'(data|training|optim|split|stages|augment|experiment)\.[a-z]', word)}
    assert len(named) > 12 and sorted(named - set(keys)) == []


@pytest.fixture(scope='module')
def trained(corpus):
    "A workspace with a booster's fold and its final model, and a small network's fold."
    run_fold('gradient_boosting', 1, str(corpus), 'split.n_splits=2 model.trees=5 experiment.name=few')
    run_fold('gradient_boosting', 0, str(corpus), 'split.n_splits=2 model.trees=5 experiment.name=few experiment.mlflow=false')
    run_fold('naive_cnn', 1, str(corpus), 'profile=small split.n_splits=2 data.frames=2 data.size=32 data.variants=0 training.epochs=1 model.width=4 experiment.mlflow=false')
    return corpus


def test_every_file_is_left_where_the_page_says(trained):
    "In a workspace, after training; those of the project in the project."
    seen = set()
    for span in told():
        at = Path(re.sub('<[a-z_]+>', '*', span))
        file = re.fullmatch(r'[\w./*-]+\.(arrow|csv|jsonl?|safetensors|skops|mp4|png)', str(at)) or span.endswith('>/')
        if not file or ' ' in span or span.startswith('nbs/'): continue
        pattern = str(at.with_name(at.name.replace('.arrow', '*.arrow')))  # a table made with other settings has them in its name
        assert any(trained.glob(pattern if '/' in pattern else f'**/{pattern}')), span
        seen.add(span)
    assert len(seen) > 12
    ours = {s for s in told() if re.fullmatch(r'(nbs|tests|scripts|airflow|papermill_runs)/[\w./]*|constraints.txt|CONTRIBUTING.md', s)}
    assert len(ours) > 5 and [s for s in sorted(ours) if not (ROOT / s).exists()] == []
    assert {'path', 'status', 'reason'} <= set(Workspace(trained).read_index().columns)


def test_the_reasons_are_of_things_that_are_so():
    optim, data, kinds = OptimConfig(), DataConfig(), list(variants(13))
    assert (optim.name, optim.schedule, optim.warmup_epochs > 0) == ('adamw', 'cosine', True)
    assert 'elastic' in SPATIAL and kinds[:10] == list(SPATIAL) and kinds[10:] == list(TEMPORAL) == ['frame_drop', 'frame_duplicate', 'reverse']
    assert compose().stages.augmentation.num_augmentations == 10 and compose().stages.augmentation.num_frames == 0
    assert (data.stages, data.include_metadata, data.fit) == ([2, 4], False, 'pad')
    assert (len(feature_names(2)), len(feature_names(4))) == (15, 23) and 'fifteen' in PAGE and 'twenty-three' in PAGE and 'all 38 columns' in PAGE
    assert BEFORE == {1: 0, 2: 1, 3: 1, 4: 3}
    for model in ('logistic_regression', 'svm', 'gradient_boosting'):
        cfg = compose(model)
        assert cfg.data.stages == [2, 4] and not cfg.data.include_metadata
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(ROOT / 'settings.ini')
    wanted = ini['DEFAULT']['requirements'].split()
    assert ini['DEFAULT']['min_python'] == '3.11' and 'xgboost-cpu' in wanted and 'xgboost' not in wanted
    assert reasons().count('\n- **') == 14
