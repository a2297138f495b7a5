"""What the measured fvc process can be asked to do; every function returns something that JSON can hold."""
import cProfile, pstats, statistics, time
from pathlib import Path

import cv2
import numpy as np
import polars as pl

from fvc.core.config import compose, seed_for
from fvc.core.workspace import Workspace
from fvc.forensics.signals import video_features
from fvc.forensics.scaled_signals import planes, scaled_features
from fvc.video.frames import iter_frames, pick_frames
from fvc.video.probe import probe
from fvc.core.registry import parts
from fvc.stages import augmentation, features, scaled_features as stage4, scaling
from fvc.core.files import file_sha256
from fvc.core.table import read_table, write_table
from fvc.video.transcode import X264, Output, transcode
from fvc.video.frame_planes import look
from fvc.video.resizing import scale_video
from reference import reference_features

CHECKED = (0, 3)  # frames of a clip that the slow reference measures too
SETTINGS = compose(None, '').stages
READS = {1: 0, 2: 1, 3: 1, 4: 3}  # stage -> the stage whose table it reads


def prepare(library: str): cv2.setNumThreads(1)


def corpus(videos: dict[str, str], workspace: str):
    "An index of some videos, each a group of its own, as stage 0 would write it."
    rows = []
    for number, (name, path) in enumerate(videos.items()):
        known = probe(path).to_dict()
        rows.append(dict({k: known[k] for k in ('bytes', 'container', 'codec', 'width', 'height', 'rotation', 'fps', 'frames', 'duration',
                                                'bit_rate', 'pix_fmt', 'has_audio')},
                         video_id=name, label=number % 2, group=f'g{number}', path=path, sha256=file_sha256(path), status='ok', reason=None))
    write_table(pl.DataFrame(rows, infer_schema_length=None), Workspace(Path(workspace)).index)


def stage(number: int, workspace: str, overrides: str = '', variants: list[str] | None = None):
    "Stages 1 to 4 without their engine: the work on every video of a workspace (or some variants of each) in this process; its table."
    own = compose(None, overrides).stages
    work, config = {1: (augmentation.work, own.augmentation), 2: (features.work, own.features), 3: (scaling.work, own.scaling),
                    4: (stage4.work, own.scaled_features)}[number]
    place, videos, made = Workspace(Path(workspace)), {}, []
    for row in read_table(place.table(READS[number])).iter_rows(named=True):
        if number == 1 or variants is None or row['variant'] in variants: videos.setdefault(row['video_id'], []).append(row)
    for video, rows in videos.items():
        done = work(dict(video_id=video, rows=rows, workspace=place, config=vars(config)))
        if failed := [row for row in done if row['status'] != 'ok']: raise RuntimeError(f'stage {number}: {failed[0]}')
        made += [dict(row, video_id=video) for row in done]
    write_table(pl.DataFrame(made, infer_schema_length=None), place.table(number))


def encoder(stage: str) -> dict:
    "How a stage encodes: augmentation or scaling."
    own = getattr(SETTINGS, stage)
    return dict(x264=X264, crf=own.crf, preset=own.preset)


def shown(path: str) -> tuple[int, int]:
    "Width and height of a video as a viewer sees it."
    seen = look(path)
    return seen.width, seen.height


def edits(path: str, kinds: list[str]) -> dict:
    "The filters that stage 1 draws for a video; '' for a warp."
    seen = look(path)
    return {kind: parts('filter')[kind](np.random.default_rng(seed_for('bench', kind, 0)), seen).filters for kind in kinds}


def copies(path: str, folder: str, filters: list[str], crf: int | None = None) -> list[int]:
    "One copy a filter; their bytes."
    way = dict(crf=SETTINGS.augmentation.crf if crf is None else crf, preset=SETTINGS.augmentation.preset)
    return [made.bytes for made in transcode(path, [Output(f'{folder}/{n}.mp4', f, **way) for n, f in enumerate(filters)])]


def augment(path: str, folder: str, kinds: list[str], crf: int | None = None, step: int = 1) -> list[int]:
    "Stage 1's own copies; their bytes."
    seen, frames = look(path), None
    if step > 1: frames = set(range(0, sum(1 for _ in iter_frames(path, size=16)), step))
    way, drawn = dict(crf=SETTINGS.augmentation.crf if crf is None else crf, preset=SETTINGS.augmentation.preset), []
    for kind in kinds:
        edit = parts('filter')[kind](np.random.default_rng(seed_for('bench', kind, 0)), seen)
        drawn.append(Output(f'{folder}/{kind}.mp4', edit.filters, warp=edit.warp, repeat=edit.repeat, reverse=edit.reverse, **way))
    return [made.bytes for made in transcode(path, drawn, frames)]


def scale(path: str, target: str) -> dict:
    "Stage 3 of one video."
    return scale_video(Path(path), Path(target), vars(SETTINGS.scaling))


def quality(copy: str, exact: str) -> float:
    "Median over the frames of the luma's peak signal-to-noise ratio, dB, of a copy against the frames that were encoded."
    ratios = []
    for one, other in zip(iter_frames(copy, pixel_format='yuv420p'), iter_frames(exact, pixel_format='yuv420p'), strict=True):
        rows = one.image.shape[0] * 2 // 3
        error = np.mean((one.image[:rows].astype(np.float32) - other.image[:rows]) ** 2)
        ratios.append(10 * np.log10(255**2 / max(error, 1e-9)))
    return float(statistics.median(ratios))


def maths(path: str, number: int, frames: int = 6) -> float:
    "Milliseconds of processor time a frame for all features of stage 2 or 4."
    form, function = ('gray', video_features) if number == 2 else ('yuv420p', scaled_features)
    images = list(pick_frames(path, frames, pixel_format=form).images)
    began = time.process_time()
    function(images)
    return (time.process_time() - began) / frames * 1000


def yardstick() -> float:
    "Milliseconds for one product of matrices, the largest single step of the maths: how fast the core is just now."
    blocks, table = np.ones((14400, 64), np.float32), np.ones((64, 64), np.float32)
    began = time.process_time()
    blocks @ table
    return (time.process_time() - began) * 1000


def exactness(path: str) -> dict:
    "Largest relative difference to the plain implementation, by feature of stage 4."
    images = [pick_frames(path, 6, pixel_format='yuv420p').images[i] for i in CHECKED]
    fast, plain = scaled_features(images), reference_features(images)
    assert fast.keys() == plain.keys(), sorted(fast.keys() ^ plain.keys())
    twice = video_features([planes(image)[0] for image in images])
    assert all(twice[name] == fast[name] for name in twice), 'stages 2 and 4 differ on the same luma'
    return {name: abs(fast[name] - plain[name]) / max(abs(plain[name]), 1e-2) for name in plain}


def profile(of: str, given: dict, rows: int = 8) -> str:
    "Which functions take the time of another task: share of their own time, and calls; largest first."
    profiler = cProfile.Profile()
    profiler.runcall(globals()[of], **given)
    stats = pstats.Stats(profiler)
    ranked = sorted(stats.stats.items(), key=lambda entry: -entry[1][2])[:rows]
    return ', '.join(f'{own / stats.total_tt:.0%} {name.removeprefix("<").removesuffix(">")} ({calls} calls)'
                     for (_, _, name), (_, calls, own, _, _) in ranked)


def pick(path: str, n: int) -> dict:
    "Pick n frames as RGB arrays."
    picked = pick_frames(path, n)
    return dict(shape=list(picked.images.shape), times=[round(float(t), 4) for t in picked.times])


def same_pixels(path: str, counts: list[int]) -> bool:
    "Whether picked frames are those of a straight decode, times and pixels."
    wanted = {n: pick_frames(path, n) for n in counts}
    where = {i for picked in wanted.values() for i in picked.indices.tolist()}
    straight = {frame.index: frame for frame in iter_frames(path) if frame.index in where}
    return all(np.array_equal(image, straight[i].image) and time == straight[i].time for picked in wanted.values()
               for i, image, time in zip(picked.indices.tolist(), picked.images, picked.times))
