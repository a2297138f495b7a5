"""Models of every kind, registered in the tests alone, go the whole way: set up, trained, scored, reloaded in another process, and ranked."""
import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from fvc.core.config import ConfigError
from fvc.core.registry import Spec, UnknownName, spec_of, use
from fvc.core.table import read_table, table_metadata, write_table
from fvc.core.workspace import Workspace
from fvc.evidence.report import leaderboard
from fvc.learning.examples import Examples, collate
from fvc.learning.fitting import gather
from fvc.learning.runs import Run
from fvc.running.experiment import make_split, run_fold
from fvc.running.pipeline import setup_workspace
from fvc.scores.tasks import Task

MODELS = Path(__file__).with_name('proof_models.py')
WORDS = 'split.n_splits=2 experiment.mlflow=false'
RELOAD = '''
import json, sys
import polars as pl
from fvc.core.registry import use
from fvc.core.workspace import Workspace
from fvc.learning.runs import Run
from fvc.running.experiment import make_split
from fvc.learning.fitting import gather
use(sys.argv[1])
run = Run(Workspace.find(sys.argv[2]), sys.argv[3])
detector = run.detector(1)
split = make_split(detector.cfg, run.place, 1)
rows = gather(detector.spec, detector.cfg, run.place, split, [Run(run.place, n) for n in detector.about["needs"]]).rows
rows = rows.filter(pl.col("video_id").is_in(list(split.val)), pl.col("variant") == "original")
print("SCORES", json.dumps([rows["video_id"].to_list(), detector.score(rows).tolist(), detector.decide(detector.score(rows)).tolist()]))
'''


@pytest.fixture(scope='session', autouse=True)
def models():
    use(MODELS)


def reloaded(place, run):
    "Video ids, scores and decisions of fold 1's detector, loaded in a fresh process."
    made = subprocess.run([sys.executable, '-c', RELOAD, MODELS, place, run], capture_output=True, text=True)
    assert 'SCORES' in made.stdout, made.stderr[-2000:]
    return json.loads(made.stdout.split('SCORES', 1)[1])


def proven(place, name, words='', folds=(1, 2)):
    "Train both folds, and hold what is kept against a detector loaded elsewhere; the run's line on the board comes back."
    results = [run_fold(name, k, str(place), f'{WORDS} {words}') for k in folds]
    first, task = results[0], Task.of(Workspace.find(place))
    videos, scores, decisions = reloaded(place, first.run)
    kept = first.predictions
    assert kept['video_id'].to_list() == videos and set(kept['part']) == {'val'} and set(kept['fold']) == {1}
    expected = np.array([np.atleast_1d(s) for s in kept['score'].to_list()])
    assert np.abs(np.array(scores) - expected).max() < 1e-6 and kept['decision'].to_list() == decisions
    inner = read_table(first.folder / 'inner_predictions.arrow')
    assert not set(inner['video_id']) & set(videos) and (inner['inner_fold'].min() == 1 or 'too small to be cut' in first.facts['chosen'])
    assert set(inner['video_id']) <= set(json.loads((first.folder / 'split.json').read_text())['train'])
    board = leaderboard(str(place), draws=50)
    line = board.filter(pl.col('run') == first.run).row(0, named=True)
    assert line['kind'] == 'model' and line[task.headline] is not None and line['acc'] is not None
    assert abs(np.nanmean([r.metrics[f'val_{task.headline}'] for r in results]) - line['fold_mean']) < 1e-9
    return line, results


def test_a_network_on_clip_and_features_together(corpus):
    line, (one, _) = proven(corpus, 'proof_both')
    assert '2 frames of 32 px and 30 columns of stages 2 and 4' in one.facts['shown'] and line['coverage'] > 0.9


def test_an_estimator_on_two_stages_and_its_variant(corpus):
    both, _ = proven(corpus, 'proof_table')
    two, _ = proven(corpus, 'proof_table', 'variant=stage2')
    assert (both['run'], two['run']) == ('proof_table', 'proof_table@stage2')
    detector = Run(Workspace(corpus), 'proof_table').detector(1)
    assert detector.members[0].estimator.n_features_in_ == 30
    assert Run(Workspace(corpus), 'proof_table_stage2').detector(1).members[0].estimator.n_features_in_ == 12


def test_a_vote_and_a_stacking_of_finished_runs(corpus):
    for words in ('', 'variant=stage2'):
        for k in (1, 2):
            run_fold('proof_table', k, str(corpus), f'{WORDS} {words}')
    members = [Run(Workspace(corpus), n) for n in ('proof_table', 'proof_table@stage2')]
    line, (one, _) = proven(corpus, 'proof_vote')
    by_hand = np.mean([m.fold(1).predictions['score'].to_numpy() for m in members], 0)
    assert np.allclose(one.predictions['score'], by_hand, atol=1e-12)
    proven(corpus, 'proof_stack')
    stack = Run(Workspace(corpus), 'proof_stack')
    inner = [read_table(m.fold(1).folder / 'inner_predictions.arrow') for m in members]
    assert set(read_table(stack.fold(1).folder / 'inner_predictions.arrow')['video_id']) <= set(inner[0]['video_id'])
    estimator = stack.detector(1).members[0].estimator
    x = np.stack([i.sort('video_id')['score'].to_numpy() for i in inner], 1)
    assert np.allclose(estimator[1].mean_, x.mean(0), atol=1e-9), 'learnt from inner scores, and from no others'


def test_trees_on_a_network_that_was_trained_here(corpus):
    with pytest.raises(FileNotFoundError, match='proof_net is needed, and its fold 1 is not finished: fvc train proof_net --data .* training.inner_folds=2'):
        run_fold('proof_trees', 1, str(corpus), WORDS)
    assert not (corpus / 'stage5' / 'proof_trees').exists(), 'a run that never began leaves no folder'
    for k in (1, 2):
        run_fold('proof_net', k, str(corpus), f'{WORDS} training.inner_folds=2')
    proven(corpus, 'proof_trees')
    run, net = Run(Workspace(corpus), 'proof_trees'), Run(Workspace(corpus), 'proof_net')
    detector, split = run.detector(1), json.loads((run.fold(1).folder / 'split.json').read_text())
    inner = read_table(run.fold(1).folder / 'inner_predictions.arrow')
    for j, member in enumerate(detector.members, 1):
        scored = set(inner.filter(pl.col('inner_fold') == j)['video_id'])
        assert scored <= set(split['inner'][j - 1]), 'each network embeds what it never learnt from'
        assert member.borrowed == dict(run='proof_net', fold=1, inner=j)
    one, two = (net.detector(1, j).members[0].network.state_dict()['head.weight'] for j in (1, 2))
    assert not np.array_equal(one, two)


def test_a_needed_run_that_has_changed_is_said(corpus, monkeypatch):
    for k in (1,):
        run_fold('proof_net', k, str(corpus), f'{WORDS} training.inner_folds=2')
    about = corpus / 'stage5' / 'proof_net' / 'fold_1' / 'about.json'
    text = about.read_text()
    try:
        about.write_text(json.dumps(dict(json.loads(text), code='another network')))
        with pytest.raises(ValueError, match='proof_net is needed, and it is stale .fold 1 was trained by another version of proof_net.: fvc train proof_net .* --again'):
            run_fold('proof_trees', 1, str(corpus), WORDS)
    finally:
        about.write_text(text)


def test_clips_of_unlike_shapes(corpus):
    "Batched with their like, or padded with a mask: each clip scores as it does alone."
    bucketed, (one, _) = proven(corpus, 'proof_own')
    padded, (two, _) = proven(corpus, 'proof_own', 'variant=padded')
    assert padded['run'] == 'proof_own@padded'
    place = Workspace(corpus)
    detector = Run(place, 'proof_own@padded').detector(1)
    split = make_split(detector.cfg, place, 1)
    rows = gather(detector.spec, detector.cfg, place, split).rows.filter(pl.col('variant') == 'original')
    shapes = rows.select('clip.width', 'clip.height').unique().height
    together = detector.score(rows)
    alone = np.concatenate([detector.score(rows[i:i + 1]) for i in range(rows.height)])
    assert np.abs(together - alone).max() < 1e-6
    examples = Examples(rows, detector.inputs, place, detector.cfg)
    batch = collate(examples.inputs, [examples[i] for i in range(len(examples))])
    assert ('mask' in batch) == (shapes > 1)


def photograph(path, colour, size, seed, stripes=False):
    "A noisy picture of one colour, perhaps with upright stripes."
    picture = np.random.default_rng(seed).normal(0, 12, (*size, 3)) + np.array(colour)
    if stripes: picture[:, ::8] += 90
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope='session')
def three_classes(tmp_path_factory):
    "Thirty-six photographs in a folder a class."
    root, work = tmp_path_factory.mktemp('three'), tmp_path_factory.mktemp('three_work')
    colours = dict(dent=(200, 60, 60), rust=(60, 60, 200), scratch=(60, 200, 60))
    for k, (name, colour) in enumerate(colours.items()):
        for i in range(12): photograph(root / name / f'{name}_{i}.png', colour, (48, 64), 100 * k + i)
    setup_workspace(str(root), str(work / 'w'), ['split.n_splits=2', 'stages.setup.near_duplicates=false'])
    return work / 'w'


def test_three_classes_of_photographs(three_classes):
    task = Task.of(Workspace.find(three_classes))
    assert (task.kind, task.classes, task.headline) == ('multiclass', ('dent', 'rust', 'scratch'), 'auc')
    line, (one, _) = proven(three_classes, 'proof_picture', 'data.size=32')
    assert line['auc'] > 0.9 and {'val_recall_class2', 'val_loss', 'val_acc'} <= one.metrics.keys()
    assert one.predictions['score'].list.len().unique().to_list() == [3] and one.predictions['decision'].dtype.is_integer()
    assert (one.folder / 'plots' / 'confusion.png').stat().st_size > 1000 and 'photographs of 32x32 px' in one.facts['shown']


@pytest.fixture(scope='session')
def four_labels(tmp_path_factory):
    "Forty steel sheets of 64x200 pixels, with any of four defects, named in a table."
    root, work = tmp_path_factory.mktemp('four'), tmp_path_factory.mktemp('four_work')
    lines = [('path', 'labels')]
    for i in range(40):
        marks = [bool((i >> b) & 1) for b in range(4)]
        name = f'sheet_{i:02}.png'
        photograph(root / name, [60 + 120 * m for m in marks[:3]], (64, 200), i, stripes=marks[3])
        lines.append((name, ';'.join(n for n, m in zip('abcd', marks) if m)))
    with open(root / 'manifest.csv', 'w', newline='') as f: csv.writer(f).writerows(lines)
    setup_workspace(str(root), str(work / 'w'), ['split.n_splits=2', 'stages.setup.near_duplicates=false'])
    return work / 'w'


def test_four_labels_of_long_sheets(four_labels):
    task = Task.of(Workspace.find(four_labels))
    assert (task.kind, task.classes, task.headline) == ('multilabel', ('a', 'b', 'c', 'd'), 'ap')
    line, (one, _) = proven(four_labels, 'proof_picture', 'data.size=[64,200]')
    assert line['ap'] > 0.7 and 'ap_by_video' in line  # chance is about one half and 'auc' not in line
    assert one.predictions['label'].list.len().unique().to_list() == [4] and len(one.facts['thresholds']) == 4
    detector = Run(Workspace.find(four_labels), one.run).detector(1)
    rows = gather(detector.spec, detector.cfg, detector.place, make_split(detector.cfg, detector.place, 1)).rows
    example = Examples(rows, detector.inputs, detector.place, detector.cfg)[0][0]['image']
    assert tuple(example.shape) == (3, 64, 200), 'never squared'


def test_new_files_score_as_through_the_stages(corpus, three_classes):
    "One test an input: features, clip, photographs, and the scores of other runs."
    place = Workspace(corpus)
    for name, words in (('proof_table', ''), ('proof_table', 'variant=stage2'), ('proof_vote', ''), ('proof_net', '')):
        one = run_fold(name, 1, str(corpus), f'{WORDS} {words}')
        index = dict(place.read_index().select('video_id', 'path').iter_rows())
        some = one.predictions[:3]
        found = Run(place, one.run).detector(1).score_paths([place.file(index[v]) for v in some['video_id']])
        assert found['reason'].to_list() == [None] * 3
        assert np.abs(found['score'].to_numpy() - some['score'].to_numpy()).max() < 1e-6, name
        assert found['decision'].to_list() == some['decision'].to_list()
    one = run_fold('proof_picture', 1, str(three_classes), f'{WORDS} data.size=32')
    place = Workspace.find(three_classes)
    index, some = dict(place.read_index().select('video_id', 'path').iter_rows()), one.predictions[:3]
    found = Run(place, one.run).detector(1).score_paths([place.file(index[v]) for v in some['video_id']] + [__file__])
    assert np.abs(np.array(found['score'].to_list()[:3]) - np.array(some['score'].to_list())).max() < 1e-6
    assert found['reason'][3] and found['score'][3] is None


def test_what_cannot_be_meant_is_one_sentence(corpus, three_classes, four_labels):
    with pytest.raises(UnknownName, match="unknown input 'clips': did you mean 'clip'"):
        run_fold(Spec('odd', lambda: None, inputs=('clips',)), 1, str(corpus), WORDS)
    with pytest.raises(ValueError, match='proof_trees serves binary, multiclass tasks, and this corpus asks a multilabel one'):
        run_fold('proof_trees', 1, str(four_labels), WORDS)
    with pytest.raises(ValueError, match='fold -1: folds are numbered from 1'):
        run_fold('proof_table', -1, str(corpus), WORDS)
    with pytest.raises(ConfigError, match='has a variant or a profile of that name'):
        run_fold('proof_table', 1, str(corpus), f'{WORDS} experiment.name=stage2')
    with pytest.raises((FileNotFoundError, ValueError), match='stage'):
        run_fold('proof_net', 1, str(three_classes), WORDS)


def test_the_model_must_be_known_to_load_its_runs(corpus):
    run_fold('proof_table', 1, str(corpus), WORDS)
    script = f'from fvc.learning.runs import Run; from fvc.core.workspace import Workspace; Run(Workspace.find({str(corpus)!r}), "proof_table").detector(1)'
    import os
    env = {k: v for k, v in os.environ.items() if k != 'FVC_USE'}
    made = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=env)
    assert "name its module with --use (it was" in made.stderr and 'proof_models.py, code' in made.stderr


def test_a_moved_clip_table_is_read_again(corpus, capsys):
    "A run is tied to the rows it read: rows made under other settings make it train again, and it says so."
    words = f'{WORDS} experiment.name=tied'
    run_fold('proof_table', 1, str(corpus), words)
    run_fold('proof_table', 1, str(corpus), words)
    assert 'finished before, loaded' in capsys.readouterr().out
    table = Workspace(corpus).table(2)
    before, about = read_table(table), table_metadata(table)
    try:
        write_table(before.with_columns(config_hash=pl.lit('other settings')), table, about)
        run_fold('proof_table', 1, str(corpus), words)
        assert 'trained again, because the rows it reads have changed' in capsys.readouterr().out
    finally:
        write_table(before, table, about)
