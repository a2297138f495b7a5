"""Models on feature rows: they are kept and loaded as they were, files that lie are refused, and no held-out row has a say."""
import io
import json

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from test_estimators import add, attributes, edit, members, plain, refused, write

from fvc.core.config import compose
from fvc.core.registry import spec_of
from fvc.core.workspace import Workspace
from fvc.corpus.splits import select_rows
from fvc.learning.detector import build, inputs_of, load_detector, matrix
from fvc.learning.estimators import load_estimator, save_estimator
from fvc.learning.feature_models import DropCollinear, GroupCalibrated, ablate, importance
from fvc.learning.fitting import gather
from fvc.learning.run_scores import SoftVote
from fvc.learning.runs import resolve
from fvc.running.experiment import make_split, run_fold
from fvc.scores.tasks import Task

rng = np.random.default_rng(0)
X = rng.random((120, 6))
Y = (X[:, 0] + X[:, 1] + 0.3 * rng.normal(size=120) > 1).astype(int)
THREE = np.digitize(X[:, 0] + 0.2 * rng.normal(size=120), [0.33, 0.66])
GROUPS = np.arange(120) // 4
KEPT = {'soft vote': lambda: SoftVote().fit(X, Y), 'soft vote, three classes': lambda: SoftVote().fit(X, THREE), 'soft vote, labels': lambda: SoftVote().fit(X, np.eye(3)[THREE]),
        'collinear': lambda: make_pipeline(DropCollinear(0.5), LogisticRegression()).fit(X, Y), 'calibrated': lambda: GroupCalibrated(SVC()).fit(X, Y, GROUPS),
        'calibrated, three classes': lambda: GroupCalibrated(make_pipeline(DropCollinear(), SVC())).fit(X, THREE, GROUPS)}


@pytest.mark.parametrize('name', KEPT)
def test_what_is_kept_scores_the_same_bits(tmp_path, name):
    estimator = KEPT[name]()
    again = load_estimator(save_estimator(estimator, tmp_path))
    assert type(again) is type(estimator)
    assert again.predict_proba(X).tobytes() == estimator.predict_proba(X).tobytes()


@pytest.mark.parametrize('module, name', [('fvc.learning.feature_models', 'ablate'), ('fvc.learning.feature_models', 'Detector'), ('fvc.learning.run_scores', 'ScoresInput'),
                                          ('fvc.running.notebooks', 'GroupCalibrated'), ('posix', 'system'), ('__main__', 'GroupCalibrated')])
@pytest.mark.parametrize('where', ['itself', 'inside'])
def test_other_names_of_these_modules_are_refused(tmp_path, module, name, where):
    save_estimator(KEPT['calibrated'](), tmp_path)
    def change(schema):
        node = schema if where == 'itself' else attributes(schema)['calibrated_']
        node.update(__module__=module, __class__=name)
    edit(tmp_path, change)
    refused(tmp_path, 'not among the trusted types')


def test_what_calibrates_cannot_be_put_in_place_of_a_method(tmp_path):
    save_estimator(KEPT['calibrated'](), tmp_path)
    edit(tmp_path, lambda s: add(s, predict_proba=attributes(s)['calibrated_']))
    refused(tmp_path, 'in place of its methods')


def test_support_vectors_inside_are_checked(tmp_path):
    "The checks of what is trusted reach into what holds it."
    save_estimator(KEPT['calibrated'](), tmp_path)
    def change(schema):
        machine = attributes(attributes(attributes(schema)['calibrated_'])['calibrated_classifiers_']['content'][0])['estimator']
        attributes(machine)['kernel'] = plain('precomputed')
    edit(tmp_path, change)
    refused(tmp_path, "kernel 'precomputed'")


def test_a_column_that_is_not_there_is_refused(tmp_path):
    save_estimator(KEPT['collinear'](), tmp_path)
    files = members(tmp_path)
    step = attributes(json.loads(files['schema.json']))['steps']['content'][0]['content'][1]
    np.save(made := io.BytesIO(), np.array([0, 77]))
    write(tmp_path, files | {attributes(step)['kept_']['file']: made.getvalue()})
    refused(tmp_path, 'is not loaded')


def test_a_soft_vote_of_no_outputs_is_refused(tmp_path):
    save_estimator(KEPT['soft vote'](), tmp_path)
    edit(tmp_path, lambda s: attributes(s).update(outputs=plain(0)))
    refused(tmp_path, 'is not loaded')


def test_calibrated_rows_are_of_other_groups():
    "No machine behind the sigmoid has seen a group whose rows it is fitted on."
    seen = []
    class Spy(SVC):
        def fit(self, x, y, *args, **kwargs):
            seen.append({tuple(row) for row in np.round(x, 9)})
            return super().fit(x, y)
    GroupCalibrated(Spy(), parts=3).fit(X, Y, GROUPS)
    *fits, last = seen
    group = {tuple(row): g for row, g in zip(np.round(X, 9), GROUPS)}
    held = [set(group) - rows for rows in fits]
    assert len(fits) == 3 and len(last) == 120 and sum(map(len, held)) == 120
    for rows, out in zip(fits, held): assert not {group[r] for r in rows} & {group[r] for r in out}


@pytest.fixture(scope='module')
def place(corpus): return Workspace(corpus)


def material(place, model, words=''):
    spec = spec_of(model)
    cfg = resolve(spec, f'split.n_splits=2 {words}', place)
    return gather(spec, cfg, place, make_split(cfg, place, 1))


def test_collinear_columns_are_those_of_training_rows(place):
    "A held-out column that repeats another changes nothing that is fitted."
    m = material(place, 'logistic_regression')
    spec, held = m.spec, select_rows(m.rows, m.split, ('val',))
    x, y = matrix(select_rows(m.rows, m.split), inputs_of(spec), place, m.cfg), m.task.labels(select_rows(m.rows, m.split)['label'])
    kept = build(spec, m.cfg, m.task).fit(x, y)[1].kept_
    assert 1 < len(kept) < x.shape[1]
    doubled = matrix(held, inputs_of(spec), place, m.cfg)
    doubled[:, kept[1]] = doubled[:, kept[0]]
    assert len(DropCollinear().fit(np.nan_to_num(doubled)).kept_) < x.shape[1]
    assert build(spec, m.cfg, m.task).fit(x, y)[1].kept_.tolist() == kept.tolist()


@pytest.mark.parametrize('model', ['logistic_regression', 'svm', 'gradient_boosting'])
@pytest.mark.parametrize('variant, columns', [('', 'both'), ('stage2', 's2.'), ('stage4', 's4.')])
def test_a_variant_reads_its_stage(model, variant, columns):
    names = inputs_of(spec_of(model))[0].columns(compose(model, f"variant='{variant}'"))
    assert {n[:3] for n in names} == ({'s2.', 's4.'} if columns == 'both' else {columns})
    assert not any('codec' in n or 'is_' in n for n in names)


@pytest.mark.parametrize('model', ['svm', 'gradient_boosting', 'logistic_regression'])
def test_a_fold_is_trained_kept_and_loaded(place, model):
    result = run_fold(model, 1, str(place), 'split.n_splits=2 experiment.mlflow=false')
    detector = load_detector(result.folder / 'model', place)
    m = material(place, model)
    val = select_rows(m.rows, m.split, ('val',))
    found = dict(zip(val['video_id'], detector.score(val)[:, 0]))
    assert {v: pytest.approx(s) for v, s in result.predictions.select('video_id', 'score').rows()} == found
    if model == 'gradient_boosting': assert 0 < result.facts['trees'] < 600
    if model == 'logistic_regression':
        unit, table = importance(detector)
        assert table.height == len(inputs_of(detector.spec)[0].columns(detector.cfg)) and 0 < table['weight'].null_count() < table.height
    path, = place.read_index().filter(pl.col('video_id') == val['video_id'][0])['path']
    again = detector.score_paths([place.file(path)]).row(0, named=True)
    assert again['reason'] is None and again['score'] == pytest.approx(found[val['video_id'][0]], abs=1e-6)



def test_ablation_reads_inner_rows_alone(place, monkeypatch):
    "Whatever the reported rows hold, the ablation says the same."
    m = material(place, 'logistic_regression', 'data.include_metadata=true model.C=1.0')
    table = ablate(m)
    assert {'all signals', 'noise alone', 'all but noise', 'metadata alone', 'signals and metadata'} <= set(table['shown'])
    assert table['auc'].is_between(0, 1).all() and table.filter(pl.col('shown') == 'metadata alone')['columns'][0] == 8
    m.rows = m.rows.with_columns(pl.when(pl.col('video_id').is_in(m.split.val)).then(1 - pl.col('label')).otherwise(pl.col('label')).alias('label'))
    assert ablate(m).equals(table)


@pytest.mark.parametrize('words, changes', [('model.penalty=l1', True), ('model.penalty=elasticnet', True), ('model.C=3.0', True), ('model.collinear=0.3', True), ('model.balanced=false', True), ('', False)])
def test_options_of_the_logistic_regression_change_what_it_says(words, changes): assert differs('logistic_regression', words) == changes


@pytest.mark.parametrize('words', ['model.kernel=linear', 'model.C=9.0', 'model.gamma=2.0', 'model.balanced=false', 'model.parts=2', 'training.seed=3'])
def test_options_of_the_svm_change_what_it_says(words): assert differs('svm', words)


@pytest.mark.parametrize('words', ['model.trees=5', 'model.depth=1', 'model.learning_rate=0.5', 'model.row_share=0.3', 'model.column_share=0.2', 'model.leaf_weight=0.1', 'training.seed=3'])
def test_options_of_gradient_boosting_change_what_it_says(words): assert differs('gradient_boosting', words)


def differs(model, words):
    "Whether a setting changes what a fitted model says."
    said, uneven = [], (np.arange(120) % 4 == 0).astype(int)
    x = X + 0.3 * uneven[:, None]
    x = np.c_[x, x[:, :1] + 0.6 * X[:, 1:2]]
    for more in ('', words):
        cfg = compose(model, f'{more} model.trees=60' if model == 'gradient_boosting' and 'trees' not in more else more)
        estimator = build(spec_of(model), cfg, Task())
        if model == 'gradient_boosting': estimator.set_params(early_stopping_rounds=None)
        groups = dict(groups=GROUPS) if model == 'svm' else {}
        said.append(estimator.fit(x, uneven, **groups).predict_proba(x))
    return not np.allclose(*said, atol=1e-9)


@pytest.mark.parametrize('model, words, why', [('logistic_regression', 'model.penalty=l3', 'l3: choose one of l2, l1, elasticnet'), ('svm', 'model.kernel=poly', 'poly: choose rbf or linear'),
                                               ('svm', 'model.kernel=linear model.gamma=1.0', 'belongs to the kernel rbf')])
def test_options_that_mean_nothing_are_refused(model, words, why):
    with pytest.raises(ValueError, match=why): build(spec_of(model), compose(model, words), Task())
