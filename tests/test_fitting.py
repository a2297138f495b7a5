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
from fvc.learning.runs import resolve
from fvc.running.experiment import make_split
from fvc.scores.tasks import Task
from sklearn.base import BaseEstimator


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
    parts = [(rows[4:], rows[:4]), (rows[:2], rows[2:]), (rows[:3], rows[3:])]
    Stops.made = []
    final, inner, facts = cross_fit(Stops, lambda r: r.select('x').to_numpy(), Task(), parts, rows)
    assert facts['trees'] == 4 and final.n_estimators == 4 and final.early_stopping_rounds is None, 'the mean of 8, 2 and 3'
    assert [m.watched for m in Stops.made] == [held['x'].to_list() for _, held in parts] + [None]
    assert final.rows == rows['x'].to_list() and [s.inner_fold for s in inner] == [1, 2, 3]


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
