"""The two commands over all lessons: what fails is named and ends with 1, what a cell shows is stored where it says something."""
import subprocess
import sys

import nbformat
from conftest import ROOT

TALKS = ['6 * 7', "print('/tmp/of/this/machine')", "'x' * 2000", '#| train\n1 / 0', 'lambda: 0', "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1)).add_subplot().plot([0, 1]);"]


def write(folder, name, sources, shown=()):
    "A notebook whose cells have shown something before."
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    for cell, text in zip(book.cells, shown):
        if text: cell.outputs = [nbformat.v4.new_output('execute_result', {'text/plain': text})]
    nbformat.write(book, folder / f'{name}.ipynb')


def command(name, folder):
    done = subprocess.run([sys.executable, f'.ci/{name}.py', folder], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def shown(folder, name):
    "Texts of a notebook's outputs, 'picture' for a picture."
    cells = nbformat.read(folder / f'{name}.ipynb', 4).cells
    return [['picture' if 'image/png' in o.get('data', {}) else o.get('text') or o['data']['text/plain'] for o in cell.outputs] for cell in cells]


def test_what_cells_show_is_stored(tmp_path):
    write(tmp_path, 'a', TALKS, ['41', '', 'short', 'trained', '<function __main__.<lambda>()>'])
    write(tmp_path, 'b', ['1 + 1', 'assert False'], ['old'])
    code, said = command('outputs', tmp_path)
    assert code == 1 and '1 failed' in said and f'{tmp_path}/b.ipynb' in said.splitlines()[-1] and 'AssertionError' in said
    assert shown(tmp_path, 'a') == [['42'], [], ['short'], ['trained'], [], ['picture']]
    assert shown(tmp_path, 'b') == [['old'], []], 'what fails stays as it was'


def test_a_lesson_that_fails_is_named(tmp_path):
    for name, sources in dict(good=['assert 1 + 1 == 2', '#| train\n1 / 0'], ends=['import os; os._exit(3)'], bad=['assert 1 + 1 == 3']).items(): write(tmp_path, name, sources)
    code, said = command('lessons', tmp_path)
    assert code == 1 and said.splitlines()[-1].split(' s ')[1] == f'{tmp_path}/bad.ipynb {tmp_path}/ends.ipynb' and said.splitlines()[-1].startswith('2 failed')
