"""The list of planted faults keeps up with the code, and the command that plants them tells killed from survived."""
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from mutants.__main__ import project_copy, verdict
from mutants.faults import Fault, Lost, faults, module_file, notebook_of, plant, restore


@pytest.fixture(scope='module')
def copies(tmp_path_factory):
    "Two copies of the project: one to plant in, one that stays clean."
    place = tmp_path_factory.mktemp('mutants')
    return project_copy(place / 'planted'), project_copy(place / 'clean')


def test_every_fault_can_be_planted(copies):
    "Moved code keeps its faults; a fault whose text is gone is named."
    planted, clean = copies
    gone = []
    for fault in faults():
        try: plant(planted, fault)
        except (Lost, SyntaxError) as e: gone.append(f'{fault.id}: {e}')
        finally: restore(planted, clean, fault)
    assert not gone, '\n'.join(gone)
    assert len(faults()) > 145


def test_every_test_that_is_named_exists():
    for fault in faults():
        if not fault.test.startswith('tests/'):
            assert notebook_of(ROOT, fault.module if fault.test == 'notebook' else fault.test).is_file(), fault.id
            continue
        file, _, name = fault.test.partition('::')
        assert (ROOT / file).is_file() and f'def {name.partition("[")[0]}(' in (ROOT / file).read_text(), (fault.id, fault.test)


BLIND = Fault('blind', 'intervals', "f'{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]'", "f'{self.value:.3f}'", 'no interval is shown',
              'tests/test_tried.py::test_it')
SHOWN = 'str(Interval(.5, .4, .6, 9, 0))'


def test_a_fault_is_planted_in_module_and_notebook_alike_and_taken_out_again(copies):
    planted, clean = copies
    files = [find(planted, 'intervals') for find in (module_file, notebook_of)]
    before = [f.read_bytes() for f in files]
    plant(planted, BLIND)
    assert all(BLIND.new in f.read_text() and BLIND.old not in f.read_text() for f in files)
    with pytest.raises(Lost, match='blind: its text stands 0 times'): plant(planted, BLIND)
    restore(planted, clean, BLIND)
    assert [f.read_bytes() for f in files] == before


@pytest.mark.parametrize('seen, state', [(f'assert {SHOWN} == "0.500 [0.400, 0.600]"', 'killed'), (SHOWN, 'survived')])
def test_a_test_that_only_looks_does_not_kill(copies, seen, state):
    planted, clean = copies
    module = '.'.join(module_file(planted, 'intervals').relative_to(planted).with_suffix('').parts)
    (planted / 'tests' / 'test_tried.py').write_text(f'def test_it():\n    from {module} import Interval\n    {seen}\n')
    assert verdict(planted, clean, BLIND, None)[0] == state


def test_an_unknown_name_ends_with_a_sentence():
    run = subprocess.run([sys.executable, '-m', 'mutants', 'interval'], cwd=ROOT / 'tests', capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.strip() == "no fault of ['interval']: name a module or an id of tests/mutants/*.toml"
