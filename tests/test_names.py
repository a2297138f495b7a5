"""The page of names tells the truth: what it says is somewhere, is there."""
import importlib
import json
import re

from conftest import ROOT


def rows():
    "First and second column of every table of the page."
    text = '\n'.join(''.join(c['source']) for c in json.loads((ROOT / 'nbs' / 'names.ipynb').read_text())['cells'])
    for line in text.splitlines():
        columns = [c.strip() for c in line.split('|')[1:-1]]
        yield from (columns[i:i + 2] for i in range(0, len(columns) - 1, 2) if columns[i].startswith('`'))


def test_every_module_that_is_named_is_there():
    named = {m for _, now in rows() for m in re.findall(r'`(fvc(?:\.[a-z_0-9]+)+)', now)}
    assert len(named) > 50
    for name in named:
        module, _, last = name.rpartition('.')
        try: importlib.import_module(name)
        except ModuleNotFoundError: assert hasattr(importlib.import_module(module), last), name


def test_every_function_is_where_the_page_says():
    "Where a row names one module, all the names before it are found there."
    checked = 0
    for before, now in rows():
        modules, names = re.findall(r'`(fvc\.[a-z_0-9.]+)`', now), re.findall(r'`([A-Za-z_]\w*)`', before)
        if len(modules) != 1 or before.startswith('`fvc') or any(n.startswith('FVC_') for n in names): continue
        for name in names:
            assert hasattr(importlib.import_module(modules[0]), name), (name, modules[0])
            checked += 1
    assert checked > 30
