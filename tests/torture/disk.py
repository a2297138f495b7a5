"""Full disks and failing ones: a real file system that is too small, and ENOSPC and EIO put into flushes, renames and reads."""
import os
import random
import shutil
import subprocess
from pathlib import Path

from .faults import Fault, for_workers
from .world import TABLES, differences, look

FULL = ('the disk is full', 'is full: free space', 'than the disk of', 'GB free')


def full_disks(world, count, seed, tell):
    "Stages on a file system that is too small, then with room; returns how many ends were seen, by stage, and how many were wrong."
    place, draw, ends, lost = world.folder / 'small', random.Random(seed), dict.fromkeys(TABLES, 0), 0
    place.mkdir(exist_ok=True)
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(place)], capture_output=True).returncode:
        return 'skipped: no file system can be mounted here', 0
    try:
        for number in range(count):
            stage = number % len(TABLES)
            fell, wrong = _too_small(world, place, stage, draw)
            ends[stage] += fell is not None
            lost += bool(wrong)
            tell(f'full disk {number} stage={stage} {fell or "it fitted"}', wrong)
    finally:
        subprocess.run(['umount', str(place)], check=True)
    return ends, lost


def _resize(place, size):
    subprocess.run(['mount', '-o', f'remount,size={size}', str(place)], check=True, capture_output=True)


def _too_small(world, place, stage, draw):
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    _resize(place, '64m')
    shutil.copytree(world.before[stage], place, symlinks=True, dirs_exist_ok=True)
    used = (s := os.statvfs(place)).f_blocks - s.f_bfree
    grown = sum(-(-f.stat().st_size // 4096) for f in (world.folder / 'whole').rglob('*') if f.is_file()) - used
    _resize(place, (used + draw.randrange(1, max(2, grown // (1 if stage == 0 else 3)))) * 4096)
    run = world.start(stage, place)
    code = run.wait()
    if code == 0:
        wrong, fell = '; '.join(differences(place, world.after[stage])), None
    else:
        said = run.text.strip().splitlines()[-1]
        fell = f'ended with {code}: {said[:160]}; {look(place)}'
        wrong = '' if code == 2 and any(f in said for f in FULL) else f'not said in one sentence: {run.text[-800:]}'
        if stray := [str(p) for p in place.rglob('.tmp-*')]:
            wrong += f' left over: {stray[:3]}'
    _resize(place, '64m')
    return fell, wrong or world.resume(stage, place)


def failing(world, folder, count, seed, tell):
    "ENOSPC and EIO at a flush or a rename, in the parent or a worker; returns counts by error, and how many were wrong."
    draw, hits, lost = random.Random(seed), {}, 0
    for number in range(count):
        action, role = ('ENOSPC', 'EIO')[number % 2], ('parent', 'worker')[number // 2 % 2]
        stage = draw.choice((1, 3)) if role == 'worker' else number % len(TABLES)
        log, n = folder / f'failing-{number}', draw.randrange(1, 9 if role == 'worker' else 18)
        fault = Fault(str(log), role, draw.choice(('flush', 'flushed')), n, action, once=str(folder / f'failing-once-{number}'))
        place = world.copy(stage)
        run = world.start(stage, place, ['stages.workers=1'], before=lambda: fault.install('parent'),
                          environment=for_workers(fault, folder / 'site'))
        code = run.wait()
        if not log.is_file():
            continue
        hits[action, role] = hits.get((action, role), 0) + 1
        said = run.text.strip().splitlines()[-1]
        passes = action == 'EIO' and role == 'worker'  # tried once more
        wrong = '' if code == (0 if passes else 2) else f'ended with {code}: {run.text[-800:]}'
        if code and not any(f in said for f in (FULL if action == 'ENOSPC' else ('see to the disk',))):
            wrong = wrong or f'not said in one sentence: {said}'
        if stray := [str(p) for p in place.rglob('.tmp-*')]:
            wrong += f' left over: {stray[:3]}'
        if passes:
            wrong = wrong or '; '.join(differences(place, world.after[stage])[:5])
        wrong = wrong or world.resume(stage, place)
        lost += bool(wrong)
        tell(f'{action} {number} stage={stage} {role}, {fault.point} {n}: ended with {code}: {"" if passes else said[:140]}', wrong)
    return {f'{a} in the {r}': n for (a, r), n in hits.items()}, lost


def unwritable(world, folder, count, seed, tell):
    "EIO on writes inside libav: a run ends in one sentence or passes at the second attempt; returns how many ended how, and how many were wrong."
    compiler, shim = shutil.which('cc'), folder / 'write_error.so'
    if not compiler:
        return 'not done: no C compiler here', 0
    subprocess.run([compiler, '-shared', '-fPIC', '-o', str(shim), str(Path(__file__).with_name('write_error.c')), '-ldl'], check=True)
    draw, ends, lost = random.Random(seed), {}, 0
    for number in range(count):
        stage, every = (1, 3)[number % 2], draw.choice((2, 11, 67, 150, 400))
        place = world.copy(stage)
        run = world.start(stage, place, environment=dict(LD_PRELOAD=str(shim), WRITE_ERROR_EVERY=str(every)))
        code = run.wait()
        said = run.text.strip().splitlines()[-1]
        ends['stopped' if code else 'passed'] = ends.get('stopped' if code else 'passed', 0) + 1
        wrong = '' if code == 0 or code == 2 and 'cannot be written' in said else f'ended with {code}: {run.text[-800:]}'
        if stray := [str(p) for p in place.rglob('.tmp-*')]:
            wrong += f' left over: {stray[:3]}'
        if not code:
            wrong = wrong or '; '.join(differences(place, world.after[stage])[:5])
        wrong = wrong or world.resume(stage, place)
        lost += bool(wrong)
        tell(f'EIO in libav {number} stage={stage}, every {every}. write: ended with {code}: {said[:140] if code else ""}', wrong)
    return ends, lost


def unreadable(world, tell):
    "A video whose every read fails with EIO (/proc/self/mem does) is a failed row with the reason; the others are done."
    import av
    import pyarrow as pa
    source, place = world.folder / 'unreadable', world.folder / 'unreadable-work'
    from .mutants import CODECS, clip
    for label in ('real', 'fake'):
        (source / label).mkdir(parents=True, exist_ok=True)
        for n in range(2):
            (source / label / f'{label}{n}.mp4').write_bytes(clip(*CODECS['h264'], n + 10 * (label == 'fake')))
    (source / 'real' / 'sector.mp4').symlink_to('/proc/self/mem')
    from .world import start
    run = start(['setup', '--source', str(source), '--data', str(place), 'split.n_splits=2', 'stages.workers=1'])
    code = run.wait()
    if code:
        return f'ended with {code}: {run.text[-800:]}'
    with pa.OSFile(str(place / 'videos' / 'probe.arrow')) as held:
        rows = {r['video_id']: r for r in pa.ipc.open_file(held).read_all().to_pylist()}
    bad = [r for r in rows.values() if r['status'] == 'failed']
    told_so = len(rows) == 5 and len(bad) == 1 and 'nput/output error' in (bad[0]['reason'] or '')
    wrong = '' if told_so else f'{[(r["video_id"], r["status"], r["reason"]) for r in rows.values()]}'
    tell(f'EIO on every read of one video: {bad[0]["reason"] if bad else "no failed row"}', wrong)
    return wrong
