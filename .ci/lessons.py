"""`nbdev_test` of every notebook, two at a time: each in a process of its own, since lessons register toys, that is forked where the libraries are loaded already.

`python .ci/lessons.py [FOLDER]`; run from the project's root."""
import gc
import importlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from nbdev.test import nbdev_test

LIBRARIES = ('torch', 'sklearn.metrics', 'scipy.stats', 'scipy.optimize', 'matplotlib.pyplot', 'polars', 'cv2', 'av', 'nbformat', 'IPython')  # what most notebooks load
AT_ONCE = 2


def test(notebook): nbdev_test(path=str(notebook), n_workers=0, do_print=True)


def begin(work, notebook, said):
    "Process id of what is done with a notebook, which writes into a file."
    if pid := os.fork(): return pid
    code = 1
    try:
        for stream in (1, 2): os.dup2(said.fileno(), stream)
        work(notebook)
        code = 0
    except BaseException: traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr): stream.flush()
        os._exit(code)


def main(work=test):
    for name in LIBRARIES: importlib.import_module(name)
    gc.freeze()
    notebooks = sorted((p for p in Path(*sys.argv[1:2] or ['nbs']).rglob('*.ipynb') if not any(part.startswith('.') for part in p.parts)), reverse=True)
    at_work, failed, began = {}, [], time.monotonic()
    while notebooks or at_work:
        while notebooks and len(at_work) < AT_ONCE:
            notebook, said = notebooks.pop(), tempfile.TemporaryFile('w+')
            at_work[begin(work, notebook, said)] = notebook, said, time.monotonic()
        pid, status = os.wait()
        notebook, said, since = at_work.pop(pid)
        said.seek(0)
        print(f'{said.read()}{notebook}: {time.monotonic() - since:.1f} s', flush=True)
        if status: failed.append(str(notebook))
    print(f'{len(failed)} failed in {time.monotonic() - began:.0f} s', *sorted(failed))
    return bool(failed)


if __name__ == '__main__': sys.exit(main())
