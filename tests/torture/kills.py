"""kill -9 at random moments and at every write boundary; each is followed by a resume that must give the uninterrupted tables."""
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

from .faults import Fault, for_workers
from .world import TABLES, differences, look

POINTS = ('write', 'flushed', 'renamed', 'unlink')


def random_kill(world, seed):
    "One run killed at a random moment (and perhaps its resume too); returns (stage, where it fell, what is wrong) or None if it was too late."
    draw = random.Random(seed)
    stage, whom = draw.choice(list(TABLES)), draw.choice(('group', 'parent', 'worker'))
    place, moment = world.copy(stage), draw.uniform(0.0, 1.1) * world.seconds[stage]
    run = world.start(stage, place)
    victims = _wait_for_victims(run, moment, whom)
    if not victims:
        run.wait()
        return None
    _kill(run, victims, whom, draw)
    fell = f'{whom} after {time.monotonic() - run.began:.2f} s, {look(place)}'
    code = run.wait()
    if code == 0 and whom != 'worker' and not differences(place, world.after[stage]):
        return None  # it had just ended
    if whom == 'worker':  # the run goes on by itself
        wrong = '' if code == 0 else f'the run ended with {code}: {run.text[-1500:]}'
    else:
        wrong = '' if code == -signal.SIGKILL else f'the killed run ended with {code}'
        if draw.random() < 0.25:
            fell += _kill_again(world, stage, place, draw)
    wrong = wrong or world.resume(stage, place)
    return stage, fell, wrong


def _wait_for_victims(run, moment, whom):
    while time.monotonic() - run.began < moment or whom == 'worker' and not run.workers():
        if run.finished() is not None:
            return []
        time.sleep(0.002)
    return run.workers() if whom == 'worker' else [run.pid] if run.finished() is None else []


def _kill(run, victims, whom, draw):
    try:
        if whom == 'group':
            os.killpg(run.pid, signal.SIGKILL)
        else:
            os.kill(draw.choice(victims), signal.SIGKILL)
    except ProcessLookupError:
        pass


def _kill_again(world, stage, place, draw):
    second = world.start(stage, place)
    time.sleep(draw.uniform(0, world.seconds[stage]))
    _kill(second, [second.pid], 'parent', draw)
    return f'; the resume too, ended {second.wait()}, {look(place)}'


def random_kills(world, count, seed, tell):
    "Random kills until `count` have hit a running stage; returns how many, by stage, and how many lost something."
    hits, lost = dict.fromkeys(TABLES, 0), 0
    while sum(hits.values()) < count:
        seed += 1
        if (done := random_kill(world, seed)) is None:
            continue
        stage, fell, wrong = done
        hits[stage] += 1
        lost += bool(wrong)
        tell(f'kill seed={seed} stage={stage} {fell}', wrong)
    return hits, lost


def boundaries(world, folder):
    "Every write boundary of an uninterrupted run: (stage, role, point, n-th of that process, target)."
    found = []
    for stage in TABLES:
        log = folder / f'boundaries-{stage}'
        fault = Fault(str(log))
        place = world.copy(stage)
        run = world.start(stage, place, ['stages.workers=1'], before=lambda: fault.install('parent'),
                          environment=for_workers(fault, folder / 'site'))
        if run.wait():
            raise RuntimeError(f'stage {stage} fails with boundaries listed: {run.text}')
        counts = {}
        for line in map(json.loads, log.read_text().splitlines()):
            key = line['role'], line['point']
            counts[key] = counts.get(key, 0) + 1
            if line['point'] in POINTS:
                found.append((stage, *key, counts[key], line['target']))
    return found


def kind(target):
    "What a file is, for choosing boundaries of every kind."
    path = Path(target)
    inside = path.parent.name.endswith('.parts')
    return ('config' if path.stem == 'config' else 'part') if inside else path.name if path.suffix in ('.arrow', '.csv', '.json') else path.suffix


def chosen(found, count, seed):
    "Boundaries to try: one of every kind first, then others at random."
    draw, kinds, rest = random.Random(seed), {}, []
    for boundary in draw.sample(found, len(found)):
        stage, role, point, _, target = boundary
        if (stage, role, point, kind(target)) in kinds:
            rest.append(boundary)
        else:
            kinds[stage, role, point, kind(target)] = boundary
    first = draw.sample(sorted(kinds.values()), len(kinds))
    return sorted((first + rest)[:count])


def boundary_kill(world, folder, boundary, number, seed):
    "One run killed at one boundary, then resumed; (where it fell, what is wrong)."
    stage, role, point, n, target = boundary
    draw, log = random.Random(f'{seed}-{number}'), folder / f'fell-{number}'
    alone = role == 'worker' and draw.random() < 0.5
    size = draw.choice((0, 1, 50, 200))
    fault = Fault(str(log), role, point, n, size=size, once=str(folder / f'once-{number}'), whole=role == 'worker' and not alone)
    place = world.copy(stage)
    run = world.start(stage, place, ['stages.workers=1'], before=lambda: fault.install('parent'),
                      environment=for_workers(fault, folder / 'site'))
    code = run.wait()
    state = look(place)
    if not log.is_file():
        return None
    fell = json.loads(log.read_text().splitlines()[0])['fell'] + (f' after {size} B' if point == 'write' else '') + f', {state}'
    if role == 'parent' and code not in (-signal.SIGKILL, -signal.SIGXFSZ):
        return fell, f'the run ended with {code} instead of dying: {run.text[-1500:]}'
    if role == 'worker' and (alone or point == 'write'):
        if code:
            return fell + ', worker alone', f'the run ended with {code}: {run.text[-1500:]}'
        return fell + ', worker alone', world.resume(stage, place)
    return fell, world.resume(stage, place)


def boundary_kills(world, folder, count, seed, tell):
    "Kill at `count` boundaries; returns how many by point, how many lost something, and how many boundaries there are."
    found = boundaries(world, folder)
    hits, lost = dict.fromkeys(POINTS, 0), 0
    for number, boundary in enumerate(chosen(found, count, seed)):
        done = boundary_kill(world, folder, boundary, number, seed)
        if done is None:
            tell(f'boundary stage={boundary[0]} {boundary[1:4]} was not reached', '')
            continue
        fell, wrong = done
        hits[boundary[2]] += 1
        lost += bool(wrong)
        tell(f'boundary {number} stage={boundary[0]} {fell}', wrong)
    return hits, lost, len(found)


def vandal(world, stage, seed):
    "A finished stage with some of its files cut, lengthened, gone or half-written; a second run must mend them. (what was done, what is wrong)"
    draw, place = random.Random(f'{seed}-{stage}'), world.folder / 'trial'
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(world.before.get(stage + 1, world.folder / 'whole'), place, symlinks=True)
    folder, done = place / Path(TABLES[stage]).parent, []
    for file in draw.sample(sorted(folder.rglob('*.mp4')), 3):
        how = draw.choice(('cut', 'lengthened', 'gone', 'emptied'))
        done.append(f'{file.parent.name}/{file.name} {how}')
        size = file.stat().st_size
        if how == 'gone':
            file.unlink()
        else:
            os.truncate(file, {'cut': draw.randrange(1, size), 'lengthened': size + 7, 'emptied': 0}[how])
    (folder / '.tmp-left.mp4').write_bytes(b'half')
    (folder / f'{Path(TABLES[stage]).name}.parts' / 'torn.json').write_text('{"video_id": "x", "rows": "[')
    return ', '.join(done), world.resume(stage, place)


def vandals(world, count, seed, tell):
    "Stages 1 and 3 mended after damage to their files."
    lost = 0
    for number in range(count):
        stage = (1, 3)[number % 2]
        done, wrong = vandal(world, stage, seed + number)
        lost += bool(wrong)
        tell(f'vandal seed={seed + number} stage={stage} {done}', wrong)
    return count, lost
