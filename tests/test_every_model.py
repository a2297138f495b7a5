"""Every model on one fold of the test corpus in its small profile, each by its own notebook, two at a time, offline."""
import json

import nbformat
import numpy as np
import pytest
from fvc.core.workspace import Workspace
from fvc.learning.asked_runs import serving
from fvc.learning.runs import Run
from fvc.running.model_training import notebook_of, train_folds

IDS = 'abcdefghijklmnopqrstuvwx'
NAMES = ('logistic_regression svm naive_cnn pretrained_inception variable_ar_cnn xgboost_pretrained_inception xgboost_i3d xgboost_r2plus1d xgboost_vit_gru xgboost_vit_transformer '
         'vit_gru vit_transformer timesformer vivit i3d r2plus1d x3d slowfast slowfast_attention slowfast_multiscale two_stream ensemble gradient_boosting fusion').split()


@pytest.fixture(scope='module')
def trained(corpus):
    "Outcomes by model."
    assert sorted(serving(corpus)) == sorted(NAMES)
    return {o.job.folder.parent.name.partition('@')[0]: o for o in train_folds(NAMES, [1], str(corpus), ['split.n_splits=2'], 2)}


@pytest.mark.parametrize('letter,name', list(zip(IDS, NAMES)))
def test_a_model_trains_by_its_notebook_and_comes_back(trained, corpus, letter, name):
    outcome = trained[name]
    assert outcome.state == 'done', outcome.note
    assert outcome.job.notebook == notebook_of(name) and outcome.job.notebook.name == f'5{letter}_{name}.ipynb'
    run = Run(Workspace(corpus), outcome.job.folder.parent.name)
    fold = run.fold(1)
    assert fold.facts['training_rows'] > 0 and 0 <= fold.metrics['val_auc'] <= 1
    kept = fold.predictions.filter(part='val')
    assert kept.height and np.isfinite(kept['score'].to_numpy()).all() and set(kept['video_id']) == set(fold.split.val)
    page = nbformat.read(outcome.job.output, 4)
    shown = [o for cell in page.cells for o in cell.get('outputs', [])]
    assert not any(o.output_type == 'error' for o in shown)
    assert any('<img' in json.dumps(o.get('data', {})) or 'image/png' in o.get('data', {}) for o in shown), 'its report has no plot'
