"""Runs as they are resolved and named: what a corpus asks for, what a hash covers, which runs may be stood on."""
import json
from dataclasses import asdict

import numpy as np
import pytest
from fvc.core.config import canonical_hash
from fvc.core.files import write_json
from fvc.core.registry import Need, spec_of
from fvc.core.workspace import FORMAT, Workspace
from fvc.corpus.splits import Split
from fvc.learning.runs import FoldResult, Run, finite, needed_run, resolve, run_hash, run_name, source_of
from fvc.running.notebooks import Job


def corpus_of(folder, sample=False, **task):
    place = Workspace(folder)
    write_json(place.corpus, dict(format=FORMAT, data_hash='here', name='sample' if sample else 'mine', sample=sample) | (dict(task=task) if task else {}))
    return place


def test_a_corpus_says_the_loss_and_only_a_sample_is_trained_small(tmp_path):
    spec = spec_of('naive_cnn')
    three = corpus_of(tmp_path / 'three', kind='multiclass', classes=['a', 'b', 'c'])
    assert resolve(spec, '', three).loss.name == 'cross_entropy' and resolve(spec, 'loss=focal', three).loss.name == 'focal'
    assert resolve(spec, '', corpus_of(tmp_path / 'mine')).profile == 'paper' and resolve(spec, '', corpus_of(tmp_path / 'mine')).loss.name == 'bce'
    assert resolve(spec, '', corpus_of(tmp_path / 'sample', sample=True)).profile == 'small'


def test_a_hash_covers_what_a_kind_of_model_reads_and_no_more():
    def differs(model, word): return run_hash(spec_of(model), resolve(spec_of(model), word)) != run_hash(spec_of(model), resolve(spec_of(model)))
    for word, network, table in (('training.epochs=99', True, False), ('optim.lr=0.5', True, False), ('data.frames=3', True, False), ('data.stages=[4]', False, True),
                                 ('training.seed=1', True, True), ('data.variants=1', True, True), ('training.num_workers=2', False, False)):
        assert (differs('naive_cnn', word), differs('logistic_regression', word)) == (network, table), word


def test_facts_that_are_no_numbers_are_null_wherever_they_stand():
    assert finite(dict(a=float('nan'), b=[1.0, float('inf')], c=dict(d=[float('nan')]))) == dict(a=None, b=[1.0, None], c=dict(d=[None]))
    json.dumps(finite([np.nan]), allow_nan=False)


def test_a_run_is_stood_on_only_as_it_would_come_out_today(tmp_path):
    place, spec, split = corpus_of(tmp_path), spec_of('logistic_regression'), canonical_hash(asdict(Split(('a',), ('b',))))
    cfg = resolve(spec, '', place)
    with pytest.raises(FileNotFoundError, match='fold 1 is not finished: fvc train logistic_regression'): needed_run(Need('logistic_regression'), cfg, place, 1, split)
    folder = place.run('logistic_regression') / 'fold_1'
    now = dict(corpus='here', code=source_of(spec)['code'], split=split, library='')
    write_json(folder / 'config.json', cfg.to_dict())
    FoldResult('logistic_regression', 1, folder, {}, dict(inner={})).save(now)
    for changed, why in (({}, ''), (dict(split='another'), 'trained on another split'), (dict(code='old'), 'it is stale .fold 1 was trained by another version')):
        write_json(folder / 'about.json', now | changed)
        if not why:
            assert needed_run(Need('logistic_regression'), cfg, place, 1, split).name == 'logistic_regression' and not Run(place, 'logistic_regression').complete
            continue
        with pytest.raises(ValueError, match=why): needed_run(Need('logistic_regression'), cfg, place, 1, split)


def test_a_model_without_weights_has_one_run_whatever_is_said_of_them():
    spec = spec_of('logistic_regression')
    plain, said = resolve(spec), resolve(spec, 'pretrained=true')
    assert plain.pretrained is said.pretrained is None and run_name(spec, said) == run_name(spec, plain) == 'logistic_regression'


def test_a_job_on_tables_that_have_changed_is_another_job(tmp_path):
    book = tmp_path / 'a.ipynb'
    book.write_text(json.dumps(dict(cells=[dict(cell_type='code', id='a', source='fold: int = 1', metadata=dict(tags=['parameters']), outputs=[], execution_count=None)], metadata={}, nbformat=4, nbformat_minor=5)))
    jobs = [Job(book, tmp_path / 'out.ipynb', reads=reads) for reads in ('one', 'two')]
    jobs[0].mark('done')
    assert [job.state for job in jobs] == ['done', 'not yet']
