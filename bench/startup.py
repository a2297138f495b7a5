"""Targets 4 and 8: the maths of a frame, and how soon a command answers."""
import statistics
from pathlib import Path

from measure import PYTHON, Server, command, spread
from verdict import Verdict


def maths(clips: dict[str, Path], repeats: int) -> Verdict:
    "All features of a 1280x720 frame, their equality to the plain implementation, and both times."
    clip = clips['bigbuckbunny']
    with Server('fvc') as fvc:
        took = {}
        for number in (2, 4):
            fvc('maths', path=clip, number=number)
            took[number] = [fvc('maths', path=clip, number=number)['value'] for _ in range(3 * repeats)]
        compared = fvc('exactness', path=clip)
        sum_of_products = [fvc('yardstick')['value'] for _ in range(3 * repeats)]
    off = compared['value']
    worst, far = max(off, key=off.get), max(statistics.median(v) for v in took.values())
    lines = [*(f'stage {number}: {spread(values)} ms a frame for {features} features' for (number, values), features in
               zip(took.items(), (12, 18))),
             f'plain implementation of the eighteen: {compared["cpu"] / 2 * 1000:.0f} ms a frame; largest relative difference of the two '
             f'{off[worst]:.1e} ({worst})',
             f'yardstick, one 14400x64 by 64x64 product: {spread(sum_of_products)} ms; on an idle core of this kind about 1']
    return Verdict(4, 'Maths of stages 2 and 4 on a 1280x720 frame', 'at most 12 ms on one core for all features, equal to the plain '
                   'implementation to 1e-6', f'stage 2 {statistics.median(took[2]):.1f} ms, stage 4 {statistics.median(took[4]):.1f} ms, '
                   f'largest difference {off[worst]:.0e}', far <= 12 and off[worst] <= 1e-6, lines,
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
