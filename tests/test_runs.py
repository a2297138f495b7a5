"""Training as users start it: papermill on a model's notebook, the command, two runs of the same thing."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from fvc.running import pipeline
from fvc.running.experiment import run_fold
from fvc.core.table import StaleConfiguration, read_table

BIN = Path(sys.executable).parent
SMALL = 'profile=small split.n_splits=2 data.frames=2 data.side=32 training.epochs=2'


def papermill(*words):
    return subprocess.run([BIN / 'papermill', *map(str, words)], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS='1'))


def test_papermill_trains_the_fold_it_is_given(corpus, tmp_path):
    out = tmp_path / 'out.ipynb'
    run = papermill('nbs/5a_logistic_regression.ipynb', out, '-p', 'fold', 2, '-p', 'data', corpus, '-p', 'overrides',
                    'split.n_splits=2 experiment.name=bare')
    assert run.returncode == 0, run.stderr[-2000:]
    folder = corpus / 'stage5' / 'logistic_regression@bare'
    assert [p.name for p in folder.glob('fold_*')] == ['fold_2']
    assert set(read_table(folder / 'fold_2' / 'predictions.arrow')['fold']) == {2}
    shown = json.loads(out.read_text())['cells']
    assert any('image/png;base64' in json.dumps(c.get('outputs', '')) for c in shown), 'the executed notebook shows its plots'


def test_bare_papermill_refuses_a_misspelt_parameter(corpus, tmp_path):
    run = papermill('nbs/5a_logistic_regression.ipynb', tmp_path / 'out.ipynb', '-p', 'folf', 2, '-p', 'data', corpus)
    assert run.returncode != 0 and "did you mean 'fold'" in run.stderr
    assert not (corpus / 'stage5' / 'logistic_regression' / 'fold_1').exists()


def test_a_fold_leaves_what_a_report_needs(corpus):
    result = run_fold('naive_cnn', 1, str(corpus), SMALL)
    names = {str(p.relative_to(result.folder)) for p in result.folder.rglob('*') if p.is_file()}
    assert {'config.json', 'split.json', 'metadata.json', 'metrics.jsonl', 'predictions.arrow', 'model/weights.safetensors',
            'plots/roc.png', 'plots/curves.png', 'plots/examples.png'} <= names
    assert read_table(result.folder / 'predictions.arrow').columns == ['video_id', 'variant', 'group', 'label', 'score', 'fold']
    line = json.loads((result.folder / 'metrics.jsonl').read_text().splitlines()[0])
    assert list(line) == ['run_id', 'timestamp', 'step', 'epoch', 'phase', 'metric', 'value']
    summary = json.loads((result.folder.parent / 'metrics.json').read_text())
    assert {'model_type', 'n_splits', 'fold_results', 'mean_val_auc', 'std_val_auc', 'best_fold'} <= summary.keys()
    from mlflow import MlflowClient
    client = MlflowClient(f'sqlite:///{corpus}/mlflow.db')
    run = client.get_run(json.loads((result.folder / 'mlflow.json').read_text())['run_id'])
    assert {'fold', 'model_type', 'git_commit', 'data_hash'} <= run.data.tags.keys() and run.info.status == 'FINISHED'
    assert len(client.get_metric_history(run.info.run_id, 'val_loss')) == 2
    again = run_fold('naive_cnn', 1, str(corpus), SMALL)
    assert again.metrics == result.metrics


def test_other_settings_under_one_name_are_refused(corpus):
    run_fold('logistic_regression', 1, str(corpus), 'split.n_splits=2 experiment.name=mine')
    with pytest.raises(StaleConfiguration, match='model.C was 0.1 and is now 3'):
        run_fold('logistic_regression', 1, str(corpus), 'split.n_splits=2 experiment.name=mine model.C=3.0')


def test_two_trainings_give_identical_metrics(corpus):
    one, two = (run_fold('naive_cnn', 2, str(corpus), f'{SMALL} experiment.name={n} experiment.mlflow=false') for n in ('one', 'two'))
    assert one.folder != two.folder and one.metrics == two.metrics
    assert one.predictions['score'].equals(two.predictions['score'])


def test_two_processes_train_as_one_does(corpus):
    one, two = (run_fold('naive_cnn', 1, str(corpus), f'{SMALL} training.device=cpu training.processes={n} experiment.name=by{n}') for n in (1, 2))
    losses = [pl.read_ndjson(r.folder / 'metrics.jsonl').filter(pl.col('metric') == 'train_loss') for r in (one, two)]
    assert losses[0]['step'].to_list() == losses[1]['step'].to_list(), 'a batch is divided, not multiplied'
    assert losses[0]['value'].to_list() == pytest.approx(losses[1]['value'].to_list(), rel=.2), 'batch norms see half batches, no more'
    assert one.predictions['video_id'].to_list() == two.predictions['video_id'].to_list()


def test_stages_repeat_and_resume(corpus, tmp_path):
    "The same corpus set up elsewhere has the same tables; a second call changes nothing."
    from fvc.corpus.sample import SAMPLE_PASSWORD
    from fvc.stages.setup import setup
    words = ['split.n_splits=2', 'stages.augmentation.num_augmentations=2']
    setup(corpus.parent / 'archives', str(tmp_path / 'w'), ' '.join(words), SAMPLE_PASSWORD)
    for number in (1, 2, 3, 4):
        pipeline.run_one_stage(number, str(tmp_path / 'w'), words)
    for name in ('folds.arrow', 'augmented_videos/augmented_metadata.arrow', 'features_stage2/features_metadata.arrow',
                 'scaled_videos/scaled_metadata.arrow', 'features_stage4/features_scaled_metadata.arrow'):
        a, b = read_table(corpus / name), read_table(tmp_path / 'w' / name)
        assert a.equals(b), name
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / 'w').rglob('*.mp4')}
    pipeline.run_one_stage(1, str(tmp_path / 'w'), words)
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / 'w').rglob('*.mp4')}


def test_rows_in_are_rows_out(corpus):
    index = read_table(corpus / 'video_index_input.csv')
    for name, per_video in (('augmented_videos/augmented_metadata.arrow', 3), ('scaled_videos/scaled_metadata.arrow', 3)):
        table = read_table(corpus / name)
        assert set(table['video_id']) == set(index['video_id'])
        assert table.filter(pl.col('status') == 'ok').group_by('video_id').len()['len'].unique().to_list() == [per_video]
        assert table.filter(pl.col('status') != 'ok')['reason'].is_not_null().all()


def test_the_audit_finds_a_copy_that_changed_without_changing_its_size(corpus, tmp_path):
    from fvc.evidence.integrity import audit_integrity
    place = shutil.copytree(corpus, tmp_path / 'w')
    assert audit_integrity(str(place)).sound
    changed = [read_table(place / table).filter(pl.col('status') == 'ok', pl.col('variant') != 'original')['path'][0]
               for table in ('augmented_videos/augmented_metadata.arrow', 'scaled_videos/scaled_metadata.arrow')]
    for path in changed:
        data = bytearray((place / path).read_bytes())
        data[len(data) // 2] ^= 1
        (place / path).write_bytes(data)
    found = audit_integrity(str(place))
    assert sorted(found.table['file']) == sorted(changed) and not found.sound
    assert found.table['wrong'].str.contains('SHA-256').all()


def test_an_executed_notebook_shows_its_plots(tmp_path):
    "Whatever backend the caller's environment names, figures end up in the executed copy and in its page."
    from fvc.running.notebooks import Task, execute, to_html
    cells = [('fold: int = 1', ['parameters']), ('import matplotlib.pyplot as plt', []), ('plt.plot([fold, 2]);', [])]
    nb = dict(cells=[dict(cell_type='code', id=str(i), source=s, metadata=dict(tags=t), outputs=[], execution_count=None)
                     for i, (s, t) in enumerate(cells)],
              metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')), nbformat=4, nbformat_minor=5)
    (tmp_path / 'plot.ipynb').write_text(json.dumps(nb))
    task = Task(tmp_path / 'plot.ipynb', tmp_path / 'out.ipynb', dict(fold=3))
    assert execute(task)[0] == 'done'
    page = to_html(task.output).read_text()
    assert 'data:image/png;base64' in page and 'import matplotlib' not in page
