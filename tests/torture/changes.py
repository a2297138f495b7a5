"""What changes around a run and changes back: the source is away, limits are too small, other settings are tried. The tables must be those of a run that nothing disturbed."""
import csv
import os
import random
import shutil
import signal
import time

from .world import TABLES, World, contents, differences

AWAY = 'away'  # the folder that a source is moved to


def plain_world(world, folder):
    "The same videos as a plain folder that the workspace links to."
    source = folder / 'plain' / 'mine'
    with open(world.folder / 'whole' / TABLES[0]) as index:
        for row in csv.DictReader(index):
            if row['status'] != 'ok':
                continue
            file = world.folder / 'whole' / row['path']
            target = source / row['label_text'] / f'{row["video_id"]}{file.suffix}'
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
    return World(folder / 'plain', source).prepare()


def without_source(world, place, stage, draw):
    "One command while the whole source, or one file of it, is away; (what was done, what is wrong)."
    whole = draw.random() < 0.6
    files = sorted(world.source.rglob('*.*'))
    gone = world.source if whole else draw.choice(files)
    asked = draw.randrange(stage + 1) if whole else draw.randint(min(1, stage), stage)
    if not whole and asked == 0:
        return '', ''  # a source with a file less is another source
    os.rename(gone, world.folder / AWAY)
    try:
        run = world.start(asked, place)
        code = run.wait()
    finally:
        os.rename(world.folder / AWAY, gone)
    said = run.text.strip().splitlines()[-1] if run.text.strip() else ''
    right = code in ((0, 2) if whole else (0, 3))
    return f'{"source" if whole else gone.name} away at stage {asked}: ended with {code}', '' if right else f'not said in one sentence: {said[:400]}'


def moved(world, folder, count, seed, tell):
    "The source gone and back between any two commands; returns how many commands ran without it, and how many workspaces came out wrong."
    plain, draw, hits, lost = plain_world(world, folder), random.Random(seed), 0, 0
    for number in range(count):
        place, done, wrong = plain.copy(0), [], ''
        for stage in TABLES:
            for moment in ('before', 'after'):
                if draw.random() < 0.5 and (moment == 'after' or stage):
                    told, bad = without_source(plain, place, stage if moment == 'after' else stage - 1, draw)
                    hits += bool(told)
                    done.append(told)
                    wrong = wrong or bad
                wrong = wrong or plain.resume(stage, place)
        lost += bool(wrong)
        tell(f'moved {number} {"; ".join(filter(None, done))}', wrong)
    return hits, lost


def limits(world, count, seed, tell):
    "Limits that are too small, then the usual ones; returns how many stages gave videos up, and how many came out wrong."
    draw, hits, lost, number = random.Random(seed), 0, 0, 0
    while hits < count and number < 4 * count:
        number += 1
        stage, limit = draw.choice((1, 2, 3, 4)), draw.choice(('stages.time_limit=0.1', 'stages.memory_limit=0.1'))
        place = world.copy(stage)
        run = world.start(stage, place, ['stages.workers=2', limit])
        code = run.wait()
        hits += code == 3
        wrong = '' if code in (0, 3) else f'ended with {code}: {run.text[-600:]}'
        wrong = wrong or world.resume(stage, place)
        lost += bool(wrong)
        tell(f'limit {number} stage={stage} {limit}: ended with {code}', wrong)
    return hits, lost


OTHERS = {1: ['stages.augmentation.num_augmentations=3', 'stages.augmentation.kinds=[reverse,flip,brightness]'], 2: ['stages.features.num_frames=3'],
          3: ['stages.scaling.target_size=32'], 4: ['stages.scaled_features.num_frames=3']}


def changed(world, count, seed, tell):
    "A setting changed and changed back, the other run perhaps killed; returns how many changes there were, and how many workspaces came out wrong."
    draw, alone, lost = random.Random(seed), {}, 0
    for number in range(count):
        stage = number % 4 + 1
        words = ['stages.workers=2', *OTHERS[stage]]
        if stage not in alone:
            place = world.copy(stage)
            world.start(stage, place, words).wait()
            alone[stage] = contents(place)
        place, first = world.copy(stage), draw.random() < 0.5
        wrong = world.resume(stage, place) if first else ''
        run, killed = world.start(stage, place, words), draw.random() < 0.5
        if killed:
            time.sleep(draw.uniform(0, world.seconds[stage]))
            os.killpg(run.pid, signal.SIGKILL) if run.finished() is None else None
        code = run.wait()
        ends = [world.start(stage, place, extra).wait() for extra in (['stages.workers=2'], words, ['stages.workers=2'])]
        wrong = wrong or '; '.join(d for wanted in (world.after[stage], alone[stage]) for d in differences(place, wanted) if not d.startswith('left over'))[:600]
        if ends != [0, 0, 0] or code not in (0, -signal.SIGKILL):
            wrong = wrong or f'ended with {code}, then {ends}: {run.text[-600:]}'
        extra = sorted(set(contents(place)) - set(world.after[stage]) - set(alone[stage]))
        wrong = wrong or (f'left over {extra[:5]}' if extra else '')
        lost += bool(wrong)
        tell(f'changed {number} stage={stage} {"after" if first else "before"} the usual settings, ended with {code}', wrong)
    return count, lost
