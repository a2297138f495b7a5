"""Targets 1, 6 and 7: the stages as they are run, on short clips, on long videos, and by two workers."""
import shutil
import statistics
import tempfile
from pathlib import Path

from measure import PYTHON, Cost, Server, command, paired, say, spread
from surroundings import CACHE, looped
from verdict import Verdict

STAGES = {1: ('augmentation', 'stage1_augment_videos'), 2: ('features', 'stage2_extract_features'),
          3: ('scaling', 'stage3_scale_videos'), 4: ('scaled_features', 'stage4_extract_scaled_features')}
OUTPUTS = {1: 'augmented_videos', 2: 'features_stage2', 3: 'scaled_videos', 4: 'features_stage4'}
EARLIER = {'carphone_pristine': (20, 31, 37, 28), 'bikes': (108, 33, 62, 29), 'bigbuckbunny': (195, 45, 49, 28)}  # CPU-s, as handed down
EARLIER_SUM = 780  # with the fourth clip
KINDS = ('rotation,flip,brightness,contrast,saturation,noise,blur,affine,cutout,elastic,frame_drop,frame_duplicate,reverse')


def stage_command(number: int, workspace: Path, overrides: str = 'stages.workers=1') -> list:
    module, function = STAGES[number]
    return [PYTHON, '-c', f'from fvc.stages.{module} import {function}; {function}({str(workspace)!r}, {overrides!r})']


def workspace(fvc: Server, videos: dict[str, Path], place: Path) -> Path:
    "A workspace whose index names some videos."
    place.mkdir(parents=True, exist_ok=True)
    fvc('corpus', videos={name: str(video.resolve()) for name, video in videos.items()}, workspace=place)
    return place


def afresh(number: int, place: Path): shutil.rmtree(place / OUTPUTS[number], ignore_errors=True)


def imports(number: int) -> Cost:
    "What a worker of a stage takes before its first video."
    return command([PYTHON, '-c', f'import cloudpickle, cv2, fvc.engine.workers; from fvc.stages.{STAGES[number][0]} import work'])


def above(peak: float, number: int, known: dict = {}) -> float:
    "MB above what the imports of a stage's worker take."
    if number not in known: known[number] = imports(number).peak
    return peak - known[number]


STRONGEST = 'noise=alls=12:allf=t:all_seed=7'  # that stage 1 can draw


def quality(fvc: Server, clips: dict[str, Path], folder: str) -> tuple[dict[str, float], dict[str, float]]:
    "Median PSNR of the luma, dB, of every kind's copy of every clip against the same copy written without loss; and of the strongest noise."
    found, noise = {}, {}
    for name, clip in clips.items():
        for crf, place in ((None, 'copy'), (0, 'exact')):
            Path(folder, name, place).mkdir(parents=True, exist_ok=True)
            fvc('augment', path=clip, folder=f'{folder}/{name}/{place}', kinds=KINDS.split(','), crf=crf, step=3)
            fvc('copies', path=clip, folder=f'{folder}/{name}/{place}', filters=[STRONGEST], crf=crf)
        for kind in KINDS.split(','):
            found[f'{kind} of {name}'] = fvc('quality', copy=f'{folder}/{name}/copy/{kind}.mp4', exact=f'{folder}/{name}/exact/{kind}.mp4')['value']
        noise[name] = fvc('quality', copy=f'{folder}/{name}/copy/0.mp4', exact=f'{folder}/{name}/exact/0.mp4')['value']
        shutil.rmtree(f'{folder}/{name}')
    return found, noise


def all_stages(place: Path, overrides: str = 'stages.workers=1') -> dict[int, Cost]:
    "What each stage takes on a workspace, made anew."
    costs = {}
    for number in STAGES:
        afresh(number, place)
        costs[number] = command(stage_command(number, place, overrides))
    return costs


def stages(clips: dict[str, Path], repeats: int) -> Verdict:
    "Stages 1 to 4 on each clip, engine, interpreter and imports included."
    lines, totals, small = [], [0.0] * repeats, 0.0
    with Server('fvc') as fvc, tempfile.TemporaryDirectory() as folder:
        for name, clip in clips.items():
            place, parts = workspace(fvc, {name: clip}, Path(folder, name)), []
            runs = [all_stages(place) for _ in range(repeats)]
            for number in STAGES:
                cpu, peak = [run[number].cpu for run in runs], max(run[number].peak for run in runs)
                small, before = max(small, above(peak, number)), f' (earlier {EARLIER[name][number - 1]})' if name in EARLIER else ''
                parts.append(f'stage {number}: {spread(cpu)} CPU-s{before}, {peak:.0f} MB, {above(peak, number):.0f} above imports')
            totals = [total + sum(cost.cpu for cost in run.values()) for total, run in zip(totals, runs)]
            lines.append(f'{name}: ' + '; '.join(parts))
            shutil.rmtree(place)
        decibels, noise = quality(fvc, clips, folder)
        hd = looped(clips['bigbuckbunny'], CACHE / 'hd_5s.mp4', 5, '1920x1080')
        large = {number: above(cost.peak, number) for number, cost in all_stages(workspace(fvc, dict(hd=hd), Path(folder, 'hd'))).items()}
    return judged(lines, totals, small, large, decibels, noise)


def judged(lines: list, totals: list, small: float, large: dict, decibels: dict, noise: dict) -> Verdict:
    low, middle, usual = min(decibels, key=decibels.get), statistics.median(totals), statistics.median(decibels.values())
    lines += [f'all: {spread(totals, 1)} CPU-s against {EARLIER_SUM} of the earlier system (a given figure: it cannot be run here): '
              f'{EARLIER_SUM / middle:.0f} times less; the imports of a worker alone are {imports(1).cpu:.2f} CPU-s of each stage',
              'a worker at 1080p above imports: ' + ', '.join(f'stage {n} {mb:.0f} MB' for n, mb in large.items()),
              f'luma PSNR of the copies: {spread(list(decibels.values()), 1)} dB over {len(decibels)} copies, median of '
              f'every third frame; lowest: {low}; the strongest noise that can be drawn: ' + ', '.join(f'{n} {db:.1f}' for n, db in noise.items())]
    met = middle <= 60 and small <= 300 and max(large.values()) <= 600 and usual >= 38
    return Verdict(1, 'Stages 1-4 on the four clips, 11 rows each', 'at most 60 CPU-s, a worker at most 300 MB above imports up to 720p and 600 MB '
                   'at 1080p, median PSNR at least 38 dB', f'{middle:.1f} CPU-s, {small:.0f} MB, {max(large.values()):.0f} MB at 1080p, '
                   f'PSNR {usual:.1f} dB, lowest {decibels[low]:.1f} dB', met, lines,
                   [' '.join(map(str, stage_command(n, Path('WORKSPACE')))) for n in STAGES],
                   'each stage is a process of its own with one worker process; both starts and imports are in its figure; the peak is that of '
                   'the larger of the two',
                   'x264 in stage 1, nine tenths of its time on 720p; decoding the copies in stages 2 and 3; and, of short clips, imports')


def two_workers(clips: dict[str, Path], repeats: int) -> Verdict:
    "The same eight videos by one worker and by two."
    with Server('fvc') as fvc, tempfile.TemporaryDirectory() as folder:
        videos = {f'bikes_{n}': clips['bikes'] for n in range(4)} | {f'carphone_{n}': clips['carphone_pristine'] for n in range(4)}
        for n, name in enumerate(videos):  # files of equal content would be merged as duplicates
            videos[name] = looped(videos[name], Path(folder, f'{name}.mp4'), 3 + n / 10)
        place = workspace(fvc, videos, Path(folder, 'corpus'))

        def run(workers: int):
            afresh(1, place)
            return command(stage_command(1, place, f'stages.workers={workers}'))
        one, two = paired(lambda: run(1), lambda: run(2), repeats)
        empty = statistics.median(command(stage_command(1, place)).wall for _ in range(3))  # nothing left to do
    speed = statistics.median((a.wall - empty) / (b.wall - empty) for a, b in zip(one, two))
    lines = [f'stage 1 of eight videos: one worker {spread([c.wall for c in one])} s, two {spread([c.wall for c in two])} s of wall time; a run '
             f'with nothing to do {empty:.2f} s, taken off both; CPU-s {spread([c.cpu for c in one])} and {spread([c.cpu for c in two])}']
    return Verdict(7, 'Two workers on two cores', 'at least 1.8 times the work of one', f'{speed:.2f} times', speed >= 1.8, lines,
                   [' '.join(map(str, stage_command(1, Path('WORKSPACE'), f'stages.workers={n}'))) for n in (1, 2)],
                   'wall time, so the machine must be idle',
                   'workers share nothing; each encodes with one thread, so that on any machine as many workers as cores fill it')


def length(clips: dict[str, Path], minutes: float, hd_seconds: float) -> Verdict:
    "Every stage on one minute and on many, all thirteen kinds; and on a minute of 1080p."
    lines, worst, high = [], 0.0, {}
    found, plain = {}, 'stages.workers=1 stages.time_limit=100000'
    sizes = {'short': (clips['carphone_pristine'], 60, ''), 'long': (clips['carphone_pristine'], minutes * 60, ''),
             '1080p': (clips['bigbuckbunny'], hd_seconds, '1920x1080')}
    with Server('fvc') as fvc, tempfile.TemporaryDirectory(dir=CACHE) as folder:
        for name, (clip, seconds, size) in sizes.items():
            say(f'   {name}: {seconds:g} s of {size or "176x144"}')
            video = looped(clip, CACHE / f'{clip.stem}_{size or "own"}_{seconds:g}s.mp4', seconds, size)
            place = workspace(fvc, {name: video}, Path(folder, name))
            all_kinds = command(stage_command(1, place, f'{plain} stages.augmentation.num_augmentations=13'))
            one = 'stages.augmentation.num_augmentations=1 stages.augmentation.kinds=[reverse]'
            found[name] = all_stages(place, f'{plain} {one}') | {1: all_kinds}
            shutil.rmtree(place)
    for number in STAGES:
        short, long, high[number] = found['short'][number].peak, found['long'][number].peak, above(found['1080p'][number].peak, number)
        worst = max(worst, long / short)
        lines.append(f'stage {number}: 1 minute {short:.0f} MB, {minutes:g} minutes {long:.0f} MB ({long / short - 1:+.1%}, '
                     f'{found["long"][number].cpu:.0f} CPU-s); {hd_seconds:g} s of 1080p {high[number]:.0f} MB above imports')
    high = max(high.values())
    met = worst <= 1.1 and high <= 600 and minutes >= 60 and hd_seconds >= 60
    short_run = '' if minutes >= 60 and hd_seconds >= 60 else ' (a shortened run: not the target)'
    return Verdict(6, 'Memory against length', '60 minutes within 10% of one minute; a minute of 1080p at most 600 MB above imports',
                   f'largest growth {worst - 1:+.1%}, 1080p {high:.0f} MB{short_run}', met, lines,
                   ['stage 1 with all thirteen kinds; stages 2, 3 and 4 on the original and the copy played backwards'],
                   'peak resident memory of the larger of the stage\'s two processes',
                   'ten 720p or five 1080p encoders side by side; x264 holds a few frames each, and the index of one MP4 at a time')
