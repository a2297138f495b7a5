"""A tiny corpus, its stages run in forked processes, and what must be equal afterwards."""
import fcntl
import hashlib
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

WORDS = ['split.n_splits=2', 'stages.augmentation.num_augmentations=2', 'stages.augmentation.kinds=[brightness,reverse]',
         'stages.augmentation.preset=ultrafast', 'stages.scaling.target_size=48', 'stages.scaling.preset=ultrafast',
         'stages.features.num_frames=2', 'stages.scaled_features.num_frames=2']


def tables(words):
    "Tables of stages 0 to 4, relative to the workspace, as these settings name them."
    from fvc.core.config import compose
    from fvc.core.workspace import Workspace
    place, cfg = Workspace(Path('/')), compose(None, words)
    return {n: str(place.table(n, cfg).relative_to('/')) for n in range(5)}


TABLES = tables(WORDS)
PIPE = 1 << 20


def warm():
    "Import here what every forked run needs; nothing is called, since threads do not survive a fork."
    import cloudpickle, polars, pyarrow, sklearn.model_selection, tqdm  # noqa: E401, F401
    import fvc.running.cli, fvc.running.pipeline, fvc.stages.augmentation, fvc.stages.scaled_features, fvc.stages.scaling  # noqa: E401, F401


@dataclass
class Run:
    "A process at work on one stage, leader of a process group of its own."
    pid: int
    pipe: int
    began: float
    text: str = ''

    def finished(self):
        "Exit code, or None while it runs."
        if not hasattr(self, 'code'):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                return None
            self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, limit=300.0):
        "Exit code; one that hangs is killed and counts as -1000."
        while self.finished() is None:
            self._read()
            if time.monotonic() - self.began > limit:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -1000
            time.sleep(0.005)
        self._read()
        os.close(self.pipe)
        return self.code

    def _read(self):
        try:
            while block := os.read(self.pipe, PIPE):
                self.text += block.decode(errors='replace')
        except BlockingIOError:
            pass

    def workers(self):
        "Process ids of its worker processes."
        try:
            return [int(p) for p in Path(f'/proc/{self.pid}/task/{self.pid}/children').read_text().split()]
        except FileNotFoundError:
            return []


def words_of(stage, place, source, extra=()):
    "The command line of one stage."
    head = ['setup', '--source', str(source)] if stage == 0 else ['stage', str(stage)]
    return [*head, '--data', str(place), *WORDS, *extra]


broken = []  # functions that damage the library in every run: does the torture notice? (see sabotage.py)


def start(arguments, before=None, environment=None):
    "Run `fvc ARGUMENTS` in a fork of this process, after calling `before` there."
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, PIPE)  # F_SETPIPE_SZ
    os.set_blocking(reading, False)
    pid = os.fork()
    if pid:
        os.close(writing)
        return Run(pid, reading, time.monotonic())
    code = 99
    try:
        os.setpgid(0, 0)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, 'w', buffering=1) for n in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment or {}, OMP_NUM_THREADS='1', POLARS_MAX_THREADS='2')
        from fvc.running.cli import main
        for prepare in (*broken, *filter(None, [before])):
            prepare()
        sys.argv = ['fvc', *arguments]
        code = main()
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def contents(place):
    "Everything that a workspace holds, by path: rows and settings of Arrow tables, SHA-256 of other files; locks, rates and records of runs do not count."
    import pyarrow as pa
    found = {}
    for file in sorted(p for p in Path(place).rglob('*') if p.is_file() or p.is_symlink()):
        name = str(file.relative_to(place))
        if file.name.startswith(('rates-', 'lock', 'data_versions.')) or file.name == '.lock' or file.parent.suffix == '.record':
            continue
        if file.suffix == '.arrow' and not file.name.startswith('.'):
            with pa.OSFile(str(file)) as source:
                table = pa.ipc.open_file(source).read_all()
            found[name] = hashlib.sha256(repr((table.schema.metadata, table.column_names, table.to_pylist())).encode()).hexdigest()
        else:
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def differences(place, wanted):
    "What a workspace has too much, too little, or other than wanted; temporary files and parts are too much."
    seen = contents(place)
    return ([f'missing {n}' for n in sorted(set(wanted) - set(seen))] + [f'left over {n}' for n in sorted(set(seen) - set(wanted))]
            + [f'other content {n}' for n in sorted(set(wanted) & set(seen)) if wanted[n] != seen[n]])


class World:
    "The corpus, and for every stage the workspace before it and its uninterrupted result."

    def __init__(self, folder, source=None, cascades=4):
        self.folder, self.source = Path(folder), source or Path(folder) / 'archives'
        self.before, self.after, self.seconds = {}, {}, {}
        os.environ['FVC_ARCHIVE_PASSWORD'] = 'fvc-sample'
        if source is None:
            self._sample(cascades)

    def _sample(self, cascades):
        "Made in a process of its own, for its threads."
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                from fvc.corpus.sample import make_sample
                make_sample(self.source, n_cascades=cascades, seconds=0.4, side=80)
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError('the sample corpus could not be made')

    def prepare(self):
        "Run all stages once without interruption, keeping the workspace as it is before each."
        place = self.folder / 'whole'
        place.mkdir()
        for stage in TABLES:
            self.before[stage] = self.folder / f'before-{stage}'
            shutil.copytree(place, self.before[stage], symlinks=True)
            run = start(words_of(stage, place, self.source, ['stages.workers=2']))
            if run.wait():
                raise RuntimeError(f'stage {stage} fails without any torture:\n{run.text}')
            self.seconds[stage], self.after[stage] = time.monotonic() - run.began, contents(place)
        return self

    def copy(self, stage, name='trial'):
        "A fresh workspace as it is before a stage."
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.before[stage], place, symlinks=True)
        return place

    def start(self, stage, place, extra=('stages.workers=2',), **options):
        return start(words_of(stage, place, self.source, extra), **options)

    def resume(self, stage, place, extra=('stages.workers=2',)):
        "Run a stage to its end; what is wrong afterwards, in words ('' for nothing)."
        run = self.start(stage, place, extra)
        if run.wait():
            return f'resume ended with {run.code}: {run.text[-1500:]}'
        return '; '.join(differences(place, self.after[stage])[:5])


def look(place):
    "The state in which a kill has left a workspace, in few words."
    files = [p for p in Path(place).rglob('*') if not p.is_dir() or p.is_symlink()]
    half = [p for p in files if p.name.startswith('.tmp-')]
    parts = [p for p in files if p.parent.name.endswith('.parts') and p.suffix == '.json' and p not in half]
    about = f'{len(parts)} parts, {len(half)} half-written'
    return about + (f' ({", ".join(f"{p.suffix or p.name} {p.lstat().st_size} B" for p in half[:3])})' if half else '')
