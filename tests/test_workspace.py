"""One object knows where everything is: places, formats, and workspaces that are copied or moved."""
import hashlib
import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from fvc.core.config import compose
from fvc.core.registry import spec_of
from fvc.core.files import write_json
from fvc.core.table import read_table, table_metadata, write_table
from fvc.core.workspace import FORMAT, Workspace
from fvc.core.config import compose
from fvc.core.registry import spec_of
from fvc.learning.clips import ClipInput
from fvc.learning.examples import Examples
from fvc.learning.rows import load_rows
from fvc.learning.runs import resolve
from fvc.learning.tracking import MLflowTracker
from fvc.running import pipeline
from fvc.running.cli import main
from fvc.running.experiment import run_fold

SETTINGS = ['split.n_splits=2', 'stages.augmentation.num_augmentations=2']
TABLE = 'split.n_splits=2 experiment.name=two'


@pytest.fixture
def place(corpus, tmp_path):
    "A copy of the corpus, without any run."
    return Workspace(shutil.copytree(corpus, tmp_path / 'work', symlinks=True, ignore=shutil.ignore_patterns('stage5', 'mlflow*', 'mlartifacts', 'cache')))


def state(folder):
    "Every file with its content; what is the same after a run was not written. Records of runs do not count."
    files = [p for p in folder.rglob('*') if p.is_file() and p.parent.suffix != '.record' and not p.name.startswith('data_versions.')]
    return {p.relative_to(folder): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}


def test_files_are_where_the_documents_say(corpus):
    "The names that users and other programs rely on, spelt a second time on purpose."
    place = Workspace(corpus)
    said = ['video_index_input.csv', 'augmented_videos/augmented_metadata.arrow', 'features_stage2/features_metadata.arrow',
            'scaled_videos/scaled_metadata.arrow', 'features_stage4/features_scaled_metadata.arrow']
    assert [place.table(n, compose()) for n in range(5)] == [corpus / name for name in said]
    two = [place.table(n, compose(None, SETTINGS)) for n in range(5)]
    assert all(p.is_file() and p.parent == (corpus / name).parent for p, name in zip(two, said)), 'with two copies: the same, and a suffix'
    assert all(re.fullmatch(re.escape(Path(name).stem) + '-[0-9a-f]{8}', p.stem) for p, name in zip(two[1:], said[1:]))
    assert {place.index_json.name, place.folds.name, place.corpus.name, place.duplicates.name, place.near_duplicates.name} == {
        'video_index_input.json', 'folds.arrow', 'corpus.json', 'duplicates.csv', 'near_duplicates.csv'} and place.near_duplicates.is_file()
    assert place.probed.is_file() and place.fingerprints.is_file() and place.run('svm@stage2') == corpus / 'stage5' / 'svm@stage2'
    assert place.reports.parent == ROOT / 'papermill_runs' and place.mlflow_db == corpus / 'mlflow.db'


def test_find_takes_the_parameter_then_the_environment_then_what_has_an_index(tmp_path, monkeypatch):
    (tmp_path / 'settings.ini').write_text('')
    (tmp_path / 'nbs').mkdir()
    monkeypatch.chdir(tmp_path / 'nbs')
    monkeypatch.delenv('FVC_DATA', raising=False)
    assert Workspace.find().root == tmp_path / 'data' / 'sample' and Workspace.find(new=True).root == tmp_path / 'data'
    (tmp_path / 'data').mkdir()
    Workspace(tmp_path / 'data').index.write_text('video_id\n')
    assert Workspace.find().root == tmp_path / 'data'
    monkeypatch.setenv('FVC_DATA', 'mine')
    assert Workspace.find().root == Workspace.find(new=True).root == tmp_path / 'mine' and Workspace.find('own').root == tmp_path / 'own'
    assert Workspace.find(Workspace(tmp_path)).root == tmp_path


def test_only_the_fold_table_has_labels(corpus):
    place = Workspace(corpus)
    for file in (place.table(1), place.table(2), place.table(3), place.table(4), place.probed, place.fingerprints):
        assert not {'label', 'group', 'fold'} & set(read_table(file).columns), file
    assert {'label', 'group'} < set(place.read_index().columns)
    served, folds = load_rows(place, 2), place.read_folds()
    assert dict(served.select('video_id', 'label').iter_rows()).items() <= dict(folds.select('video_id', 'label').iter_rows()).items()


def test_tables_that_repeat_labels_lose_them_and_no_video_is_made_again(place, capsys):
    wanted = {n: read_table(place.table(n)) for n in (1, 2, 3, 4)}
    for n, table in wanted.items():
        write_table(table.with_columns(label=pl.lit(1, pl.Int8), group=pl.lit('of old')), place.table(n), table_metadata(place.table(n)))
    made = state(place.folder(1)), state(place.folder(3))
    capsys.readouterr()
    for n, table in wanted.items():
        assert pipeline.run_one_stage(n, place, SETTINGS).equals(table) and read_table(place.table(n)).equals(table)
    assert capsys.readouterr().out.count(', 0 to do') == 4
    videos = lambda s: {p: v for p, v in s.items() if p.suffix == '.mp4'}
    assert [videos(s) for s in made] == [videos(state(place.folder(n))) for n in (1, 3)]


def test_another_format_is_refused_and_stage_0_mends_it(place, corpus, capsys):
    from fvc.corpus.sample import SAMPLE_PASSWORD
    from fvc.stages.setup import setup
    before, about = state(place.root), place.about
    for number in (FORMAT + 1, 1):
        write_json(place.corpus, {k: v for k, v in about.items() if k != 'format'} if number == 1 else dict(about, format=number))
        for words in (['status'], ['stage', '2'], ['train', 'logistic_regression']):
            assert main([*words, '--data', str(place), *(['split.n_splits=2'] if words[0] != 'status' else [])]) == 2
            assert f'format {number}, and format {FORMAT} is needed: run "fvc setup --source' in capsys.readouterr().err, words
        assert place.sample, 'which fvc run sets up again by itself'
        with pytest.raises(ValueError, match='it keeps the videos'): run_fold('logistic_regression', 1, place, TABLE)
    assert not place.runs()
    capsys.readouterr()
    setup(corpus.parent / 'archives', place, ' '.join(SETTINGS), SAMPLE_PASSWORD)
    said = capsys.readouterr().out
    assert ', 0 placed now' in said and said.count(', 0 to do') == 2 and place.about['format'] == FORMAT
    content = lambda s: {p: h for p, (_, h) in s.items() if '.parts' not in str(p) and not p.name.startswith('.') and p.parts[0] != 'cache'}
    assert content(state(place.root)) == content(before)


def test_stages_write_where_the_environment_says(place, tmp_path, monkeypatch):
    "Rows stay relative to the workspace; models find what they name."
    wanted = {n: read_table(place.table(n)) for n in (2, 3, 4)}
    for n in (2, 3, 4):
        shutil.rmtree(place.folder(n))
        monkeypatch.setenv(f'FVC_STAGE{n}_OUTPUT_DIR', str(tmp_path / 'disk' / f'of stage {n}'))
    monkeypatch.setenv('FVC_STAGE5_OUTPUT_DIR', str(tmp_path / 'disk' / 'models'))
    before = state(place.root)
    for n, table in wanted.items():
        assert pipeline.run_one_stage(n, place, SETTINGS).equals(table)
        assert place.table(n).is_relative_to(tmp_path / 'disk') and read_table(place.table(n)).equals(table)
    paths = wanted[3].filter(pl.col('status') == 'ok')['path']
    assert all(p.startswith('scaled_videos/') and place.file(p).is_relative_to(tmp_path / 'disk' / 'of stage 3') and place.file(p).is_file() for p in paths)
    assert state(place.root) == before, 'nothing more came into the workspace'
    cfg = resolve(spec_of('naive_cnn'), 'data.frames=2 data.size=32', place)
    examples = Examples(ClipInput().rows(place, cfg), [ClipInput()], place, cfg)
    assert examples[0][0]['clip'].shape == (3, 2, 32, 32)
    result = run_fold('logistic_regression', 1, place, TABLE)
    assert result.folder == tmp_path / 'disk' / 'models' / 'logistic_regression@two' / 'fold_1' and place.runs() == ['logistic_regression@two']
    assert not (place.root / 'stage5').exists() and MLflowTracker(place, run_id=known(result)).artifacts('models')


def known(result):
    "The id that MLflow has for a fold."
    return json.loads((result.folder / 'mlflow.json').read_text())['run_id']


def test_a_copied_workspace_leaves_the_first_alone(place, tmp_path):
    "Models, plots and values of the copy stay in the copy, in one process and for the same run; both places can be read, and a moved one too."
    first = run_fold('logistic_regression', 1, place, TABLE)
    other = Workspace(shutil.copytree(place.root, tmp_path / 'copy', symlinks=True))
    kept = set(MLflowTracker(place, run_id=known(first)).artifacts())
    assert kept and all((place.mlflow_artifacts / known(first) / 'artifacts' / p).is_file() for p in kept)
    before = state(place.root)
    second = run_fold('logistic_regression', 2, other, TABLE)
    (other.run('logistic_regression@two') / 'fold_1' / 'about.json').unlink()
    again = run_fold('logistic_regression', 1, other, TABLE)
    assert known(again) == known(first), 'the same run is taken up'
    assert state(place.root) == before
    second_run = known(second)
    for run in (known(again), second_run):
        found = MLflowTracker(other, run_id=run).artifacts()
        assert set(found) == kept and all((other.mlflow_artifacts / run / 'artifacts' / p).is_file() for p in found)
    moved = Workspace(other.root.rename(tmp_path / 'moved'))
    assert set(MLflowTracker(moved, run_id=second_run).artifacts()) == kept and not (tmp_path / 'copy').exists()
    assert set(MLflowTracker(place, run_id=known(first)).artifacts()) == kept


def test_addresses_elsewhere_stay_as_they_are(place, tmp_path, monkeypatch):
    "Only the workspace's own store is settled, and only addresses of the kind that it gave out itself."
    import sqlite3
    tracker = MLflowTracker(place, run_name='one')
    remote = tracker.client.create_experiment('remote', artifact_location='s3://bucket/mlartifacts')
    shutil.copytree(place.root, tmp_path / 'copy', symlinks=True)
    other = Workspace(tmp_path / 'copy')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{place.mlflow_db}')
    MLflowTracker(other, run_id=tracker.run_id)
    where = lambda p: [row[0] for row in sqlite3.connect(p.mlflow_db).execute('SELECT artifact_location FROM experiments ORDER BY experiment_id')]
    assert where(place)[1] == place.mlflow_artifacts.as_uri() == where(other)[1], 'the store that the user names belongs to the first workspace'
    monkeypatch.delenv('MLFLOW_TRACKING_URI')
    found = MLflowTracker(other, run_id=tracker.run_id).client.get_experiment(remote)
    assert found.artifact_location == 's3://bucket/mlartifacts' and where(other)[1] == other.mlflow_artifacts.as_uri()
    assert where(place)[1] == place.mlflow_artifacts.as_uri()
