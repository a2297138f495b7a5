"""Every run of a stage is recorded beside its table, whichever way it was started."""
import json
import threading
import tracemalloc

import papermill
import polars as pl
import pytest
from conftest import ROOT
from fvc.core.config import RunConfig, compose
from fvc.core.files import AlreadyRunning, locked
from fvc.core.table import read_table, table_metadata, write_table
from fvc.core.workspace import Workspace
from fvc.corpus.sample import SAMPLE_PASSWORD
from fvc.learning.data_versions import DataVersionManager
from fvc.learning.stage_records import StageRecord
from fvc.learning.tracking import ExperimentTracker
from fvc.learning.weights import MissingWeights
from fvc.running.cli import main
from fvc.running.pipeline import run_one_stage
from fvc.stages.setup import setup

TWO = 'stages.augmentation.num_augmentations=2 stages.workers=1'


def record(place, stage, words=TWO):
    "What the runs of a stage were: values of each, and what is said of the last."
    cfg = compose(None, words)
    home, table = place.record(stage, cfg), read_table(place.table(stage, cfg))
    lines = ExperimentTracker(home).frame()
    runs = [dict(part.select('metric', 'value').iter_rows()) for part in lines.partition_by('epoch', maintain_order=True)]
    about = json.loads((home / 'metadata.json').read_text())
    last = lines.filter(pl.col('epoch') == lines['epoch'].max())
    assert (about['stage'], about['table'], about['run'], {about['run_id']}) == (stage, place.table(stage, cfg).name, len(runs), set(last['run_id']))
    assert (runs[-1]['rows'], runs[-1]['videos'], runs[-1].get('ok')) == (table.height, table['video_id'].n_unique(), (table['status'] == 'ok').sum() or None)
    return runs, about, table


def version(place, about):
    return DataVersionManager(place).versions()[about['version']]['tables'][about['table'].rpartition('.')[0]]


def test_a_command_leaves_a_record(corpus, capsys):
    place, words = Workspace(corpus), f'{TWO} stages.scaling.target_size=64'
    command = ['stage', '3', '--data', str(corpus), '--num-augmentations', '2', '--target-size', '64', 'stages.workers=1']
    assert main(command) == 0
    killed = place.record(3, compose(None, words)) / '.tmp-metrics.jsonl'
    killed.touch()
    assert main(command) == 0 and not killed.exists(), 'the next run takes away what a killed one left in the record'
    (first, second), about, table = record(place, 3, words)
    videos = table.filter(pl.col('status') == 'ok')['video_id'].n_unique()
    assert (first['done'], second['done']) == (videos, 0)
    assert first['seconds'] > 0 and .02 < first['peak_gib'] < 4
    kept = version(place, about)
    assert kept['rows'] == table.height and kept['split'] and kept['augmentation'] == {'num_augmentations': 2}
    assert about['libraries'] == table_metadata(place.table(3, compose(None, words)))['versions'] and about['timestamp']
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith('stage 3: ') and about['version'] in line]
    assert len(said) == 2 and f'{videos} videos worked on' in said[0] and '0 videos worked on' in said[1] and f'{table.height} rows' in said[0]


def test_each_stage_and_each_way_of_calling_it(corpus, tmp_path):
    "As `fvc run` calls it, and as papermill does."
    place = Workspace(corpus)
    for stage in (1, 2):
        earlier = ExperimentTracker(place.record(stage, compose(None, TWO))).frame()['epoch'].n_unique()
        run_one_stage(stage, str(place), TWO.split())
        runs, about, table = record(place, stage)
        assert len(runs) == earlier + 1 and version(place, about)['rows'] == table.height
    words = f'{TWO} stages.scaled_features.num_frames=2'
    papermill.execute_notebook(ROOT / 'nbs' / '4_scaled_features.ipynb', tmp_path / 'out.ipynb', dict(data=str(place), overrides=words), cwd=ROOT / 'nbs', progress_bar=False)
    runs, about, table = record(place, 4, words)
    assert len(runs) == 1 and runs[0]['done'] == table.filter(pl.col('status') == 'ok')['video_id'].n_unique()
    assert about['version'] in (tmp_path / 'out.ipynb').read_text()


def test_setup_is_recorded_too(made_corpus, tmp_path):
    place = Workspace(tmp_path / 'data')
    for _ in range(2): setup(made_corpus / 'archives', place, 'split.n_splits=2 stages.workers=1', SAMPLE_PASSWORD)
    runs, about, table = record(place, 0, '')
    assert len(runs) == 2 and runs[0]['peak_gib'] > .02 and version(place, about)['rows'] == table.height
    assert [run['done'] for run in runs] == [table['path'].drop_nulls().n_unique(), 0] and runs[0]['done'] > 20


def test_a_run_that_failed_leaves_no_record(corpus):
    place, words = Workspace(corpus), f'{TWO} stages.scaling.method=autoencoder stages.scaling.weights=nowhere'
    with pytest.raises(MissingWeights): run_one_stage(3, str(place), words.split())
    assert not place.record(3, compose(None, words)).exists()


def test_versions_of_large_tables_need_no_more_memory(tmp_path):
    "Ten times the rows, and no more than a few lines of text more."
    place, peaks = Workspace(tmp_path), []
    for rows in (20_000, 200_000):
        frame = pl.DataFrame(dict(video_id=[f'v{n}' for n in range(rows)], value=range(rows)))
        table = write_table(frame, tmp_path / f'{rows}.arrow')
        del frame
        tracemalloc.start()
        DataVersionManager(place).record({'table': table})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks


def test_who_works_beside_others_leaves_what_they_are_writing(tmp_path):
    "The sweep of what killed runs left took half-written files of runs with other settings, and the record of a shard that ended a moment earlier."
    from fvc.engine.per_video import among_others
    files = tmp_path / 'copies' / '.tmp-a.mp4', tmp_path / 'table.record' / '.tmp-metrics.jsonl'
    for file in files:
        file.parent.mkdir()
        file.touch()
    with locked(tmp_path / '.lock', tmp_path, shared=True):
        with among_others(tmp_path): assert all(file.exists() for file in files)
        assert all(file.exists() for file in files)
    with among_others(tmp_path):
        assert not any(file.exists() for file in files)
        files[0].touch()  # by a worker that is killed
        with pytest.raises(AlreadyRunning), locked(tmp_path / '.lock', tmp_path): raise AssertionError('others may sweep')
    assert not files[0].exists()


def test_a_record_waits_until_nobody_sweeps(tmp_path):
    "It is written below the folder that who is alone sweeps."
    place, said = Workspace(tmp_path), []
    with locked(place.folder(2) / '.lock', place.folder(2)):
        writer = threading.Thread(target=lambda: said.append(StageRecord(2, place, RunConfig()).keep(pl.DataFrame(dict(video_id=['a'], status=['ok'])))))
        writer.start()
        writer.join(1.5)
        assert writer.is_alive() and not place.record(2, RunConfig()).exists()
    writer.join(30)
    assert said and (place.record(2, RunConfig()) / 'metadata.json').is_file()
