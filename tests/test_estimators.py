"""Estimators that are kept are loaded as they were, and files that lie are refused without being obeyed."""
import io
import itertools
import json
import re
import struct
import zipfile

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, Normalizer, PowerTransformer, QuantileTransformer, RobustScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from fvc.learning.estimators import load_estimator, save_estimator

rng = np.random.default_rng(0)
X = rng.random((120, 6))
TWO = (X[:, 0] + X[:, 1] + 0.3 * rng.normal(size=120) > 1).astype(int)
THREE = np.digitize(X[:, 0] + 0.2 * rng.normal(size=120), [0.33, 0.66])
LABELS = (X[:, :3] + 0.2 * rng.normal(size=(120, 3)) > 0.5).astype(int)
GAPS = np.where(rng.random(X.shape) < 0.1, np.nan, X)


def boosted(**options): return XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1, **options)


def forest(**options): return RandomForestClassifier(4, random_state=0, **options)


def scaled(*steps): return make_pipeline(SimpleImputer(strategy='median'), StandardScaler(), *steps)


ACCEPTED = {
    'logistic regression': (LogisticRegression(), X, TWO), 'logistic, three classes': (LogisticRegression(), X, THREE), 'balanced': (LogisticRegression(class_weight='balanced'), X, TWO),
    'words as classes': (LogisticRegression(), X, np.array(['real', 'fake'])[TWO]), 'svm': (SVC(), X, TWO), 'svm, three classes': (SVC(kernel='poly'), X, THREE),
    'svm of a seed': (SVC(random_state=3), X, TWO), 'forest': (forest(), X, TWO), 'forest, three classes': (forest(max_leaf_nodes=5), X, THREE), 'forest, labels': (forest(), X, LABELS),
    'forest with gaps': (forest(), GAPS, TWO), 'extra trees': (ExtraTreesClassifier(4, random_state=0), X, THREE), 'tree': (DecisionTreeClassifier(ccp_alpha=0.01), X, TWO),
    'histogram': (HistGradientBoostingClassifier(max_iter=4), GAPS, TWO), 'histogram, three classes': (HistGradientBoostingClassifier(max_iter=4), X, THREE),
    'histogram, early': (HistGradientBoostingClassifier(max_iter=30, early_stopping=True), X, TWO), 'gradient': (GradientBoostingClassifier(n_estimators=4), X, TWO),
    'gradient, three classes': (GradientBoostingClassifier(n_estimators=4, subsample=0.5), X, THREE), 'gradient from zero': (GradientBoostingClassifier(n_estimators=4, init='zero'), X, TWO),
    'gradient, exponential': (GradientBoostingClassifier(n_estimators=4, loss='exponential'), X, TWO), 'sigmoid': (CalibratedClassifierCV(SVC(), cv=2), X, TWO),
    'isotonic': (CalibratedClassifierCV(forest(), method='isotonic', cv=2), X, TWO), 'temperature': (CalibratedClassifierCV(LogisticRegression(), method='temperature', cv=2), X, THREE),
    'calibrated linear svm': (CalibratedClassifierCV(LinearSVC(), cv=2, ensemble=False), X, THREE), 'neighbours': (KNeighborsClassifier(), X, TWO),
    'neighbours by distance': (KNeighborsClassifier(3, weights='distance', algorithm='ball_tree', metric='manhattan'), X, THREE), 'neighbours, brute': (KNeighborsClassifier(algorithm='brute'), X, THREE),
    'neighbours, labels': (KNeighborsClassifier(), X, LABELS), 'mlp': (MLPClassifier((4,), max_iter=8, random_state=0), X, TWO), 'mlp, sgd': (MLPClassifier((4,), solver='sgd', max_iter=8), X, THREE),
    'mlp, labels': (MLPClassifier((4,), max_iter=8), X, LABELS), 'bayes': (GaussianNB(), X, THREE), 'one against the rest': (OneVsRestClassifier(LogisticRegression()), X, LABELS),
    'one against the rest, constant': (OneVsRestClassifier(forest()), X, LABELS * [1, 1, 0]), 'several outputs': (MultiOutputClassifier(forest()), X, LABELS),
    'dummy': (DummyClassifier(), X, THREE), 'dummy, constant': (DummyClassifier(strategy='constant', constant=1), X, TWO),
    'pipeline': (scaled(PCA(3), LogisticRegression()), GAPS, TWO), 'best columns': (scaled(SelectKBest(k=2), SVC()), GAPS, TWO),
    'scalers': (make_pipeline(RobustScaler(), MinMaxScaler(), MaxAbsScaler(), Normalizer(), PowerTransformer(), QuantileTransformer(n_quantiles=20), VarianceThreshold(), GaussianNB()), X, TWO),
    'indicators': (make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()), GAPS, TWO), 'logarithms': (make_pipeline(FunctionTransformer(np.log1p, np.expm1), LogisticRegression()), X, TWO),
    'columns': (make_pipeline(ColumnTransformer([('a', StandardScaler(), [0, 1]), ('b', 'passthrough', slice(2, 4))]), LogisticRegression()), X, TWO),
    'xgboost': (boosted(), GAPS, TWO), 'xgboost, three classes': (boosted(num_parallel_tree=2, subsample=0.7), X, THREE), 'xgboost, labels': (boosted(), X, LABELS),
    'xgboost, gamma': (boosted(gamma=1.0), X, TWO), 'xgboost, missing': (boosted(missing=0.5), np.round(X * 4) / 4, TWO), 'xgboost in a pipeline': (scaled(boosted()), GAPS, THREE),
    'xgboost calibrated': (CalibratedClassifierCV(boosted(), method='isotonic', cv=2), X, TWO), 'pipeline of xgboost calibrated': (CalibratedClassifierCV(scaled(boosted()), cv=2), GAPS, THREE),
    'xgboost a label': (MultiOutputClassifier(boosted()), X, LABELS), 'xgboost a class': (OneVsRestClassifier(boosted()), X, THREE)}


def says(estimator, rows):
    scores = getattr(estimator, 'predict_proba' if hasattr(estimator, 'predict_proba') else 'decision_function')(rows)
    return scores if isinstance(scores, list) else [scores]


@pytest.mark.parametrize('name', ACCEPTED)
def test_scores_after_loading_are_the_same_bits(tmp_path, name):
    estimator, rows, labels = ACCEPTED[name]
    again = load_estimator(save_estimator(estimator.fit(rows, labels), tmp_path))
    assert type(again) is type(estimator)
    for a, b in zip(says(again, rows), says(estimator, rows), strict=True): assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    assert {p.suffix for p in tmp_path.iterdir()} <= {'.skops', '.json'}


def test_an_early_stop_and_the_settings_are_kept(tmp_path):
    estimator = boosted(early_stopping_rounds=2, learning_rate=1.0).set_params(n_estimators=60).fit(X[:80], TWO[:80], eval_set=[(X[80:], TWO[80:])], verbose=False)
    again = load_estimator(save_estimator(estimator, tmp_path))
    assert again.best_iteration == estimator.best_iteration < 50 and again.get_params()['learning_rate'] == 1.0
    assert np.array_equal(again.predict_proba(X), estimator.predict_proba(X))


def test_a_folder_holds_only_the_last_estimator(tmp_path):
    for seed in (0, 1): save_estimator(CalibratedClassifierCV(boosted(subsample=0.5, random_state=seed), cv=2).fit(X, TWO), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    save_estimator(LogisticRegression().fit(X, TWO), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['model.skops'] and isinstance(load_estimator(tmp_path), LogisticRegression)


@pytest.mark.parametrize('bad, why', [
    (SGDClassifier(loss='log_loss'), 'SGDClassifier cannot be kept.*not among the trusted types'), (make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression()), 'Pipeline cannot be kept.*<lambda>'),
    (SVC(kernel=lambda a, b: a @ b.T), 'SVC cannot be kept.*<lambda>'), (KNeighborsClassifier(metric=lambda a, b: abs(a - b).sum()), 'KNeighborsClassifier cannot be kept.*<lambda>'),
    (make_pipeline(StandardScaler(), LogisticRegression(), memory='/tmp/nowhere'), 'a folder of pickles'), (HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]), 'HistGradientBoostingClassifier cannot be kept'),
    (make_pipeline(FunctionTransformer(np.log1p, kw_args={'casting': 'unsafe'}), LogisticRegression()), 'with arguments'), (boosted(booster='gblinear'), 'XGBClassifier cannot be kept')])
def test_what_could_not_be_loaded_is_not_written(tmp_path, bad, why):
    rows = np.round(X * 9) if 'Hist' in type(bad).__name__ else X
    if getattr(bad, 'booster', None) == 'gblinear': bad.set_params(max_depth=None)
    if getattr(bad, 'memory', None): bad.set_params(memory=str(tmp_path / 'cache')).fit(rows, TWO)
    with pytest.raises(ValueError, match=why): save_estimator(bad.fit(rows, TWO), tmp_path)
    assert not list(tmp_path.glob('model*'))


def test_one_that_scores_otherwise_after_loading_is_not_written(tmp_path):
    class Odd(LogisticRegression):
        def predict_proba(self, X): return super().predict_proba(X) / 2
    odd = Odd().fit(X, TWO)
    Odd.__module__, Odd.__qualname__, Odd.__name__ = LogisticRegression.__module__, 'LogisticRegression', 'LogisticRegression'
    with pytest.raises(ValueError, match='scores otherwise'): save_estimator(odd, tmp_path)


# --- files that lie -------------------------------------------------------------------------------------------------------------------------------------------------------


ids = itertools.count(1)


def members(folder):
    with zipfile.ZipFile(folder / 'model.skops') as z: return {i.filename: z.read(i) for i in z.infolist()}


def write(folder, files, **options):
    with zipfile.ZipFile(folder / 'model.skops', 'w', **options) as z:
        for name, data in files.items(): z.writestr(name, data)


def edit(folder, change):
    "Change the schema of a kept estimator."
    files = members(folder)
    schema = json.loads(files['schema.json'])
    change(schema)
    write(folder, files | {'schema.json': json.dumps(schema)})


def attributes(node): return node['content']['content']


def plain(value): return dict(__class__='str', __module__='builtins', __loader__='JsonNode', content=json.dumps(value), is_json=True, __id__=next(ids))


def add(node, **new):
    "Give an object attributes it had not; the types of names stand beside."
    content = node['content']
    content['key_types']['content'] += [dict(__class__='str', __module__='builtins', __loader__='TypeNode', __id__=next(ids)) for k in new if k not in content['content']]
    content['content'].update(new)


def refused(folder, why, error=ValueError):
    with pytest.raises(error, match=why) as e: load_estimator(folder)
    assert 'model.skops' in str(e.value)


@pytest.fixture
def kept(tmp_path):
    save_estimator(make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(X, TWO), tmp_path)
    return tmp_path


DANGER = {
    'a command': dict(__class__='system', __module__='os', __loader__='FunctionNode'),
    'eval': dict(__class__='eval', __module__='builtins', __loader__='TypeNode'),
    'a method': dict(__class__='LogisticRegression', __module__='sklearn.linear_model._logistic', __loader__='MethodNode', content=dict(func='fit', obj=dict(
        __class__='LogisticRegression', __module__='sklearn.linear_model._logistic', __loader__='ObjectNode'))),
    'a partial': dict(__class__='partial', __module__='functools', __loader__='PartialNode', content=dict(func=plain(1), args=plain(1), kwds=plain(1), namespace=plain(1))),
    'a getter': dict(__class__='attrgetter', __module__='operator', __loader__='OperatorFuncNode', attrs=plain(['a'])),
    'an estimator that reads files': dict(__class__='CountVectorizer', __module__='sklearn.feature_extraction.text', __loader__='ObjectNode'),
    'a call of a trusted class': dict(__class__='LogisticRegression', __module__='sklearn.linear_model._logistic', __loader__='ConstructorFromReduceNode', content=plain([])),
    'a random state': dict(__class__='RandomState', __module__='numpy.random.mtrand', __loader__='RandomStateNode', content=plain({}))}


@pytest.mark.parametrize('name', DANGER)
def test_a_file_that_names_something_else_is_refused(kept, name):
    edit(kept, lambda s: attributes(s)['verbose'].update(DANGER[name]))
    refused(kept, 'not among the trusted types')


def test_a_dangerous_function_is_not_called(kept, monkeypatch):
    import os
    called = []
    monkeypatch.setattr(os, 'system', called.append)
    def change(schema):
        step = attributes(schema)['steps']['content'][0]['content'][1]
        attributes(step)['func'].update(__class__='system', __module__='os')
    edit(kept, change)
    refused(kept, 'os.system')
    assert not called


def test_a_trusted_function_does_not_stand_where_it_may_not(tmp_path):
    save_estimator(LogisticRegression().fit(X, TWO), tmp_path)
    edit(tmp_path, lambda s: add(s, predict_proba=dict(__class__='positive', __module__='numpy', __loader__='FunctionNode', __id__=next(ids))))
    refused(tmp_path, "in place of its methods: \\['predict_proba'\\]")


def test_a_pickle_inside_is_refused(kept):
    files = members(kept)
    array = next(n for n in files if n.endswith('.npy'))
    np.save(made := io.BytesIO(), np.array([{'a': 1}]), allow_pickle=True)
    write(kept, files | {array: made.getvalue()})
    refused(kept, 'would be a pickle')
    write(kept, files | {array: b'\x80\x04K\x01.'})
    refused(kept, 'is not loaded')
    write(kept, files | {'model.pkl': b'\x80\x04K\x01.'})
    refused(kept, "'model.pkl', which is no array")


def test_an_array_of_objects_is_refused(kept):
    def change(schema): attributes(schema)['verbose'] = dict(__class__='ndarray', __module__='numpy', __loader__='NdArrayNode', __id__=next(ids), type='json', content=[plain(1)], shape=plain([1]))
    edit(kept, change)
    refused(kept, 'array of objects')


def test_bombs_and_broken_archives_are_refused(kept):
    files, whole = members(kept), (kept / 'model.skops').read_bytes()
    write(kept, files | {'77.npy': bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED)
    refused(kept, 'unpacks to more than its own size')
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b'\n'
    write(kept, files | {next(n for n in files if n.endswith('.npy')): b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + bytes(8)})
    refused(kept, 'is not what follows')
    write(kept, files | {'schema.json': '[' * 100_000})
    refused(kept, 'is not loaded')
    for data in (whole[:len(whole) // 2], whole[:100], b'', b'\x80\x04K\x01.'):
        (kept / 'model.skops').write_bytes(data)
        refused(kept, 'is not loaded')
    (kept / 'model.skops').write_bytes(whole)
    load_estimator(kept)


@pytest.mark.parametrize('name', ['../77.npy', '/tmp/77.npy', '77.npy/../../x', 'a/77.npy', '..\\77.npy'])
def test_members_that_climb_out_are_refused(kept, name):
    write(kept, members(kept) | {name: b''})
    refused(kept, 'which is no array of skops')


def test_objects_that_stand_twice_say_the_same(kept):
    "Else a file of a kilobyte unfolds to millions of objects, or reads one array again and again."
    def lies(schema): attributes(schema)['verbose'] = dict(plain(3), __id__=attributes(schema)['steps']['__id__'])
    edit(kept, lies)
    refused(kept, 'stands there twice')


def test_an_array_is_read_once(kept):
    def change(schema):
        coefficients = attributes(attributes(schema)['steps']['content'][1]['content'][1])['coef_']
        attributes(schema)['verbose'] = dict(coefficients, __id__=7)
    edit(kept, change)
    refused(kept, 'not from 7.npy')


def test_an_older_protocol_is_refused(kept):
    edit(kept, lambda s: s.update(protocol=1))
    refused(kept, 'protocol 1')


@pytest.mark.parametrize('columns, why', [(7, '7'), (0, 'it says 0 columns'), (10**9, 'it says 1000000000 columns'), ('6', "it says '6' columns")])
@pytest.mark.parametrize('estimator', [LogisticRegression(), forest(), DecisionTreeClassifier(), GradientBoostingClassifier(n_estimators=2), SVC()], ids=lambda e: type(e).__name__)
def test_a_wrong_number_of_columns_is_refused(tmp_path, estimator, columns, why):
    save_estimator(estimator.fit(X, TWO), tmp_path)
    edit(tmp_path, lambda s: attributes(s).update(n_features_in_=plain(columns)))
    refused(tmp_path, 'sizes of its support' if isinstance(estimator, SVC) and columns == 7 else why)


def test_a_tree_of_other_columns_than_its_forest_is_refused(tmp_path):
    "Gradient boosting asks only its first tree how many columns there are."
    save_estimator(GradientBoostingClassifier(n_estimators=2).fit(X, TWO), tmp_path)
    def change(schema):
        tree = attributes(attributes(schema)['estimators_']['content'][1]['content'][0])
        tree['n_features_in_'] = tree['tree_']['__reduce__']['args']['content'][0] = plain(100)
    edit(tmp_path, change)
    refused(tmp_path, 'a tree of 100 columns stands in a forest of 6')


def test_a_histogram_of_other_columns_is_refused(tmp_path):
    save_estimator(HistGradientBoostingClassifier(max_iter=4).fit(X, TWO), tmp_path)
    def change(schema):
        for name in ('n_features_in_', '_n_features'): attributes(schema)[name] = plain(1)
        attributes(attributes(schema)['_bin_mapper']).pop('is_categorical_')
    edit(tmp_path, change)
    refused(tmp_path, 'is_categorical_')


TREES = {'left_child': 'left', 'right_child': 'right', 'feature': 'feature_idx'}
LIES = [('left_child', 1 << 20), ('right_child', 1 << 20), ('left_child', 0), ('feature', 6), ('feature', 1 << 30), ('left_child', -5), ('feature', -3)]


@pytest.mark.parametrize('field, number', LIES)
@pytest.mark.parametrize('estimator', [DecisionTreeClassifier(), forest(), ExtraTreesClassifier(3), GradientBoostingClassifier(n_estimators=2), HistGradientBoostingClassifier(max_iter=2),
                                       CalibratedClassifierCV(forest(), cv=2), scaled(forest())], ids=lambda e: type(e).__name__)
def test_indices_of_trees_that_lead_elsewhere_are_refused(tmp_path, estimator, field, number):
    save_estimator(estimator.fit(X, TWO), tmp_path)
    files = members(tmp_path)
    for name, data in files.items():
        if not name.endswith('.npy') or not (array := np.load(io.BytesIO(data))).dtype.names: continue
        own = field if field in array.dtype.names else TREES[field]
        array[own][0] = np.array(number).astype(array.dtype[own])
        np.save(made := io.BytesIO(), array)
        write(tmp_path, files | {name: made.getvalue()})
        refused(tmp_path, 'out of range, or leads back|column that is not among')
        break
    else: raise AssertionError('no tree found')


def test_a_tree_with_other_nodes_than_it_says_is_refused(tmp_path):
    save_estimator(DecisionTreeClassifier().fit(X, TWO), tmp_path)
    edit(tmp_path, lambda s: attributes(s)['tree_']['content']['content'].update(node_count=plain(0)))
    refused(tmp_path, 'not the nodes it says')


def change_array(folder, attribute, change):
    files = members(folder)
    name = attributes(json.loads(files['schema.json']))[attribute]['file']
    np.save(made := io.BytesIO(), change(np.load(io.BytesIO(files[name]))))
    write(folder, files | {name: made.getvalue()})


@pytest.mark.parametrize('attribute, change', [('_n_support', lambda a: a + [10**6, -10**6, 0]), ('support_vectors_', lambda a: a[:, :2].copy()), ('_dual_coef_', lambda a: a[:1]), ('support_', lambda a: a[:2]),
                                               ('_intercept_', lambda a: a[:1]), ('_n_support', lambda a: a[:2]), ('_n_support', lambda a: a + 1), ('_probA', lambda a: np.ones(1))])
def test_support_vectors_of_other_sizes_are_refused(tmp_path, attribute, change):
    save_estimator(SVC().fit(X, THREE), tmp_path)
    change_array(tmp_path, attribute, lambda a: change(a).astype(a.dtype))
    refused(tmp_path, 'sizes of its support vectors do not agree|is not loaded')


def test_neighbours_of_a_class_that_is_none_are_refused(tmp_path):
    save_estimator(KNeighborsClassifier(algorithm='brute').fit(X, TWO), tmp_path)
    change_array(tmp_path, '_y', lambda a: a + 1_000_000)
    refused(tmp_path, 'out of bounds')


def test_more_trees_a_step_than_scores_are_refused(tmp_path):
    save_estimator(GradientBoostingClassifier(n_estimators=2).fit(X, THREE), tmp_path)
    edit(tmp_path, lambda s: attributes(s).update(init_=plain('zero'), n_trees_per_iteration_=plain(1)))
    refused(tmp_path, 'adds 3 trees at a time')


@pytest.mark.parametrize('estimator, attribute, value, why', [(HistGradientBoostingClassifier(max_iter=2), '_in_fit', True, 'being fitted'), (SVC(), 'kernel', 'precomputed', "kernel 'precomputed'"),
                                                              (SVC(), '_impl', 'one_class', 'in place of its methods'), (SVC(), '_sparse', True, 'plain arrays')], ids=str)
def test_attributes_that_go_round_a_check_are_refused(tmp_path, estimator, attribute, value, why):
    save_estimator(estimator.fit(X, TWO), tmp_path)
    edit(tmp_path, lambda s: add(s, **{attribute: plain(value)}))
    refused(tmp_path, why)


def put(model, path, value):
    *way, last = path
    for step in way: model = model[step]
    model[last] = value


MODEL, TREE = ('learner', 'gradient_booster', 'model'), ('learner', 'gradient_booster', 'model', 'trees', 0)
BOOSTERS = [
    ((*TREE, 'left_children', 0), 1 << 20, 'out of range'), ((*TREE, 'right_children', 0), 0, 'leads back'), ((*TREE, 'left_children', 1), 0, 'leads back'), ((*TREE, 'right_children', 0), -1, 'leads back'),
    ((*TREE, 'split_indices', 0), 6, 'not among its 6'), ((*TREE, 'split_indices', 0), -1, 'not among its 6'), ((*TREE, 'split_indices', 0), 1.5, 'whole numbers'), ((*TREE, 'parents', 1), 5, 'two parents'),
    ((*TREE, 'left_children'), [-1], 'whole numbers'), ((*TREE, 'id'), 70_000, 'does not fit'), ((*TREE, 'split_type', 0), 1, 'by categories'), ((*TREE, 'tree_param', 'size_leaf_vector'), '9', 'does not fit'),
    ((*TREE, 'tree_param', 'num_nodes'), '99999', 'whole numbers'), (('learner', 'learner_model_param', 'num_feature'), '4000000000', '4000000000 columns'),
    (('learner', 'learner_model_param', 'num_feature'), '3', 'does not fit'), (('learner', 'learner_model_param', 'num_class'), '1000000000', 'do not add up'), ((*MODEL, 'tree_info', 0), 1 << 20, 'do not add up'),
    ((*MODEL, 'iteration_indptr'), [0, 1 << 20], 'do not cover'), ((*MODEL, 'gbtree_model_param', 'num_trees'), '900', 'not the trees it says'), ((*MODEL, 'cats', 'enc'), [1], 'categorical'),
    (('learner', 'objective', 'softmax_multiclass_param', 'num_class'), '0', 'another number of classes'), (('learner', 'objective', 'name'), 'rank:ndcg', 'no classifier of trees'),
    (('learner', 'gradient_booster', 'name'), 'dart', 'no classifier of trees'), (('learner', 'feature_names'), ['a'], 'names more or fewer'), (('learner', 'learner_model_param', 'base_score'), '[0.5,0.5]', 'first guess')]


@pytest.mark.parametrize('path, value, why', BOOSTERS, ids=lambda v: None)
@pytest.mark.parametrize('within', [False, True], ids=['alone', 'in a pipeline'])
def test_a_booster_that_lies_is_refused(tmp_path, path, value, why, within):
    save_estimator((scaled(boosted()) if within else boosted()).fit(X, THREE), tmp_path)
    file, = tmp_path.glob('model-*.json')
    model = json.loads(file.read_text())
    put(model, path, value)
    file.write_text(json.dumps(model))
    refused(tmp_path, why)


def test_xgboost_sees_what_was_checked(tmp_path):
    "Python reads \\u005f as an underscore, and of two equal keys the last; XGBoost takes the escape for letters, and so reads the first."
    save_estimator(boosted().fit(X, TWO), tmp_path)
    file, = tmp_path.glob('model-*.json')
    before, text = load_estimator(tmp_path).predict_proba(X), file.read_text()
    good = re.search(r'"split_indices":(\[[^]]*\])', text)[1]
    other = json.dumps([(k + 1) % 6 for k in json.loads(good)])
    file.write_text(text.replace(f'"split_indices":{good}', f'"split_indices":{other},"split\\u005findices":{good}', 1))
    raw = XGBClassifier()
    raw.load_model(file)
    assert not np.array_equal(raw.predict_proba(X), before) and np.array_equal(load_estimator(tmp_path).predict_proba(X), before)


@pytest.mark.parametrize('name', ['../model-0123456789abcdef.json', '/etc/passwd', 'model.skops'])
def test_a_booster_stands_beside(tmp_path, name):
    save_estimator(boosted().fit(X, TWO), tmp_path)
    from fvc.learning.estimators import BOOSTED
    edit(tmp_path, lambda s: s['content'].update({BOOSTED: plain(name)}))
    refused(tmp_path, 'asks for the file')


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match='holds no estimator'): load_estimator(tmp_path)
    save_estimator(boosted().fit(X, TWO), tmp_path)
    file, = tmp_path.glob('model-*.json')
    text = file.read_text()
    file.write_text(text[:1000])
    refused(tmp_path, 'is not loaded')
    file.unlink()
    with pytest.raises(FileNotFoundError, match='model-'): load_estimator(tmp_path)
