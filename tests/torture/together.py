"""Signals, two runs on one workspace, and shards side by side."""
import json
import os
import random
import signal
import time
from pathlib import Path

from .world import TABLES, differences


def _noting(log, interrupted=0, signum=0):
    "Have the engine write down every video whose rows it has received, and be interrupted just then, before they are kept."
    def install():
        import fvc.engine.per_video
        inner = fvc.engine.per_video.process

        def process(*args, **rest):
            for number, answer in enumerate(inner(*args, **rest), 1):
                with open(log, 'a') as out:
                    out.write(answer[0]['video_id'] + '\n')
                if number == interrupted:
                    os.kill(os.getpid(), signum)
                yield answer

        fvc.engine.per_video.process = process
    return install


def stops(world, folder, count, seed, tell):
    """Ctrl-C and TERM at random moments, and at the worst one, when rows have come and are not yet kept.

    Exit code 130, nothing finished is lost, nobody and nothing is left, and a resume completes."""
    draw, hits, lost, number = random.Random(seed), {'INT': 0, 'TERM': 0}, 0, 0
    while sum(hits.values()) < count:
        number += 1
        name, stage = draw.choice(list(hits)), draw.choice(list(TABLES))
        log, place, signum, worst = folder / f'stop-{number}', world.copy(stage), getattr(signal, f'SIG{name}'), number % 3 == 0
        run = world.start(stage, place, before=_noting(log, draw.randrange(1, 6) if worst else 0, signum))
        time.sleep(draw.uniform(0.1, world.seconds[stage]))
        workers = run.workers()
        if not worst:
            if run.finished() is not None:
                run.wait()
                continue
            os.kill(run.pid, signum)
        sent = time.monotonic()
        code, took = run.wait(60), time.monotonic() - sent
        if code == 0:
            continue  # it had just ended
        hits[name] += 1
        received = set(log.read_text().split()) if log.is_file() else set()
        kept = {json.loads(p.read_text())['video_id'] for p in place.rglob('*.parts/*.json') if p.name != 'config.json'}
        done = (place / 'videos' / 'probe.arrow') if stage == 0 else place / TABLES[stage]
        wrong = '' if code == 130 else f'ended with {code}: {run.text[-800:]}'
        if not done.is_file() and received - kept:
            wrong += f' finished and lost: {sorted(received - kept)[:3]}'
        if stray := [str(p) for p in place.rglob('.tmp-*')]:
            wrong += f' left over: {stray[:3]}'
        if alive := [p for p in workers if Path(f'/proc/{p}').exists()]:
            wrong += f' workers alive: {alive}'
        wrong = wrong or world.resume(stage, place)
        lost += bool(wrong)
        moment = 'with rows in hand' if worst else f'after {sent - run.began:.2f} s'
        tell(f'{name} {number} stage={stage} {moment}: ended with {code} in {took:.2f} s, {len(received)} videos kept', wrong)
    return hits, lost


def hangs(world, folder, count, seed, tell):
    "A worker that stops in the middle of a video (SIGSTOP): a failed row with the reason in time, the rest done; tried again, it is as if nothing had been."
    draw, seen, lost, number = random.Random(seed), 0, 0, 0
    while seen < count and number < 5 * count:
        number += 1
        stage, log = draw.choice((1, 2, 3, 4)), folder / f'hang-{number}'
        place = world.copy(stage)
        run = world.start(stage, place, ['stages.workers=1', 'stages.time_limit=3'], before=_noting(log))
        while not log.is_file() and run.finished() is None:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.2))
        if run.finished() is None and (workers := run.workers()):
            os.kill(workers[0], signal.SIGSTOP)
        sent = time.monotonic()
        code, took = run.wait(60), time.monotonic() - sent
        parts = [r for r in _rows(place / TABLES[stage]) if 'longer than 3 s' in (r['reason'] or '')]
        if code == 0 and not parts:
            continue  # it had just ended
        seen += 1
        wrong = '' if code == 3 and took < 20 and len({r['video_id'] for r in parts}) == 1 else f'ended with {code} in {took:.1f} s: {run.text[-600:]}'
        wrong = wrong or world.resume(stage, place, ['stages.workers=1', 'stages.retry_failed=true'])
        lost += bool(wrong)
        tell(f'hang {number} stage={stage}: ended with {code} in {took:.1f} s, {len(parts)} rows "{parts[0]["reason"] if parts else ""}"', wrong)
    return seen, lost


def _rows(path):
    import pyarrow as pa
    if not path.is_file():
        return []
    with pa.OSFile(str(path)) as held:
        return pa.ipc.open_file(held).read_all().to_pylist()


def rivals(world, count, tell):
    "Two runs on one workspace at the same time: one refuses in a sentence, the other ends as if alone."
    refused, lost, turn = 0, 0, 0
    while refused < count and turn < 4 * count:
        stage, turn = turn % len(TABLES), turn + 1
        place = world.copy(stage)
        runs = [world.start(stage, place) for _ in range(2)]
        codes = [r.wait() for r in runs]
        wrong = '; '.join(differences(place, world.after[stage])[:5])
        if sorted(codes) == [0, 2]:
            refused += 1
            said = runs[codes.index(2)].text.strip().splitlines()[-1]
            wrong = wrong or ('' if 'another process is writing' in said else f'refused without saying why: {said}')
        elif codes != [0, 0]:
            wrong = f'ended with {codes}: {runs[0].text[-600:]} {runs[1].text[-600:]}'
        else:
            said = 'the second came when the first had ended'
        lost += bool(wrong)
        tell(f'two runs on stage {stage}: ended with {codes}: {said[:140]}', wrong)
    return refused, lost


def shards(world, count, seed, tell):
    "Shards at the same time, one of them killed and run again: the table of one run alone."
    draw, lost = random.Random(seed), 0
    for number in range(count):
        stage, n = number % 4 + 1, draw.choice((2, 3))
        place = world.copy(stage)
        runs = [_shard(world, stage, place, i + 1, n) for i in range(n)]
        victim = draw.randrange(n)
        time.sleep(draw.uniform(0, world.seconds[stage]))
        os.kill(runs[victim].pid, signal.SIGKILL)
        codes = [r.wait() for r in runs]
        again = _shard(world, stage, place, victim + 1, n)
        last = again.wait()
        wrong = '; '.join(differences(place, world.after[stage])[:5])
        if last or any(c for i, c in enumerate(codes) if i != victim):
            wrong = f'ended with {codes} and {last}: {again.text[-800:]}'
        lost += bool(wrong)
        tell(f'{n} shards of stage {stage}, shard {victim + 1} killed: ended with {codes}, then {last}', wrong)
    return count, lost


def _shard(world, stage, place, i, n):
    return world.start(stage, place, ['stages.workers=1', '--shard', f'{i}/{n}'])
