"""Stores beside every lesson's cells what they show now, for those who read the site: text as it is, pictures where there were some.

`python .ci/outputs.py [FOLDER]`; run from the project's root. What differs in times, sizes or places alone stays as it was."""
import re
import sys
from pathlib import Path

import lessons

MOST = 1500  # characters that a cell may show
VARYING = re.compile(r'0x[0-9a-f]+|\d+(\.\d+)?(e-?\d+)? ?(ms|s|h|kB|MB|GB|MB/s|CPU seconds)\b')


def text_of(outputs):
    "What a cell shows in words."
    return '\n'.join(''.join(o.get('text') or o.get('data', {}).get('text/plain', '')) for o in outputs).strip()


def is_picture(output): return any(kind.startswith('image/') or 'data:image' in ''.join(value) for kind, value in output.get('data', {}).items())


def kept(old, new):
    "What is stored of a cell."
    new = [o for o in new if o.get('name') != 'stderr' and not is_picture(o)]
    for o in new: o.get('data', {}).pop('text/markdown', None)
    said, before = text_of(new), text_of(old)
    own = any(place in str(new) for place in ('/tmp/', str(Path.cwd()), str(Path.home()) + '/'))
    if any(map(is_picture, old)) or own or len(said) > MOST or VARYING.sub('~', said) == VARYING.sub('~', before): return old
    return new


def store(notebook):
    "Run a notebook as `nbdev_test` does, and keep what its cells show."
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from fastcore.utils import working_directory
    from nbdev.process import NBProcessor
    ran, book = NBProcessor(notebook.resolve(), process=True).nb, read_nb(notebook)
    def is_passed_over(cell): return cell.cell_type != 'code' or 'nbdev_export(' in cell.source or cell.directives_.get('eval:', [''])[0] == 'false'
    shell = CaptureShell(notebook.resolve())
    with working_directory(notebook.resolve().parent): shell.run_all(ran, exc_stop=True, preproc=is_passed_over)
    for cell, now in zip(book.cells, ran.cells):
        if cell.cell_type == 'code' and not is_passed_over(now): cell.outputs = kept(cell.outputs, now.get('outputs', []))
    write_nb(book, notebook)


if __name__ == '__main__': sys.exit(lessons.main(store))
