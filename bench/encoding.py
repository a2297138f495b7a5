"""Targets 2 and 3: stage 3 and stage 1 against the ffmpeg command with the same filters, encoder settings and threads."""
import statistics
import tempfile
from pathlib import Path

from measure import Server, command, paired, spread
from verdict import Verdict

ONE = ['-threads', '1', '-filter_threads', '1', '-filter_complex_threads', '1']
TEN = ('flip', 'brightness', 'contrast', 'saturation', 'noise', 'blur', 'cutout')
THREE = ('vflip', 'rotate=0.15:bilinear=1', 'shear=shx=0.08:interp=bilinear')  # beside TEN's: libav can do no warp with mirrored borders
PAIRS = 40  # times as many pairs as asked for: a run takes a tenth of a second, and one such ratio is uncertain by a quarter
START = ('neither side counts its start: fvc runs in a process that has imported it, and the processor time of `ffmpeg -version` '
         'just before it is taken off every ffmpeg command')


def encoding(way: dict) -> list[str]:
    return ['-fps_mode', 'passthrough', '-c:v', 'libx264', '-preset', way['preset'], '-crf', str(way['crf']), '-x264-params', way['x264'],
            '-threads', '1', '-forced-idr', '1', '-a53cc', '0']


def ffmpeg(words: list) -> dict[str, float]:
    "Processor seconds of an ffmpeg command without (`cpu`) and with (`whole`) the start of the program, and its peak in MB."
    start, cost = command(['ffmpeg', '-version']).cpu, command(words)
    return dict(cpu=cost.cpu - start, whole=cost.cpu, peak=cost.peak)


def middle(ratios: list[float]) -> str:
    "The median and its 95% interval, by the sign test."
    ordered, reach = sorted(ratios), 0.98 * len(ratios) ** 0.5
    low, high = (ordered[min(max(round(len(ratios) / 2 + side * reach), 0), len(ratios) - 1)] for side in (-1, 1))
    return f'{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]'


def scaling(clips: dict[str, Path], pairs: int) -> Verdict:
    "Stage 3, video by video."
    lines, ratios, raw = [], {}, {}
    with Server('fvc') as fvc, tempfile.TemporaryDirectory() as folder:
        way = fvc('encoder', stage='scaling')['value']
        for name, clip in clips.items():
            made = fvc('scale', path=clip, target=f'{folder}/ours.mp4')['value']
            words = ['ffmpeg', '-v', 'error', '-nostdin', '-y', *ONE, '-i', clip, '-an', '-vf',
                     f'scale={made["width"]}:{made["height"]}:flags=bilinear', *encoding(way), f'{folder}/theirs.mp4']
            ours, theirs = paired(lambda: fvc('scale', path=clip, target=f'{folder}/ours.mp4'), lambda: ffmpeg(words), PAIRS * pairs)
            each = [o['cpu'] / t['cpu'] for o, t in zip(ours, theirs)]
            ratios[name] = statistics.median(each)
            raw[name] = statistics.median(o['cpu'] / t['whole'] for o, t in zip(ours, theirs))
            lines.append(f'{name} to {made["width"]}x{made["height"]}: fvc {spread([o["cpu"] for o in ours], 3)} CPU-s, ffmpeg '
                         f'{spread([t["cpu"] for t in theirs], 3)} CPU-s: ratio {middle(each)} over {len(each)} pairs '
                         f'(with the start of ffmpeg {raw[name]:.2f}); peak {max(o["above"] for o in ours):.0f} MB above imports, '
                         f'ffmpeg {max(t["peak"] for t in theirs):.0f} MB; '
                         f'{Path(folder, "ours.mp4").stat().st_size:,} and {Path(folder, "theirs.mp4").stat().st_size:,} bytes')
        slowest, worst = max(ratios, key=ratios.get), max(ratios.values())
        task = dict(of='scale', given=dict(path=str(clips[slowest]), target=f'{folder}/ours.mp4'))
        lines.append(f'profile of {slowest}, own time of functions: {fvc("profile", **task)["value"]}')
    return Verdict(2, 'Stage 3 per video against the ffmpeg command', 'ratio at most 1.05 on every clip', f'largest ratio {worst:.2f}',
                   worst <= 1.05, lines, ['fvc.video.resizing.scale_video(clip, target, defaults)',
                                          ' '.join(map(str, words)).replace(folder, 'FOLDER')], START,
                   'decoding, scaling and encoding are libav on both sides; what is left is Python between them, a few µs a frame, '
                   'and the difference of the two builds of libav and x264')


def branches(words: list, filters: list[str], way: dict, folder: str, size: list[int]) -> list:
    "One ffmpeg process with a branch a filter, from frames as a viewer sees them (the carphone clips have oblong pixels)."
    names = ''.join(f'[a{n}]' for n in range(len(filters)))
    graph = f'[0:v]scale={size[0]}:{size[1]}:flags=bicubic,split={len(filters)}{names};' + ';'.join(f'[a{n}]{f}[b{n}]' for n, f in enumerate(filters))
    outputs = [w for n in range(len(filters)) for w in ('-map', f'[b{n}]', *encoding(way), f'{folder}/theirs_{n}.mp4')]
    return [*words, '-filter_complex', graph, *outputs]


def augmenting(clips: dict[str, Path], pairs: int) -> Verdict:
    "Ten copies of each clip."
    lines, ratios = [], {}
    with Server('fvc') as fvc, tempfile.TemporaryDirectory() as folder:
        way = fvc('encoder', stage='augmentation')['value']
        for name, clip in clips.items():
            filters = [*fvc('edits', path=clip, kinds=TEN)['value'].values(), *THREE]
            size = fvc('shown', path=clip)['value']
            words = branches(['ffmpeg', '-v', 'error', '-nostdin', '-y', *ONE, '-i', clip, '-an'], filters, way, folder, size)
            ours, theirs = paired(lambda: fvc('copies', path=clip, folder=folder, filters=filters), lambda: ffmpeg(words), pairs)
            ratios[name] = statistics.median(o['cpu'] / t['cpu'] for o, t in zip(ours, theirs))
            sizes = [Path(folder, f'theirs_{n}.mp4').stat().st_size for n in range(len(filters))]
            stage = fvc('augment', path=clip, folder=folder, kinds=[*TEN, 'rotation', 'affine', 'elastic'])
            lines.append(f'{name}: fvc {spread([o["cpu"] for o in ours])} CPU-s, ffmpeg {spread([t["cpu"] for t in theirs])} CPU-s: ratio '
                         f'{ratios[name]:.2f}; peak {max(o["above"] for o in ours):.0f} MB above imports, ffmpeg '
                         f'{max(t["peak"] for t in theirs):.0f} MB; {sum(ours[0]["value"]):,} and {sum(sizes):,} bytes; the ten default kinds, '
                         f'with their three warps by OpenCV: {stage["cpu"]:.2f} CPU-s, {stage["above"]:.0f} MB')
    worst = max(ratios.values())
    return Verdict(3, 'Stage 1: ten copies against one ffmpeg process with the same ten branches', 'ratio at most 1.15 on every clip',
                   f'largest ratio {worst:.2f}', worst <= 1.15, lines,
                   ['fvc.video.transcode.transcode(clip, ten outputs)', ' '.join(map(str, words)).replace(folder, 'FOLDER')], START,
                   'encoding: nine tenths of the time are spent inside x264 on both sides')
