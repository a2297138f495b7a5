"""A small search, as it is done by hand: trials on inner rows alone, then the run, whose plots show what was tried."""
import numpy as np
import pytest
from fvc.core.registry import spec_of
from fvc.core.workspace import Workspace
from fvc.evidence.figures import RUN_CAPTIONS, search_trials
from fvc.learning.runs import Run
from fvc.running.experiment import run_fold

PLAIN = 'split.n_splits=2 experiment.mlflow=false'


def trial(corpus, words, folds=(1,)):
    "A trial's inner score, the mean over the folds that it was tried on."
    return np.mean([run_fold('logistic_regression', k, str(corpus), f'{PLAIN} {words}', inner_only=True).facts['inner']['chosen_by'] for k in folds])


@pytest.fixture(scope='module')
def searched(corpus):
    "A run after the search of a grid, on one fold; one of the trials on both folds."
    values = spec_of('logistic_regression').grid['model.C'][:3]
    scores = {value: trial(corpus, f'model.C={value}', (1, 2) if value == values[0] else (1,)) for value in values}
    run = Run(Workspace(corpus), 'logistic_regression')
    assert not run.folder.joinpath('fold_1').exists(), 'a search trains no fold'
    for k in (1, 2): run_fold('logistic_regression', k, str(corpus), PLAIN)
    return run, scores


def test_a_run_shows_the_search_for_its_settings(searched):
    run, scores = searched
    found = search_trials(run)
    assert {tried['model.C']: score for tried, score in found} == pytest.approx(scores) and {len(tried) for tried, _ in found} == {1}
    assert (run.folder / 'plots' / 'hyperparameter_search.png').stat().st_size > 3000
    page = run._repr_html_()
    assert RUN_CAPTIONS['hyperparameter_search'] in page and page.count('<img ') == 5


def test_a_trial_after_the_run_is_drawn_too_and_others_are_not(corpus, searched):
    run, scores = searched
    file = run.folder / 'plots' / 'hyperparameter_search.png'
    before = file.read_bytes()
    for words in ('variant=stage2', 'profile=paper'): trial(corpus, f'{words} model.C=5')
    assert len(search_trials(run)) == 3 and file.read_bytes() == before, 'other columns and another profile are other searches'
    scores = {**scores, 20.0: trial(corpus, 'model.C=20 stages.workers=1 training.device=cpu')}
    assert {tried['model.C']: score for tried, score in search_trials(run)} == pytest.approx(scores) and file.read_bytes() != before
    assert {tuple(tried) for tried, _ in search_trials(run)} == {('model.C',)}, 'how many processes worked is no setting of a model'


def test_a_run_without_a_search_has_no_such_plot(corpus, searched):
    "The trials of one model are not those of another, and one trial is no search."
    run_fold('svm', 1, str(corpus), f'{PLAIN} model.C=1.0', inner_only=True)
    run_fold('svm', 1, str(corpus), PLAIN)
    run = Run(Workspace(corpus), 'svm')
    assert search_trials(run) == [] and not (run.folder / 'plots' / 'hyperparameter_search.png').exists()
    assert RUN_CAPTIONS['hyperparameter_search'] not in run._repr_html_()
