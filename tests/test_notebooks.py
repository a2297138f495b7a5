"""The notebooks themselves: in step with the library, clean, tagged, and within the limits of the house style."""
import ast
import builtins
import filecmp
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / '.ci'))
from chapters import AFTER, CHAPTERS, sidebar  # noqa: E402

NOTEBOOKS = sorted(p for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
MODELS = [p for p in NOTEBOOKS if re.fullmatch(r'5[a-z]_\w+\.ipynb', p.name)]
MODULES = sorted(p for p in (ROOT / 'fvc').rglob('*.py') if p.name != '_modidx.py')  # nbdev's own index of names
BIN = Path(sys.executable).parent


def cells(path):
    return json.loads(path.read_text())['cells']


def source(cell):
    return ''.join(cell['source'])




def lines_allowed(text):
    "Lines a code cell may have: 50 where it holds one class or one function, with its decorators and directives, and nothing else; 30 otherwise."
    if text.startswith(('%', '!')): return 30
    code = [n for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith('#|')]
    body = ast.parse(text).body
    if len(body) != 1 or not isinstance(body[0], (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)): return 30
    first = min([body[0].lineno, *(d.lineno for d in body[0].decorator_list)])
    return 50 if code[0] == first and code[-1] == body[0].end_lineno else 30


def written_again(path):
    "Classes that the exported cells of a notebook write more than once: `class X(X)`, or one name twice."
    classes = [n for text in exported(path) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ClassDef)]
    own = {n.name for n in classes if any(isinstance(b, ast.Name) and b.id == n.name for b in n.bases)}
    top = [n.name for text in exported(path) for n in ast.parse(text).body if isinstance(n, ast.ClassDef)]
    return own | {name for name in top if top.count(name) > 1}


def exported(path):
    return [source(c) for c in cells(path) if c['cell_type'] == 'code' and source(c).startswith('#| export')]


@pytest.fixture(scope='session')
def fresh(tmp_path_factory):
    "A copy of what nbdev works on, exported and cleaned there."
    copy = tmp_path_factory.mktemp('project')
    for name in ('nbs', 'fvc'):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('settings.ini', 'setup.py', 'README.md'):
        shutil.copy(ROOT / name, copy / name)
    for module in (copy / 'fvc').rglob('*.py'):
        module.unlink()
    for command in ('nbdev_export', 'nbdev_clean'):
        subprocess.run([BIN / command], cwd=copy, check=True, capture_output=True)
    return copy


def test_library_is_what_the_notebooks_export(fresh):
    made = {p.relative_to(fresh) for p in (fresh / 'fvc').rglob('*.py')}
    assert made == {p.relative_to(ROOT) for p in (ROOT / 'fvc').rglob('*.py')}, 'run nbdev_export'
    differ = [str(p) for p in made if not filecmp.cmp(fresh / p, ROOT / p, shallow=False)]
    assert not differ, f'run nbdev_export: {differ}'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_clean(path, fresh):
    assert path.read_bytes() == (fresh / path.relative_to(ROOT)).read_bytes(), 'run nbdev_clean'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_limits(path):
    model = path in MODELS
    code = [source(c) for c in cells(path) if c['cell_type'] == 'code']
    most = 20 if model else 60
    assert len(cells(path)) <= most, f'{path.name} has {len(cells(path))} cells, and {most} are allowed: split it, or say it shorter'
    long = [f'{len(s.splitlines())} lines of {lines_allowed(s)}:\n{s}' for s in code if len(s.splitlines()) > lines_allowed(s)]
    assert not long, long[0]
    lines, most = sum(len(s.splitlines()) for s in exported(path)), 120 if model else 300
    assert lines <= most, f'{path.name} exports {lines} lines, and {most} are allowed: what others need too belongs into the library'
    assert path.stat().st_size <= 150 * 1024, f'{path.name} has {path.stat().st_size // 1024} KiB, and 150 are allowed: store smaller pictures'


def part(cell):
    "What a cell is to a reader: 'definition', 'example' or 'sentence'; '' for imports, headings and what is hidden."
    text = source(cell)
    if cell['cell_type'] != 'code':
        return 'sentence' if any(line.strip() and not line.startswith('#') for line in text.splitlines()) else ''
    if text.startswith(('#| default_exp', '#| hide')): return ''
    body = [] if text.startswith(('%', '!')) else ast.parse(text).body
    if body and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body): return ''
    return 'definition' if text.startswith('#| export') else 'example'


def rows_of_definitions(path):
    "Numbers of exported cells that follow one another without an example or a sentence between them, row by row."
    rows = [[]]
    for number, cell in enumerate(cells(path)):
        said = part(cell)
        if said == 'definition': rows[-1].append(number)
        elif said: rows.append([])
    return [row for row in rows if row]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_definitions_are_interrupted(path):
    long = [row for row in rows_of_definitions(path) if len(row) > 2]
    assert not long, f'{path.name}: the exported cells {long} follow one another, and two are allowed: put an example or a sentence between them'


def test_a_row_of_definitions_is_noticed(tmp_path):
    book, define, read = tmp_path / 'odd.ipynb', '#| export\ndef f(): pass', '#| export\nimport os'
    for row, rows in (([define] * 3, [[0, 1, 2]]), ([define, read, define, define], [[0, 2, 3]]), ([define, '#| hide\nf()', define], [[0, 2]]), ([define, 'import os', define], [[0, 2]]),
                      ([define, '## Next', define], [[0, 2]]), ([define, 'f()', define], [[0], [2]]), ([define, '## Next\n\nThis is why.', define], [[0], [2]]), ([read, define], [[1]])):
        kinds = ['markdown' if text.startswith('##') else 'code' for text in row]
        book.write_text(json.dumps(dict(cells=[dict(cell_type=kind, source=[text]) for kind, text in zip(kinds, row)])))
        assert rows_of_definitions(book) == rows, row


@pytest.mark.parametrize('text, lines', [
    ('class A:\n    x = 1', 50), ('#| export\n@dataclass\nclass A:\n    x: int = 1\n', 50), ('#| export\ndef f():\n    return 1', 50), ('async def f(): pass', 50),
    ('#| export\nLIMIT = 1\ndef f():\n    return LIMIT', 30), ('def f(): pass\ndef g(): pass', 30), ('x = 1', 30), ('', 30), ('%time f()', 30),
    ('# a remark\nclass A: pass', 30), ('class A: pass\n# a remark', 30), ('def f(): pass\nf()', 30), ('import os\ndef f(): pass', 30)])
def test_only_one_class_or_function_may_be_long(text, lines):
    assert lines_allowed(text) == lines


def test_a_class_is_written_once():
    "Nothing gets round the limit of lines by going on in a second cell."
    again = {p.stem: written_again(p) for p in NOTEBOOKS if written_again(p)}
    assert not again, f'write each class in one cell: {again}'


@pytest.mark.parametrize('texts, names', [
    (['class A: pass'], set()), (['class A: pass\nclass B(A): pass'], set()), (['class A(other.A): pass'], set()), (['class A: pass', 'class A(A): pass'], {'A'}),
    (['class A: pass', 'class A(B): pass'], {'A'}), (['def f():\n    class A(A): pass'], {'A'}), (['class A(Mixin, A): pass'], {'A'})])
def test_a_class_in_pieces_is_noticed(texts, names, tmp_path):
    book = tmp_path / 'odd.ipynb'
    book.write_text(json.dumps(dict(cells=[dict(cell_type='code', source=['#| export\n' + text]) for text in texts])))
    assert written_again(book) == names


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if p.stem not in ('index', 'names')], ids=lambda p: p.stem)
def test_head(path):
    first, second = cells(path)[:2] if exported(path) else (None, cells(path)[0])
    if first:
        assert source(first).startswith('#| default_exp ')
    assert re.match(r'# .+\n\n> .+', source(second)) and len(source(second).strip().splitlines()) == 3


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_imports_stand_alone(path):
    for cell in cells(path):
        if cell['cell_type'] != 'code' or source(cell).startswith(('%', '!')):
            continue
        tree, imports = ast.parse(source(cell)), (ast.Import, ast.ImportFrom)
        late = any(isinstance(n, imports) for n in ast.walk(tree)) and not source(cell).startswith('#| export')
        assert not late and len({isinstance(n, imports) for n in tree.body}) < 2 or all(isinstance(n, imports) for n in tree.body), f'an import among other code would run in the docs build:\n{source(cell)}'


@pytest.mark.parametrize('path', MODELS, ids=lambda p: p.stem)
def test_model_anatomy(path):
    "The cells that every model notebook has, in the order a reader expects."
    stem = path.stem.split('_', 1)[1]
    code = [c for c in cells(path) if c['cell_type'] == 'code']
    text = [source(c) for c in code]
    assert text[0] == f'#| default_exp models.{stem}'
    tagged = [c for c in code if 'parameters' in c['metadata'].get('tags', [])]
    assert len(tagged) == 1, 'exactly one cell is tagged parameters'
    assert re.fullmatch(r"fold: int = 1 +# .+\ndata: str = '' +# .+\noverrides: str = '' +# .+", source(tagged[0]))
    order = [next(i for i, s in enumerate(text) if re.search(p, s)) for p in
             (r'^fold: int', rf'def {stem}\(', r'^#\| export\nspec = Spec\(', r'check_model\(spec, data\)', r'run_fold\(spec, fold, data, overrides\)')]
    assert order == sorted(order)
    assert text[order[-1]].startswith('#| train') and text[order[-1]].rstrip().endswith('result')
    assert cells(path)[-1]['cell_type'] == 'markdown'
    words = sum(len(source(c).split()) for c in cells(path) if c['cell_type'] == 'markdown' and '```' not in source(c))
    assert 60 <= words <= 220, f'{path.name} has {words} words of text, and 60 to 220 are allowed'


FEW = 3  # lines that two model notebooks may have in common, however short they are


def said_lines(texts):
    "What exported cells say: their lines without imports, docstrings, remarks, brackets alone, and the heads that declare a function's options."
    found = []
    for text in texts:
        tree, silent, remarks = ast.parse(text), set(), {}
        for node in ast.walk(tree):
            head = isinstance(node, ast.FunctionDef) and node.body[0].lineno > node.lineno
            word = isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or ast.unparse(node) == 'super().__init__()')
            if word or isinstance(node, (ast.Import, ast.ImportFrom)): silent |= set(range(node.lineno, node.end_lineno + 1))
            elif head: silent |= set(range(node.lineno, node.body[0].lineno))
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT: remarks[token.start[0]] = token.start[1]
        for number, line in enumerate(text.splitlines(), 1):
            line = ' '.join(line[:remarks.get(number)].split())
            if number not in silent and line.strip('()[]{},: '): found.append(line)
    return found


def in_common(one, other):
    "Lines of one that stand in the other, where they are more than a few and a tenth of it or more."
    shared = [line for line in one if line in other]
    return shared if len(shared) > FEW and 10 * len(shared) >= len(one) else []


@pytest.mark.parametrize('path', MODELS, ids=lambda p: p.stem)
def test_what_two_models_share_lives_in_the_library(path):
    own = said_lines(exported(path))
    for other in MODELS:
        shared = in_common(own, said_lines(exported(other))) if other != path else []
        assert not shared, f'{path.stem} and {other.stem} say {len(shared)} of {len(own)} lines alike, put them into the library:\n' + '\n'.join(shared)


def test_shared_lines_are_noticed():
    text = '#| export\nimport torch\n\ndef model(width: int = 8,  # channels\n          ):\n    "A model."\n    a = width\n    b = [\n        1]  # a remark\n    return a'
    assert said_lines([text]) == ['a = width', 'b = [', '1]', 'return a']
    assert in_common(list('abcd'), list('abcdef')) == list('abcd') and in_common(list('abcdef'), list('abcd')) == list('abcd')
    assert not in_common(list('abc'), list('abc')) and not in_common(list('abcd') + ['x'] * 40, list('abcd')) and not in_common(list('abcd'), list('efgh'))


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if '#| train' in p.read_text()], ids=lambda p: p.stem)
def test_notebooks_that_run_have_parameters(path):
    "papermill ignores what it is given when the tag is lost, and every job trains the default fold."
    assert sum('parameters' in c['metadata'].get('tags', []) for c in cells(path)) == 1


def test_a_lost_tag_is_noticed(tmp_path):
    nb = json.loads(MODELS[0].read_text())
    for c in nb['cells']:
        c['metadata'] = {}
    lost = tmp_path / MODELS[0].name
    lost.write_text(json.dumps(nb))
    with pytest.raises(AssertionError, match='parameters'):
        test_model_anatomy(lost)


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_docstrings_begin_with_a_term(path):
    "The index of names shows first words: an article there hides what one would search for."
    said = [(n.name, ast.get_docstring(n) or '') for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    found = [f'{name}: {text[:60]}' for name, text in said if not name.startswith('_') and text.split(' ')[0] in ('A', 'An', 'The')]
    assert not found, f'{path.name}: begin these docstrings with the term itself: {"; ".join(found)}'


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_modules_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300, f'{path.name} has {len(text.splitlines())} lines, and 300 are allowed: split its notebook'
    long = {n.name: n.end_lineno - n.lineno + 1 for n in ast.walk(ast.parse(text))
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.end_lineno - n.lineno + 1 > 60}
    assert not long, f'{path.name}: functions of more than 60 lines: {long}'


def annotations(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation:
            yield node.annotation
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns:
            yield node.returns


def names(tree):
    return {alias.asname or alias.name.split('.')[0] for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom)) for alias in n.names} | {
        n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_annotations_can_be_read(path):
    "The documentation site evaluates every annotation: one in quotes must name what the module has."
    tree = ast.parse(path.read_text())
    quoted = [n.value for a in annotations(tree) for n in ast.walk(a) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    unknown = [text for text in quoted if re.match(r'\w+', text)[0] not in names(tree) | set(dir(builtins))]
    assert not unknown


def place(module):
    "Where a module stands: the number of its chapter, and of its notebook in it; models and stages, whose notebooks stand in nbs/ itself, all have 0."
    _, chapter, *rest = module.split('.')
    order = [p.stem.partition('_')[2] for p in NOTEBOOKS if p.parent.name == chapter]
    follows = AFTER.get('.'.join([chapter, *rest]))
    number = order.index(follows) + 0.5 if follows else order.index(rest[0]) if rest and rest[0] in order else 0
    return CHAPTERS.index(chapter), number


def imported(module, node):
    "The modules of fvc that an import names."
    if isinstance(node, ast.Import): return [a.name for a in node.names if a.name.startswith('fvc.')]
    if not isinstance(node, ast.ImportFrom): return []
    base = module.rsplit('.', node.level)[0] + '.' if node.level else ''
    target = (base + (node.module or '')).rstrip('.')
    if not target.startswith('fvc'): return []
    return [target] if len(target.split('.')) > 2 else [f'{target}.{a.name}' for a in node.names]


def rising(path):
    "The imports of a module, late ones too, that point upwards."
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    if path.name == '__init__.py': return []
    targets = [t for node in ast.walk(ast.parse(path.read_text())) for t in imported(module, node)]
    return [f'{module} imports {t}' for t in targets if t != module and not place(t) < place(module) and
            not (place(t)[0] == place(module)[0] and CHAPTERS[place(t)[0]] == 'stages')]


@pytest.mark.parametrize('path', MODULES, ids=lambda p: '.'.join(p.parts[-2:]))
def test_imports_point_down(path):
    "To earlier notebooks of the chapter, or to earlier chapters; imports inside functions too. Only the registry looks upward, by address."
    assert not rising(path), rising(path)


def test_an_import_that_rises_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], 'ROOT', tmp_path)
    (tmp_path / 'fvc' / 'scores').mkdir(parents=True)
    odd = tmp_path / 'fvc' / 'scores' / 'metrics.py'
    for line, wrong in (('from fvc.core.table import read_table', 0), ('from .intervals import Interval', 1), ('def f():\n    from ..running import cli', 1),
                        ('import fvc.corpus.folds', 1), ('from fvc.scores.plots import new_axis', 1)):
        odd.write_text(line)
        assert len(rising(odd)) == wrong, line


def workspace_names():
    "Every file and folder name in a workspace, as core.workspace has them."
    from fvc.core import workspace
    place = workspace.Workspace(Path('/w'))
    places = [getattr(place, n) for n, v in vars(workspace.Workspace).items() if isinstance(v, property) and n not in ('about', 'sample', 'reports')]
    parts = {part for p in places + [place.cache('x').parent] for part in p.relative_to('/w').parts}
    return parts | {n for both in workspace.STAGES.values() for n in both if n} | {place.reports.parent.name, *workspace.ELSEWHERE.values()}


def spelt(text, name):
    "Whether a cell has a name of the workspace; what is a word as well (`videos`) counts where it is part of a path."
    if re.search(r'[._0-9]', name) or name == 'mlartifacts': return re.search(rf'(?<![\w.]){re.escape(name)}(?!\w)', text)
    return re.search(rf"""/ ?f?['"]{name}['"/]|['"]{name}/""", text)


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if p.stem != '07_workspace'], ids=lambda p: p.stem)
def test_only_the_workspace_knows_its_names(path):
    found = sorted({(name, line.strip()) for text in exported(path) for line in text.splitlines() for name in workspace_names() if spelt(line, name)})
    assert not found, f'ask the Workspace instead: {found}'


def test_a_name_of_the_workspace_is_noticed():
    names = workspace_names()
    assert {'folds.arrow', 'video_index_input.csv', 'augmented_videos', 'scaled_metadata.arrow', 'stage5', 'corpus.json', 'near_duplicates.csv', 'mlflow.db',
            'mlartifacts', 'papermill_runs', 'cache', 'videos', 'FVC_STAGE3_OUTPUT_DIR'} <= names
    for line in ("read_table(place.root/'folds.arrow')", "f'{place}/stage5/{run}'", '"Write augmented_videos/."', "root/'videos'/name", "f'videos/{name}'",
                 "root/'cache'/'x'", "os.environ['FVC_STAGE2_OUTPUT_DIR']"):
        assert any(spelt(line, name) for name in names), line
    for line in ("rows['videos']", 'def stage5_train_models(', "'https://facebook.com/{page}/videos/{}/'", 'from functools import cache', 'fvc.corpus.near_duplicates'):
        assert not any(spelt(line, name) for name in names), line


def test_every_notebook_has_a_chapter_and_a_number():
    "Numbers start at 01 in each chapter, without letters and without gaps; the module has the notebook's stem."
    for chapter in CHAPTERS:
        books = [p for p in NOTEBOOKS if p.parent.name == chapter]
        assert [p.stem[:3] for p in books] == [f'{n:02d}_' for n in range(1, len(books) + 1)], chapter
        for p in books: assert source(cells(p)[0]).strip() == f'#| default_exp {chapter}.{p.stem[3:]}', p
    assert {p.parent.name for p in NOTEBOOKS} <= {*CHAPTERS, 'nbs', 'howto'}
    stems = [re.sub(r'^[0-9]+[a-z]?_', '', p.stem) for p in NOTEBOOKS]
    assert len(stems) == len(set(stems)), 'nbdev names pages by their stems'


def test_the_sidebar_follows_the_chapters():
    assert (ROOT / 'nbs' / 'sidebar.yml').read_text(encoding='utf-8') == sidebar(), 'run python .ci/chapters.py'


def test_readme_says_what_the_front_page_says():
    from readme import readme
    assert (ROOT / 'README.md').read_text(encoding='utf-8') == readme(), 'run python .ci/readme.py'


BRANCHES = {  # what only some modules may ask -> those modules
    r'\bspec\.kind\b|\bself\.spec\.kind\b': {'fitting', 'checks', 'runs', 'registry'},  # runs: which settings a kind reads
    r'\bif [\w.]*\btask(\.kind)? *(==|!=)|\btask\.kind *(==|!=)': {'tasks', 'labels'},  # labels: where stage 0 decides on the task
    r'\bspec\.input\b|\.sigmoid\(\)\[:, 0\]|predict_proba\([^)]*\)\[:, 1\]': set(),
}


def asking(text):
    "What of `BRANCHES` a text asks."
    return {pattern for pattern in BRANCHES if re.search(pattern, text)}


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_only_its_own_rooms_ask_what_kind_of_model_or_task_it_is(path):
    for cell in exported(path):
        wrong = {p for p in asking(cell) if module_stem(path) not in BRANCHES[p]}
        assert not wrong, f'{path.name} asks {wrong}; ask the Task, or let the kind choose in fitting:\n{cell}'


def module_stem(path):
    return path.stem.split('_', 1)[1] if path.stem[0].isdigit() else path.stem


@pytest.mark.parametrize('text, found', [
    ("if spec.kind == 'network': fit()", 1), ("if task == 'binary': x", 1), ("return 1 if m.task.kind == 'multilabel' else 2", 1), ('p = e.predict_proba(x)[:, 1]', 1),
    ('logits.sigmoid()[:, 0]', 1), ('task.scores(logits)', 0), ('task.kind in spec.serves', 0), ("split.kind == 'kfold'", 0), ('FITS[kind](m)', 0)])
def test_such_questions_are_noticed(text, found):
    assert len(asking(text)) == found


MODELS = [path for path in NOTEBOOKS if re.match('5[a-z]_', path.name)]


@pytest.mark.parametrize('path', MODELS, ids=lambda path: path.stem)
def test_a_model_keeps_its_diagram_as_a_picture(path):
    "Drawn from its blocks, and shown without anything from outside."
    drawn = [cell for cell in cells(path) if cell['cell_type'] == 'code' and source(cell).startswith('draw_blocks(')]
    assert drawn, f'{path.name} draws no diagram of its blocks: add one cell that calls fvc.scores.diagrams.draw_blocks'
    assert any('image/png' in o.get('data', {}) for o in drawn[0]['outputs']), f'{path.name} keeps no picture of its diagram: python .ci/outputs.py stores it'


def test_no_diagram_needs_a_script_of_others():
    assert len(MODELS) >= 24 and not [path.name for path in NOTEBOOKS if 'mermaid' in path.read_text(encoding='utf-8')]


@pytest.mark.parametrize('name, least', [('00_pipeline_journey', 8), ('6_report', 3)])
def test_the_tour_and_the_report_keep_small_pictures(name, least):
    "So that the site shows what they are about, although nothing is executed for it."
    text = (ROOT / 'nbs' / f'{name}.ipynb').read_text(encoding='utf-8')
    outputs = [o for cell in json.loads(text)['cells'] for o in cell.get('outputs', [])]
    data = [''.join(value) for o in outputs for kind, value in o.get('data', {}).items() if kind.startswith('image/') or 'data:image' in ''.join(value)]
    assert len(data) >= least, f'{name} keeps {len(data)} pictures: execute it on the sample and store them'
    assert sum(map(len, data)) <= 150_000, f'{name} keeps {sum(map(len, data)):,} characters of pictures, 150,000 are allowed: store them smaller'
