"""Faults at write boundaries, put into a process from outside: the library knows nothing of them.

A boundary is a step of an atomic write (`fvc.core.files.atomic_path`) or of the removal of a table's parts:

    write     inside a write: the file may not grow beyond some bytes, and the kernel ends the process in the middle of the call
    flushed   between flush and rename
    renamed   after the rename, before anything else knows of the file
    unlink    between two removals

Worker processes are interpreters of their own: they install the same fault through a `sitecustomize` on their PYTHONPATH.
"""
import errno
import json
import os
import resource
import signal
import tempfile
from pathlib import Path

VARIABLE = 'FVC_TORTURE_FAULT'
TEMPORARY = '.tmp-'


class Fault:
    "One fault, or (point '') a list of all boundaries that a run passes."

    def __init__(self, log, role='parent', point='', n=0, action='kill', size=0, once='', times=1, whole=False):
        self.log, self.role, self.point, self.n, self.action, self.size = log, role, point, n, action, size
        self.once, self.times, self.whole = once, times, whole  # whole: kill the parent as well
        self.seen = 0

    def dump(self):
        return json.dumps({k: v for k, v in vars(self).items() if k != 'seen'})

    def passes(self, point, target):
        "Called at every boundary of this process."
        if not self.point:
            self.note(dict(role=self.here, point=point, target=str(target)))
        elif point == self.point and self.here == self.role:
            self.seen += 1
            if self.seen == self.n and self.first():
                self.note(dict(fell=f'{self.action} in the {self.here}: {point} {Path(target).name}'))
                self.act(target)

    def first(self):
        "Whether this is the first process that comes here (or one of the first few)."
        for turn in range(self.times):
            try:
                os.close(os.open(f'{self.once}-{turn}', os.O_CREAT | os.O_EXCL))
                return True
            except FileExistsError:
                continue
        return False

    def note(self, entry):
        handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (json.dumps(entry) + '\n').encode())
        os.close(handle)

    def act(self, target):
        if self.action in ('ENOSPC', 'EIO'):
            number = getattr(errno, self.action)
            self.seen = -10**9 if self.times == 1 else self.n - 1
            raise OSError(number, os.strerror(number), str(target))
        if self.point == 'write':  # the kernel's own kill, at an exact byte of a write made by Python, Arrow or libav
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))
            return
        if self.whole:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self, here):
        "Put the fault into this process, the `parent` or a `worker`."
        self.here = here
        mkstemp, fsync, replace, unlink = tempfile.mkstemp, os.fsync, os.replace, os.unlink

        def new_mkstemp(*args, prefix=None, dir=None, **rest):
            handle, name = mkstemp(*args, prefix=prefix, dir=dir, **rest)
            if prefix == TEMPORARY:
                self.passes('write', name)
            return handle, name

        def new_fsync(handle):
            name = os.readlink(f'/proc/self/fd/{handle}')
            if Path(name).name.startswith(TEMPORARY):
                self.passes('flush', name)
            fsync(handle)

        def new_replace(source, target, **rest):
            ours = Path(source).name.startswith(TEMPORARY)
            if ours:
                self.passes('flushed', target)
            replace(source, target, **rest)
            if ours:
                self.passes('renamed', target)

        def new_unlink(path, **rest):
            if Path(path).parent.name.endswith('.parts') and Path(path).suffix == '.json':
                self.passes('unlink', path)
            unlink(path, **rest)

        tempfile.mkstemp, os.fsync, os.replace, os.unlink = new_mkstemp, new_fsync, new_replace, new_unlink


def for_workers(fault, folder):
    "Environment with which every new interpreter installs the fault."
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'sitecustomize.py').write_text('from torture.faults import in_worker\nin_worker()\n')
    tests = str(Path(__file__).resolve().parents[1])
    path = [str(folder), tests, *filter(None, [os.environ.get('PYTHONPATH')])]
    return {'PYTHONPATH': os.pathsep.join(path), VARIABLE: fault.dump()}


def in_worker():
    if VARIABLE in os.environ:
        Fault(**json.loads(os.environ[VARIABLE])).install('worker')
