"""Whether the parent process grows with the number of rows: trivial videos by the thousand through the engine."""
import json
import resource
import shutil
import time

from .world import start

ROWS = 11  # a video


def trivial(item):
    return [dict(variant=r['variant'], path=None, status='ok', value=float(n)) for n, r in enumerate(item['rows'])]


def _measure(folder, videos, log):
    def run():
        import polars as pl
        from fvc.core.config import StagesConfig
        from fvc.core.workspace import Workspace
        from fvc.engine.per_video import run_stage
        variants = ['original'] + [f'kind_{n}' for n in range(ROWS - 1)]
        table = pl.DataFrame(dict(video_id=[f'video-{n // ROWS}' for n in range(videos * ROWS)], variant=variants * videos)).with_columns(
            path=pl.lit('x.mp4'), status=pl.lit('ok'), reason=pl.lit(None, pl.String),
            source_hash=pl.lit('s'), config_hash=pl.lit('c'), frames=pl.lit(100), width=pl.lit(64), height=pl.lit(48), duration=pl.lit(4.0))
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        figures = dict(videos=videos, before_mb=peak())
        for name in ('run', 'resume'):
            began = time.monotonic()
            made = run_stage('growth', trivial, table, folder / 'growth' / 't.arrow', {}, {'value': pl.Float64}, Workspace(folder), StagesConfig(workers=2))
            figures[name + '_seconds'] = round(time.monotonic() - began, 1)
            figures[name + '_mb'] = round(peak() - figures['before_mb'], 1)
        figures['rows'] = made.height
        log.write_text(json.dumps(figures))
    return run


def growth(folder, few, many, tell):
    "Peak memory of the parent above its imports for few and many videos of eleven rows; and what is wrong."
    figures, wrong = [], ''
    for videos in (few, many):
        log = folder / f'growth-{videos}'
        run = start(['models', '--task', 'none'], before=_measure(folder, videos, log))
        run.wait(1800)
        shutil.rmtree(folder / 'growth', ignore_errors=True)
        if not log.is_file():
            return {}, f'no figures: {run.text[-1500:]}'
        figures.append(json.loads(log.read_text()))
        tell(f'growth: {figures[-1]}, {videos / figures[-1]["run_seconds"]:.0f} videos a second', '')
    a, b = figures
    a_row = (max(b['run_mb'], b['resume_mb']) - max(a['run_mb'], a['resume_mb'])) * 1024 / (b['rows'] - a['rows'])
    slower = (b['run_seconds'] / b['videos']) / (a['run_seconds'] / a['videos'])
    if a_row > 3.0:  # the tables themselves, as columns
        wrong = f'the parent grows by {a_row:.2f} KB a row'
    if slower > 2.0:
        wrong += f' a video takes {slower:.1f} times as long among many'
    return dict(kb_a_row=round(a_row, 2), videos_a_second=round(b['videos'] / b['run_seconds']), **{f'{k} ({b["videos"]})': v for k, v in b.items()}), wrong
