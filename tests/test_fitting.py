"""Fitting where no lesson looks: how many trees are kept, what a loss is told, who scores whom, and whose rows scales are learnt on."""
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from fvc.core.registry import spec_of
from fvc.core.workspace import Workspace
from fvc.learning import fitting
from fvc.learning.clips import ClipInput
from fvc.learning.fitting import cross_fit, file_settings, fit_network, gather
from fvc.learning.feature_models import GroupCalibrated
from fvc.learning.run_scores import SoftVote
from fvc.learning.runs import resolve
from fvc.running.experiment import make_split
from fvc.scores.tasks import Task
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier


class Stops(BaseEstimator):
    "Boosting that does best after as many trees as it has rows, and remembers what it watched."
    made = []

    def __init__(self, n_estimators=99, early_stopping_rounds=3):
        self.n_estimators, self.early_stopping_rounds = n_estimators, early_stopping_rounds

    def fit(self, x, y, eval_set=None, verbose=True):
        self.rows, self.watched, self.best_iteration = x[:, 0].tolist(), eval_set and eval_set[0][0][:, 0].tolist(), len(x) - 1
        Stops.made.append(self)
        return self

    def predict_proba(self, x): return np.tile([0.4, 0.6], (len(x), 1))


def test_boosting_keeps_as_many_trees_as_did_best_on_inner_rows():
    rows = pl.DataFrame(dict(video_id=[f'v{i}' for i in range(12)], label=[i % 2 for i in range(12)], group=[f'g{i}' for i in range(12)], x=[float(i) for i in range(12)]))
    parts = {1: (rows[4:], rows[:4]), 2: (rows[:2], rows[2:]), 4: (rows[:3], rows[3:])}
    Stops.made = []
    final, inner, facts = cross_fit(Stops, lambda r: r.select('x').to_numpy(), Task(), parts, rows)
    assert facts['trees'] == 4 and final.n_estimators == 4 and final.early_stopping_rounds is None, 'the mean of 8, 2 and 3'
    assert [m.watched for m in Stops.made] == [held['x'].to_list() for _, held in parts.values()] + [None]
    assert final.rows == rows['x'].to_list() and [s.inner_fold for s in inner] == [1, 2, 4]


@pytest.fixture
def trained(corpus, monkeypatch, tmp_path):
    "A fit of two inner networks that is not trained, and what the training was told."
    told = []

    def training(network, *given):
        with torch.no_grad(): network.head[-1].bias.fill_(float(len(told)))
        told.append(dict(zip(('train', 'inner', 'optim', 'cfg', 'tracker', 'checkpoints', 'loss', 'about', 'task', 'counts'), given)))
        return SimpleNamespace(fit_result=SimpleNamespace(best_epoch=1, epochs=1, halved=[]))
    seen = []
    monkeypatch.setattr(fitting, 'fit_with_tracking', training)
    monkeypatch.setattr(ClipInput, 'fit', lambda self, rows, cfg, task: seen.append(rows) or {})
    place, spec = Workspace(corpus), spec_of('naive_cnn')
    cfg = resolve(spec, 'split.n_splits=2 data.frames=1 data.size=32 data.variants=1 loss=focal loss.gamma=1.5 training.seed=3 training.inner_folds=2 training.device=cpu', place)
    m = gather(spec, cfg, place, make_split(cfg, place, 1))
    return m, fit_network(m, tmp_path, None), told, seen


def test_a_training_is_told_the_loss_the_seed_and_the_rows(trained):
    m, _, told, seen = trained
    for j, said in enumerate(told, 1):
        fitted, held = m.split.fit_on(j)
        rows = m.rows.filter(pl.col('video_id').is_in(fitted))
        assert said['loss'].keywords['gamma'] == 1.5
        assert said['train'].batch_sampler.seed == 3
        assert np.array_equal(said['counts'], m.task.class_counts(m.task.labels(rows['label']))) and said['counts'].sum() == rows.height
        assert set(seen[j - 1]['video_id']) == set(rows['video_id']), 'scales are learnt on what is trained on'
        assert {r['video_id'] for r in said['inner'].dataset.rows} <= set(held) and len(said['train'].dataset) == rows.height


def test_inner_rows_are_scored_by_the_network_that_had_not_seen_them(trained):
    _, found, _, _ = trained
    one, two = found.inner
    assert np.array_equal(one.scores, found.detector.score(one.rows)) and np.array_equal(two.scores, found.inner_detectors[2].score(two.rows))
    assert not np.array_equal(two.scores, found.detector.score(two.rows))


def test_a_test_part_is_read_by_nobody(corpus):
    "A sealed part is neither served nor embedded; what is trained on and what is reported are."
    place, spec = Workspace(corpus), spec_of('logistic_regression')
    cfg = resolve(spec, 'split.kind=holdout', place)
    split = make_split(cfg, place, 1)
    served = set(gather(spec, cfg, place, split).rows['video_id'])
    assert split.test and not served & set(split.test) and served & set(split.val) and served & set(split.train)


# What counts the same

def unequal(n=40):
    "Rows of eight groups, the first of which has most."
    groups = ['g0'] * (n - 14) + [f'g{i}' for i in range(1, 8) for _ in range(2)]
    rng = np.random.default_rng(0)
    labels = [0] * (n - 14) + [i % 2 for i in range(1, 8) for _ in range(2)]
    return pl.DataFrame(dict(video_id=[f'v{i}' for i in range(n)], variant=['original'] * n, label=labels, group=groups,
                             x=(rng.normal(size=n) + np.array(labels)).tolist(), y=rng.normal(size=n).tolist()))


def columns(rows): return rows.select('x', 'y').to_numpy()


@pytest.mark.parametrize('make', [lambda: LogisticRegression(C=1e6), lambda: make_pipeline(StandardScaler(with_mean=False, with_std=False), LogisticRegression(C=1e6)),
                                  lambda: DecisionTreeClassifier(max_depth=2)])
def test_a_group_counts_once_however_often_its_rows_are_there(make):
    rows = unequal()
    more = pl.concat([rows, *[rows.filter(pl.col('group') == 'g1')] * 5])
    def asked(whole, weigh): return cross_fit(make, columns, Task(), {}, whole, weigh)[0].predict_proba(columns(rows))
    np.testing.assert_allclose(asked(more, 'groups'), asked(rows, 'groups'), atol=1e-3)
    assert np.abs(asked(more, 'rows') - asked(rows, 'rows')).max() > 0.01
    assert np.abs(asked(rows, 'groups') - asked(rows, 'rows')).max() > 0.01


class Remembers(LogisticRegression):
    fits = []

    def fit(self, x, y, sample_weight=None):
        Remembers.fits.append((len(x), sample_weight))
        return super().fit(x, y, sample_weight)


@pytest.mark.parametrize('make', [Remembers, lambda: make_pipeline(StandardScaler(), Remembers()), lambda: GroupCalibrated(Remembers(), 2),
                                  lambda: GroupCalibrated(make_pipeline(StandardScaler(), Remembers()), 2)])
def test_weights_reach_the_estimator_at_the_bottom(make):
    rows, Remembers.fits = unequal(), []
    cross_fit(make, columns, Task(), {}, rows, 'groups')
    assert all(n == len(weights) for n, weights in Remembers.fits)
    weights = next(w for n, w in Remembers.fits if n == rows.height)
    sums = rows.with_columns(w=pl.Series(weights)).group_by('group').agg(pl.col('w').sum())['w']
    assert np.allclose(sums, 40 / 8), 'every group the same, rows 1 on average'


def test_trees_stop_by_groups_that_count_the_same():
    told = []

    class Told(XGBClassifier):
        def fit(self, x, y, *, sample_weight=None, eval_set=None, sample_weight_eval_set=None, verbose=True):
            told.append((sample_weight, sample_weight_eval_set))
            return super().fit(x, y, sample_weight=sample_weight, eval_set=eval_set, sample_weight_eval_set=sample_weight_eval_set, verbose=verbose)
    rows = unequal()
    fitted, held = rows[::2], rows[1::2]
    cross_fit(lambda: Told(n_estimators=5, early_stopping_rounds=2, n_jobs=1), columns, Task(), {1: (fitted, held)}, rows, 'groups')
    for weights, some in ((told[0][0], fitted), (told[0][1][0], held), (told[1][0], rows)):
        sums = some.with_columns(w=pl.Series(weights)).group_by('group').agg(pl.col('w').sum())['w']
        assert sums.max() - sums.min() < 1e-9 and len(weights) == some.height == pytest.approx(sums.sum())
    assert told[1][1] is None


def test_what_takes_no_weights_says_so():
    with pytest.raises(ValueError, match='data.weigh=groups: SoftVote takes no weights of rows, leave it at rows'):
        cross_fit(lambda: SoftVote(1), columns, Task(), {}, unequal(), 'groups')


def test_a_network_says_that_weights_are_for_estimators(corpus, tmp_path):
    place, spec = Workspace(corpus), spec_of('naive_cnn')
    cfg = resolve(spec, 'split.n_splits=2 data.weigh=groups', place)
    with pytest.raises(ValueError, match='data.weigh=groups is for estimators: naive_cnn is a network'):
        fit_network(gather(spec, cfg, place, make_split(cfg, place, 1)), tmp_path, None)
