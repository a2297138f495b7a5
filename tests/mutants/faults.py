"""The planted faults: what is replaced by what, what it would do to a user, and the test that must fail.

One TOML file a module, named after it. Sites are found by their text, so the list moves with the code."""
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KEYS = {'id', 'old', 'new', 'harm', 'test', 'fresh'}


class Lost(ValueError):
    "The text of a fault is not in the code, or is there more than once."


@dataclass(frozen=True)
class Fault:
    "One small change that makes the code wrong."
    id: str      # unique over all files
    module: str  # stem of the module, e.g. 'intervals'
    old: str     # stands once in the module and once in its notebook
    new: str     # what is planted there
    harm: str    # what a user would suffer
    test: str    # 'notebook': the module's own; another notebook's stem; or tests/FILE.py::NAME
    fresh: bool = False  # the corpus of the tests is made by the changed code, not taken from the store


def faults() -> list[Fault]:
    "All faults; raises ValueError for an unknown key, a missing one, or an id that stands twice."
    found = []
    for file in sorted(HERE.glob('*.toml')):
        for entry in tomllib.loads(file.read_text(encoding='utf-8'))['fault']:
            if unknown := set(entry) - KEYS: raise ValueError(f'{file.name}: unknown keys {sorted(unknown)}; known are {sorted(KEYS)}')
            if missing := KEYS - {'test', 'fresh'} - set(entry): raise ValueError(f'{file.name}: {entry.get("id", entry)} lacks {sorted(missing)}')
            found.append(Fault(**{'test': 'notebook', 'module': file.stem, **entry}))
    twice = sorted({f.id for f in found if sum(g.id == f.id for g in found) > 1})
    if twice: raise ValueError(f'these ids stand twice: {twice}')
    return found


def _only(paths, what):
    paths = list(paths)
    if len(paths) != 1: raise Lost(f'{what}: found {[p.name for p in paths] or "none"}')
    return paths[0]


def module_file(root: Path, module: str) -> Path:
    "The one module of that stem."
    return _only((p for p in (root / 'fvc').rglob(f'{module}.py')), f'the module {module}')


def notebook_of(root: Path, module: str) -> Path:
    "The notebook that exports a module, or that has this stem without its number."
    def exports(path):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        return any(''.join(c['source']).startswith('#| default_exp ') and ''.join(c['source']).split()[2].split('.')[-1] == module for c in cells)
    named = [p for p in (root / 'nbs').rglob('*.ipynb') if p.stem.partition('_')[2] == module or p.stem == module]
    return _only(named if len(named) == 1 else [p for p in (root / 'nbs').rglob('*.ipynb') if exports(p)], f'the notebook of {module}')


def plant(root: Path, fault: Fault):
    "Put a fault into the module and into its notebook's cell; raises Lost when its text is not there exactly once."
    file, book = module_file(root, fault.module), notebook_of(root, fault.module)
    text, nb = file.read_text(encoding='utf-8'), json.loads(book.read_text(encoding='utf-8'))
    cells = [c for c in nb['cells'] if ''.join(c['source']).startswith('#| export') and fault.old in ''.join(c['source'])]
    in_cells = sum(''.join(c['source']).count(fault.old) for c in cells)
    if (text.count(fault.old), in_cells) != (1, 1):
        raise Lost(f'{fault.id}: its text stands {text.count(fault.old)} times in {file.name} and {in_cells} times in {book.name}: {fault.old!r}')
    changed = text.replace(fault.old, fault.new)
    compile(changed, str(file), 'exec')
    file.write_text(changed, encoding='utf-8')
    cells[0]['source'] = ''.join(cells[0]['source']).replace(fault.old, fault.new)
    book.write_text(json.dumps(nb), encoding='utf-8')


def restore(root: Path, clean: Path, fault: Fault):
    "Take a fault out again."
    for file in (module_file(root, fault.module), notebook_of(root, fault.module)):
        file.write_bytes((clean / file.relative_to(root)).read_bytes())
