"""make torture: everything, with counts; the exit code says whether anything was lost."""
import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import changes, cluster, disk, growth, kills, mutants, together, world
from .sabotage import SABOTAGE

PARTS = ('kills', 'boundaries', 'vandals', 'mutants', 'disk', 'stops', 'hangs', 'rivals', 'shards', 'moved', 'limits', 'changed', 'growth', 'cluster')


def options():
    p = argparse.ArgumentParser('torture', description=__doc__)
    p.add_argument('parts', nargs='*', choices=[*PARTS, []], help='default: all; reduced: all but the cluster, which tests/test_cluster.py has in small')
    p.add_argument('--kills', type=int, default=120, help='kill -9 at random moments')
    p.add_argument('--boundaries', type=int, default=120, help='kills at write boundaries')
    p.add_argument('--mutants', type=int, default=1200, help='damaged videos')
    p.add_argument('--disks', type=int, default=20, help='runs on a full disk, and as many with errors put in')
    p.add_argument('--stops', type=int, default=20, help='Ctrl-C and TERM')
    p.add_argument('--videos', type=int, default=20000, help='trivial videos for the growth of memory')
    p.add_argument('--others', type=int, default=10, help='mended workspaces, pairs of rivals, shards, sources that are away, small limits, changed settings')
    p.add_argument('--models', type=int, default=6, help='models that a cluster trains while its jobs are killed, a node goes and its controller is restarted')
    p.add_argument('--folds', type=int, default=5, help='folds of each')
    p.add_argument('--jobs', type=int, default=6, help='jobs killed')
    p.add_argument('--reduced', action='store_true', help='a little of everything but the cluster, in about four minutes')
    p.add_argument('--seed', type=int, default=None, help='of everything that is drawn; default: the time')
    p.add_argument('--sabotage', choices=list(SABOTAGE), help='break the engine in this way: losses must be found')
    p.add_argument('--log', default='', help='a file for the lines that are printed')
    a = p.parse_args()
    if a.reduced:
        a.kills, a.boundaries, a.mutants, a.disks, a.stops, a.others, a.videos = 5, 8, 48, 3, 3, 2, 1500
        a.models, a.folds, a.jobs = 1, 2, 1
    return a


class Tell:
    "One line an event, printed and kept."

    def __init__(self, path):
        self.began, self.lost, self.out = time.monotonic(), [], open(path, 'w') if path else None

    def __call__(self, line, wrong=''):
        if wrong:
            self.lost.append(f'{line}: {wrong}')
        line = f'{time.monotonic() - self.began:7.1f} {line}' + (f'  LOSS: {wrong}' if wrong else '')
        for out in (sys.stdout, *filter(None, [self.out])):
            print(line, file=out, flush=True)


def torture(a, folder, tell):
    "Every part that is asked for; one line of counts each."
    parts, counts = a.parts or [p for p in PARTS if p != 'cluster' or not a.reduced], {}
    if set(parts) != {'cluster'}:  # which has a corpus of its own
        place = world.World(folder).prepare()
        tell(f'corpus ready, stages 0-4 take {", ".join(f"{s:.1f}" for s in place.seconds.values())} s')
    if a.sabotage:
        world.broken.append(SABOTAGE[a.sabotage])
    if 'kills' in parts:
        counts['kill -9 at random moments, by stage'] = kills.random_kills(place, a.kills, a.seed, tell)[0]
    if 'boundaries' in parts:
        hits, _, there = kills.boundary_kills(place, folder, a.boundaries, a.seed, tell)
        counts[f'kills at write boundaries ({there} there are)'] = hits
    if 'vandals' in parts:
        counts['workspaces mended after damage'] = kills.vandals(place, a.others, a.seed, tell)[0]
    if 'mutants' in parts:
        counts['mutants'], wrong = mutants.run_mutants(folder, a.mutants, a.seed, tell)
        for w in wrong:
            tell('mutants', w)
    if 'disk' in parts:
        counts['ends on a full disk, by stage'] = disk.full_disks(place, a.disks, a.seed, tell)[0]
        counts['errors put in'] = disk.failing(place, folder, a.disks + 4, a.seed, tell)[0]
        counts['writes that fail inside libav'] = disk.unwritable(place, folder, a.disks, a.seed, tell)[0]
        counts['unreadable video'] = 'failed row with its reason' if not disk.unreadable(place, tell) else 'LOSS'
    if 'stops' in parts:
        counts['signals'] = together.stops(place, folder, a.stops, a.seed, tell)[0]
    if 'hangs' in parts:
        counts['workers that hung'] = together.hangs(place, folder, a.others // 2, a.seed, tell)[0]
    if 'rivals' in parts:
        counts['rivals refused'] = together.rivals(place, a.others // 2, tell)[0]
    if 'shards' in parts:
        counts['shards killed and merged'] = together.shards(place, a.others, a.seed, tell)[0]
    if 'moved' in parts:
        counts['commands without their source'] = changes.moved(place, folder, a.others // 2, a.seed, tell)[0]
    if 'limits' in parts:
        counts['stages under small limits'] = changes.limits(place, a.others, a.seed, tell)[0]
    if 'changed' in parts:
        counts['settings changed and changed back'] = changes.changed(place, a.others, a.seed, tell)[0]
    if 'growth' in parts:
        counts['growth'], wrong = growth.growth(folder, max(200, a.videos // 10), a.videos, tell)
        if wrong:
            tell('growth', wrong)
    if 'cluster' in parts:
        counts['done to a cluster'] = cluster.on_cluster(folder, a.models, a.folds, a.jobs, a.seed, tell)[0]
    return counts


def main():
    a = options()
    a.seed = int(time.time()) % 10**6 if a.seed is None else a.seed
    tell, folder = Tell(a.log), Path(tempfile.mkdtemp(prefix='fvc-torture-'))
    tempfile.tempdir = str(folder)  # what killed processes leave in /tmp goes with it
    tell(f'seed {a.seed} (--seed {a.seed} repeats this run), in {folder}')
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder goes
    world.warm()
    try:
        counts = torture(a, folder, tell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print('\n' + '\n'.join(f'{name}: {value}' for name, value in counts.items()))
    print(f'losses: {len(tell.lost)}, in {time.monotonic() - tell.began:.0f} s', *tell.lost, sep='\n')
    return 1 if tell.lost else 0


if __name__ == '__main__':
    sys.exit(main())
