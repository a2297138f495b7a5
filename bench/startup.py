"""Targets 4 and 8: the maths of a frame, and how soon a command answers."""
import statistics
from pathlib import Path

from measure import PYTHON, Server, command, spread
from verdict import Verdict


def maths(clips: dict[str, Path], repeats: int) -> Verdict:
    "All features of a 1280x720 frame, their equality to the plain implementation, and both times."
    clip = clips['bigbuckbunny']
    took = {2: [], 4: [], 'yardstick': []}
    with Server('fvc') as fvc:
        for number in (2, 4): fvc('maths', path=clip, number=number)
        for _ in range(3 * repeats):
            for number in (2, 4): took[number].append(fvc('maths', path=clip, number=number)['value'])
            took['yardstick'].append(fvc('yardstick')['value'])
        compared = fvc('exactness', path=clip)
    off, middle = compared['value'], {name: statistics.median(values) for name, values in took.items()}
    worst, ratios, faster = max(off, key=off.get), {n: middle[n] / middle['yardstick'] for n in (2, 4)}, compared['cpu'] / 2 * 1000 / middle[4]
    lines = [*(f'stage {number}: {spread(took[number])} ms a frame for {features} features, {ratios[number]:.1f} yardsticks' for number, features in ((2, 12), (4, 18))),
             f'plain implementation of the eighteen: {compared["cpu"] / 2 * 1000:.0f} ms a frame, {faster:.0f} times as long; largest relative difference of the two '
             f'{off[worst]:.1e} ({worst})',
             f'yardstick, one product of 14400x64 by 64x64, float32, measured in between: {spread(took["yardstick"])} ms']
    return Verdict(4, 'Maths of stages 2 and 4 on a 1280x720 frame', 'each at most 13 yardsticks on one core, 100 times faster than the plain implementation and equal to it to 1e-6',
                   f'stage 2 {ratios[2]:.1f} yardsticks, stage 4 {ratios[4]:.1f}, {faster:.0f} times faster, largest difference {off[worst]:.0e}',
                   max(ratios.values()) <= 13 and faster >= 100 and off[worst] <= 1e-6, lines,
                   ['fvc.forensics.signals.video_features(six frames), fvc.forensics.scaled_signals.scaled_features(six frames)',
                    'bench/reference.py: reference_features(two frames)'],
                   'processor time of the calls in a warm process, one thread, without decoding',
                   'memory traffic: block maps (DCT as a matrix product, three residual and three Laplacian maps) are two thirds of stage 2')


def startup(repeats: int) -> Verdict:
    "Import and help."
    both = {'python -c "import fvc"': ([PYTHON, '-c', 'import fvc'], 0.3), 'fvc --help': ([PYTHON.with_name('fvc'), '--help'], 0.5)}
    lines, met, found = [], True, []
    for name, (words, limit) in both.items():
        command(words)
        costs = [command(words) for _ in range(3 * repeats)]
        wall = statistics.median(c.wall for c in costs)
        met, found = met and wall <= limit, [*found, f'{name} {wall:.2f} s']
        lines.append(f'{name}: {spread([c.wall for c in costs])} s, {spread([c.cpu for c in costs])} CPU-s, limit {limit} s')
    empty = [command([PYTHON, '-c', 'pass']) for _ in range(3 * repeats)]
    lines.append(f'python -c pass: {spread([c.wall for c in empty])} s, {spread([c.cpu for c in empty])} CPU-s')
    return Verdict(8, 'Start', '0.3 s and 0.5 s', ', '.join(found), met, lines, list(both), 'whole processes, interpreter included')
