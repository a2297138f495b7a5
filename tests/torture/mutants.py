"""Damaged videos: bit flips, cuts and edited headers of tiny clips in four codecs, through all stages. Each must get its verdicts."""
import io
import json
import random
import shutil
from pathlib import Path

from .world import start, tables

CODECS = {'h264': ('libx264', 'mp4'), 'vp9': ('libvpx-vp9', 'webm'), 'mpeg4': ('mpeg4', 'avi'), 'mjpeg': ('mjpeg', 'mkv')}
VERDICTS = ('ok', 'failed', 'excluded')  # excluded: two mutants became the same bytes under both labels
DAMAGES = ('bit flips', 'cut', 'header')
LIMIT = 20.0  # seconds a video may take
MARGIN = 10.0  # seconds until a slow one must have been given up
WORDS = ['split.n_splits=2', 'stages.augmentation.num_augmentations=1', 'stages.augmentation.kinds=[flip]', 'stages.augmentation.preset=ultrafast',
         'stages.scaling.target_size=48', 'stages.scaling.preset=ultrafast', 'stages.features.num_frames=2',
         'stages.scaled_features.num_frames=2', 'stages.workers=2', f'stages.time_limit={LIMIT}', 'stages.memory_limit=1.0']


def clip(codec, form, seed):
    "A tiny video of noise that moves, as bytes."
    import av
    import numpy as np
    picture = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    held = io.BytesIO()
    with av.open(held, 'w', format='matroska' if form == 'mkv' else form) as out:
        stream = out.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = 48, 32, 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        stream.codec_context.thread_count = 1
        for n in range(10):
            image = np.ascontiguousarray(picture[n:n + 32, n:n + 48])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        out.mux(stream.encode())
    return held.getvalue()


def damaged(whole, damage, draw):
    "A mutant of a file's bytes."
    data = bytearray(whole)
    if damage == 'cut':
        return bytes(data[:draw.randrange(len(data))])
    if damage == 'bit flips':
        for _ in range(draw.choice((1, 3, 10, 100))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(data)
    # headers lie at the front, in MP4 and AVI also at the end; sizes and counts are what hurts
    for _ in range(draw.choice((1, 2, 6))):
        at = draw.randrange(min(len(data), 600)) if draw.random() < 0.7 else len(data) - 1 - draw.randrange(min(len(data), 900))
        field = draw.choice((b'\0\0\0\0', b'\xff\xff\xff\xff', b'\x7f\xff\xff\xff', b'\0\0\0\1', draw.randbytes(4), draw.randbytes(1)))
        data[at:at + len(field)] = field
    return bytes(data)


def write_mutants(folder, count, seed):
    "Mutants in folders real and fake, and one sound clip a codec and label; returns how many of each damage."
    draw, made = random.Random(seed), dict.fromkeys(DAMAGES, 0)
    clips = {c: [clip(*CODECS[c], n) for n in range(4)] for c in CODECS}
    for label in ('real', 'fake'):
        (folder / label).mkdir(parents=True)
        for codec, (_, form) in CODECS.items():
            (folder / label / f'sound-{codec}-{label}.{form}').write_bytes(clip(*CODECS[codec], 40 + (label == 'fake')))
    for n in range(count):
        codec, damage = list(CODECS)[n % 4], DAMAGES[n // 4 % 3]
        made[damage] += 1
        name = f'{codec}-{damage.replace(" ", "-")}-{seed}-{n}.{CODECS[codec][1]}'
        (folder / ('real', 'fake')[n // 12 % 2] / name).write_bytes(damaged(draw.choice(clips[codec]), damage, draw))
    return made


def watched(log):
    "Have the engine write down how long every video took."
    import fvc.engine.per_video
    inner = fvc.engine.per_video.process

    def process(*args, **rest):
        for item, status, answer, spent in inner(*args, **rest):
            with open(log, 'a') as out:
                out.write(json.dumps([item['video_id'], status, spent.wall, answer.reason if status == 'failed' else '']) + '\n')
            yield item, status, answer, spent

    fvc.engine.per_video.process = process


def run_mutants(folder, count, seed, tell):
    "All mutants through stages 0-4: a summary, and what is wrong."
    import pyarrow as pa
    import pyarrow.csv
    source, place, wrong, longest = folder / 'mutants', folder / 'mutants-work', [], 0.0
    made = write_mutants(source, count, seed)
    verdicts, expected, reasons = {}, count + 2 * len(CODECS), {}
    for stage, name in tables(WORDS).items():
        log = folder / f'mutants-{stage}'
        head = ['setup', '--source', str(source)] if stage == 0 else ['stage', str(stage), '--allow-failures', '100%']
        run = start([*head, '--data', str(place), *WORDS], before=lambda: watched(log))
        if (code := run.wait(1800)) != 0:
            wrong.append(f'stage {stage}: the parent ended with {code}: {run.text[-2000:]}')
            break
        if name.endswith('.csv'):
            table = pa.csv.read_csv(place / name)
        else:
            with pa.OSFile(str(place / name)) as held:
                table = pa.ipc.open_file(held).read_all()
        rows = table.select(['video_id', 'status', 'reason']).to_pylist()
        verdicts[stage] = {s: sum(r['status'] == s for r in rows) for s in VERDICTS}
        videos = {r['video_id'] for r in rows}
        if len(videos) != expected:
            wrong.append(f'stage {stage}: {len(videos)} videos in the table, {expected} in the source')
        if speechless := [r['video_id'] for r in rows if r['status'] not in VERDICTS or r['status'] != 'ok' and not r['reason']]:
            wrong.append(f'stage {stage}: no verdict or no reason: {speechless[:5]}')
        if sound := [r for r in rows if r['video_id'].startswith('sound') and r['status'] != 'ok']:
            wrong.append(f'stage {stage}: a sound clip failed: {sound[:2]}')
        seen = [json.loads(line) for line in log.read_text().splitlines()]
        for video, _, wall, why in seen:
            longest = max(longest, wall)
            key = next((k for k in ('crashed', 'killed', 'longer than', 'memory') if k in why), None)
            if key:
                reasons[key] = reasons.get(key, 0) + 1
                tell(f'mutant stage={stage} {video}: {why} ({wall:.1f} s)', '')
            if wall > LIMIT + MARGIN:
                wrong.append(f'stage {stage}: {video} took {wall:.1f} s')
        tell(f'mutants seed={seed} stage={stage}: {len(videos)} videos, rows {verdicts[stage]}, longest {max((s[2] for s in seen), default=0):.2f} s', '')
    shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(source)
    return dict(mutants=count, **made, verdicts=verdicts, crashes_contained=reasons, longest_seconds=round(longest, 2)), wrong
