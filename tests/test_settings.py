"""Every setting changes what a run does: each key of the configuration is set to another value, and something that matters must differ.

An observation is a function of a workspace and of settings; what it returns is compared as text. A key without one fails by its name."""
import hashlib
import io
import itertools
import shutil
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import torch
from conftest import write_clip
from fvc.corpus import sources
from fvc.engine import per_video as stage
from fvc.learning import recording
from fvc.running import experiment
from fvc.learning import fitting
from fvc.learning.clips import ClipInput
from fvc.learning.detector import Detector, Member, build
from fvc.learning.examples import Examples, make_loader
from fvc.learning.rows import feature_columns
from fvc.core.config import compose, flattened
from fvc.running.experiment import make_split, run_fold
from fvc.learning.fitting import fit_estimator, fit_network, gather
from fvc.core.registry import get, parts, spec_of
from fvc.learning.losses import with_counts
from fvc.learning.runs import resolve, run_name
from fvc.corpus.sample import SAMPLE_PASSWORD
from fvc.corpus.splits import holdout_split
from fvc.scores.tasks import Task
from fvc.engine.per_video import run_stage
from fvc.stages import augmentation, features, scaled_features, scaling
from fvc.stages.setup import deal_folds, setup
from fvc.core.files import write_text
from fvc.core.table import read_table, write_table
from fvc.core.workspace import Workspace
from fvc.learning.tracking import ExperimentTracker
from fvc.learning.training import make_accelerator
from fvc.engine.workers import Failure, Spent

MODELS = ('logistic_regression', 'naive_cnn', 'xgboost_pretrained_inception', 'x3d')
CASES = {}  # key -> (another value, settings beside it, observation)


def observes(beside='', **keys):
    "Register an observation for keys, written with two underscores for a dot."
    def add(function):
        CASES.update({k.replace('__', '.'): (value, beside, function) for k, value in keys.items()})
        return function
    return add


def refusal(function, *given):
    "What an observation that may be refused says."
    try:
        return function(*given)
    except (ValueError, RuntimeError, OSError) as e:
        return f'{type(e).__name__}: {e}'


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


class Reached(RuntimeError):
    "Raised by what stands in for a step, to say that a run came this far."


def stop(name):
    def reached(*given, **named):
        raise Reached(name, str(given), str(named))
    return reached


@pytest.fixture(scope='module')
def place(corpus, tmp_path_factory):
    "A copy of the corpus that observations may write to, with a split of one's own and a folder of videos beside it."
    target = shutil.copytree(corpus, tmp_path_factory.mktemp('settings') / 'work', symlinks=True, ignore=shutil.ignore_patterns('stage5', 'cache'))
    shutil.copytree(corpus.parent / 'archives', target.parent / 'archives')
    place = Workspace(target)
    write_text(target / 'mine.json', holdout_split(place.read_folds(), seed=1).to_json())
    for i in range(8):
        write_clip(target.parent / 'folder' / ('real', 'fake')[i % 2] / f'clip {i}.mp4', i)
    cut = write_clip(target.parent / 'folder' / 'real' / 'cut.avi', 9, frames=60, codec='mpeg4')
    cut.write_bytes(cut.read_bytes()[:cut.stat().st_size * 2 // 3])
    shutil.copytree(target, target.parent / 'scratch', symlinks=True)  # the stages write here, where nothing else reads
    return place


# What a network is shown

def clips(place, words, train=False, views=False):
    "Batches of six videos' clips."
    cfg, source = compose('naive_cnn', words, corpus=place.made_with()), ClipInput()
    examples = Examples(source.rows(place, cfg)[:6], [source], place, cfg, train=train, views=views)
    return make_loader(examples, cfg.training.batch_size, cfg.training.num_workers, cfg.training.seed)


@observes(data__frames=3, data__size=48, data__span=0.4, data__stride=1, data__fit='crop', training__batch_size=2, training__seed=3, profile='small',
          augment__hflip__p='null', augment__brightness__p=1.0, augment__contrast__p=1.0, augment__gaussian_noise__p=1.0, augment__rotation__p=1.0)
def shown(place, words):
    batches = [next(iter(clips(place, words, train)))['clip'].numpy() for train in (False, True)]
    return [(b.shape, digest(b)) for b in batches]


BRIGHT, SMALL = 'augment.hflip.p=null augment.{}.p=1.0 data.size=32 data.frames=2', 'data.size=32 data.frames=2'
for name, values in dict(brightness=dict(low=0.5, high=1.5), contrast=dict(low=0.5, high=1.5), gaussian_noise=dict(most=0.2), rotation=dict(degrees=30.0)).items():
    CASES.update({f'augment.{name}.{k}': (v, BRIGHT.format(name), shown) for k, v in values.items()})
CASES['data.jitter'] = ('true', f'{SMALL} data.span=0.5', shown)


@observes(f'{SMALL} data.fit=own training.batch_size=6', data__pad_batches='true')
def batched(place, words):
    "A wide clip and a tall one."
    cfg, made = compose('naive_cnn', words), [(size, write_clip(place.root.parent / 'shapes' / f'{size[0]}.mp4', 1, size=size)) for size in ((64, 48), (48, 64))]
    rows = [{'video_id': p.stem, 'variant': 'original', 'clip.path': str(p), 'clip.width': w, 'clip.height': h, 'clip.frames': 12, 'clip.duration': 1.0} for (w, h), p in made]
    loader = make_loader(Examples(pl.DataFrame(rows), [ClipInput()], None, cfg), cfg.training.batch_size)
    return [sorted((name, tuple(value.shape)) for name, value in batch.items()) for batch in loader]


@observes(f'{SMALL} data.span=0.2', data__views=2)
def viewed(place, words):
    return [batch['row'].tolist() for batch in clips(place, words, views=True)]


@observes(f'{SMALL} data.span=0.2', data__pool='max')
def pooled(place, words):
    spec, cfg = spec_of('naive_cnn'), compose('naive_cnn', words, corpus=place.made_with())
    return Detector(spec, cfg, Task(), [Member(build(spec, cfg, Task()))], place=place).score(ClipInput().rows(place, cfg)[:2]).tolist()


@observes(data__cache_mb=0, training__num_workers=1)
def loaded(place, words):
    loader = clips(place, words)
    return len(loader.dataset.states[0][2].place), loader.num_workers


# Table models, and who is trained on

@observes('split.n_splits=2', data__variants=1, data__stages='[4]', data__include_metadata='true', data__weigh='groups', variant='stage2',
          split__kind='holdout')
def scored(place, words):
    cfg = compose('logistic_regression', words, corpus=place.made_with())
    made = fit_estimator(gather(spec_of('logistic_regression'), cfg, place, make_split(cfg, place, 1)), place.root, None)
    return [s.scores.tolist() for s in made.inner], made.val.scores.tolist(), made.facts


@observes('split.kind=file', split__file='{place}/mine.json')
def own_split(place, words):
    return refusal(lambda: make_split(compose('logistic_regression', words), place, 1))


@observes(split__n_splits=3, split__seed=1)
def dealt(place, words):
    index = place.read_index().to_dicts()
    return deal_folds(index, None, compose(None, words).split)['fold'].to_list()


@observes('split.n_splits=2', data__min_rows=3000)
def enough(place, words):
    cfg = compose('logistic_regression', words, corpus=place.made_with())
    return refusal(lambda: gather(spec_of('logistic_regression'), cfg, place, make_split(cfg, place, 1)).rows.height)


@observes(data__permuted=0)
def labels(place, words):
    with tempfile.TemporaryDirectory() as folder:
        other = Workspace(Path(folder))
        write_table(place.read_folds().with_columns(group=pl.col('video_id')), other.folds)
        for number in (2, 4): shutil.copytree(place.folder(number), other.folder(number))
        shutil.copy(place.corpus, other.corpus)
        spec, split = spec_of('logistic_regression'), holdout_split(place.read_folds())
        return gather(spec, compose(spec, words, corpus=place.made_with()), other, split).rows['label'].to_list()


# A training

TINY = 'split.n_splits=2 data.frames=1 data.size=32 data.variants=0 data.fit=crop model.width=2 training.epochs=4 optim.lr=0.05 training.device=cpu training.batch_size=4'


@observes(TINY, optim__name='sgd', optim__lr=0.01, optim__head_lr_scale=3.0, optim__weight_decay=5.0, optim__warmup_epochs=0.0, optim__min_lr_ratio=0.9,
          optim__grad_clip=0.01, optim__momentum=0.5, optim__schedule='step', training__epochs=3, training__accumulate=2, training__mixed_precision='bf16', loss__name='focal')
def trained(place, words):
    spec, cfg = spec_of('naive_cnn'), compose('naive_cnn', words, corpus=place.made_with())
    with tempfile.TemporaryDirectory() as folder:
        tracker = ExperimentTracker(folder)
        made = fit_network(gather(spec, cfg, place, make_split(cfg, place, 1)), Path(folder), tracker)
        return made.val.scores.tolist(), made.facts, tracker.frame().select('step', 'epoch', 'metric', 'value').rows()


@observes(TINY + ' optim.schedule=step optim.step_epochs=2', optim__step_epochs=1.0, optim__step_ratio=0.5, optim__name='adam')
def fallen(place, words): return trained(place, words)


@observes(TINY + ' training.epochs=8 optim.lr=1.0 optim.grad_clip=0', training__patience=1, training__monitor='inner_auc')
def stopped(place, words):
    facts = trained(place, words)[1]
    return facts['best_epoch'], facts['epochs']


@observes(TINY + ' training.epochs=1', training__inner_folds=2)
def inner_networks(place, words):
    spec, cfg = spec_of('naive_cnn'), compose('naive_cnn', words, corpus=place.made_with())
    with tempfile.TemporaryDirectory() as folder:
        made = fit_network(gather(spec, cfg, place, make_split(cfg, place, 1)), Path(folder), ExperimentTracker(folder), lambda j: ExperimentTracker(f'{folder}/{j}'))
    return [s.inner_fold for s in made.inner], list(made.inner_detectors)


@observes(training__device='cpu' if torch.cuda.is_available() else 'cuda')
def device(place, words):
    return refusal(lambda: make_accelerator(compose('naive_cnn', words).training).device.type)


# A run

@observes('split.n_splits=2', experiment__mlflow='false')
def tracked(place, words):
    with patch.object(recording, 'MLflowTracker', stop('MLflow')), patch.dict(fitting.FITS, estimator=stop('fit')):
        with pytest.raises(Reached) as e:
            run_fold('logistic_regression', 1, str(place), f'{words} experiment.name=tracked{words.count("false")}')
        return e.value.args[0]


@observes('split.n_splits=2 experiment.mlflow=false', training__processes=2)
def launched(place, words):
    with patch.object(experiment, 'launch', stop('launch')), patch.dict(fitting.FITS, network=stop('fit')):
        with pytest.raises(Reached) as e:
            run_fold('naive_cnn', 1, str(place), f'{words} experiment.name=launched')
        return e.value.args[0]


@observes('split.n_splits=2 experiment.mlflow=false experiment.name=again variant=stage2', experiment__again='true')
def trained_again(place, words):
    "What a second call says of a fold that is finished."
    shutil.rmtree(place.run('logistic_regression@again'), ignore_errors=True)
    run_fold('logistic_regression', 1, str(place), words)
    with redirect_stdout(io.StringIO()) as said: run_fold('logistic_regression', 1, str(place), words)
    return said.getvalue()


@observes(experiment__name='mine')
def named(place, words):
    return run_name(spec_of('naive_cnn'), resolve(spec_of('naive_cnn'), words))


@observes('model.backbone=tf_efficientnet_lite0', pretrained='false')
def started_from(place, words):
    spec = spec_of('xgboost_pretrained_inception')
    return build(spec, compose(spec, words), Task())[0].origin


# The data stages

def one_video(name, work, table, out, config, schema, workspace, run=None, shard=(1, 1), variants=None, row_config=None, settings=None, told=None):
    "In place of the engine: the first video alone, in this process, and its rows as a table."
    first = table.filter(pl.col('status') == 'ok')['video_id'][0]
    rows = table.filter(pl.col('video_id') == first, pl.col('status') == 'ok').to_dicts()
    made = work(dict(video_id=first, rows=rows, workspace=workspace, config=config, attempt=1))
    return pl.DataFrame([dict(video_id=first, **r) for r in made], infer_schema_length=None)


def one_stage(module, function, place, words):
    rows = lambda self, stage, cfg: read_table(self.table(stage))  # of the corpus, whatever is asked of this stage
    with patch.object(module, 'run_stage', one_video), patch.object(module, 'check_inputs'), patch.object(Workspace, 'read_rows', rows):
        return function(str(place.root.parent / 'scratch'), words)


@observes('stages.augmentation.kinds=[blur,noise] stages.augmentation.num_augmentations=2', stages__augmentation__num_augmentations=1,
          stages__augmentation__num_frames=3, stages__augmentation__crf=40, stages__augmentation__preset='medium', stages__augmentation__seed=1)
def augmented(place, words):
    return one_stage(augmentation, augmentation.stage1_augment_videos, place, words).select('variant', 'params', 'frames', 'sha256').rows()


@observes('stages.augmentation.num_augmentations=2', stages__augmentation__kinds='[blur,reverse]')
def kinds(place, words):
    return one_stage(augmentation, augmentation.stage1_augment_videos, place, words)['kind'].to_list()


def measured(module, function, folder, stage_number):
    def observe(place, words):
        table, made = one_stage(module, function, place, words), place.root.parent / 'scratch' / folder
        files = sorted(p.name for p in made.rglob('*.npy'))
        for arrays in made.glob('arrays*'):
            shutil.rmtree(arrays)
        return table.select(feature_columns(stage_number)).rows(), files
    return observe


observes(stages__features__num_frames=2, stages__features__save_npy='true')(
    measured(features, features.stage2_extract_features, 'features_stage2', 2))
observes(stages__scaled_features__num_frames=2, stages__scaled_features__save_npy='true')(
    measured(scaled_features, scaled_features.stage4_extract_scaled_features, 'features_stage4', 4))


@observes(stages__scaling__target_size=64, stages__scaling__scale_by='shortest', stages__scaling__crf=40, stages__scaling__preset='ultrafast',
          stages__scaling__method='autoencoder')
def scaled(place, words):
    with patch('fvc.learning.autoencoder.load_autoencoder', stop('autoencoder')):
        return refusal(lambda: one_stage(scaling, scaling.stage3_scale_videos, place, words).select('width', 'height', 'sha256').rows())


@observes('stages.scaling.method=autoencoder', stages__scaling__weights='elsewhere')
def autoencoder(place, words):
    return scaled(place, words)


def here(work, items, workers=0, time_limit=0.0, memory_limit=0.0, heed=None):
    "In place of the worker processes: this one."
    for item in items:
        try:
            yield item, 'ok', work(dict(item, attempt=1)), Spent(0.01, 0.01)
        except ValueError as e:
            yield item, 'failed', Failure(str(e)), Spent(0.01, 0.01)


@observes(stages__workers=3, stages__time_limit=7.0, stages__memory_limit=1.5, stages__retry_failed='true')
def engine(place, words):
    "What the worker processes are told, and how many videos a second run opens when one has failed."
    told = []

    def process(work, items, *limits):
        items = list(items)
        told.append((len(items), limits[:3]))
        return here(work, items)

    def work(item):
        if item['video_id'] == 'bad':
            raise ValueError('it cannot be read')
        return [dict(variant='original', status='ok')]
    table = pl.DataFrame(dict(video_id=['good', 'bad'], variant='original', path=['a', 'b'], status='ok', reason='',
                              frames=1, width=2, height=2, duration=1.0))
    with tempfile.TemporaryDirectory() as folder, patch.object(stage, 'process', process):
        for _ in range(2):
            run_stage('test', work, table, Path(folder) / 'table.arrow', {}, {}, Workspace(Path(folder)), compose(None, words).stages)
    return told


@observes(stages__setup__link='copy', stages__setup__near_duplicates='false', stages__setup__use_prefix='true')
def set_up(place, words):
    with tempfile.TemporaryDirectory() as folder, patch.object(stage, 'process', here):
        index = setup(place.root.parent / 'folder', folder, f'split.n_splits=2 {words}')
        linked = [(Path(folder) / p).is_symlink() for p in index['path']]
        return linked, Workspace(Path(folder)).near_duplicates.exists(), index.select('status', 'prefix', 'frames').rows()


@observes(stages__setup__task='multilabel', stages__setup__fake_label='real')
def asked(place, words):
    with tempfile.TemporaryDirectory() as folder, patch.object(stage, 'process', here):
        index = setup(place.root.parent / 'folder', folder, f'split.n_splits=2 stages.setup.near_duplicates=false {words}')
        return index['label'].to_list()


@observes(stages__setup__recut='true')
def cut_anew(place, words):
    with tempfile.TemporaryDirectory() as folder, patch.object(stage, 'process', here):
        setup(place.root.parent / 'folder', folder, 'split.n_splits=2 stages.setup.near_duplicates=false')
        said = refusal(lambda: setup(place.root.parent / 'folder', folder, f'split.n_splits=3 stages.setup.near_duplicates=false {words}').height)
        return str(said).replace(folder, '')


@observes(stages__setup__bridges='exclude')
def bridged(place, words):
    with tempfile.TemporaryDirectory() as folder, patch.object(stage, 'process', here):
        source, where = shutil.copytree(place.root.parent / 'folder', Path(folder) / 'source'), str(Path(folder) / 'work')
        usual = 'split.n_splits=2 stages.setup.near_duplicates=false'
        files = sorted(str(p.relative_to(source)) for p in source.glob('*/*.mp4'))
        lines = ['file,label,cascades', *(f'{f},{Path(f).parent.name},c{i}' for i, f in enumerate(files))]
        (source / 'manifest.csv').write_text('\n'.join(lines[:-1]) + '\n')
        setup(source, where, usual)
        (source / 'manifest.csv').write_text('\n'.join([*lines[:-1], f'{lines[-1]};c0;c1']) + '\n')
        said = refusal(lambda: setup(source, where, f'{usual} {words}')['status'].to_list())
        return str(said).replace(folder, '')


@observes(stages__setup__metadata_only='true')
def planned(place, words):
    with tempfile.TemporaryDirectory() as folder, patch.object(stage, 'process', here):
        source = Path(folder) / 'tables'
        source.mkdir()
        rows = [f"{'rf'[i % 2]}{i},https://www.youtube.com/watch?v=abcdefgh00{i},{('real', 'fake')[i % 2]}" for i in range(8)]
        write_text(source / 'FVC.csv', '\n'.join(['cascade_id,video_url,label', *rows, '']))
        write_text(source / 'FVC_dup.csv', 'cascade_id,video_url,label\n')
        said = refusal(lambda: setup(source, f'{folder}/work', f'split.n_splits=2 {words}')['status'].to_list())
        return str(said).replace(folder, '')


@observes(stages__setup__max_ratio=9, stages__setup__max_gigabytes=1.0)
def limited(place, words):
    with tempfile.TemporaryDirectory() as folder, patch.object(sources, 'check_members', stop('check')):
        with pytest.raises(Reached) as e:
            setup(place.root.parent / 'archives', f'{folder}/work', f'split.n_splits=2 {words}', SAMPLE_PASSWORD)
        return e.value.args[2]


# Options of models and losses: the key is preceded by whose it is

def built(name):
    "A model as it is built: an estimator by what it predicts, a network by its layers and first weights."
    def observe(place, words):
        spec = spec_of(name)
        made = build(spec, compose(spec, words), Task())
        network, estimator = made if isinstance(made, tuple) else (made, None) if spec.kind == 'network' else (None, made)
        said = [] if network is None else [repr(network), [(k, digest(v.numpy())) for k, v in itertools.islice(network.state_dict().items(), 3)]]
        if estimator is None:
            return said
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(80, 12)), (np.arange(80) % 4 == 0).astype(int)
        return [*said, estimator.fit(x + y[:, None] * 0.5, y).predict_proba(x).tolist()]
    return observe


OPTIONS = {'logistic_regression': {'C': 3.0, 'balanced': 'false', 'penalty': 'l1', 'collinear': 0.01}, 'naive_cnn': {'width': 4, 'dropout': 0.1}, 'x3d': {'depth': 1.5, 'width': 1.5, 'dropout': 0.1},
           'xgboost_pretrained_inception': {'backbone': 'test_vit', 'trees': 20, 'depth': 1, 'learning_rate': 0.3, 'column_share': 0.9}}
BESIDE = {'x3d': 'profile=small', 'xgboost_pretrained_inception': 'pretrained=false model.backbone=test_resnet model.trees=30'}
BUILT = {model: built(model) for model in OPTIONS}
CASES.update({f'{m}: model.{k}': (v, BESIDE.get(m, ''), BUILT[m]) for m, values in OPTIONS.items() for k, v in values.items()})
CASES['x3d: model.size'] = ('L', 'profile=small model.depth=null model.width=null', BUILT['x3d'])


def recomputed(place, words):
    "How many convolutions are computed in one step: more where activations are not kept."
    cfg, seen = compose('x3d', words), []
    network = build(spec_of('x3d'), cfg, Task())
    for part in network.modules():
        if isinstance(part, torch.nn.Conv3d): part.register_forward_hook(lambda *given: seen.append(1))
    network(torch.rand(2, 3, 4, 48, 48)).sum().backward()
    return len(seen)


CASES['x3d: model.checkpointing'] = ('true', 'profile=small', recomputed)


def lost(name):
    def observe(place, words):
        options = compose('naive_cnn', words).to_dict()['loss']
        counts = [4, 1] if name == 'cross_entropy' else [[4, 1], [1, 1]]
        loss = with_counts(get(options.pop('name'), kind='loss', **options), counts)
        logits, target = torch.tensor([[2.0, -1.0], [-0.5, 1.5], [0.3, 0.1]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        return loss(logits, target[:, 0].long() if name == 'cross_entropy' else target).mean().item()
    return observe


LOSSES = {'bce': {'pos_weight': 3.0, 'label_smoothing': 0.2, 'balance': 'true'}, 'focal': {'gamma': 1.0, 'alpha': 0.6},
          'cross_entropy': {'label_smoothing': 0.2, 'balance': 'true'}}
for loss_name, values in LOSSES.items():
    observation = lost(loss_name)
    CASES.update({f'{loss_name}: loss.{k}': (v, f'loss={loss_name}', observation) for k, v in values.items()})


def all_keys():
    "Every key that a user may set, those of a model or a loss once for each."
    found = dict.fromkeys(k for k, _ in flattened(compose('naive_cnn').to_dict()) if not k.startswith(('model.', 'loss.')))
    found |= dict.fromkeys(f'{m}: {k}' for m in MODELS for k, _ in flattened(compose(m).to_dict()) if k.startswith('model.'))
    names = dict.fromkeys(f'{n}: {k}' for n in parts('loss') for k, _ in flattened(compose('naive_cnn', f'loss={n}').to_dict()) if k.startswith('loss.'))
    return [*found, 'loss.name', *(n for n in names if not n.endswith(': loss.name'))]


@pytest.fixture(scope='module')
def known():
    "What was observed without the setting, once an observation."
    return {}


@pytest.mark.parametrize('key', all_keys())
def test_a_setting_changes_what_is_done(key, place, known):
    assert key in CASES, f'no observation of {key} in tests/test_settings.py: say there what it changes'
    value, beside, observe = CASES[key]
    before = known.setdefault((observe, beside), repr(observe(place, beside)))
    word = f'{key.split(": ")[-1].replace("loss.name", "loss")}={str(value).format(place=place)}'
    assert repr(observe(place, f'{beside} {word}')) != before, f'{word} changes nothing'


@pytest.mark.parametrize('observe', list(dict.fromkeys((c[2], c[1]) for c in CASES.values())), ids=lambda o: f'{o[0].__qualname__} {o[1][:30]}')
def test_an_observation_repeats(observe, place, known):
    "What differs by itself would prove nothing."
    again = repr(observe[0](place, observe[1]))
    assert again == known.setdefault(observe, again)


def test_no_observation_is_of_a_key_that_is_gone():
    assert not set(CASES) - set(all_keys())
