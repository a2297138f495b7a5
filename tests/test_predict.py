"""A finished run is asked about files: a score and what speaks against it, or a reason, for each."""
import json
import re
import shutil
from types import SimpleNamespace

import av
import numpy as np
import polars as pl
import pytest
from conftest import write_clip
from fvc.core.workspace import Workspace
from fvc.corpus.splits import Split
from fvc.learning.runs import Run, finished_runs
from fvc.running.cli import main
from fvc.running.experiment import run_fold
from fvc.running.predict import Asked, ask_run, predict, predictions

WORDS = 'split.n_splits=2 experiment.mlflow=false'


@pytest.fixture(scope='module')
def trained(corpus):
    "A workspace with both folds of a table model and one of a network."
    for k in (1, 2): run_fold('logistic_regression', k, str(corpus), WORDS)
    run_fold('naive_cnn', 1, str(corpus), f'{WORDS} training.epochs=1 data.frames=2 data.size=32')
    return Workspace.find(corpus)


@pytest.fixture
def strange(tmp_path):
    "A clip that no corpus holds: larger, longer, coded otherwise."
    return write_clip(tmp_path / 'strange.mkv', 77, frames=60, size=(640, 480), codec='ffv1')


def original(place, fold, inside=True):
    "A video of a fold's training part, or one that it scores."
    split = Split.from_json((place.run('logistic_regression') / f'fold_{fold}' / 'split.json').read_text())
    row = place.read_index().filter(pl.col('status') == 'ok', pl.col('video_id').is_in((split.train if inside else split.val))).row(0, named=True)
    return row['video_id'], place.file(row['path'])


def test_a_file_is_scored_as_its_row_was(trained):
    video_id, file = original(trained, 1, inside=False)
    line = predict([str(file)], 'logistic_regression/fold_1', str(trained)).row(0, named=True)
    kept = Run(trained, 'logistic_regression').fold(1).predictions.filter(pl.col('video_id') == video_id).row(0, named=True)
    assert line['score'] == pytest.approx(kept['score'], abs=1e-9) and line['threshold'] == kept['threshold']
    assert line['decision'] == ('fake' if kept['decision'] else 'real') and line['reason'] is None


def test_what_was_trained_on_is_said(trained, tmp_path):
    video_id, file = original(trained, 1)
    copy = tmp_path / 'renamed.mp4'
    shutil.copy(file, copy)
    assert predict([str(copy)], 'logistic_regression/fold_1', str(trained))['warning'][0].startswith(f'it was trained on: {video_id}')
    other = predict([str(copy)], 'logistic_regression/fold_2', str(trained))['warning'][0]
    assert not other or 'it was trained on' not in other, 'fold 2 has not seen it'
    with av.open(str(file)) as source, av.open(str(tmp_path / 'again.mp4'), 'w') as out:  # the same pictures, coded again
        stream = out.add_stream('libx264', rate=source.streams.video[0].average_rate, options=dict(crf='30'))
        stream.width, stream.height, stream.pix_fmt = source.streams.video[0].width, source.streams.video[0].height, 'yuv420p'
        for frame in source.decode(video=0): out.mux(stream.encode(frame.reformat(format='yuv420p')))
        out.mux(stream.encode())
    said = predict([str(tmp_path / 'again.mp4')], 'logistic_regression/fold_1', str(trained))['warning'][0]
    assert 'it shows what it was trained on' in said


def test_what_lies_outside_is_said(trained, strange):
    said = predict([str(strange)], 'logistic_regression', str(trained))['warning'][0]
    assert 'longer side 640 px, trained on 1' in said
    assert 'duration 5 s' in said and 'codec ffv1, trained on' in said


def test_the_mean_over_folds(trained, strange):
    each = [predict([str(strange)], f'logistic_regression/fold_{k}', str(trained)).row(0, named=True) for k in (1, 2)]
    mean = predict([str(strange)], 'logistic_regression', str(trained), all_folds=True).row(0, named=True)
    assert each[0]['score'] != each[1]['score']
    for key in ('score', 'threshold'): assert mean[key] == pytest.approx(np.mean([e[key] for e in each]))


def test_a_final_model_learns_from_all_and_is_reported_nowhere(trained, strange):
    before = [r.name for r in finished_runs(trained)], Run(trained, 'logistic_regression').predictions()['score'].to_list()
    result = run_fold('logistic_regression', 0, str(trained), WORDS)
    labelled = set(trained.read_folds()['video_id'])
    split = Split.from_json((result.folder / 'split.json').read_text())
    assert set(split.train) == labelled and not split.val and result.metrics == {} and 0 < result.facts['inner']['auc'] <= 1
    assert not (result.folder / 'predictions.arrow').exists() and 'No video was left out' in result._repr_html_()
    assert before == ([r.name for r in finished_runs(trained)], Run(trained, 'logistic_regression').predictions()['score'].to_list())
    assert predict([str(strange)], 'logistic_regression', str(trained))['score'][0] == pytest.approx(Run(trained, 'logistic_regression').detector(0).score_paths([strange])['score'][0])
    network = run_fold('naive_cnn', 0, str(trained), f'{WORDS} training.epochs=1 data.frames=2 data.size=32 experiment.name=whole')
    assert network.facts['inner_parts'] == 1 and (network.folder / 'model' / 'weights.safetensors').is_file()
    with pytest.raises(ValueError, match='a final model is trained on all folds'):
        run_fold('logistic_regression', 0, str(trained), f'{WORDS} split.kind=holdout experiment.name=odd')


def test_the_command(trained, strange, tmp_path, capsys):
    folder = tmp_path / 'some'
    shutil.copytree(strange.parent, folder)
    (folder / 'noise.mp4').write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / 'notes.txt').write_text('no video')
    capsys.readouterr()
    code = main(['predict', str(folder), str(tmp_path / 'gone.mp4'), '--model', 'logistic_regression', '--data', str(trained), '--json', 'stages.workers=1'])
    lines = {line['path'].rsplit('/', 1)[1]: line for line in json.loads(capsys.readouterr().out)}
    assert code == 3 and set(lines) == {'noise.mp4', 'strange.mkv', 'gone.mp4'}
    assert lines['strange.mkv']['score'] is not None and lines['noise.mp4']['reason'] and 'No such file' in lines['gone.mp4']['reason']
    assert main(['predict', str(strange), '--model', 'logistic_regression', '--data', str(trained)]) == 0
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert re.fullmatch(rf'0\.\d{{3}} (real|fake)     {re.escape(str(strange))} \(longer side 640 px.*\)', said), said
    for words, why in ((['--model', 'logistic_regresion'], "did you mean 'logistic_regression'"), (['--model', 'logistic_regression/two'], 'write RUN, RUN/fold_2'),
                       (['--model', 'logistic_regression/fold_9'], 'fold_9')):
        assert main(['predict', str(strange), *words, '--data', str(trained)]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert why in said[-1] and said[-1].startswith('fvc: '), said
    assert main(['predict', str(tmp_path / 'some' / '..' / 'empty'), '--model', 'logistic_regression', '--data', str(trained)]) == 3  # a file that is not there


def test_limits_hold(trained, strange):
    asked = ask_run(trained, 'logistic_regression')
    limits = dict(time_limit=60.0, memory_limit=4.0, workers=1)
    slow = next(predictions([strange], asked, trained, SimpleNamespace(**limits | dict(time_limit=0.001))))
    assert slow['score'] is None and slow['reason'] == 'took longer than 0.001 s'
    assert next(predictions([strange], asked, trained, SimpleNamespace(**limits)))['score'] is not None
    line = predict([str(strange)], 'logistic_regression', str(trained), overrides=['stages.memory_limit=0.1']).row(0, named=True)
    assert line['score'] is None and line['reason']


def test_a_fold_that_cannot_answer_leaves_no_mean(trained, strange):
    asked = ask_run(trained, 'logistic_regression', all_folds=True)
    broken = SimpleNamespace(score_paths=lambda paths: pl.DataFrame(dict(score=[None], reason=['no such column'])), task=asked.detectors[0].task, about=asked.detectors[0].about)
    two = Asked('two', [asked.detectors[0], broken], asked.trained)
    line = next(predictions([strange], two, trained, SimpleNamespace(time_limit=60.0, memory_limit=4.0, workers=1)))
    assert line['score'] is None and line['reason'] == 'no such column'


def test_odd_and_broken_files_get_a_line_each(trained, shared):
    for name in ('odd', 'broken'):
        table = predict([str(shared / 'clips' / name)], 'logistic_regression', str(trained))
        assert len(table) > 3 and (table['score'].is_not_null() | table['reason'].is_not_null()).all()
        assert not table['reason'].drop_nulls().str.contains('Traceback').any()
