"""The documented environment variables: what they set, what overrules them, and what they remove."""
import pytest
from fvc.core.files import locked
from fvc.core.registry import spec_of
from fvc.core.workspace import Workspace
from fvc.learning.runs import resolve, run_hash, run_name
from fvc.running.experiment import run_fold
from fvc.running.notebooks import Job, execute
from fvc.running.pipeline import train
from fvc.stages.setup import setup


def named(model, place, *words):
    cfg = resolve(spec_of(model), ['split.n_splits=2', *words], place)
    return cfg.data.frames, run_name(spec_of(model), cfg, place), run_hash(spec_of(model), cfg)


def test_frames_are_asked_for_and_typed_words_win(corpus, monkeypatch):
    "The number enters the hash and the name of models that read it, and of no other."
    place = Workspace.find(corpus)
    plain, table = named('naive_cnn', place), named('svm', place)
    monkeypatch.setenv('FVC_NUM_FRAMES', '7')
    frames, name, found = named('naive_cnn', place)
    assert plain[0] == 4 and frames == 7 and found != plain[2]
    assert plain[1] == 'naive_cnn@small' and name == f'naive_cnn@{found[:8]}'
    assert named('svm', place)[1:] == table[1:]
    assert named('naive_cnn', place, 'data.frames=4') == plain


def test_another_number_of_folds_is_refused_with_what_to_do(corpus, monkeypatch):
    monkeypatch.setenv('FVC_N_SPLITS', '3')
    with pytest.raises(ValueError, match=r'has 2 folds.*FVC_N_SPLITS=2.*stages.setup.recut=true'): run_fold('logistic_regression', 1, str(corpus))
    monkeypatch.setenv('FVC_N_SPLITS', '2')
    assert resolve(spec_of('svm'), '', Workspace.find(corpus)).split.n_splits == 2


def test_stage_0_cuts_as_many_folds_as_the_environment_says(corpus, tmp_path, monkeypatch):
    from fvc.corpus.sample import SAMPLE_PASSWORD
    monkeypatch.setenv('FVC_N_SPLITS', '3')
    setup(corpus.parent / 'archives', str(tmp_path / 'w'), 'stages.setup.near_duplicates=false', SAMPLE_PASSWORD)
    assert Workspace.find(tmp_path / 'w').read_folds()['fold'].max() == 3


def test_what_is_named_is_removed_once_and_what_is_not_stays(corpus, monkeypatch, capsys):
    place = Workspace.find(corpus)
    monkeypatch.setenv('FVC_USE_TRACKING', 'false')
    monkeypatch.setenv('FVC_N_SPLITS', '2')
    train(['logistic_regression'], '', str(corpus), ['experiment.name=mine'])
    mine = place.run('logistic_regression@mine')
    times = {k: (mine / f'fold_{k}' / 'metadata.json').stat().st_mtime_ns for k in (1, 2)}
    with locked(place.folder(5) / '.locks' / 'logistic_regression@mine-fold_2', 'x'), pytest.raises(RuntimeError, match='fold_2'):
        monkeypatch.setenv('FVC_DELETE_EXISTING', '1')
        train(['logistic_regression'], '', str(corpus), ['experiment.name=mine'])
    assert (mine / 'fold_1').is_dir()
    capsys.readouterr()
    outcomes = train(['logistic_regression'], '2', str(corpus), ['experiment.name=mine'])
    assert f'removed, as it was asked for: {mine / "fold_2"}' in capsys.readouterr().out
    now = {k: (mine / f'fold_{k}' / 'metadata.json').stat().st_mtime_ns for k in (1, 2)}
    assert [o.note for o in outcomes] == [''] and now[1] == times[1] and now[2] > times[2]


def test_no_notebook_that_is_executed_for_a_command_removes_anything(tmp_path, monkeypatch):
    import nbformat
    notebook = tmp_path / 'says.ipynb'
    nb = nbformat.v4.new_notebook(metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')), cells=[nbformat.v4.new_code_cell("x: int = 1", metadata=dict(tags=['parameters'])),
                                         nbformat.v4.new_code_cell("import os\nassert 'FVC_DELETE_EXISTING' not in os.environ")])
    nbformat.write(nb, notebook)
    monkeypatch.setenv('FVC_DELETE_EXISTING', '1')
    assert execute(Job(notebook, tmp_path / 'out.ipynb', dict(x=2))) == ('done', '')


def test_a_notebook_by_itself_honours_them(corpus, monkeypatch):
    "A fold that is there is removed and trained again; the number of folds comes from the environment too."
    monkeypatch.setenv('FVC_USE_TRACKING', 'false')
    monkeypatch.setenv('FVC_N_SPLITS', '2')
    made = []
    for wanted in ('0', '0', '1'):
        monkeypatch.setenv('FVC_DELETE_EXISTING', wanted)
        result = run_fold('logistic_regression', 1, str(corpus), 'experiment.name=bare')
        made.append((result.folder / 'metadata.json').stat().st_mtime_ns)
    assert made[0] == made[1] < made[2] and not (result.folder / 'mlflow.json').exists()
