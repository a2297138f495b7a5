"""Unusual and damaged videos, as a viewer would expect them: what they are, what comes out of them, what is said of them.

What is expected stands in odd_files.py. OpenCV, an installed package with a reader of its own, counts the frames a second time while the test runs.
"""
import os
import re
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import polars as pl
import pytest
from av.stream import Disposition
from conftest import write_clip
from fvc.core.workspace import Workspace
from fvc.running import pipeline
from fvc.core.registry import spec_of
from fvc.learning.clips import ClipInput
from fvc.learning.examples import Examples
from fvc.learning.runs import resolve
from fvc.forensics.signals import feature_names
from fvc.video.frames import iter_frames, pick_frames
from fvc.video.probe import VideoError, probe
from fvc.stages.setup import setup
from fvc.video.frame_planes import even_size, look
from odd_files import BROKEN, EXPECTED, REFUSED, UNCOUNTED, VIDEOS

NAMES = ['two  words', ' lead', 'trail ', "it's", 'say "hi"', '視頻 é', '😀', 'e\u0301', 'é', 'line\nbreak', 'tab\there', '-dash', '--help', 'x' * 246,
         'é' * 123, '$(touch x)', '`touch x`', '; touch x', 'a|touch x', 'back\\slash', 'dots...', 'a%20b', '%d', 'file:c', 'http:',
         'C:x', 'Case', 'case', 'a/same', 'b/same', 'a__same', '*', '?q', '[1-2]', '~', '{x}', 'a,b', 'a=b', '#h', 'clip.tar', '\u202egpj',
         os.fsdecode(b'\xff\xe9 no utf-8')]
SMALL = ['split.n_splits=2', 'stages.workers=1', 'stages.scaling.target_size=64']



@pytest.fixture(scope='module')
def clips(shared):
    return shared / 'clips'


def stages(source, workspace, extra=(), numbers=(1, 2, 3, 4)):
    "Stage 0 and those named; {file name: video_id}, {stage: table}."
    words = [*SMALL, *extra]
    index = setup(source, str(workspace), words)
    ids = {(workspace / path).resolve().name: video_id for video_id, path in index.select('video_id', 'path').iter_rows()}
    return ids, {0: index} | {n: pipeline.run_one_stage(n, str(workspace), words) for n in numbers}


def labelled(files, root):
    "Links to files in two folders, real and fake by turns."
    for n, file in enumerate(files):
        label = ('real', 'fake')[n % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / file.name).symlink_to(file)
    return root


def originals(table):
    return {r['video_id']: r for r in table.iter_rows(named=True) if r.get('variant', 'original') == 'original'}


def test_every_file_has_its_line(clips):
    assert sorted(EXPECTED) == sorted(os.listdir(clips / 'odd')) and sorted(BROKEN) == sorted(os.listdir(clips / 'broken'))


@pytest.mark.parametrize('name', VIDEOS)
def test_probe_and_decoder_show_what_a_viewer_sees(clips, name):
    path, (frames, width, height, luma, rgb) = clips / 'odd' / name, EXPECTED[name]
    found, asked = probe(path), []
    assert (found.frames, found.width, found.height) == (frames, width, height)
    grey = [f.image.mean() for f in iter_frames(path, pixel_format='gray')]
    assert len(grey) == frames and abs(np.mean(grey) - luma) < 0.5
    less = lambda side: side // 4 if side > 64 else side
    small = iter_frames(path, size=lambda *size: asked.append(size) or tuple(map(less, size)))
    colour = np.mean([f.image.mean((0, 1)) for f in small], 0)
    assert set(asked) == {(width, height)} and small.decoded == frames
    assert rgb is None or np.abs(colour - rgb).max() < (1.2 if min(width, height) > 150 else 2.5), colour
    seen = look(path)
    assert (seen.width, seen.height) == even_size(max(width, 2), max(height, 2))
    if name not in UNCOUNTED:
        reader, count = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), 0
        while reader.grab(): count += 1
        assert count == frames


@pytest.mark.parametrize('name', REFUSED)
def test_sound_without_film_is_refused_by_name(clips, name):
    for read in (probe, look, lambda path: pick_frames(path, n=1)):
        with pytest.raises(VideoError, match=re.escape(f'{name} has no video stream, {REFUSED[name]}')): read(clips / 'odd' / name)


def test_variable_frame_rate_is_kept(clips):
    "Times of the frames, against those that OpenCV reads."
    path = clips / 'odd' / 'torchcodec__var_fps_video.mp4'
    reader, theirs = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while reader.grab(): theirs.append(reader.get(cv2.CAP_PROP_POS_MSEC))
    ours = [1000 * f.time for f in iter_frames(path, size=8)]
    assert np.abs(np.subtract(ours, theirs)).max() < 1
    assert set(np.rint(np.diff(ours))) == {33, 67, 533}, 'the gaps that ffprobe lists'


def filmed(path):
    "A file whose first stream is a picture and whose second one is a film of seven frames."
    grey = lambda width, height, value, form: av.VideoFrame.from_ndarray(
        np.full((height, width, 3), value, np.uint8), 'rgb24').reformat(format=form)
    with av.open(str(path), 'w') as out:
        art, film = out.add_stream('mjpeg', rate=1), out.add_stream('libx264', rate=10)
        (art.width, art.height, art.pix_fmt), art.disposition = (96, 96, 'yuvj420p'), Disposition.attached_pic
        film.width, film.height, film.pix_fmt = 64, 48, 'yuv420p'
        for stream, frames in ((art, [grey(96, 96, 200, 'yuvj420p')]), (film, [grey(64, 48, 30 * n, 'yuv420p') for n in range(7)])):
            for frame in (*frames, None): out.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize('name', ['cover.mp4', 'cover.mkv'])  # only the first marks the picture as attached
def test_the_film_is_chosen_over_the_picture_beside_it(tmp_path, name):
    found = probe(filmed(tmp_path / name))
    assert (found.codec, found.frames, found.width, found.height) == ('h264', 7, 64, 48)


def seen_times(path):
    times = np.array([f.time for f in iter_frames(path, size=8)])
    return times - times[0]


@pytest.fixture(scope='module')
def scaled(clips, tmp_path_factory):
    "All odd and broken files, and films of any name, through stages 0 to 4, without copies."
    root = tmp_path_factory.mktemp('odd')
    files = [clips / 'odd' / name for name in EXPECTED] + [clips / 'broken' / name for name in BROKEN]
    words = ['stages.workers=2', 'stages.augmentation.num_augmentations=0']
    source = labelled(files, root / 'source')
    for n, name in enumerate(NAMES): write_clip(source / 'real' / 'names' / f'{name}.mp4', n, frames=2, size=(32, 32))
    return root / 'work', *stages(source, root / 'work', words)


def test_all_odd_files_pass_stage_3(clips, scaled):
    workspace, ids, tables = scaled
    index, rows, features = originals(tables[0]), originals(tables[3]), originals(tables[4])
    for name in EXPECTED:
        row = rows[ids[name]]
        if name in REFUSED:
            assert row['status'] == 'failed' and REFUSED[name] in row['reason'], row
            continue
        frames, width, height, luma = EXPECTED[name][:4]
        assert (row['status'], row['reason'], row['frames']) == ('ok', None, frames), (name, row)
        assert max(row['width'], row['height']) == 64
        assert abs(row['width'] - 64 * width / max(width, height)) <= 1.5 and abs(row['height'] - 64 * height / max(width, height)) <= 1.5
        copy, source = workspace / row['path'], clips / 'odd' / name
        found = probe(copy)
        assert (found.frames, found.width, found.height) == (frames, row['width'], row['height'])
        assert np.abs(seen_times(copy) - seen_times(source)).max() < 0.0011, name
        grey = np.mean([f.image.mean() for f in iter_frames(copy, pixel_format='gray')])
        assert abs(grey - luma) < 2, (name, grey)
        last = 0.1 if 'gif' in name else 1 / (index[row['video_id']]['fps'] or 25)
        assert abs(row['duration'] - index[row['video_id']]['duration']) <= last + 0.001, name
        assert features[row['video_id']]['status'] == 'ok' and features[row['video_id']]['noise_level'] is not None


def test_every_broken_file_gets_a_verdict(scaled):
    _, ids, tables = scaled
    for name, (reason, frames) in BROKEN.items():
        for stage, table in tables.items():
            row = originals(table)[ids[name]]
            assert row['status'] == 'ok' or (row['reason'] and name in row['reason']), (stage, row)
            if stage: assert row['status'] == ('failed' if reason else 'ok'), (stage, row)  # stage 1 reads every video to its end
        assert (row['status'], row['reason']) == ('ok', None) if reason is None else (row['status'] == 'failed' and reason in row['reason']), row


def test_one_frame_and_less_than_a_second_are_padded(clips, tmp_path):
    "Copies, features and clips of films shorter than what is asked for: frames are repeated."
    short = ['derived_one_frame.mp4', 'decord__video_180.mov', 'mmcv__palette.gif', 'torchcodec__test_non_zero_start.mp4']
    source = labelled([clips / 'odd' / name for name in short], tmp_path / 'source')
    words = ['stages.augmentation.num_augmentations=3', 'stages.augmentation.kinds=[frame_drop,frame_duplicate,reverse]']
    ids, tables = stages(source, tmp_path / 'work', words)
    for number in (1, 2, 3, 4):
        assert len(tables[number]) == 16 and set(tables[number]['status']) == {'ok'}, tables[number]
    assert tables[4].select(pl.any_horizontal(pl.col(feature_names(4, include_metadata=False)).is_null()).sum()).item() == 0
    place = Workspace(tmp_path / 'work')

    def example(name, frames):
        cfg = resolve(spec_of('naive_cnn'), f'data.frames={frames} data.size=32', place)
        rows = ClipInput().rows(place, cfg).filter(video_id=ids[name], variant='original')
        return Examples(rows, [ClipInput()], place, cfg)[0][0]

    read = example('derived_one_frame.mp4', 16)
    clip = read['clip'].float() / 255
    assert clip.shape == (3, 16, 32, 32) and (clip == clip[:, :1]).all() and clip.std() > 0.01
    assert read['mask'][:, 0, 0].tolist() == [1] + [0] * 15, 'one frame is new, the others are it again'
    clip = example('decord__video_180.mov', 6)['clip']
    assert (clip[:, 0] == clip[:, 1]).all() and (clip[:, 0] != clip[:, -1]).any()


def test_any_file_name_will_do(scaled):
    workspace, _, tables = scaled
    names = workspace.parent / 'source' / 'real' / 'names'
    at = {(workspace / path).resolve(): video_id for video_id, path in tables[0].select('video_id', 'path').iter_rows()}
    ids = [at[names / f'{name}.mp4'] for name in NAMES]
    assert len(set(map(str.lower, ids))) >= len(ids) - 1 and all(re.fullmatch(r'[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}', i) for i in ids)
    for table in tables.values():
        rows = originals(table)
        assert {rows[i]['status'] for i in ids} == {'ok'}
    assert sorted(p.name for p in names.rglob('*') if p.is_file()) == sorted(f'{Path(name).name}.mp4' for name in NAMES)
    assert not [p for p in (workspace / 'x', Path('x'), workspace.parent / 'x') if p.exists()]


@pytest.fixture(scope='module')
def parts(clips, tmp_path_factory):
    "The broken files, indexed once as they are and then, in the same workspace, with their sound parts."
    root = tmp_path_factory.mktemp('parts')
    files = [root / 'files' / name for name, (reason, frames) in BROKEN.items() if reason]
    for file in files: file.parent.mkdir(exist_ok=True) or shutil.copy(clips / 'broken' / file.name, file)
    source = labelled(files, root / 'source')
    copies = ['stages.augmentation.num_augmentations=1', 'stages.augmentation.kinds=[reverse]']
    _, strict = stages(source, root / 'work', copies, (1,))
    ids, tables = stages(source, root / 'work', [*copies, 'stages.setup.use_prefix=true'])
    return root / 'work', ids, strict, tables


def test_a_damaged_video_fails_unless_asked_otherwise(parts):
    _, ids, strict, _ = parts
    for table in strict.values(): assert not table['prefix'].any()
    assert set(strict[1]['status']) == {'failed'} and strict[1]['reason'].null_count() == 0
    truncated = {name: originals(strict[0])[ids[name]] for name in ids if name.startswith('derived_truncated')}
    assert {r['status'] for r in truncated.values()} == {'failed'}
    assert 'use_prefix=true' in truncated['derived_truncated.mkv']['reason']


def test_sound_parts_are_used_on_request_and_flagged(clips, parts):
    workspace, ids, _, tables = parts
    for name, video_id in ids.items():
        reason, frames = BROKEN[name]
        rows = [t.filter(video_id=video_id).to_dicts() for n, t in sorted(tables.items())]
        assert {r['status'] for table in rows for r in table} == {'ok' if frames else 'failed'}, name
        if not frames: continue
        assert all(r['prefix'] for table in rows for r in table), name
        assert [[r['frames'] for r in table] for table in (rows[0], rows[1], rows[3])] == [[frames], [frames] * 2, [frames] * 2]
        told = rows[0][0]['reason']
        assert name in told and f'the first {frames} frames' in told and f"{rows[0][0]['duration']:.2f} s are used" in told
        assert rows[1][0]['reason'] == told
        sound = np.array([f.image for f in iter_frames(clips / 'broken' / name, size=64, pixel_format='gray', allow_partial=True)])
        copy = np.array([f.image for f in iter_frames(workspace / rows[3][0]['path'], pixel_format='gray')])
        assert len(sound) == len(copy) == frames and np.abs(sound.mean((1, 2)) - copy.mean((1, 2))).max() < 2
    said = (workspace / 'corpus.json').read_text()
    assert '"partial": 6' in said


def test_damage_before_the_recorded_end_is_not_passed_over(parts, clips):
    "A flagged row vouches for so many frames; a file with fewer fails."
    for read in (lambda **k: list(iter_frames(clips / 'broken' / 'derived_bitflips.mp4', size=16, **k)),
                 lambda **k: pick_frames(clips / 'broken' / 'derived_bitflips.mp4', n=3, size=16, **k)):
        read(first=6)
        with pytest.raises(VideoError, match='the first 6 frames were decoded'): read(first=7)
