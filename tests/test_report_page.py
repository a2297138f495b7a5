"""The report as its reader sees it: each answer, in words, on the page that the real notebook gives, for two corpora with different leaders."""
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bs4 import BeautifulSoup
from fvc.core.files import write_json
from fvc.core.table import write_table
from fvc.core.workspace import FORMAT, Workspace
from fvc.evidence.answers import against_metadata, answers, failures, report_facts
from fvc.evidence.floors import metadata_floor
from fvc.learning.runs import FoldResult, Run, library_hash
from fvc.running.notebooks import Job, execute, to_html

ROOT = Path(__file__).resolve().parents[1]


def finish(place, run, fold, rows, score, facts, n_splits=2):
    "A fold as training leaves it, deciding at one half."
    here = rows.with_columns(variant=pl.lit('original'), score=pl.Series(score), threshold=pl.lit(.5), part=pl.lit('val')).filter(pl.col('fold') == fold)
    pred = here.with_columns(decision=(pl.col('score') >= .5).cast(pl.Int64))
    folder = place.run(run) / f'fold_{fold}'
    write_table(pred.select('video_id', 'variant', 'group', 'label', 'score', 'decision', 'threshold', 'fold', 'part'), folder / 'predictions.arrow', dict(run=run))
    write_json(folder / 'config.json', dict(profile='small', data=dict(permuted=None), split=dict(kind='kfold', n_splits=n_splits)))
    write_json(folder / 'about.json', dict(corpus='here', code='now', library=library_hash()))
    FoldResult(run, fold, folder, dict(val_auc=.5 + fold / 8), dict(thresholds=[.5], inner=dict(auc=.7, chosen_by=.7)) | facts).save({})


def workspace(folder, groups, scores, telling, name, broken):
    "Finished runs on `groups` events of two videos; `scores` says how much a run's scores tell, `telling` how much metadata do."
    place, rng = Workspace(folder), np.random.default_rng(3)
    n, group = 2 * groups, np.repeat(np.arange(groups), 2)
    label = (group // 2 % 2).astype(np.int8)
    rows = pl.DataFrame(dict(video_id=[f'v{i:03}' for i in range(n)], group=[f'g{g:02}' for g in group], label=label, fold=(group % 2 + 1).astype(np.int8)))
    write_table(rows, place.folds, {})
    lost = pl.DataFrame(dict(video_id=[f'lost{i}' for i in range(broken)], status='failed', reason='no frame could be decoded', label=None), schema_overrides=dict(label=pl.Int8))
    known = rows.select('video_id', 'label').with_columns(
        status=pl.lit('ok'), reason=pl.lit(None, pl.String), width=pl.Series(rng.integers(100, 900, n)), height=pl.Series(rng.integers(100, 900, n)), fps=25.,
        duration=pl.Series(rng.random(n)), bit_rate=pl.Series(rng.integers(1, 9, n) + label * telling), bytes=1, frames=9, rotation=0,
        platform=pl.lit('youtube'), container=pl.lit('mp4'), codec=pl.lit('h264'), pix_fmt=pl.lit('yuv420p'))
    write_table(pl.concat([known, lost], how='diagonal_relaxed'), place.index)
    counts = dict(real=int((label == 0).sum()), fake=int((label == 1).sum()))
    write_json(place.corpus, dict(format=FORMAT, name=name, sample=False, videos=n + broken, **counts, counts=counts, excluded=0, failed=broken, cascades=groups, groups=groups,
                                  data_hash='here'))
    for run, (tells, shown) in scores.items():
        score = np.clip(.5 + tells * (label - .5) + rng.normal(size=n) * .2, 0, 1)
        for k in (1, 2): finish(place, run, k, rows, score, dict(shown=shown, training_rows=groups + k, weights='from scratch'))
    finish(place, 'naive_cnn@half', 1, rows, label.astype(float), dict(shown='8 frames of 64 px'))
    return place


def page_of(place, monkeypatch, tmp_path):
    "The report of a workspace: its page as text, as HTML, and its twin."
    monkeypatch.chdir(tmp_path)
    job = Job(ROOT / 'nbs' / '6_report.ipynb', place.reports / '6_report.ipynb', dict(data=str(place), draws=2))
    write_json(place.reports / 'svm_fold_1.failed.json', dict(error='MemoryError: 3 GB were not to be had'))
    assert execute(job) == ('done', '')
    html = to_html(job.output).read_text()
    return seen(html), html, json.loads((place.reports / 'report.json').read_text())


def seen(html):
    "What a reader sees before a click."
    soup = BeautifulSoup(html, 'html.parser')
    for part in soup(['style', 'title', 'details']): part.decompose()
    return re.sub(r'\s+', ' ', soup.get_text(' '))


@pytest.fixture(scope='module')
def reports(tmp_path_factory):
    "Two corpora: in the first x3d leads for sure and beats metadata; in the second svm leads, not surely, and metadata are better."
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, groups, scores, telling, broken in (
                ('clear', 40, {'x3d': (.6, '16 frames of 224 px'), 'svm': (.03, '15 columns of stage 2')}, 0, 2),
                ('muddled', 24, {'x3d': (.1, '16 frames of 224 px'), 'svm': (.14, '15 columns of stage 2')}, 50, 1)):
            folder = tmp_path_factory.mktemp(name)
            place = workspace(folder / 'work', groups, scores, telling, name, broken)
            found[name] = *page_of(place, patch, folder), place
    return found


@pytest.mark.parametrize('name, sentences', [
    ('clear', ['The corpus is clear. It holds 82 videos; 80 have a label (40 real and 40 fake). They are about 40 events, cut into 2 parts',
               'x3d leads, with an AUC of', 'It is better than chance.', 'Yes, the lead is real: x3d is ahead of svm, which is second, by', 'zero is outside',
               'Yes, it beats metadata: what files say about themselves', 'x3d beats metadata.', 'x3d was trained on 41 to 42 rows', '16 frames of 224 px, from scratch',
               'svm was trained on 41 to 42 rows', '15 columns of stage 2', '2 videos while reading the source (stage 0) (no frame could be decoded)']),
    ('muddled', ['The corpus is muddled. It holds 49 videos; 48 have a label (24 real and 24 fake). They are about 24 events', 'With so few events every figure below is uncertain.',
                 'svm leads, with an AUC of', 'No, the lead is not shown to be real: svm is ahead of x3d, which is second, by', 'zero is inside',
                 'No, it is worse than metadata: what files say about themselves', 'No detector is shown to beat it.', 'svm was trained on 25 to 26 rows',
                 '1 video while reading the source (stage 0) (no frame could be decoded)'])])
def test_each_answer_is_on_the_page_in_words(reports, name, sentences):
    text = reports[name][0]
    missing = [s for s in sentences if s not in text]
    assert not missing, f'{missing} not in {text[:5000]}'
    for said in ('the training svm_fold_1 (MemoryError: 3 GB were not to be had)', 'naive_cnn@half, of which 1 of 2 folds are finished, so that it is not ranked'):
        assert said in text


def test_the_answers_come_before_the_board_and_the_board_before_details(reports):
    text = reports['clear'][0]
    order = [text.index(words) for words in ('What was asked?', 'What is the corpus?', 'Which detector leads?', 'Is the lead real?', 'Does it beat what files say', 'What was trained on what?',
                                             'What failed, and why?', 'Detectors, best first', 'Differences to the best detector', 'Permuted labels')]
    assert order == sorted(order)


@pytest.mark.parametrize('name', ['clear', 'muddled'])
def test_the_page_is_for_people(reports, name):
    "No code before a click, no type row, no quotes around words, three decimals, no path of the machine."
    text, html, _, place = reports[name]
    for word in ('import ', 'f64', 'str f', 'i64', 'DataFrame', 'dtype', 'shape:', '"', 'nan', 'None', 'Traceback', 'shortcut_corpus'): assert word not in text, word
    assert not re.findall(r'\d\.\d{4,}', text)
    assert str(place) not in html and str(place.root.parent) not in html and str(ROOT) not in html
    assert 'not distinguishable from chance' in text


@pytest.mark.parametrize('name', ['clear', 'muddled'])
def test_nothing_is_loaded_from_outside(reports, name):
    soup = BeautifulSoup(reports[name][1], 'html.parser')
    assert not soup(['script', 'link', 'iframe', 'object', 'embed', 'video', 'audio'])
    assert soup('img') and all(image['src'].startswith('data:image/') for image in soup('img'))
    styles = ''.join(s.get_text() for s in soup('style')) + ''.join(t.get('style', '') for t in soup.find_all(style=True))
    assert 'url(' not in styles and '@import' not in styles and '@font-face' not in styles


def test_the_page_fits_a_telephone_and_the_dark(reports):
    "Tables and plots scroll; letters on plots and below them have 12 pixels."
    html = reports['clear'][1]
    soup = BeautifulSoup(html, 'html.parser')
    assert soup.find('meta', attrs={'name': 'viewport'})['content'] == 'width=device-width, initial-scale=1' and '@media (prefers-color-scheme: dark)' in html
    assert all(part.find_parent(class_='scroll') for part in soup(['table', 'img']))
    assert soup('figure') and all(figure.find('figcaption').get_text() for figure in soup('figure'))
    assert all(re.search(r'width:100%;min-width:\d{3,}px', image['style']) for image in soup('img'))
    sizes = [int(n) for n in re.findall(r'font-size: (\d+)px', ''.join(s.get_text() for s in soup('style')))]
    assert sizes and min(sizes) >= 12


def numbers(value):
    "Every number in a structure, and in its texts."
    if isinstance(value, dict): return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list): return [n for v in value for n in numbers(v)]
    if isinstance(value, str): return [float(n) for n in re.findall(r'-?\d+\.\d+', value)]
    return [float(value)] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize('name', ['clear', 'muddled'])
def test_every_number_of_the_page_is_in_its_twin(reports, name):
    text, _, twin, _ = reports[name]
    known = {f'{abs(n):.3f}' for n in numbers(twin)}
    shown = set(re.findall(r'\d\.\d{3}\b', text))
    assert len(shown) > 12 and shown <= known, shown - known
    shares = {f'{100 * r[key]:.{places}f} %' for r in twin['board'] for key, places in (('acc', 1), ('coverage', 0))}
    assert set(re.findall(r'[\d.]+ %', text)) <= shares
    assert twin['models'][0] == dict(clear='x3d', muddled='svm')[name] and twin['corpus']['events'] == dict(clear=40, muddled=24)[name]


def test_a_video_is_told_once_where_it_failed_first(tmp_path):
    place = workspace(tmp_path / 'work', 8, {}, 0, 'mine', 2)
    rows = pl.DataFrame(dict(video_id=['lost0', 'v000', 'v000', 'v001'], variant=['original', 'original', 'blur', 'original'], status=['failed', 'failed', 'failed', 'ok'],
                             reason=['its source failed', 'out of time', 'out of time', None]))
    write_table(rows, place.table(1))
    write_table(rows, place.table(3))
    assert failures(place) == [dict(where='reading the source (stage 0)', what='video', count=2, reason='no frame could be decoded'),
                               dict(where='making altered copies (stage 1)', what='video', count=1, reason='out of time')]


def test_what_cannot_be_compared_says_why(tmp_path):
    "A run of other folds has no difference to metadata, and the page goes on."
    place = workspace(tmp_path / 'work', 8, {'svm': (.3, '15 columns')}, 0, 'mine', 0)
    floor = metadata_floor(place)
    known = against_metadata(Run(place, 'svm'), floor, 'auc')
    assert known['reason'] == '' and known['videos'] == 16 and known['low'] <= known['difference'] <= known['high']
    other = against_metadata(Run(place, 'svm'), floor.with_columns(label=1 - pl.col('label')), 'auc')
    assert 'disagree on the label' in other['reason'] and other['difference'] is None and other['verdict'] == 'cannot be said'


def test_a_corpus_without_a_finished_detector_has_a_report(tmp_path):
    told = dict(answers(report_facts(workspace(tmp_path / 'work', 8, {}, 0, 'mine', 0), 20)))
    assert told['Which detector leads?'] == 'No detector has been trained on all folds yet, so none leads.' and told['Is the lead real?'] == 'There is no lead to judge.'
    assert told['Does it beat what files say about themselves?'].startswith('There is no detector to hold against it')


def test_the_facts_are_those_of_the_corpus_and_of_its_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = workspace(tmp_path / 'work', 40, {'x3d': (.6, '16 frames of 224 px'), 'svm': (.03, '15 columns of stage 2')}, 0, 'mine', 2)
    write_json(place.reports / 'svm_fold_1.failed.json', dict(error='MemoryError: 3 GB were not to be had'))
    facts = report_facts(place, 50)
    board = {r['run']: r for r in facts['board']}
    assert (facts['corpus']['events'], facts['corpus']['labelled'], facts['corpus']['counts'], facts['corpus']['folds']) == (40, 80, dict(real=40, fake=40), 2)
    assert facts['models'] == ['x3d', 'svm'] and board['naive_cnn@half']['value'] == 1
    assert (board['x3d']['chance'], board['svm']['chance']) == ('better than chance', 'not distinguishable from chance')
    assert board['x3d']['metadata']['verdict'] == 'better than metadata' and [d['verdict'] for d in facts['differences']] == ['real']
    assert facts['training']['x3d']['training_rows'] == [41, 42] and facts['training']['naive_cnn@half']['training_rows'] == []
    assert [(f['what'], f['count'], f['reason']) for f in facts['failures']] == [
        ('video', 2, 'no frame could be decoded'), ('training', 1, 'MemoryError: 3 GB were not to be had')]
    close = report_facts(workspace(tmp_path / 'close', 24, {'x3d': (.1, 'frames'), 'svm': (.14, 'columns')}, 50, 'close', 0), 50)
    assert [d['verdict'] for d in close['differences']] == ['not shown'] and close['models'] == ['svm', 'x3d']
    assert next(r for r in close['board'] if r['run'] == 'svm')['metadata']['verdict'] == 'worse than metadata'
