"""What several test files share: real videos and a small indexed corpus, made once."""
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')


def write_clip(path, seed, frames=12, size=(64, 48), codec='libx264'):
    "A short real video of moving noise, different for every seed."
    from fvc.video.toy_videos import moving_noise, write_toy_video
    return write_toy_video(path, moving_noise(seed, frames, size), rate=12, codec=codec)


LONG = ('test_every_model', 'test_stage', 'test_stranger', 'test_cluster')  # files that take minutes


def pytest_collection_modifyitems(items):
    "Long files first, so that in the end no core waits for one of them."
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope='session')
def shared():
    "The folder with real clips and the real corpus's metadata; tests that need it say so when it is absent."
    folder = Path(os.environ.get('FVC_SHARED', ROOT.parent / 'shared')) / 'data'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent: set FVC_SHARED to the folder that holds data/clips')
    return folder


def make_corpus(folder):
    "A small sample corpus through stages 0-4 in folder/work: twelve cascades on six photographs, two folds, two copies a video."
    from fvc.running import pipeline
    from fvc.corpus.sample import SAMPLE_PASSWORD, make_sample
    from fvc.stages.setup import setup
    place = folder / 'work'
    archives = make_sample(folder / 'archives', n_cascades=12, seconds=1.0, side=160)
    words = ['split.n_splits=2', 'stages.augmentation.num_augmentations=2']
    setup(archives, str(place), ' '.join(words), SAMPLE_PASSWORD)
    for number in (1, 2, 3, 4):
        pipeline.run_one_stage(number, str(place), words)
    return place


@pytest.fixture(scope='session')
def made_corpus(tmp_path_factory):
    "The folder of `make_corpus`, made once and left as it is; FVC_TEST_CORPUS names one that is there already."
    if stored := os.environ.get('FVC_TEST_CORPUS'): return Path(stored)
    folder = tmp_path_factory.mktemp('made_corpus')
    make_corpus(folder)
    return folder


@pytest.fixture(scope='module')
def corpus(made_corpus, tmp_path_factory):
    "A copy of the corpus for one file of tests: what another file trains is not seen here."
    folder = tmp_path_factory.mktemp('corpus')
    shutil.copytree(made_corpus, folder, dirs_exist_ok=True, symlinks=True)
    return folder / 'work'
