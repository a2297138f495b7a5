"""What is asked of a collection, from its folders or its manifest to folds that every model shares: videos and photographs, one label or several."""
import csv
import json
import os
import shutil

import numpy as np
import polars as pl
import pytest
from conftest import write_clip
from PIL import Image
from fvc.core.files import write_json
from fvc.core.registry import all_specs
from fvc.core.table import table_metadata
from fvc.core.workspace import Workspace
from fvc.corpus.archives import write_zip
from fvc.corpus.scenes import PHOTOS, photograph
from fvc.corpus.splits import cut_inner, guard_split, holdout_split, kfold_split
from fvc.corpus.statements import CorpusError
from fvc.running import pipeline
from fvc.learning.asked_runs import serving
from fvc.running.cli import main
from fvc.running.experiment import make_split
from fvc.core.config import compose
from fvc.scores.intervals import permuted_folds
from fvc.scores.tasks import Task
from fvc.stages.setup import setup

TWO = 'split.n_splits=2 stages.workers=1'


def draw(path, seed, size=(64, 48), scale=1.0, **how):
    "A photograph of coloured noise, coarse enough to survive another size."
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize([round(s * scale) for s in size], Image.Resampling.BICUBIC).save(path, **how)
    return path


def draw_photo(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def manifest(folder, header, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'manifest.csv', 'w', newline='') as f: csv.writer(f).writerows([header, *lines])
    return folder


@pytest.fixture
def steel(tmp_path):
    "Three kinds of sheets, six photographs each, in every format that is read."
    suffixes = ('.png', '.JPG', '.jpeg', '.bmp', '.tif', '.webp')
    for k, kind in enumerate(('scratch', 'Dent', 'hole')):
        for i, suffix in enumerate(suffixes): draw(tmp_path / 'steel' / kind / f'{i}{suffix}', 10 * k + i)
    return tmp_path / 'steel'


@pytest.fixture
def marked(tmp_path):
    "Twenty photographs of ten plates, with any of three names, in a manifest."
    lines = []
    for i in range(20):
        names = [n for bit, n in enumerate(('crack', 'dent', 'hole')) if (i // 2 + 1) >> bit & 1]
        draw(tmp_path / 'plates' / f'{i}.png', i)
        lines.append([f'{i}.png', ';'.join(names), f'plate {i // 2}'])
    return manifest(tmp_path / 'plates', ['file', 'labels', 'group'], *lines)


def test_class_folders_of_photographs_are_a_multiclass_task(steel, tmp_path, capsys):
    index = setup(steel, str(tmp_path / 'work'), TWO)
    place = Workspace(tmp_path / 'work')
    assert Task.of(place) == Task('multiclass', ('Dent', 'hole', 'scratch'))
    assert dict(index.group_by('label_text').len().rows()) == {'Dent': 6, 'hole': 6, 'scratch': 6}
    assert all(index.filter(pl.col('label_text') == name)['label'].unique().to_list() == [k] for k, name in enumerate(('Dent', 'hole', 'scratch')))
    assert set(index['status']) == {'ok'} and set(index.select('width', 'height', 'frames').rows()) == {(64, 48, 1)}
    assert set(index['codec']) == {'png', 'jpeg', 'bmp', 'tiff', 'webp'} and index['sha256'].n_unique() == 18
    assert all(place.file(p).is_file() for p in index['path'])
    about = place.about
    assert about['task'] == dict(kind='multiclass', classes=['Dent', 'hole', 'scratch']) and about['media'] == 'pictures'
    assert 'Corpus steel: 18 pictures (Dent 6, hole 6, scratch 6, 0 excluded, 0 failed)' in capsys.readouterr().out
    folds = place.read_folds()
    assert folds.schema['label'] == pl.Int8 and set(folds.group_by('fold', 'label').len().rows()) == {(f, k, 3) for f in (1, 2) for k in (0, 1, 2)}
    assert place.read_index()['label'].to_list() == index['label'].to_list()


def test_several_labels_are_lists_and_groups_stay_whole(marked, tmp_path, capsys):
    index = setup(marked, str(tmp_path / 'work'), TWO)
    place = Workspace(tmp_path / 'work')
    task = Task.of(place)
    assert task == Task('multilabel', ('crack', 'dent', 'hole'))
    folds = place.read_folds()
    assert folds.schema['label'] == pl.List(pl.Int8) and folds.height == 20
    for video_id, label in folds.select('video_id', 'label').iter_rows():
        wanted = int(video_id) // 2 + 1
        assert label == [wanted >> bit & 1 for bit in range(3)]
    assert folds.group_by('group').agg(pl.col('fold').n_unique())['fold'].to_list() == [1] * 10
    marks = np.array(folds['label'].to_list())
    for fold in (1, 2):
        mine = marks[folds['fold'] == fold]
        assert (mine.any(0) & (1 - mine).any(0)).all() and (abs(mine.mean(0) - marks.mean(0)) < .25).all()
    counts = dict(zip(task.classes, marks.sum(0).tolist()))
    assert place.about['counts'] == counts and 'real' not in place.about
    assert f"20 pictures (crack {counts['crack']}, dent {counts['dent']}, hole {counts['hole']}, 0 excluded" in place.corpus_line()
    assert index['label'].to_list()[0] == [1, 0, 0] and place.read_index()['label'][0] == '1;0;0'
    assert json.loads(place.index_json.read_text())[0]['label'] == [1, 0, 0]


def test_an_empty_list_is_none_of_the_labels_and_an_unlisted_picture_has_no_label(marked, tmp_path):
    draw(marked / 'extra.png', 99)
    rows = (marked / 'manifest.csv').read_text().splitlines()
    draw(marked / 'clean.png', 98)
    (marked / 'manifest.csv').write_text('\n'.join([*rows, 'clean.png,,alone']) + '\n')
    index = setup(marked, str(tmp_path / 'work'), TWO)
    found = {r['video_id']: (r['label'], r['status'], r['reason']) for r in index.iter_rows(named=True)}
    assert found['clean'] == ([0, 0, 0], 'ok', None)
    assert found['extra'] == (None, 'excluded', 'no label: manifest.csv does not list it')
    assert 'extra' not in Workspace(tmp_path / 'work').read_folds()['video_id']


def test_every_split_works_with_lists_and_with_classes(marked, steel, tmp_path):
    for source in (marked, steel):
        place = Workspace(tmp_path / f'work of {source.name}')
        setup(source, str(place), TWO)
        folds = place.read_folds()
        for split in (kfold_split(folds, 1), kfold_split(folds, 2), kfold_split(folds, 0), holdout_split(folds, (.5, .25, .25)), make_split(compose(None, TWO), place, 1)):
            assert len(split.inner) >= 2 and sorted(v for part in split.inner for v in part) == sorted(split.train)
            guard_split(folds, split)
            several = folds.schema['label'] == pl.List(pl.Int8)
            for part in split.inner:
                rows = folds.filter(pl.col('video_id').is_in(part))
                marks = np.array(rows['label'].to_list())
                assert (marks.any(0) & (1 - marks).any(0)).all() if several else set(marks) == {0, 1, 2}
        dealt = permuted_folds(folds)
        assert dealt.schema == folds.schema and not dealt['label'].equals(folds['label']) and dealt.drop('label').equals(folds.drop('label'))
        permuted = make_split(compose(None, f'{TWO} data.permuted=0'), place, 1)
        assert permuted.val == kfold_split(folds, 1).val and len(permuted.inner) >= 2


def test_inner_parts_are_as_many_as_groups_of_the_rarest_class_allow(tmp_path):
    label = [0] * 12 + [1] * 9 + [2] * 3
    folds = pl.DataFrame(dict(video_id=[f'v{i:02}' for i in range(24)], group=[f'g{i}' for i in range(24)], label=label, fold=[1] * 24))
    assert len(kfold_split(folds, 0).inner) == 3
    lists = folds.with_columns(label=pl.Series([[int(v == 1), int(v == 2)] for v in label]))
    assert len(kfold_split(lists, 0).inner) == 3
    rarest = folds.with_columns(label=pl.Series([0] * 12 + [1] * 10 + [2] * 2))
    assert len(kfold_split(rarest, 0).inner) == 2
    alone = folds.with_columns(label=pl.Series([0] * 12 + [1] * 11 + [2]))
    with pytest.raises(ValueError, match='class 2 lies in 1 groups'): kfold_split(alone, 0)


def test_folds_of_real_and_fake_videos_are_those_of_before(corpus):
    "Cut with the rule of one column, straight from scikit-learn; what is stored beside them says which task they are of."
    from sklearn.model_selection import StratifiedGroupKFold
    place = Workspace(corpus)
    rows = place.read_folds().sort('video_id')
    codes = np.unique(rows['group'].to_numpy(), return_inverse=True)[1]
    state = int(np.random.SeedSequence([0, 0]).generate_state(1)[0])
    wanted = np.zeros(rows.height, int)
    for k, (_, val) in enumerate(StratifiedGroupKFold(2, shuffle=True, random_state=state).split(codes, rows['label'].to_numpy(), codes), 1): wanted[val] = k
    assert rows['fold'].to_list() == wanted.tolist()
    assert Task.of(place) == Task() and place.about['media'] == 'videos' and place.about['counts'] == dict(real=place.about['real'], fake=place.about['fake'])


def test_a_workspace_that_names_no_task_is_of_real_and_fake_videos(tmp_path, capsys):
    for i in range(8): write_clip(tmp_path / 'mine' / ('real', 'fake')[i % 2] / f'{i}.mp4', i, 4)
    place = Workspace(tmp_path / 'work')
    setup(tmp_path / 'mine', str(place), TWO)
    folds = place.folds.read_bytes()
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('Corpus'))
    assert said.startswith('Corpus mine: 8 videos (4 real, 4 fake, 0 excluded, 0 failed), 0 cascades, 8 groups, data ')
    write_json(place.corpus, {k: v for k, v in place.about.items() if k not in ('task', 'media', 'counts')})
    assert Task.of(place) == Task() and place.corpus_line() == said and place.require_videos(1) == place
    setup(tmp_path / 'mine', str(place), TWO)
    assert place.folds.read_bytes() == folds and place.about['task'] == Task().to_dict()


@pytest.mark.parametrize('words, kind, classes', [
    ('', 'binary', ('real', 'fake')), ('stages.setup.task=multiclass', 'multiclass', ('fake', 'parody', 'real')),
    ('stages.setup.task=multilabel', 'multilabel', ('fake', 'parody', 'real'))])
def test_the_task_is_found_or_said(tmp_path, words, kind, classes):
    for i in range(9): draw(tmp_path / 'mine' / ('real', 'fake', 'parody')[i % 3] / f'{i}.png', i)
    index = setup(tmp_path / 'mine', str(tmp_path / 'work'), f'{TWO} {words}')
    assert Task.of(Workspace(tmp_path / 'work')) == Task(kind, classes)
    assert dict(index['status'].value_counts().rows()) == ({'ok': 6, 'excluded': 3} if kind == 'binary' else {'ok': 9})


def test_labels_that_contradict_the_task_are_refused_in_a_sentence(steel, tmp_path, capsys):
    def refused(words, source=steel):
        assert main(['setup', '--source', str(source), '--data', str(tmp_path / 'work'), *TWO.split(), *words.split()]) == 2
        assert not (tmp_path / 'work').exists()
        said = capsys.readouterr().err
        assert said.count('\n') == 1
        return said
    assert 'task=binary, but' in (said := refused('stages.setup.task=binary')) and '3 classes: Dent, hole, scratch; use task=multiclass' in said
    assert "fake_label=rust, but" in refused('stages.setup.fake_label=rust')
    assert "choose one of" in refused('stages.setup.task=binar') or 'did you mean' in refused('stages.setup.task=binar')
    write_clip(steel / 'hole' / 'film.mp4', 1, 4)
    assert 'holds 1 videos and 18 pictures' in refused('')
    lone = tmp_path / 'lone'
    draw(lone / 'dent' / 'a.png', 1)
    assert 'has neither FVC1.zip' in refused('', lone)
    few = manifest(tmp_path / 'few', ['file', 'label'], ['a.png', 'dent'], ['b.png', 'dent'], ['c.png', 'hole'], ['d.png', 'hole'])
    for name in 'abcd': draw(few / f'{name}.png', ord(name))
    assert 'ask for fewer' in refused('split.n_splits=3', few)


def test_a_new_class_does_not_change_what_stored_labels_mean(steel, tmp_path):
    setup(steel, str(tmp_path / 'work'), TWO)
    place = Workspace(tmp_path / 'work')
    before = place.folds.read_bytes()
    for i in range(4): draw(steel / 'crack' / f'{i}.png', 70 + i)
    with pytest.raises(CorpusError, match=r'another task: it was multiclass \(Dent, hole, scratch\) and is now multiclass \(Dent, crack, hole, scratch\)'):
        setup(steel, str(place), TWO)
    assert place.folds.read_bytes() == before
    setup(steel, str(place), f'{TWO} stages.setup.recut=true')
    assert place.read_folds().height == 22 and table_metadata(place.folds)['task']['classes'] == ['Dent', 'crack', 'hole', 'scratch']
    shutil.rmtree(steel / 'crack')
    with pytest.raises(CorpusError, match='labels would change their meaning'): setup(steel, str(place), TWO)


def test_stored_folds_of_lists_stay_and_grow(marked, tmp_path):
    setup(marked, str(tmp_path / 'work'), TWO)
    place = Workspace(tmp_path / 'work')
    folds, bytes_before = place.read_folds(), place.folds.read_bytes()
    setup(marked, str(place), TWO)
    assert place.folds.read_bytes() == bytes_before
    draw(marked / 'new.png', 50)
    with open(marked / 'manifest.csv', 'a') as f: f.write('new.png,hole,plate 3\n')
    setup(marked, str(place), TWO)
    now = place.read_folds()
    assert now.filter(pl.col('video_id') != 'new').equals(folds)
    assert now.filter(pl.col('video_id') == 'new')['fold'].to_list() == folds.filter(pl.col('group') == 'plate 3' if 'plate 3' in folds['group'] else pl.col('video_id') == '6')['fold'].unique().to_list()


def test_near_identical_photographs_share_a_group(tmp_path):
    for i, name in enumerate(list(PHOTOS)[:8]): # four of people and things, four others
        draw_photo(tmp_path / 'mine' / ('dent', 'hole')[i % 2] / f'{name}.png', photograph(name))
    whole = Image.open(tmp_path / 'mine' / 'dent' / 'astronaut.png')
    whole.resize((300, 200)).save(tmp_path / 'mine' / 'dent' / 'small.jpg', quality=70)
    shutil.copy(tmp_path / 'mine' / 'hole' / 'chelsea.png', tmp_path / 'mine' / 'hole' / 'again.png')
    index = setup(tmp_path / 'mine', str(tmp_path / 'work'), TWO)
    group = dict(index.select('video_id', 'group').rows())
    assert group['dent__small'] == group['dent__astronaut'] and group['hole__again'] == group['hole__chelsea'] and index['group'].n_unique() == 8
    pairs = pl.read_csv(Workspace(tmp_path / 'work').near_duplicates).select('video_a', 'video_b', 'joins').rows()
    assert sorted(pairs) == [('dent__astronaut', 'dent__small', True), ('hole__again', 'hole__chelsea', False)]
    blind = setup(tmp_path / 'mine', str(tmp_path / 'blind'), f'{TWO} stages.setup.near_duplicates=false')
    assert blind['group'].n_unique() == 9


def test_pictures_that_cannot_be_read_keep_their_line(steel, tmp_path):
    (steel / 'hole' / 'page.png').write_bytes(b'<html>not found</html>')
    cut = (steel / 'hole' / '0.png').read_bytes()
    (steel / 'hole' / 'cut.png').write_bytes(cut[:len(cut) // 2])
    (steel / 'hole' / 'film.png').write_bytes(write_clip(tmp_path / 'film.mp4', 3, 4).read_bytes())
    exif = Image.Exif()
    exif[274] = 6
    draw(steel / 'hole' / 'turned.jpg', 77, exif=exif)
    index = setup(steel, str(tmp_path / 'work'), TWO)
    found = {r['video_id']: r for r in index.iter_rows(named=True)}
    assert [found[f'hole__{n}']['status'] for n in ('page', 'cut', 'film', 'turned')] == ['failed', 'failed', 'failed', 'ok']
    assert 'page.png is an HTML page' in found['hole__page']['reason'] and 'cut.png cannot be decoded' in found['hole__cut']['reason']
    assert [found['hole__turned'][k] for k in ('width', 'height', 'rotation')] == [48, 64, 270]
    assert Workspace(tmp_path / 'work').read_folds().height == 22, 'labelled pictures keep a fold, in case they are mended'


def test_stages_for_videos_refuse_pictures(steel, tmp_path, capsys):
    setup(steel, str(tmp_path / 'work'), TWO)
    capsys.readouterr()
    for number in (1, 2, 3, 4):
        assert main(['stage', str(number), '--data', str(tmp_path / 'work'), *TWO.split()]) == 2
        said = capsys.readouterr().err
        assert said.count('\n') == 1 and f'holds pictures, and stage {number} is for videos: train a model with the input image' in said
    from fvc.stages.augmentation import stage1_augment_videos
    with pytest.raises(ValueError, match='stage 1 is for videos'): stage1_augment_videos(str(tmp_path / 'work'), TWO)
    assert not Workspace(tmp_path / 'work').table(1).exists()


def test_all_models_are_those_that_serve_the_task(steel, marked, tmp_path):
    named = {}
    for source in (steel, marked):
        place = str(tmp_path / f'work {source.name}')
        setup(source, place, TWO)
        named[Task.of(Workspace.find(place)).kind] = set(serving(place))
    everything = {spec.name for spec in all_specs()}
    assert named['multiclass'] > named['multilabel'] and 'x3d' in named['multilabel'] and 'svm' in named['multiclass'] - named['multilabel']
    assert named['multiclass'] <= everything and len(everything) >= 24


@pytest.mark.parametrize('source', ['steel', 'marked'])
def test_audit_and_status_answer_for_every_task(source, request, tmp_path, capsys):
    where = request.getfixturevalue(source)
    setup(where, str(tmp_path / 'work'), TWO)
    capsys.readouterr()
    assert main(['status', '--data', str(tmp_path / 'work')]) == 0 and 'stage 0' in capsys.readouterr().out
    assert main(['audit', '--data', str(tmp_path / 'work')]) == 0
    said = capsys.readouterr().out
    assert 'leakage: the stored folds' in said and 'metadata alone reaches AUC' in said and '0 not as recorded' in said
    first = next(iter(where.rglob('*.png')))
    first.write_bytes(first.read_bytes() + b'x')
    assert main(['audit', 'integrity', '--data', str(tmp_path / 'work')]) == 1 and '1 not as recorded' in capsys.readouterr().out


def test_videos_of_several_classes_go_through_the_stages(tmp_path):
    for i in range(12): write_clip(tmp_path / 'mine' / ('cut', 'fade', 'none')[i % 3] / f'{i}.mp4', i, 6)
    place = Workspace(tmp_path / 'work')
    words = [*TWO.split(), 'stages.augmentation.num_augmentations=1', 'stages.scaling.target_size=32']
    setup(tmp_path / 'mine', str(place), words)
    assert place.corpus_line().startswith('Corpus mine: 12 videos (cut 4, fade 4, none 4, 0 excluded')
    assert [set(pipeline.run_one_stage(n, place, words)['status']) for n in (1, 2, 3, 4)] == [{'ok'}] * 4


# manifests

def videos(folder, *names):
    for i, name in enumerate(names): write_clip(folder / name, i, 4)
    return folder


def test_columns_that_mean_the_same_are_understood_and_said(tmp_path, capsys):
    mine = videos(tmp_path / 'mine', *(f'clips/{i}.mp4' for i in range(6)))
    manifest(mine, ['Filename', 'TARGET', 'ID', 'Event', 'Cascades', 'camera model'], *(
        [f'clips/{i}.mp4', ('real', 'fake')[i % 2], f'clip {i}', 'storm' if i in (0, 2) else '', 'f1;f2' if i == 1 else 'f2' if i == 3 else '', f'00{i}'] for i in range(6)))
    index = setup(mine, str(tmp_path / 'work'), TWO)
    said = capsys.readouterr().out
    assert 'manifest.csv: read Filename as file, TARGET as label, ID as video_id, Cascades as cascade, Event as group' in said
    assert 'manifest.csv: unknown columns, kept in the index as user_camera model' in said
    assert index.columns[-1] == 'user_camera model' and index['user_camera model'].to_list() == [f'00{i}' for i in range(6)]
    assert Workspace(tmp_path / 'work').read_index()['user_camera model'].to_list() == [f'00{i}' for i in range(6)], 'text stays text'
    assert index['video_id'][0].startswith('clip_0-') and index['cascades'].to_list() == [None, 'f1;f2', None, 'f2', None, None]
    group = index['group'].to_list()
    assert group[0] == group[2] and group[1] == group[3] == 'f1' and len(set(group)) == 4


def test_spellings_that_do_not_say_what_is_fake_are_asked_about(tmp_path, capsys):
    mine = videos(tmp_path / 'mine', *(f'{i}.mp4' for i in range(6)))
    manifest(mine, ['file', 'label'], *([f'{i}.mp4', i % 2] for i in range(6)))
    words = ['setup', '--source', str(mine), '--data', str(tmp_path / 'work'), *TWO.split()]
    assert main(words) == 2
    assert 'labels its items 0, 1, which does not say what is fake; say it with stages.setup.fake_label=1' in capsys.readouterr().err
    for fake in ('1', '0'):
        assert main([*words, f'stages.setup.fake_label={fake}', 'stages.setup.recut=true']) == 0
        index = Workspace(tmp_path / 'work').read_index()
        assert dict(index.select('video_id', 'label').rows()) == {str(i): int(str(i % 2) == fake) for i in range(6)}


def test_what_is_left_out_is_listed_with_the_reason(tmp_path, capsys):
    mine = videos(tmp_path / 'mine', *(f'{("real", "fake")[i % 2]}/{i}.mp4' for i in range(6)))
    videos(tmp_path / 'disk', 'far.mp4')
    (mine / 'real' / 'more').symlink_to(tmp_path / 'disk')
    shutil.copy(mine / 'real' / '0.mp4', mine / 'real' / 'bare')
    (mine / 'fake' / 'late.mp4.part').write_bytes(b'half')
    draw(mine / 'real' / 'thumbnail.jpg', 1)
    (mine / 'real' / '.DS_Store').write_bytes(b'')
    with pytest.raises(CorpusError, match='holds 6 videos and 1 pictures'): setup(mine, str(tmp_path / 'work'), TWO)
    (mine / 'real' / 'thumbnail.jpg').rename(mine / 'cover.jpg')
    index = setup(mine, str(tmp_path / 'work'), TWO)
    lines = dict(pl.read_csv(Workspace(tmp_path / 'work').left_out).rows())
    assert {path: reason.split(':')[0] for path, reason in lines.items()} == {
        'cover.jpg': 'a picture in a collection of videos', 'fake/late.mp4.part': 'an unfinished download',
        'real/bare': 'a video whose name does not say so', 'real/more': 'a link to a folder, which is not followed'}
    assert 'left out: 4 (1 a picture in a collection of videos, 1 an unfinished download' in capsys.readouterr().out and index.height == 6
    for path in lines: (mine / path).unlink()
    setup(mine, str(tmp_path / 'work'), TWO)
    assert Workspace(tmp_path / 'work').left_out.read_text() == 'path,reason\n' and 'left out' not in capsys.readouterr().out


def test_loose_tables_stand_in_for_the_fourth_archive(tmp_path, capsys):
    source = tmp_path / 'source'
    source.mkdir()
    lines = [f'{"fr"[i % 2]}{i},https://youtu.be/video{i:06},{("fake", "real")[i % 2]}' for i in range(6)]
    for n in range(3):
        clips = {f'FVC{n + 1}/youtube/video{i:06}/video.mp4': write_clip(tmp_path / f'{i}.mp4', i, 4) for i in (2 * n, 2 * n + 1)}
        write_zip(source / f'FVC{n + 1}.zip', clips, 'sesame', 'aes256')
    words = [str(tmp_path / 'work'), TWO, 'sesame']
    with pytest.raises(CorpusError, match='Metadata.zip is missing'): setup(source, *words)
    (source / 'FVC.csv').write_text('\n'.join(['cascade_id,video_url,label', *lines[:4]]) + '\n')
    (source / 'FVC_dup.csv').write_text('\n'.join(['cascade_id,video_url,label', *lines[4:]]) + '\n')
    index = setup(source, *words)
    assert index['label'].to_list() == [1, 0] * 3 and set(index['status']) == {'ok'}
    kept = Workspace(tmp_path / 'work').videos / 'Metadata'
    assert sorted(p.name for p in kept.iterdir()) == ['FVC.csv', 'FVC_dup.csv'] and (kept / 'FVC.csv').read_text() == (source / 'FVC.csv').read_text()
    capsys.readouterr()
    setup(source, *words)
    assert ', 0 placed now' in capsys.readouterr().out


def test_setup_without_a_source_takes_where_one_stands(tmp_path, capsys, monkeypatch):
    mine = videos(tmp_path / 'mine', *(f'{("real", "fake")[i % 2]}/{i}.mp4' for i in range(4)))
    words = ['setup', '--data', str(tmp_path / 'work'), *TWO.split()]
    (tmp_path / 'nothing').mkdir()
    monkeypatch.chdir(tmp_path / 'nothing')
    assert main(words) == 2 and 'nothing holds neither archives nor videos nor folders of pictures; name the folder that does with --source' in capsys.readouterr().err
    monkeypatch.chdir(mine)
    assert main(words) == 0 and f'source: {mine}' in capsys.readouterr().out
    (tmp_path / 'above').mkdir()
    os.rename(mine, tmp_path / 'above' / 'archive')
    monkeypatch.chdir(tmp_path / 'above')
    assert main(words) == 0 and f'source: {tmp_path / "above" / "archive"}' in capsys.readouterr().out
    album, plain = tmp_path / 'album', tmp_path / 'plain'
    for i in range(8):
        draw(album / ('real', 'fake')[i % 2] / f'{i}.jpg', i)
    draw(plain / 'docs' / 'logo.jpg', 9)
    monkeypatch.chdir(album)
    assert main([*words[:2], str(tmp_path / 'pictures'), *words[3:]]) == 0 and f'source: {album}' in capsys.readouterr().out
    monkeypatch.chdir(plain)
    assert main(words) == 2 and 'nor folders of pictures' in capsys.readouterr().err, 'one folder with a picture is any project'
