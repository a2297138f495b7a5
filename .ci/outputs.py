"""Stores beside every lesson's cells what they show now, for those who read the site: short text, and small pictures.

`python .ci/outputs.py [FOLDER]`; run from the project's root. What differs in times, sizes or places alone stays as it was; so does a picture, until its output is cleared."""
import re
import sys
from pathlib import Path

import lessons

MOST, PICTURE = 1500, 40_000  # characters of text that a cell may show, and of a picture
JUNK = re.compile(r'^\[?(array\(\[)?<(Axes|Figure|matplotlib)|object at 0x|<function|<ipython-input')  # of Python, not of what a cell is about
VARYING = re.compile(r'0x[0-9a-f]+|\d+(\.\d+)?(e-?\d+)? ?(ms|s|h|kB|MB|GB|MB/s|CPU seconds)\b')


def text_of(outputs):
    "What a cell shows in words."
    return '\n'.join(''.join(o.get('text') or o.get('data', {}).get('text/plain', '')) for o in outputs).strip()


def pictures(outputs): return [v for o in outputs for kind, value in o.get('data', {}).items() for v in [''.join(value)] if kind.startswith('image/') or 'data:image' in v]


def is_worth_it(output):
    "Whether it says something to a reader."
    return output.get('name') != 'stderr' and (bool(pictures([output])) or not JUNK.search(text_of([output])))


def kept(old, new):
    "What is stored of a cell."
    old, new = ([o for o in outputs if is_worth_it(o)] for outputs in (old, new))
    for o in new: o.get('data', {}).pop('text/markdown', None)
    said, own = text_of(new), any(place in str(new) for place in ('/tmp/', str(Path.cwd()), f'{Path.home()}/'))
    if pictures(old) or own or len(said) > MOST or any(len(p) > PICTURE for p in pictures(new)): return old
    if VARYING.sub('~', said) == VARYING.sub('~', text_of(old)) and not pictures(new): return old
    return new


def store(notebook):
    "Run a notebook as `nbdev_test` does, and keep what its cells show."
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from fastcore.utils import working_directory
    from nbdev.config import get_config
    from nbdev.process import NBProcessor
    skipped = {*get_config().tst_flags.split()}
    ran, book = NBProcessor(notebook.resolve(), process=True).nb, read_nb(notebook)
    def is_passed_over(cell): return cell.cell_type != 'code' or 'nbdev_export(' in cell.source or skipped & cell.directives_.keys()
    shell = CaptureShell(notebook.resolve(), mpl_format='png')
    with working_directory(notebook.resolve().parent): shell.run_all(ran, exc_stop=True, preproc=is_passed_over)
    for cell, now in zip(book.cells, ran.cells):
        if cell.cell_type == 'code' and not is_passed_over(now): cell.outputs = kept(cell.outputs, now.get('outputs', []))
    write_nb(book, notebook)


if __name__ == '__main__': sys.exit(lessons.main(store))
