"""The command as a stranger types it: bad input ends with one clear sentence, a non-zero code and nothing half-written."""
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, write_clip
from fvc.core.workspace import Workspace

FVC = Path(sys.executable).with_name('fvc')


def fvc(*words, **env):
    "Exit code, standard output, standard error of one command."
    clean = {k: v for k, v in os.environ.items() if not k.startswith('FVC_')}
    run = subprocess.run([FVC, *map(str, words)], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**clean, **env})
    return run.returncode, run.stdout, run.stderr


def refused(*words, says, data=None, **env):
    code, out, err = fvc(*words, **env)
    last = [line for line in err.splitlines() if line.startswith('fvc: ')]
    assert code == 2 and len(last) == 1, (code, out, err)
    assert says in last[0], last[0]
    assert 'Traceback' not in err
    if data:
        left = [p.name for p in Path(data).rglob('*') if p.is_file() and not p.name.startswith('lock')] if Path(data).exists() else []
        assert not [n for n in left if n.endswith(('.csv', '.json', '.arrow')) or n.startswith('.tmp-')], left


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    "Four real and four fake videos in a folder tree."
    root = tmp_path_factory.mktemp('videos')
    for i in range(8):
        write_clip(root / ('real', 'fake')[i % 2] / f'clip {i}.mp4', i)
    return root


@pytest.fixture(scope='session')
def archives(tmp_path_factory, folder):
    "The same as encrypted archives with their tables."
    from fvc.corpus.archives import write_zip
    root = tmp_path_factory.mktemp('archives')
    rows = ['cascade_id,video_url,label']
    members = {1: {}, 2: {}, 3: {}}
    for i in range(8):
        name, k = f'abcdefgh00{i}', i % 3 + 1
        members[k][f'FVC{k}/youtube/{name}/video.mp4'] = folder / ('real', 'fake')[i % 2] / f'clip {i}.mp4'
        rows.append(f"{'rf'[i % 2]}{i},https://www.youtube.com/watch?v={name},{('real', 'fake')[i % 2]}")
    for k, encryption in ((1, 'aes256'), (2, 'zipcrypt'), (3, 'aes256')):
        write_zip(root / f'FVC{k}.zip', members[k], 'open sesame', encryption=encryption)
    (root / 'FVC.csv').write_text('\n'.join(rows) + '\n')
    (root / 'FVC_dup.csv').write_text('cascade_id,video_url,label\r\n')
    write_zip(root / 'Metadata.zip', {f'Metadata/{n}': root / n for n in ('FVC.csv', 'FVC_dup.csv')}, 'open sesame')
    for name in ('FVC.csv', 'FVC_dup.csv'):
        (root / name).unlink()
    return root


def test_archives_with_a_password(archives, tmp_path):
    code, out, err = fvc('setup', '--source', archives, '--data', tmp_path / 'w', 'split.n_splits=2', FVC_ARCHIVE_PASSWORD='open sesame')
    assert code == 0, err
    assert 'open sesame' not in out + err
    code, out, _ = fvc('status', '--data', tmp_path / 'w', '--json')
    assert code == 0 and json.loads(out)[0] == dict(part='stage 0', rows=8, ok=8, failed=0, excluded=0, unopened=0)


def test_wrong_password(archives, tmp_path):
    refused('setup', '--source', archives, '--data', tmp_path / 'w', says='password', data=tmp_path / 'w', FVC_ARCHIVE_PASSWORD='guess')


def test_no_password(archives, tmp_path):
    refused('setup', '--source', archives, '--data', tmp_path / 'w', says='FVC_ARCHIVE_PASSWORD', data=tmp_path / 'w')


def test_missing_archive(archives, tmp_path):
    only = shutil.copytree(archives, tmp_path / 'only')
    (only / 'FVC2.zip').unlink()
    refused('setup', '--source', only, '--data', tmp_path / 'w', says='FVC2.zip', data=tmp_path / 'w', FVC_ARCHIVE_PASSWORD='open sesame')


def test_truncated_archive(archives, tmp_path):
    bad = shutil.copytree(archives, tmp_path / 'bad')
    data = (bad / 'FVC3.zip').read_bytes()
    (bad / 'FVC3.zip').write_bytes(data[:len(data) // 2])
    refused('setup', '--source', bad, '--data', tmp_path / 'w', says='FVC3.zip', data=tmp_path / 'w', FVC_ARCHIVE_PASSWORD='open sesame')


def test_empty_folder(tmp_path):
    (tmp_path / 'nothing').mkdir()
    refused('setup', '--source', tmp_path / 'nothing', '--data', tmp_path / 'w', says='nothing', data=tmp_path / 'w')


def test_absent_folder(tmp_path):
    refused('setup', '--source', tmp_path / 'nowhere', '--data', tmp_path / 'w', says='nowhere', data=tmp_path / 'w')


def test_table_without_its_columns(folder, tmp_path):
    source = tmp_path / 's'
    source.mkdir()
    write_clip(source / 'a.mp4', 1)
    (source / 'manifest.csv').write_text('name,kind\na.mp4,real\n')
    refused('setup', '--source', source, '--data', tmp_path / 'w', says='manifest.csv', data=tmp_path / 'w')


def test_one_class_only(tmp_path):
    for i in range(3):
        write_clip(tmp_path / 's' / 'real' / f'{i}.mp4', i)
    (tmp_path / 's' / 'fake').mkdir()
    refused('setup', '--source', tmp_path / 's', '--data', tmp_path / 'w', says='fake', data=tmp_path / 'w')


def test_more_folds_than_groups(folder, tmp_path):
    refused('setup', '--source', folder, '--data', tmp_path / 'w', 'split.n_splits=7', says='fold', data=tmp_path / 'w')


def test_unwritable_output(folder, tmp_path):
    blocked = tmp_path / 'file'
    blocked.write_text('in the way')
    refused('setup', '--source', folder, '--data', blocked / 'w', says=str(blocked))
    assert blocked.read_text() == 'in the way'


def test_source_is_only_read(folder, tmp_path):
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob('*'))
    code, _, err = fvc('setup', '--source', folder, '--data', tmp_path / 'w', 'split.n_splits=2')
    assert code == 0, err
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob('*')) == before


def test_misspelt_names(tmp_path):
    refused('train', 'x3dd', '--data', tmp_path, says="'x3d'")
    refused('stage', '1', '--data', tmp_path, 'stages.augmentation.num_augmentation=3', says='stages.augmentation.num_augmentations')
    refused('status', '--data', tmp_path, says='fvc setup')
    code, _, err = fvc('satus')
    assert code == 2 and 'status' in err


def test_archive_that_climbs_out(archives, tmp_path):
    evil = shutil.copytree(archives, tmp_path / 'evil')
    with zipfile.ZipFile(evil / 'FVC1.zip', 'w') as z:
        z.writestr('../../escaped.mp4', b'x')
    refused('setup', '--source', evil, '--data', tmp_path / 'w', says='escaped.mp4', data=tmp_path / 'w', FVC_ARCHIVE_PASSWORD='open sesame')
    assert not list(tmp_path.rglob('escaped.mp4'))


def test_everything_in_one_command_twice(folder, tmp_path):
    words = ['run', '--source', folder, '--data', tmp_path / 'w', '--json', '--models', 'logistic_regression', 'naive_cnn', 'profile=small',
             'split.n_splits=2', 'data.frames=2', 'data.size=32', 'training.epochs=1', 'stages.augmentation.num_augmentations=1']
    code, out, err = fvc(*words, OMP_NUM_THREADS='1')
    assert code == 0, err[-2000:]
    board = sorted((row['run'].split('@')[0], row['kind']) for row in json.loads(out))
    assert board == [('logistic_regression', 'model'), ('majority class', 'floor'), ('metadata only', 'floor'),
                     ('naive_cnn', 'floor'), ('naive_cnn', 'model')]
    trained = {p: p.stat().st_mtime_ns for p in (tmp_path / 'w' / 'stage5').rglob('metadata.json')}
    code, out, err = fvc(*words, OMP_NUM_THREADS='1')
    assert code == 0, err[-2000:]
    assert sum(line.startswith('stage ') and ', 0 to do' in line for line in err.splitlines()) == 6, err  # stages 0 to 5, the floor among the runs of the last
    assert trained == {p: p.stat().st_mtime_ns for p in (tmp_path / 'w' / 'stage5').rglob('metadata.json')}
    dealt = json.loads((tmp_path / 'w/stage5/naive_cnn@permuted/fold_1/config.json').read_text())
    assert dealt['data']['permuted'] == 0
    shutil.rmtree(Workspace(tmp_path / 'w').reports)


def test_the_real_tables_without_a_video(shared, tmp_path):
    refused('setup', '--source', shared / 'fvc_metadata', '--data', tmp_path / 'w', says='stages.setup.metadata_only=true', data=tmp_path / 'w')
    code, out, err = fvc('setup', '--source', shared / 'fvc_metadata', '--data', tmp_path / 'w', 'stages.setup.metadata_only=true')
    assert code == 0 and '5572 videos (0 real, 0 fake, 495 excluded, 0 failed, 5,077 known, not opened), 380 cascades, 367 groups' in out, out + err
    code, out, err = fvc('audit', 'leakage', 'shortcuts', '--data', tmp_path / 'w', '--json')
    leakage, shortcuts = json.loads(out)
    assert code == 0 and not leakage['lines'] and [line['seen'] for line in shortcuts['lines']] == ['all metadata', 'platform']
    rows = [f'{line.split(",")[0]},{("train", "val")[i % 5 == 0]}' for i, line in enumerate((tmp_path / 'w/video_index_input.csv').read_text().splitlines()[1:])]
    (tmp_path / 'rows.csv').write_text('video_id,part\n' + '\n'.join(rows) + '\n')
    code, out, err = fvc('audit', 'leakage', '--split', tmp_path / 'rows.csv', '--data', tmp_path / 'w', '--json')
    assert code == 1 and json.loads(out)[0]['lines'][0]['kind'] == 'group' and json.loads(out)[0]['lines'][0]['shared'] > 200


def test_a_closed_pipe_is_no_error():
    "`fvc models | head -1` has read enough after a line."
    made = subprocess.run(['bash', '-c', f'set -o pipefail; {sys.executable} -c "from fvc.running.cli import main; raise SystemExit(main())" models --json | head -1'],
                          cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert made.returncode == 0 and made.stdout == '[\n' and 'Traceback' not in made.stderr and 'Broken' not in made.stderr, made.stderr
