"""Stages 1 to 4 on a plain folder of videos: a good row stays whatever the machine does, and what is missing is said."""
import os
import shutil

import polars as pl
import pytest
from conftest import write_clip
from fvc.core.config import compose
from fvc.core.files import file_sha256
from fvc.core.registry import spec_of
from fvc.core.table import read_table
from fvc.core.workspace import Workspace
from fvc.evidence.integrity import audit_integrity
from fvc.learning.detector import inputs_of
from fvc.learning.fitting import file_settings
from fvc.learning.rows import load_rows
from fvc.learning.runs import passed_on, resolve, run_hash, run_name
from fvc.running import pipeline
from fvc.running.cli import main
from fvc.learning.asked_runs import ask
from fvc.running.model_training import _reads

WORDS = ['split.n_splits=2', 'stages.augmentation.num_augmentations=2', 'stages.augmentation.preset=ultrafast', 'stages.scaling.target_size=48',
         'stages.scaling.preset=ultrafast', 'stages.features.num_frames=2', 'stages.scaled_features.num_frames=2', 'stages.workers=2']
STAGES = (1, 2, 3, 4)


def made(source, place, words=WORDS):
    "Everything up to stage 4."
    pipeline.setup_workspace(str(source), str(place), words)
    for number in STAGES:
        pipeline.run_one_stage(number, str(place), words)


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
    "A folder of seven clips, and the workspace in which four stages are finished."
    home = tmp_path_factory.mktemp('rows')
    for n in range(6):
        write_clip(home / 'source' / ('real', 'fake')[n % 2] / f'clip{n}.mp4', n, frames=6)
    write_clip(home / 'source' / 'real' / 'clip6.mp4', 6, frames=600, size=(320, 240))  # more than a tenth of a second's work on any machine
    made(home / 'source', home / 'work')
    return home


@pytest.fixture
def home(finished, tmp_path):
    "A copy of both, the links pointing to the copied folder."
    for name in ('source', 'work'):
        shutil.copytree(finished / name, tmp_path / name, symlinks=True)
    for link in (tmp_path / 'work' / 'videos').rglob('*'):
        if link.is_symlink():
            target = os.readlink(link).replace(str(finished), str(tmp_path))
            link.unlink()
            link.symlink_to(target)
    return tmp_path


def table_of(home, stage):
    return read_table(Workspace(home / 'work').table(stage))


def tables(home):
    return [table_of(home, n) for n in STAGES]


def stage(home, number, *words):
    "One stage as a command: its exit code."
    return main(['stage', str(number), '--data', str(home / 'work'), *WORDS, *words])


def equal(before, after):
    return all(a.equals(b) for a, b in zip(before, after))


def test_a_folder_that_is_away_ends_the_run_and_changes_nothing(home, capsys):
    before = tables(home)
    assert [t.filter(pl.col('status') == 'ok').height for t in before] == [21] * 4
    (home / 'source').rename(home / 'away')
    for number in (1, 2, 3):
        assert stage(home, number) == 2
        said = capsys.readouterr().err
        assert f'stage {number}: 7 of ' in said and str(home / 'source') in said and 'mounted' in said, said
    assert stage(home, 4) == 0, 'which reads no original'
    assert equal(before, tables(home))
    (home / 'away').rename(home / 'source')
    capsys.readouterr()
    for number in STAGES:
        assert stage(home, number) == 0
    assert capsys.readouterr().out.count(', 0 to do') == 4 and equal(before, tables(home))


def test_one_original_that_is_gone_costs_no_good_row(home):
    before = tables(home)
    (home / 'source/real/clip0.mp4').unlink()
    for number in STAGES:
        assert stage(home, number) == 0
    assert equal(before, tables(home))


def test_a_lost_copy_that_cannot_be_made_again_in_time_costs_no_other_row(home, capsys):
    before = tables(home)
    lost = before[0].filter(pl.col('variant') == 'flip', pl.col('frames') == 600)['path'][0]
    (home / 'work' / lost).unlink()
    assert stage(home, 1, 'stages.time_limit=0.1') == 3
    now = table_of(home, 1)
    failed = now.filter(pl.col('status') == 'failed')
    assert failed.select('variant', 'cause', 'limit').rows() == [('flip', 'machine', 'time_limit=0.1')]
    same = before[0].join(failed, on=('video_id', 'variant'), how='anti')
    assert same.equals(now.filter(pl.col('status') == 'ok')), 'the other twenty rows are as they were'
    for number in (2, 3, 4):
        assert stage(home, number) == 0
    assert equal(before[1:], tables(home)[1:]), 'nor does a later stage lose anything'
    capsys.readouterr()
    assert stage(home, 1, 'stages.time_limit=0.1') == 3 and ', 0 to do' in capsys.readouterr().out, 'it costs its limit once'
    assert stage(home, 1) == 0 and ', 1 to do' in capsys.readouterr().out
    assert equal(before, tables(home))


def test_a_missing_file_is_tried_again_and_a_bad_one_is_not(home, capsys):
    work, source = home / 'fresh', home / 'source'
    pipeline.setup_workspace(str(source), str(work), WORDS)
    held = (source / 'real/clip0.mp4').rename(home / 'held')
    args = ['--data', str(work), *WORDS]
    assert main(['stage', '1', *args]) == 3
    said = capsys.readouterr()
    place = Workspace(work)
    row = read_table(place.table(1)).filter(pl.col('status') == 'failed').to_dicts()[0]
    assert row['cause'] == 'machine' and row['limit'] is None and 'does not exist' in row['reason']
    assert said.out.rstrip().splitlines()[-1].startswith('stage 1: 1 of 7 videos failed'), said.out
    held.rename(source / 'real/clip0.mp4')
    assert main(['stage', '1', *args]) == 0 and ', 1 to do' in capsys.readouterr().out
    assert set(read_table(place.table(1))['status']) == {'ok'}
    assert file_sha256(place.file(read_table(place.table(1))['path'][1])) == table_of(home, 1)['sha256'][1]


def damaged(home, name):
    "A source that probes well and cannot be decoded, and a workspace set up from it; returns the words of a stage."
    source, work = home / 'source', home / f'work-{name}'
    file = write_clip(source / 'real' / f'{name}.mp4', 50, frames=24)
    data = bytearray(file.read_bytes())
    start = data.index(b'mdat') + 4
    data[start + 40:start + 4000] = bytes(3960)
    file.write_bytes(data)
    pipeline.setup_workspace(str(source), str(work), [*WORDS, 'stages.setup.near_duplicates=false'])
    return ['1', '--data', str(work), *WORDS]


def test_failures_decide_the_exit_code(home, capsys):
    words = damaged(home, 'hollow')
    assert main(['stage', *words]) == 3
    said = capsys.readouterr()
    assert said.out.rstrip().splitlines()[-1].startswith('stage 1: 1 of 8 videos failed (1 for good)'), said.out
    row = read_table(Workspace(home / 'work-hollow').table(1)).filter(pl.col('status') == 'failed')
    assert set(row['cause']) == {'file'}
    for allowed, code in (('0', 3), ('1', 0), ('12%', 3), ('13%', 0)):
        assert main(['stage', *words, '--allow-failures', allowed]) == code, allowed
        assert ', 0 to do' in capsys.readouterr().out, 'a file at fault is not tried again'
    for wrong in ('few', '101%', '-1'):
        assert main(['stage', *words, f'--allow-failures={wrong}']) == 2
        assert '--allow-failures' in capsys.readouterr().err
    assert main(['stage', '2', *words[1:]]) == 0, 'what failed before fails no second stage'


def test_a_replaced_original_asks_for_setup(home, capsys):
    before = tables(home)
    file = home / 'source/fake/clip1.mp4'
    other = write_clip(home / 'other.mp4', 77, frames=6)
    shutil.copyfile(other, file)
    for number in (1, 3):
        assert stage(home, number) == 2
        assert 'run fvc setup' in capsys.readouterr().err
    assert equal(before, tables(home))
    made(home / 'source', home / 'work')
    capsys.readouterr()
    for number in STAGES:
        assert stage(home, number) == 0
    assert capsys.readouterr().out.count(', 0 to do') == 4
    assert [b.join(a, on=('video_id', 'variant', 'source_hash'), how='anti')['video_id'].n_unique() for a, b in zip(before, tables(home))] == [1] * 4


def test_damage_that_keeps_the_size_is_mended(home, capsys):
    before = tables(home)
    for number in (1, 3):
        path = before[number - 1].filter(pl.col('variant') == 'rotation')['path'][2]
        data = bytearray((home / 'work' / path).read_bytes())
        data[len(data) // 2] ^= 255
        (home / 'work' / path).write_bytes(data)
        capsys.readouterr()
        assert stage(home, number) == 0 and ', 1 to do' in capsys.readouterr().out
    assert equal(before, tables(home))
    whole = [file_sha256(home / 'work' / p) == s for n in (0, 2) for p, s in before[n].select('path', 'sha256').iter_rows()]
    assert all(whole)


def cfg_of(*words):
    return compose(None, [*WORDS, *words])


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob('*.mp4')}


def test_more_copies_are_added_and_fewer_ignore_them(home, capsys):
    place, before = Workspace(home / 'work'), tables(home)
    kept = stamps(place.folder(1)) | stamps(place.folder(3))
    for number in STAGES:
        assert stage(home, number, 'stages.augmentation.num_augmentations=3') == 0
    more = cfg_of('stages.augmentation.num_augmentations=3')
    now = stamps(place.folder(1)) | stamps(place.folder(3))
    assert kept.items() < now.items() and len(now) == len(kept) + 14, 'seven new copies, and they scaled'
    for number, old in zip(STAGES, before):
        rows = read_table(place.table(number, more))
        assert rows.height == 28 and rows.filter(pl.col('variant') != 'brightness').equals(old), number
        assert read_table(place.table(number, cfg_of())).equals(old) and len(place.tables(number)) == 2
    capsys.readouterr()
    for words in ((), ('stages.augmentation.num_augmentations=3',)):
        for number in STAGES:
            assert stage(home, number, *words) == 0
    assert capsys.readouterr().out.count(', 0 to do') == 8 and now == stamps(place.folder(1)) | stamps(place.folder(3))


def test_a_setting_changed_and_changed_back_finds_its_table(home, capsys):
    place, before = Workspace(home / 'work'), tables(home)
    kept = stamps(home / 'work')
    for word in ('stages.augmentation.crf=40', 'stages.scaling.target_size=32'):
        for number in (1, 3):
            assert stage(home, number, word) == 0
    assert kept.items() < stamps(home / 'work').items()
    assert all(read_table(place.table(n, cfg_of())).equals(old) for n, old in zip(STAGES, before))
    small = read_table(place.table(3, cfg_of('stages.scaling.target_size=32')))
    assert small['width'].max() == 32 and before[2]['width'].max() == 48
    assert not set(small['path']) & set(before[2]['path'])
    assert audit_integrity(str(home / 'work')).sound
    capsys.readouterr()
    for number in STAGES:
        assert stage(home, number) == 0
    assert capsys.readouterr().out.count(', 0 to do') == 4


def test_settings_without_a_table_say_which_stages_to_run(home, capsys):
    assert stage(home, 4, 'stages.scaling.target_size=64') == 2
    said = capsys.readouterr().err
    assert 'no table of stage 3' in said and '"fvc stage 3 ' in said and '"fvc stage 1 ' not in said and 'stages.scaling.target_size=64' in said, said
    assert main(['stage', '2', '--data', str(home / 'work')]) == 2
    said = capsys.readouterr().err
    assert 'no table of stage 1 was made with the default settings; run "fvc stage 1"' in said and 'there is one made with stages.augmentation.num_augmentations=2' in said, said


def test_a_run_reads_the_tables_of_its_own_settings(home):
    place, spec, smaller = Workspace(home / 'work'), spec_of('naive_cnn'), 'stages.scaling.target_size=32'
    shown = inputs_of(spec)[0]
    usual = resolve(spec, 'split.n_splits=2', place)
    assert usual.stages.scaling.target_size == 48, 'nothing else is there'
    assert shown.rows(place, usual)['clip.width'].max() == 48 and run_name(spec, usual, place) == 'naive_cnn'
    with pytest.raises(FileNotFoundError, match='run "fvc stage 3 .*stages.scaling.target_size=32'):
        shown.rows(place, resolve(spec, ['split.n_splits=2', smaller], place))
    assert stage(home, 3, smaller) == 0
    large, small = (resolve(spec, [*WORDS, *more], place) for more in ([], [smaller]))
    assert [shown.rows(place, cfg)['clip.width'].max() for cfg in (large, small)] == [48, 32]
    assert run_name(spec, large, place) != run_name(spec, small, place) and run_hash(spec, large) == run_hash(spec, usual)
    assert [file_settings(cfg, [4])['3']['target_size'] for cfg in (large, small)] == [48, 32]
    reads = [_reads(ask(['naive_cnn'], [*WORDS, *more], 1, place, print)[0], place) for more in ([], [smaller])]
    assert smaller in passed_on(small, place) and reads[0] != reads[1]
    with pytest.raises(FileNotFoundError, match='made with the default settings; run "fvc stage 1", then "fvc stage 3".*there is one made with'):
        shown.rows(place, resolve(spec, 'split.n_splits=2', place))
    with pytest.raises(ValueError, match='holds 2 tables'):
        load_rows(place, 3)


def test_a_banner_is_not_scaled_beyond_four_times_the_target(home):
    place = Workspace(home / 'work')
    write_clip(home / 'source/real/banner.mp4', 60, frames=4, size=(640, 32))
    pipeline.setup_workspace(str(home / 'source'), str(place), WORDS)
    words = ['stages.scaling.scale_by=shortest']
    assert stage(home, 1) == 0 and stage(home, 3, *words) == 0
    rows = read_table(place.table(3, cfg_of(*words)))
    banner = rows.filter(pl.col('video_id').str.contains('banner'))
    assert set(banner.select('width', 'height', 'is_bounded').rows()) == {(192, 10, True)}
    assert set(rows.filter(~pl.col('video_id').str.contains('banner'))['is_bounded']) == {False}
