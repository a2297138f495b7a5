"""What is removed and what is kept: leftovers, withdrawn videos, and new ones that would join groups whose folds are cut."""
import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from conftest import write_clip
from fvc.core.config import compose
from fvc.core.files import AlreadyRunning, locked, write_json
from fvc.core.table import Parts, read_table, table_metadata, write_table
from fvc.core.workspace import Workspace
from fvc.evidence import leftovers, withdrawal
from fvc.evidence.audit import audit_integrity
from fvc.evidence.leftovers import find_leftovers, remove_leftovers
from fvc.evidence.report import leaderboard
from fvc.evidence.withdrawal import plan_withdrawal, withdraw
from fvc.learning.flow import FlowInput, flow_files
from fvc.learning.runs import Run
from fvc.running import experiment, pipeline
from fvc.running.cli import main
from fvc.running.experiment import run_fold
from fvc.stages.setup import setup

WORDS = ['split.n_splits=2', 'stages.augmentation.num_augmentations=1', 'stages.augmentation.kinds=[brightness]', 'stages.features.num_frames=2', 'stages.features.save_npy=true',
         'stages.scaled_features.num_frames=2', 'stages.scaling.target_size=48', 'stages.setup.near_duplicates=false', 'stages.workers=1']
OTHERS = [*WORDS[:1], 'stages.augmentation.num_augmentations=2', 'stages.augmentation.kinds=[brightness,flip]', *WORDS[3:6], 'stages.scaling.target_size=32', *WORDS[7:]]
RUN = 'logistic_regression'


def stages(place, words):
    for number in (1, 2, 3, 4):
        pipeline.run_one_stage(number, str(place), words)


def made(folder):
    "Eight plain videos, linked, with two tables a stage, flow of one of them, and a run whose two folds are finished."
    for i in range(8):
        write_clip(folder / 'mine' / ('real', 'fake')[i % 2] / f'{i}.mp4', i)
    place = Workspace(folder / 'work')
    setup(folder / 'mine', str(place), ' '.join(WORDS))
    stages(place, WORDS)
    stages(place, OTHERS)
    for fold in (1, 2):
        run_fold(RUN, fold, str(place), [*WORDS, 'experiment.mlflow=false', 'experiment.name=kept'])
    flow_files(FlowInput().rows(place, compose('two_stream', WORDS)), place, 1)
    return place


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "Made once; FVC_TEST_KEEPING names a folder that holds one already."
    stored = os.environ.get('FVC_TEST_KEEPING')
    return Workspace(Path(stored) / 'work') if stored else made(tmp_path_factory.mktemp('keeping'))


@pytest.fixture
def place(whole, tmp_path):
    "A copy of it; its originals are links to the copy of the source."
    shutil.copytree(whole.root.parent, tmp_path, dirs_exist_ok=True, symlinks=True)
    place = Workspace(tmp_path / 'work')
    for link in place.videos.rglob('*'):
        if link.is_symlink():
            target = tmp_path / link.readlink().relative_to(whole.root.parent)
            link.unlink()
            link.symlink_to(target)
    return place


def contents(folder):
    "Every file and link by what it is, a table by its rows; locks and records of runs do not count."
    files = [p for p in folder.rglob('*') if (p.is_file() or p.is_symlink()) and p.name not in ('.lock', 'lock', 'lock-whole') and p.parent.name != '.locks']
    files = [p for p in files if p.parent.suffix != '.record' and not p.name.startswith('data_versions.')]
    return {str(p.relative_to(folder)): content(p) for p in files}


def content(file):
    if file.suffix == '.arrow':
        return repr((table_metadata(file), read_table(file).to_dicts()))
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else f'link to {file.readlink()}'


def names(place, found):
    return {str(Path(f).relative_to(place.root)): kind for kind, f in found.files.select('kind', 'file').iter_rows()}


def test_nothing_that_a_table_or_a_run_refers_to_is_left_over(place, capsys):
    "Also not what only a table in the making refers to, the checkpoint of a fold that goes on, or a file that is nobody's business."
    table = place.table(1, compose(None, [*WORDS, 'stages.augmentation.crf=20']))
    begun = place.file(place.row_path(1, 'with-x', 'real__0', 'brightness.mp4'))
    shutil.copytree(place.folder(1) / next(p.name for p in place.folder(1).iterdir() if p.is_dir()), begun.parent.parent)
    shutil.rmtree(begun.parent.parent)
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b'copy')
    Parts(table, {}).append('real__0', [dict(video_id='real__0', variant='brightness', path=place.row_path(1, 'with-x', 'real__0', 'brightness.mp4'), status='ok')])
    going = place.run('naive_cnn') / 'fold_1' / 'checkpoints' / 'epoch_2' / 'state.pt'
    going.parent.mkdir(parents=True)
    going.write_bytes(b'weights')
    (place.root / 'notes.txt').write_text('mine')
    (place.folder(3) / 'readme.md').write_text('mine')
    (aside := going.parents[1] / '.tmp-x-old' / 'state.pt').parent.mkdir()
    aside.write_bytes(b'the only good state')
    (place.folder(1) / 'another name.mp4').hardlink_to(place.file(read_table(place.tables(1)[0]).filter(pl.col('variant') == 'brightness')['path'][0]))
    before = contents(place.root)
    assert names(place, find_leftovers(place)) == {} and names(place, remove_leftovers(place)) == {}
    assert main(['clean', '--yes', '--data', str(place)]) == 0 and contents(place.root) == before
    assert 'belongs to no row' not in str(audit_integrity(str(place)).table)


def test_what_a_removed_video_leaves_is_listed_and_removed(place, capsys):
    "Two tables a stage: as long as one of them has its rows, its files stay; the source is never touched."
    source = place.root.parent / 'mine'
    gone, name = source / 'real' / '0.mp4', 'real__0'
    gone.unlink()
    before = contents(source)
    setup(source, str(place), ' '.join(WORDS))
    stages(place, WORDS)
    assert set(names(place, find_leftovers(place)).values()) == {'scaled video', 'feature array', 'flow'}, 'the other tables have its other rows'
    stages(place, OTHERS)
    (place.folder(3) / '.tmp-half.mp4').write_bytes(b'half')
    old = place.run(f'{RUN}@kept') / 'fold_1' / 'checkpoints' / 'epoch_1' / 'state.pt'
    old.parent.mkdir(parents=True)
    old.write_bytes(b'weights')
    write_json(place.run('svm') / 'fold_1' / 'config.json', {})
    found = names(place, find_leftovers(place))
    assert {k for k in found.values()} == {'original', 'copy', 'scaled video', 'feature array', 'flow', 'checkpoint', 'unfinished fold', 'temporary'}
    assert all(name in f for f, k in found.items() if k in ('original', 'copy', 'scaled video', 'feature array'))
    assert sum(k == 'copy' for k in found.values()) == 2 and sum(k == 'flow' for k in found.values()) == 4, found
    assert main(['audit', 'integrity', '--data', str(place)]) == 0
    listed = audit_integrity(str(place)).table.filter(pl.col('wrong').str.starts_with('belongs to no row and no run'))['file']
    assert {str(Path(f).relative_to(place.root)) for f in listed} == set(found) and not audit_integrity(str(place), ['real__2']).table.height
    assert f'{len(found)} files (0.' in capsys.readouterr().out.replace(',', '')
    kept = contents(place.root)
    assert main(['clean', '--data', str(place), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert {line['kind']: line['files'] for line in told} == {k: sum(v == k for v in found.values()) for k in set(found.values())}
    assert all(line['bytes'] > 0 or line['kind'] == 'feature array' for line in told) and contents(place.root) == kept, 'only shown'
    assert main(['clean', '--data', str(place), '--yes']) == 0
    assert contents(place.root) == {f: h for f, h in kept.items() if f not in found} and contents(source) == before
    assert not (place.folder(1) / name).exists() and names(place, find_leftovers(place)) == {}
    capsys.readouterr()
    for words in (WORDS, OTHERS):
        stages(place, words)
    assert capsys.readouterr().out.count(', 0 to do') == 8, 'nothing has to be made again'


def orphans(place):
    "A copy, a scaled video and a flow file that nobody refers to."
    files = [place.folder(1) / 'gone' / 'flip.mp4', place.folder(3) / 'gone' / 'flip.mp4', place.cache('flow') / '1a' / '1a2b.mp4']
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'film')
    return files


def test_where_another_process_writes_nobody_looks(place, capsys):
    copy, scaled, flow = orphans(place)
    parts = place.tables(1)[0].with_name(place.tables(1)[0].name + '.parts')
    with locked(parts / 'lock', 'the copies', shared=True):
        found = remove_leftovers(place)
        assert found.busy == ['stage 1'] and copy.is_file() and flow.is_file() and not scaled.exists()
        assert main(['clean', '--yes', '--data', str(place)]) == 0 and 'another process is writing there: stage 1' in capsys.readouterr().out
        before = contents(place.root)
        with pytest.raises(AlreadyRunning, match='stage 1'):
            withdraw(place, ['real__0'])
        assert contents(place.root) == before and not place.withdrawn.exists()
    copy, scaled, flow = orphans(place)
    with locked(next(place.folder(2).glob('arrays*')) / '.lock', 'arrays'):
        assert find_leftovers(place).busy == ['stage 2']
    with locked(place.folder(5) / '.locks' / 'x3d-fold_1', 'a fold'):
        remove_leftovers(place)
        assert flow.is_file() and not copy.exists(), 'a fold that is being trained may be about to read the caches'
    remove_leftovers(place)
    assert not flow.exists()


def test_a_file_that_is_written_anew_after_it_was_listed_stays(place, monkeypatch):
    copy, scaled, _ = orphans(place)
    listed = leftovers._listed

    def meanwhile(*given):
        found = listed(*given)
        copy.unlink()
        copy.write_bytes(b'another film')
        return found
    monkeypatch.setattr(leftovers, '_listed', meanwhile)
    remove_leftovers(place)
    assert copy.read_bytes() == b'another film' and not scaled.exists()


def test_a_writer_that_begins_while_files_are_listed_stops_the_removal(place, monkeypatch):
    files, listed = orphans(place), leftovers._listed

    def meanwhile(*given):
        found = listed(*given)
        other = place.folder(1) / 'augmented_metadata-00000000.arrow.parts' / 'lock'
        other.parent.mkdir(parents=True, exist_ok=True)
        other.touch()
        return found
    monkeypatch.setattr(leftovers, '_listed', meanwhile)
    with pytest.raises(AlreadyRunning, match='nothing was removed'):
        remove_leftovers(place)
    assert all(f.is_file() for f in files)


def test_embeddings_belong_to_rows_and_to_a_network_that_a_run_kept(place):
    home, row = place.cache('embeddings'), read_table(place.tables(3)[0]).filter(pl.col('status') == 'ok').row(0, named=True)
    from fvc.engine.per_video import lineage
    write_json(place.run('naive_cnn') / 'fold_1' / 'model' / 'detector.json', dict(members=[dict(network=dict(digest='ours'))]))
    write_json(place.run('naive_cnn') / 'fold_1' / 'metadata.json', {})
    rows = pl.DataFrame(dict(video_id=[row['video_id']], variant=[row['variant']], lineage=[lineage(row)], e0=[1.0]))
    for name, table, network in (('good', rows, 'ours'), ('network', rows, 'another'), ('row', rows.with_columns(lineage=pl.lit('old')), 'ours')):
        write_table(table, home / f'{name}.arrow', dict(network=network))
        (home / f'{name}.lock').touch()
    (home / 'alone.lock').touch()
    remove_leftovers(place, ('embeddings',))
    assert sorted(p.name for p in home.iterdir()) == ['good.arrow', 'good.lock']


def named(place, video_id):
    "Files whose path or text names a video, but for the list of those that were withdrawn and what finished runs keep."
    files = [p for p in place.root.rglob('*') if (p.is_file() or p.is_symlink()) and p != place.withdrawn and not p.is_relative_to(place.folder(5))]
    by_name = [p for p in files if video_id in str(p.relative_to(place.root))]
    by_text = [p for p in files if p.suffix in ('.csv', '.json') and video_id in p.read_text()]
    return by_name + by_text + [p for p in files if p.suffix == '.arrow' and video_id in set(read_table(p).to_series(0).cast(pl.String))]


def test_a_withdrawn_video_is_nowhere_and_what_saw_it_is_stale(place, capsys):
    source, name = place.root.parent / 'mine', 'real__0'
    Parts(place.tables(3)[0], {}).append(name, [dict(video_id=name, variant='original', path=None, status='ok')])
    Parts(place.folder(3) / 'scaled_metadata-00000000.arrow', {}).append(name, [dict(video_id=name, variant='original', path=None, status='ok')])
    write_table(pl.DataFrame(dict(video_a=[name, 'fake__1'], video_b=['fake__3', 'fake__3'])), place.near_duplicates)
    before, flows = contents(source), len(list(place.cache('flow').rglob('*.mp4')))
    moments = {p: p.stat().st_mtime_ns for n in range(5) for p in place.tables(n)}
    galleries = {fold: place.run(f'{RUN}@kept') / f'fold_{fold}' / 'plots' / 'examples.png' for fold in (1, 2)}
    scored = {fold: name in set(Run(place, f'{RUN}@kept').fold(fold).predictions['video_id']) for fold in (1, 2)}
    assert main(['remove', name, '--data', str(place)]) == 0
    out = capsys.readouterr().out
    assert 'these show the same and stay: fake__3' in out
    assert f'1 runs have seen them and are stale without them: {RUN}@kept' in out and 'train' in out and 'val' in out and named(place, name), 'only shown'
    assert main(['remove', name, '--yes', '--data', str(place), '--json']) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {(line['fold'], line['parts'].split(', ')[0]) for line in lines} == {(f'fold_{f}', 'val' if seen else 'train') for f, seen in scored.items()}
    assert any('inner' in line['parts'] for line in lines) and all(line['run'] == f'{RUN}@kept' for line in lines)
    assert named(place, name) == [] and contents(source) == before
    assert {p: p.stat().st_mtime_ns for p in moments} == moments, 'by its time a resume knows which files were touched since'
    assert len(list(place.cache('flow').rglob('*.mp4'))) == flows - 2
    assert {fold: g.is_file() for fold, g in galleries.items()} == {fold: not seen for fold, seen in scored.items()}
    assert 'has seen 1 videos that were withdrawn since, such as real__0' in Run(place, f'{RUN}@kept').stale()
    board = {row['run']: row.get('stale') for row in leaderboard(str(place), 20).iter_rows(named=True)}
    assert 'withdrawn' in board[f'{RUN}@kept']


def test_what_was_withdrawn_does_not_come_back_until_it_is_let_in(place, capsys):
    source, name = place.root.parent / 'mine', 'fake__1'
    fold_of = dict(place.read_folds().select('video_id', 'fold').iter_rows())
    withdraw(place, [name])
    about = place.about
    assert main(['setup', '--source', str(source), '--data', str(place), *WORDS]) == 0
    said = capsys.readouterr().out
    assert 'withdrawn: 1 videos of the source are left out' in said and 'not to the end' not in said
    assert place.about == about and named(place, name) == [], 'the same as if the source had never held it'
    assert dict(place.read_folds().select('video_id', 'fold').iter_rows()) == {v: f for v, f in fold_of.items() if v != name}
    capsys.readouterr()
    for words in (WORDS, OTHERS):
        stages(place, words)
    assert capsys.readouterr().out.count(', 0 to do') == 8
    result = run_fold(RUN, 1, str(place), [*WORDS, 'experiment.mlflow=false', 'experiment.name=kept'])
    assert 'videos that it has seen were withdrawn' in capsys.readouterr().out and name not in result.seen
    assert Run(place, f'{RUN}@kept').stale().startswith('fold 2')
    other = Run(place, f'{RUN}@kept').fold(2)
    for folder in (result.folder, other.folder):
        again = SimpleNamespace(place=place, folder=folder, split=result.split)
        assert not experiment._lost_withdrawn(again), 'a split without the video, and that of another fold, differ by more than the video'
    assert main(['remove', '--undo', 'real__0', '--data', str(place)]) == 2 and 'was not withdrawn' in capsys.readouterr().err
    assert main(['remove', '--undo', name, '--data', str(place)]) == 0
    setup(source, str(place), ' '.join(WORDS))
    stages(place, WORDS)
    assert named(place, name) and name in set(read_table(place.table(4, compose(None, WORDS)))['video_id'])


def test_an_unknown_video_touches_nothing(place, capsys):
    before = contents(place.root)
    assert main(['remove', 'real__0', 'real__9', '--yes', '--data', str(place)]) == 2
    said = capsys.readouterr().err
    assert "knows no video 'real__9' (the nearest is 'real__" in said and said.count('\n') == 1
    assert contents(place.root) == before
    everyone = place.read_index()['video_id'].to_list()
    assert main(['remove', *everyone, '--yes', '--data', str(place)]) == 2 and 'no labelled video' in capsys.readouterr().err
    assert contents(place.root) == before
    assert main(['remove', '--data', str(place), '--', '-dash']) == 2 and "'-dash'" in capsys.readouterr().err


class Killed(BaseException):
    pass


def killed_at(monkeypatch, n, place, videos):
    "A withdrawal that dies at its n-th change of the disk; whether it came so far."
    count = [0]

    def counted(real):
        def call(self, *given, **rest):
            if not (self.name.startswith('.tmp-') and real is unlink):
                count[0] += 1
                if count[0] == n:
                    raise Killed
            return real(self, *given, **rest)
        return call
    unlink, replace = Path.unlink, Path.replace
    with monkeypatch.context() as m:
        m.setattr(Path, 'unlink', counted(unlink))
        m.setattr(Path, 'replace', counted(replace))
        try:
            withdraw(place, videos)
        except Killed:
            return True
    return False


def test_killed_anywhere_a_second_call_finishes(place, tmp_path, monkeypatch, capsys):
    "Killed at every third change of the disk; a setup in between neither brings the video back nor hides that it is half done."
    start, n, died = shutil.copytree(place.root, tmp_path / 'start', symlinks=True), 1, 0
    withdraw(place, ['real__0'])
    wanted = contents(place.root)
    while True:
        shutil.rmtree(place.root)
        shutil.copytree(start, place.root, symlinks=True)
        if not killed_at(monkeypatch, n, place, ['real__0']):
            break
        died += 1
        if place.withdrawn.exists() and n % 2:
            capsys.readouterr()
            setup(place.root.parent / 'mine', str(place), ' '.join(WORDS))
            assert 'not to the end, run "fvc remove --yes -- real__0" again' in capsys.readouterr().out
            assert 'real__0' not in set(place.read_index()['video_id'])
        withdraw(place, ['real__0'])
        assert contents(place.root) == wanted, n
        n += 3
    assert died > 8


def manifest(source, lines):
    (source / 'manifest.csv').write_text('\n'.join(['file,label,cascades', *lines]) + '\n')


def test_a_video_that_joins_groups_whose_folds_are_cut_can_be_set_aside(tmp_path, capsys):
    source, lines = tmp_path / 'mine', []
    for i in range(8):
        write_clip(source / f'{i}.mp4', i)
        lines.append(f'{i}.mp4,{("real", "fake")[i % 2]},c{i}')
    words = ['setup', '--source', str(source), '--data', str(tmp_path / 'work'), *WORDS]
    manifest(source, lines[:6])
    assert main(words) == 0
    place = Workspace(tmp_path / 'work')
    folds = place.read_folds()
    far = next(i for i in range(1, 6) if folds['fold'][i] != folds['fold'][0])
    manifest(source, [*lines[:6], f'6.mp4,real,c0;c{far}', lines[7]])
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert 'stages.setup.recut=true' in said and 'stages.setup.bridges=exclude' in said and place.read_folds().equals(folds)
    for _ in range(2):
        assert main([*words, 'stages.setup.bridges=exclude']) == 0 and 'set aside: 1 new videos' in capsys.readouterr().out
        index = place.read_index()
        aside = index.filter(pl.col('status') == 'excluded')
        assert aside['reason'].to_list() == [f'joins groups c0 and c{far}, cut before it came'] and aside['path'].to_list() == ['videos/mine/6.mp4']
        assert place.read_folds().filter(pl.col('video_id').is_in(folds['video_id'])).equals(folds), 'nobody moves'
        assert set(place.read_folds()['video_id']) == set(folds['video_id']) | {'7'} and index.filter(pl.col('status') == 'ok').height == 7
    manifest(source, [*(line + (f';c{far}' if n == 0 else '') for n, line in enumerate(lines[:6])), lines[7]])
    assert main([*words, 'stages.setup.bridges=exclude']) == 2 and 'now share videos' in capsys.readouterr().err, 'videos of long ago cannot be set aside'


def test_a_source_inside_the_workspace_own_folders_is_refused(tmp_path, capsys):
    place = Workspace(tmp_path / 'work')
    for i in range(4):
        write_clip(place.videos / 'mine' / ('real', 'fake')[i % 2] / f'{i}.mp4', i)
    before = contents(place.root)
    assert main(['setup', '--source', str(place.videos / 'mine'), '--data', str(place), *WORDS]) == 2
    assert 'removes what nothing refers to; move it elsewhere' in capsys.readouterr().err and contents(place.root) == before
