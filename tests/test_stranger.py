"""A model of somebody else's: one notebook, or one file, and no other edit."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from fvc.core.workspace import Workspace
from fvc.corpus.sample import SAMPLE_PASSWORD

CELLS = [
    ('code', '#| default_exp models.stranger_slowfast', []),
    ('markdown', '# Stranger SlowFast\n\n> Two pathways at two rates, as a notebook of its own', []),
    ('code', '#| export\nimport torch\nfrom pytorchvideo.models.slowfast import create_slowfast\nfrom torch import nn\n\nfrom fvc.core.registry import Clip, Spec\n'
             'from fvc.learning.blocks import Head, Normalize', []),
    ('code', 'from fvc.running.experiment import check_model, run_fold', []),
    ('code', "fold: int = 1  # validation fold, from 1\ndata: str = ''  # workspace\noverrides: str = ''  # settings", ['parameters']),
    ('code', '''#| export
class StrangerSlowFast(nn.Module):
    "A tiny SlowFast."
    def __init__(self, outputs):
        super().__init__()
        self.normalize = Normalize((0.45,) * 3, (0.225,) * 3)
        self.body = create_slowfast(slowfast_channel_reduction_ratio=4, slowfast_conv_channel_fusion_ratio=2, slowfast_fusion_conv_stride=(2, 1, 1), stem_dim_outs=(8, 2),
                                    head_pool_kernel_sizes=((2, 1, 1), (4, 1, 1)), dropout_rate=0, model_num_class=16)
        self.head = Head(16, outputs)

    def forward(self, clip):
        clip = self.normalize(clip)
        return self.head(self.body([clip[:, :, ::2], clip]))

def stranger_slowfast(task):
    "Slow and fast, small."
    return StrangerSlowFast(task.outputs)''', []),
    ('code', "#| export\nspec = Spec('stranger_slowfast', stranger_slowfast, clip=Clip(frames=4, size=32), tiny={'data.frames': 4},\n"
             "            defaults={'training.epochs': 1, 'data.variants': 0})", []),
    ('code', '#| train\nresult = run_fold(spec, fold, data, overrides)\nresult', [])]


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "The project with one notebook more."
    home = tmp_path_factory.mktemp('stranger') / 'fvc'
    for name in ('nbs', 'fvc', '.ci'):
        shutil.copytree(ROOT / name, home / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('settings.ini', 'setup.py', 'README.md', '_quarto.yml'):
        shutil.copy(ROOT / name, home / name)
    cells = [dict(cell_type=kind, id=f'cell{i}', metadata=dict(tags=tags) if tags else {}, source=source, **(dict(outputs=[], execution_count=None) if kind == 'code' else {}))
             for i, (kind, source, tags) in enumerate(CELLS)]
    kernel = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    (home / 'nbs' / '5z_stranger_slowfast.ipynb').write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))
    subprocess.run([Path(sys.executable).with_name('nbdev_export')], cwd=home, check=True, capture_output=True)
    assert (home / 'fvc' / 'models' / 'stranger_slowfast.py').is_file()
    return home


def run(home, *words, **env):
    "What a command of the project in `home` says; it must end well."
    made = subprocess.run([sys.executable, *map(str, words)], cwd=home, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env={**os.environ, 'PYTHONPATH': str(home), **env})
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-3000:]
    return made


FVC = ('-c', 'import sys; from fvc.running.cli import main; raise SystemExit(main(sys.argv[1:]))')


def test_one_notebook_and_no_other_edit(copy, corpus, tmp_path):
    "It trains by papermill and by both commands, is listed and ranked, stands on the site, and its detector loads."
    home = shutil.copytree(corpus.parent, tmp_path / 'corpus', symlinks=True)
    source, corpus = home / 'archives', home / 'work'
    out = tmp_path / 'out.ipynb'
    made = run(copy, '-m', 'papermill', 'nbs/5z_stranger_slowfast.ipynb', out, '-p', 'fold', '2', '-p', 'data', corpus, '-p', 'overrides', 'split.n_splits=2')
    assert 'unknown parameter' not in made.stderr.lower()
    texts = json.dumps(json.loads(out.read_text())['cells'][-1]['outputs'])
    assert 'stranger_slowfast, fold 2' in texts and 'image/png' in texts
    words = ('split.n_splits=2', '--data', corpus)
    assert json.loads(run(copy, *FVC, 'train', 'stranger_slowfast', '--folds', '1', '--json', *words).stdout)[0]['state'] == 'done'
    line = next(m for m in json.loads(run(copy, *FVC, 'models', '--json').stdout) if m['name'] == 'stranger_slowfast')
    assert line['trainable'] > 1000 and line['description'] == 'Slow and fast, small.'
    more = ('--source', source, '--models', 'stranger_slowfast', 'stages.augmentation.num_augmentations=2', '--json')
    board = json.loads(run(copy, *FVC, 'run', *more, *words, FVC_ARCHIVE_PASSWORD=SAMPLE_PASSWORD).stdout)
    mine = next(r for r in board if r['run'] == 'stranger_slowfast')
    assert mine['folds'] == 2 and mine['kind'] == 'model' and 0 <= mine['auc'] <= 1
    script = ('from fvc.core.workspace import Workspace; from fvc.learning.runs import Run;'
              f'd = Run(Workspace.find({str(corpus)!r}), "stranger_slowfast").detector(1); print(d.spec.name, len(d.members))')
    assert run(copy, '-c', script).stdout.split() == ['stranger_slowfast', '1']
    sidebar = run(copy, '-c', 'import sys; sys.path.insert(0, ".ci"); from chapters import sidebar; print(sidebar())').stdout
    assert '5z_stranger_slowfast.ipynb' in sidebar


def commands_of(page):
    "Lines of the shell blocks of a page of documentation."
    text = '\n'.join(''.join(c['source']) for c in json.loads(page.read_text())['cells'] if c['cell_type'] == 'markdown')
    return [line for block in re.findall(r'```sh\n(.*?)```', text, re.S) for line in block.splitlines() if line.strip()]


def test_the_page_on_adding_a_model_does_what_it_says(copy, corpus):
    "Its commands, as typed, lead from a copied notebook to the board."
    lines = commands_of(ROOT / 'nbs' / 'howto' / 'add_a_model.ipynb')
    assert [line.split()[:2] for line in lines] == [['fvc', 'new'], ['nbdev_export'], ['fvc', 'train'], ['fvc', 'report']]
    short = ('split.n_splits=2', 'training.epochs=1', 'data.frames=2', 'data.size=32', 'data.variants=0')
    for line in lines:
        program, *words = line.split()
        more = [*short, '--data', corpus] if words[:1] == ['train'] else ['--data', corpus] if words[:1] == ['report'] else []
        if program == 'fvc': made = run(copy, *FVC, *words, *more)
        else: subprocess.run([Path(sys.executable).with_name(program)], cwd=copy, check=True, capture_output=True)
    assert 'my_network' in made.stdout, 'the report says what is on the board'
    assert (copy / 'nbs' / '5y_my_network.ipynb').is_file()
    again = subprocess.run([sys.executable, *FVC, 'new', 'my_network', '--like', 'naive_cnn'], cwd=copy, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(copy)})
    assert again.returncode == 2 and 'there is a model my_network already' in again.stderr


MINE = '''
from torch import nn
from fvc.core.registry import Clip, register_model

class Mine(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.see, self.head = nn.Conv3d(3, 8, 3, padding=1), nn.Linear(8 * 32, outputs)
    def forward(self, clip): return self.head(nn.functional.adaptive_avg_pool3d(self.see(clip).relu(), (2, 4, 4)).flatten(1))

@register_model('my_model', clip=Clip(frames=2, size=32), defaults={'training.epochs': 1, 'data.variants': 0, 'training.batch_size': 4})
def my_model(task):
    "My own."
    return Mine(task.outputs)
'''


def test_a_file_of_ones_own(corpus, tmp_path):
    "`fvc train --use FILE` trains it, in several processes too; its runs name the file, and need it."
    mine = tmp_path / 'my_models.py'
    mine.write_text(MINE)
    words = ('split.n_splits=2', 'training.device=cpu', '--data', corpus, '--json')
    clean = {k: v for k, v in os.environ.items() if k != 'FVC_USE'}
    for more in ([], ['training.processes=2', '--name', 'two']):
        made = run(ROOT, *FVC, 'train', '--use', mine, 'my_model', '--folds', '1', *words, *more)
        assert [o['state'] for o in json.loads(made.stdout)] == ['done'], made.stdout
    name = 'my_model@two'
    detector = json.loads((corpus / 'stage5' / name / 'fold_1' / 'model' / 'detector.json').read_text())
    assert detector['about']['source']['file'] == str(mine.resolve()) and len(detector['about']['source']['code']) == 16
    script = f'from fvc.core.workspace import Workspace; from fvc.learning.runs import Run; Run(Workspace.find({str(corpus)!r}), {name!r}).detector(1)'
    made = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, cwd=ROOT, env=clean)
    assert made.returncode and f'name its module with --use (it was {mine.resolve()}' in made.stderr
    assert run(ROOT, *FVC, 'models', '--use', mine, '--json').stdout.count('"my_model"') == 1
    again = subprocess.run([sys.executable, *FVC, 'train', 'my_model', '--folds', '1', *words], capture_output=True, text=True, cwd=ROOT, env=clean)
    assert again.returncode == 2 and again.stderr.strip().count('\n') == 0 and "unknown model 'my_model'" in again.stderr


OFFERED = '''
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from fvc.core.registry import register_model

@register_model('offered_table', kind='estimator', inputs=('features',), serves=('binary',))
def offered_table(c: float = 1.0):
    "A line through the features."
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=c))
'''


@pytest.fixture
def package(tmp_path):
    "A folder with an installed package that offers one model."
    home = tmp_path / 'site'
    (home / 'strange_models').mkdir(parents=True)
    (home / 'strange_models' / '__init__.py').write_text('')
    (home / 'strange_models' / 'tables.py').write_text(OFFERED)
    about = home / 'strange_models-1.0.dist-info'
    about.mkdir()
    (about / 'METADATA').write_text('Metadata-Version: 2.1\nName: strange-models\nVersion: 1.0\n')
    (about / 'entry_points.txt').write_text('[fvc.models]\noffered_table = strange_models.tables\n')
    return home


def test_an_installed_package_offers_its_model(package, corpus):
    "Nothing is named but the model: it trains through the notebook for any model, leaves a report, is ranked, and loads where its package is."
    path = os.pathsep.join([str(package), str(ROOT)])
    said = run(ROOT, *FVC, 'train', 'offered_table', '--folds', '1', 'split.n_splits=2', 'model.c=0.5', '--name', 'half', '--data', corpus, '--json', PYTHONPATH=path).stdout
    outcome, = json.loads(said)
    assert outcome['state'] == 'done' and outcome['notebook'] == 'offered_table@half_fold_1.ipynb'
    executed = Workspace(corpus).reports / outcome['notebook']
    shown = json.dumps(json.loads(executed.read_text())['cells'][-1]['outputs'])
    assert 'offered_table@half, fold 1' in shown and 'image/png' in shown
    about = json.loads((corpus / 'stage5' / 'offered_table@half' / 'fold_1' / 'model' / 'detector.json').read_text())['about']
    assert about['source']['file'] == str(package / 'strange_models' / 'tables.py')
    script = ('from fvc.core.workspace import Workspace; from fvc.learning.runs import Run;'
              f'd = Run(Workspace.find({str(corpus)!r}), "offered_table@half").detector(1); print(d.spec.name, d.cfg.model.c)')
    assert run(ROOT, '-c', script, PYTHONPATH=path).stdout.split() == ['offered_table', '0.5']
    without = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert without.returncode and 'tables.py' in without.stderr.splitlines()[-1], 'the sentence names where the model was'


def test_a_package_installed_later_is_among_all_models(package, corpus):
    "What was remembered of the models before it came is not believed."
    script = f'from fvc.learning.asked_runs import serving; print(*serving({str(corpus)!r}))'
    before, after = (run(ROOT, '-c', script, PYTHONPATH=path).stdout.split() for path in (str(ROOT), os.pathsep.join([str(package), str(ROOT)])))
    assert 'svm' in before and set(after) - set(before) == {'offered_table'}


def parts_of(page):
    "The file that a page says to write: its imports of the library, and every cell with a decorator, with the classes beside them."
    cells = [''.join(c['source']) for c in json.loads(page.read_text())['cells'] if c['cell_type'] == 'code']
    return '\n\n'.join(c for c in cells if 'register_' in c)


def test_parts_of_ones_own(corpus, tmp_path):
    "The file of the page on parts: its loss, transform and metric in a model of fvc, its input in one of its own."
    mine = tmp_path / 'my_parts.py'
    mine.write_text(parts_of(ROOT / 'nbs' / 'howto' / 'extend.ipynb'))
    words = ('--folds', '1', 'split.n_splits=2', 'training.device=cpu', '--data', corpus, '--json')
    small = ('training.epochs=1', 'data.frames=2', 'data.size=32', 'data.variants=0', '--name', 'parts')
    made = run(ROOT, *FVC, 'train', '--use', mine, 'naive_cnn', 'loss=hinge', 'loss.margin=2', 'augment.grey.p=0.5', *small, *words)
    assert json.loads(made.stdout)[0]['state'] == 'done', made.stdout
    fold = corpus / 'stage5' / 'naive_cnn@parts' / 'fold_1'
    config = json.loads((fold / 'config.json').read_text())
    assert config['loss'] == dict(name='hinge', margin=2.0) and config['augment']['grey'] == dict(p=0.5, strength=1.0)
    assert 0 <= json.loads((fold / 'metadata.json').read_text())['metrics']['val_brier'] <= 1
    made = run(ROOT, *FVC, 'train', '--use', mine, 'poster_net', *words)
    assert json.loads(made.stdout)[0]['state'] == 'done', made.stdout
    assert json.loads((corpus / 'stage5' / 'poster_net' / 'fold_1' / 'metadata.json').read_text())['facts']['shown'] == 'poster'


def test_the_sample_is_trained_small_by_whoever_starts_it(corpus, tmp_path):
    "X3D as it is typed, without a network: the corpus is the sample, so the small profile is meant."
    out = tmp_path / 'out.ipynb'
    made = run(ROOT, '-m', 'papermill', 'nbs/5q_x3d.ipynb', out, '-p', 'fold', '2', '-p', 'data', corpus, '-p', 'overrides', 'split.n_splits=2 training.epochs=1',
               HTTPS_PROXY='http://127.0.0.1:9', HTTP_PROXY='http://127.0.0.1:9', OMP_NUM_THREADS='1')
    assert 'unknown parameter' not in made.stderr.lower()
    about = json.loads((next(p for p in (corpus / 'stage5').glob('x3d@*') if (p / 'fold_2').is_dir()) / 'fold_2' / 'config.json').read_text())
    assert about['profile'] == 'small' and about['pretrained'] is False
    assert 'x3d' in json.dumps(json.loads(out.read_text())['cells'][-2]['outputs'])
