"""Every command of the how-to pages, the README and CONTRIBUTING.md, read from them: run where that is cheap, planned where it would train for hours, parsed where it needs a cluster.

A command without a check fails by name, and so does a message that the code cannot produce."""
import io
import json
import re
import shlex
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from conftest import ROOT, write_clip
from fvc.core.parameters import check_parameters
from fvc.core.registry import spec_of
from fvc.core.workspace import Workspace
from fvc.corpus.sample import SAMPLE_PASSWORD
from fvc.learning.runs import resolve
from fvc.running import cli, model_training, pipeline
from fvc.running.cli import _parse, main
from fvc.running.notebooks import Outcome
from fvc.stages.setup import setup

HOWTO = ROOT / 'nbs' / 'howto'
PAGES = [*sorted(HOWTO.glob('*.ipynb')), ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']


def text_of(page):
    if page.suffix == '.md': return page.read_text(encoding='utf-8')
    return '\n\n'.join(''.join(c['source']) for c in json.loads(page.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown')


def commands_of(page):
    "Commands of the shell blocks, continued lines joined, remarks gone, `a && b` as two."
    blocks = re.findall(r'```sh\n(.*?)```', text_of(page), re.S)
    lines = [line for block in blocks for line in block.replace('\\\n', ' ').splitlines()]
    lines = [re.sub(r'\s+# .*', '', line).strip() for line in lines]
    return [' '.join(part.split()) for line in lines if line for part in line.split(' && ')]


def inline_commands(page):
    "Commands of fvc in code spans; those with three dots stand for many."
    return [span for span in re.findall(r'(?<!`)`([^`\n]+)`(?!`)', text_of(page)) if re.match(r'fvc [a-z]', span) and '…' not in span and span != 'fvc run']


COMMANDS = [(page.name, line) for page in PAGES for line in commands_of(page)]

ELSEWHERE = {  # command -> the file that runs it, and what there
    'git clone <this repository> fvc': ('.ci/run', 'make test'), 'cd fvc': ('.ci/run', 'make test'), 'make run': ('Makefile', 'run: setup'), 'make test': ('Makefile', 'test: setup'),
    'make mutants': ('Makefile', 'mutants: setup'), 'make mutants MUTANTS=intervals': ('Makefile', '$(MUTANTS)'), 'nbdev_export': ('tests/test_stranger.py', 'nbdev_export'),
    'nbdev_clean': ('tests/test_notebooks.py', 'nbdev_clean'), 'python .ci/outputs.py nbs/scores': ('tests/test_lessons.py', "command('outputs'"), 'pytest -q tests/test_notebooks.py': ('.ci/test.sh', 'pytest'),
    'source .venv/bin/activate': ('.ci/setup.sh', '.venv'), 'jupyter lab --ip 127.0.0.1 nbs': ('Makefile', 'jupyter lab --ip 127.0.0.1'),
    'nano $FVC_DATA/slurm.yaml': ('tests/test_cluster.py', 'slurm.yaml'), 'fvc new my_network --like naive_cnn': ('tests/test_stranger.py', 'add_a_model'),
    'fvc train my_network --folds 1 profile=small': ('tests/test_stranger.py', 'add_a_model'), 'fvc train my_network profile=small': ('tests/test_stranger.py', 'my_network'),
    'fvc train --use my_models.py my_model': ('tests/test_stranger.py', "'--use', mine, 'my_model'"), 'fvc train --use my_parts.py poster_net --folds 1': ('tests/test_stranger.py', 'poster_net'),
    'fvc train --use my_parts.py naive_cnn --folds 1 profile=small loss=hinge loss.margin=2 augment.grey.p=0.3': ('tests/test_stranger.py', "'loss=hinge'")}
PROGRAMS = {'nbdev_install_hooks'}  # that an environment of fvc has; what they do is nbdev's
PARSED = {'submit', 'doctor', 'status', 'wait', 'predict', 'compare', 'report', 'weights', 'models'}  # need a cluster, a finished run, minutes, or have tests of their own
PLANNED = {'train', 'run'}  # all that comes before a notebook is executed
RUN = {'setup', 'stage', 'audit', 'remove', 'clean'}


def way(line):
    "How a command is checked; '' for one that nothing checks."
    words = shlex.split(line)
    if line in ELSEWHERE: return 'elsewhere'
    if line in PROGRAMS: return 'program'
    while words and re.match(r'[A-Z_]+=', words[0]): words = words[1:]
    if words[0] == 'export' and re.match(r'FVC_[A-Z_]+=', words[1]): return 'variable'
    if words[0] == 'papermill': return 'papermill'
    if words[0] != 'fvc' or words[1] not in PARSED | PLANNED | RUN: return ''
    return 'parsed' if words[1] in PARSED else 'planned' if words[1] in PLANNED else 'run'


@pytest.mark.parametrize('page, line', COMMANDS, ids=[f'{p}: {c}' for p, c in COMMANDS])
def test_every_command_has_a_check(page, line):
    assert way(line), f'{page} shows "{line}", and nothing here checks it: add it to tests/test_howto_commands.py'
    if way(line) == 'elsewhere':
        file, said = ELSEWHERE[line]
        assert said in (ROOT / file).read_text(encoding='utf-8'), f'{file} no longer does what "{line}" says'
    if way(line) == 'program': assert Path(sys.executable).with_name(line).is_file()
    if way(line) == 'variable':
        name = re.search(r'FVC_[A-Z_]+', line)[0]
        assert any(f"'{name}'" in p.read_text(encoding='utf-8') for p in (ROOT / 'fvc').rglob('*.py')), f'fvc does not read {name}'


def test_a_command_without_a_check_is_noticed():
    assert [way(c) for c in ('fvc bake x3d', 'make cake', 'export HOME=/tmp', 'ls', 'FVC_DEBUG=1 fvc status', 'fvc run')] == ['', '', '', '', 'parsed', 'planned']


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_commands_are_understood(page, monkeypatch):
    "Every option and every name of a command, in blocks and in code spans, is one that fvc has."
    monkeypatch.setattr(cli, '_use', lambda files: None)
    monkeypatch.setattr(cli, '_file_words', lambda file: [])
    for line in [*commands_of(page), *inline_commands(page)]:
        words = shlex.split(line)
        while re.match(r'[A-Z_]+=', words[0]): words = words[1:]
        if words[0] != 'fvc': continue
        with redirect_stderr(io.StringIO()) as said:
            try: _parse(words[1:])
            except SystemExit as e: assert not e.code or _stem_only(words, said.getvalue()), f'{page.name}: "{line}": {said.getvalue()}'


def _stem_only(words, said):
    "Whether a code span merely names a command, whose arguments are not shown."
    return len(words) <= 3 and 'the following arguments are required' in said


def stood(home, line, tmp):
    "A command's words with the places of this test in place of those of the page."
    known = {'~/FVC': home / 'archives', '~/clips': tmp / 'clips', '~/clips-work': tmp / 'clips-work', '~/clips-plan': tmp / 'clips-plan', '~/fvc-work': home / 'work',
             'mine.csv': tmp / 'mine.csv', 'focal.yaml': tmp / 'focal.yaml'}
    return [str(known.get(word, word)) for word in shlex.split(line)]


@pytest.fixture(scope='module')
def place(made_corpus, tmp_path_factory):
    "A copy of the corpus, and a folder of small videos with its workspace and a split of it, as the pages speak of them."
    home, tmp = tmp_path_factory.mktemp('home'), tmp_path_factory.mktemp('pages')
    shutil.copytree(made_corpus, home, dirs_exist_ok=True, symlinks=True)
    for i in range(8): write_clip(tmp / 'clips' / ('real', 'fake')[i % 2] / f'clip {i}.mp4', i)
    setup(tmp / 'clips', str(tmp / 'clips-work'), 'split.n_splits=2')
    rows = Workspace(tmp / 'clips-work').read_folds().to_dicts()
    (tmp / 'mine.csv').write_text('video_id,part\n' + ''.join(f"{r['video_id']},{'train' if r['fold'] == 1 else 'val'}\n" for r in rows))
    (tmp / 'focal.yaml').write_text('loss: {name: focal, gamma: 1.5}\n')
    return home, tmp


@pytest.fixture
def planned(monkeypatch):
    "Jobs that would be executed, instead of executing them; the report is not made."
    jobs = []
    def record(wanted, *_, **__):
        jobs.extend(wanted)
        return [Outcome(job, 'done') for job in wanted]
    monkeypatch.setattr(model_training, 'execute_all', record)
    monkeypatch.setattr(pipeline, 'report', lambda data: [])
    monkeypatch.setattr(pipeline, 'to_html', lambda notebook: notebook)
    return jobs


def said_by(words):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err: code = main(words)
    return code, out.getvalue() + err.getvalue()


TRAINED = [(p, c) for p, c in COMMANDS if way(c) == 'planned' and shlex.split(c)[1] == 'train']


@pytest.mark.parametrize('page, line', TRAINED, ids=[f'{p}: {c}' for p, c in TRAINED])
def test_trainings_are_planned_as_they_are_typed(page, line, place, planned):
    "Names, settings and folds are checked as they would be, and a notebook stands ready for each."
    home, tmp = place
    words = stood(home, line, tmp)
    if '--folds' in words: words[words.index('--folds') + 1] = '1-2'  # two are cut here
    code, said = said_by([*words[1:], '--data', str(home / 'work'), 'split.n_splits=2'])
    assert code == 0 and planned, said
    assert all(job.notebook.is_file() for job in planned)


RUNS = [(p, c) for p, c in COMMANDS if way(c) in ('run', 'planned') and shlex.split(c)[1] != 'train' and 'VIDEO_ID' not in c]


def test_stages_audits_and_runs_do_what_the_pages_say(place, planned, monkeypatch):
    "In the order of the pages, on one small workspace (archives have theirs); what is done is skipped, as it says."
    home, tmp = place
    monkeypatch.setenv('FVC_ARCHIVE_PASSWORD', SAMPLE_PASSWORD)
    for page, line in RUNS:
        words = stood(home, line, tmp)
        if '--data' not in words: words += ['--data', str(home / 'work' if str(home / 'archives') in words else tmp / 'clips-work')]
        if words[1] not in ('audit', 'clean'): words.append('split.n_splits=2')
        if words[1] in ('stage', 'run') and '--num-augmentations' not in words: words.append('stages.augmentation.num_augmentations=2')
        words = ['stages.setup.fake_label=fake' if w == 'stages.setup.fake_label=1' else w for w in words]  # as these folders call it
        code, said = said_by(words[1:])
        assert code in ((0, 1) if words[1] == 'audit' else (0,)), f'{page}: {line}: {said}'  # 1: the small corpus has a shortcut
    assert {job.notebook.stem for job in planned} >= {'5a_logistic_regression', '5c_naive_cnn', '5q_x3d'}


def test_a_video_is_withdrawn_as_the_readme_says(made_corpus, tmp_path):
    shutil.copytree(made_corpus, tmp_path / 'c', symlinks=True)
    work = Workspace(tmp_path / 'c' / 'work')
    video = work.read_folds()['video_id'][0]
    lines = [c for c in commands_of(ROOT / 'README.md') if 'VIDEO_ID' in c]
    assert lines == ['fvc remove VIDEO_ID', 'fvc remove --yes VIDEO_ID', 'fvc remove --undo VIDEO_ID']
    for line, there in zip(lines, (True, False, False)):
        code, said = said_by([*line.replace(' VIDEO_ID', '').split()[1:], '--data', str(work), '--', video])
        assert code == 0, said
        assert (video in work.read_folds()['video_id']) == there
    assert not work.read_withdrawn()


def test_papermill_lines_give_parameters_that_the_notebook_has():
    lines = [c for _, c in COMMANDS if way(c) == 'papermill']
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line)
        given = {words[i + 1]: words[i + 2] for i, w in enumerate(words) if w == '-p'}
        given['fold'] = int(given['fold'])
        check_parameters(ROOT / words[1], given)
        resolve(spec_of(Path(words[1]).stem.split('_', 1)[1]), given.get('overrides', ''))


def messages():
    "The first column of the tables on messages."
    rows = [line for line in text_of(HOWTO / 'troubleshooting.ipynb').splitlines() if line.startswith('| `')]
    return [row.split('`')[1] for row in rows if row.count('|') >= 4 and not re.match(r'\| `aggressive_gc', row)]


def sources():
    "All modules as one text, in which strings that go on in the next line are one."
    text = '\n'.join(p.read_text(encoding='utf-8') for p in sorted((ROOT / 'fvc').rglob('*.py')))
    return re.sub(r"""['"]\s*\n\s*f?['"]""", '', text).replace("\\'", "'")


@pytest.mark.parametrize('message', messages())
def test_every_message_is_one_that_the_code_can_say(message):
    parts = [part.strip(' (') for part in re.split(r'…', message)]
    parts = [part for part in parts if len(part) > 2]
    assert parts and max(map(len, parts)) >= 10, f'{message!r} says too little to be searched for'
    text = sources()
    assert not [part for part in parts if part not in text], f'the code does not say {message!r}'


def test_what_the_page_on_reports_quotes_is_what_reports_say():
    text = text_of(HOWTO / 'reading_a_report.ipynb')
    known = sources() + '\n'.join(p.read_text(encoding='utf-8') for p in (ROOT / 'nbs' / '6_report.ipynb', *sorted((ROOT / 'fvc').rglob('*.py'))))
    for said in ('What was asked?', 'What is the corpus?', 'Which detector leads?', 'Is the lead real?', 'Does it beat what files say about themselves?', 'What was trained on what?',
                 'What failed, and why?', 'a small built-in SAMPLE that proves nothing about real fakes', 'better than chance', 'not distinguishable from chance', 'worse than chance',
                 'cannot be said', 'the lead is real', 'the lead is not shown to be real', 'no difference shown', 'metadata only', 'majority class', 'out of date', 'trained from scratch'):
        assert said in text and said in known, said
