"""Hostile archives: each is refused by the command in one sentence that names the member, and writes nothing anywhere.

The bombs, liars and climbers are made on the spot. A corpus of four archives is sound but for one, which is replaced."""
import hashlib
import io
import os
import resource
import shutil
import stat
import struct
import tempfile
import time
import unicodedata
import warnings
import zipfile
from pathlib import Path

import pytest
import pyzipper
from conftest import write_clip
from fvc.corpus.archives import write_zip
from fvc.running.cli import main
from fvc.core.table import read_table

GOOD = 'FVC2/youtube/good0000000/video.mp4'
PASSWORD = 'open sesame'


def entry(name, system=3, mode=0, method=zipfile.ZIP_DEFLATED):
    "A directory entry with any name, also one that zipfile would clean."
    info = zipfile.ZipInfo('x')
    info.filename, info.create_system, info.external_attr, info.compress_type = name, system, mode << 16, method
    return info


def zipped(*members, **kw):
    "The bytes of a zip: pairs of a name or entry, and the content."
    memory = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(memory, 'w', zipfile.ZIP_DEFLATED) as z:
        warnings.simplefilter('ignore')
        for info, content in members: z.writestr(info if isinstance(info, zipfile.ZipInfo) else entry(info), content)
    return memory.getvalue()


def locked(content, aes):
    "A locked archive with one member."
    memory = io.BytesIO()
    if aes:
        with pyzipper.AESZipFile(memory, 'w', compression=pyzipper.ZIP_STORED, encryption=pyzipper.WZ_AES) as z:
            z.setpassword(PASSWORD.encode())
            z.writestr(GOOD, content)
        return memory.getvalue()
    folder = Path(tempfile.mkdtemp())
    (folder / 'plain').write_bytes(content)
    try: return write_zip(folder / 'locked.zip', {GOOD: folder / 'plain'}, PASSWORD).read_bytes()
    finally: shutil.rmtree(folder)


def patched(data, find, new, count=-1):
    assert find in data and len(find) == len(new)
    return data.replace(find, new, count)


def central(data, offset, form, value):
    "Overwrite a field of the first entry of the central directory."
    data, at = bytearray(data), data.index(b'PK\x01\x02')
    struct.pack_into(form, data, at + offset, value)
    return bytes(data)


def flipped(data):
    "One bit in the middle is another."
    data = bytearray(data)
    data[len(data) // 2] ^= 1
    return bytes(data)


def overlapping(copies=50):
    "Fifield's bomb in its simplest form: every entry points at the same compressed bytes."
    data = zipped(('a.mp4', bytes(900_000)))
    at, end = data.index(b'PK\x01\x02'), data.index(b'PK\x05\x06')
    entries = b''.join(data[at:end].replace(b'a.mp4', b'%05d' % n) for n in range(copies))
    tail = bytearray(data[end:])
    struct.pack_into('<HHI', tail, 8, copies, copies, len(entries))
    return data[:at] + entries + bytes(tail)


def crowded(members=230_000, said=1):
    "A directory of many members, whose end record admits to one."
    data = zipped(('0' * 36, b''))
    at, end = data.index(b'PK\x01\x02'), data.index(b'PK\x05\x06')
    entries = b''.join(data[at:end].replace(b'0' * 36, b'%036d' % n) for n in range(members))
    tail = bytearray(data[end:])
    struct.pack_into('<HHI', tail, 8, said, said, len(entries))
    return data[:at] + entries + bytes(tail)


def cases(here):
    "name -> (bytes of FVC2.zip, what the sentence says, settings, password)"
    noise, film = os.urandom(200_000), write_clip(here / 'tmp' / 'a.mp4', 99, frames=2).read_bytes()
    (here / 'tmp' / 'a.mp4').unlink()
    good, above = (GOOD, film), here / 'escaped.mp4'
    whole, both = zipped(good), zipped((entry(GOOD, method=0), noise), ('FVC2/youtube/z/video.mp4', film))
    link, fifo, device = (stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o666, stat.S_IFCHR | 0o666)
    found = {
        'climbing': (zipped(good, ('../escaped.mp4', film)), "'../escaped.mp4' climbs out"),
        'climbing later': (zipped(good, ('FVC2/youtube/x/../../../../escaped.mp4', film)), "escaped.mp4' climbs out"),
        'absolute': (zipped(good, (str(above), film)), f"'{above}' has an absolute path"),
        'network path': (zipped(good, ('//server/escaped.mp4', film)), 'has an absolute path'),
        'backslashes': (zipped(good, ('..\\escaped.mp4', film)), r"'..\\escaped.mp4' has a backslash"),
        'drive': (zipped(good, ('C:/escaped.mp4', film)), "'C:/escaped.mp4' has an absolute path"),
        'link': (zipped(good, (entry('FVC2/link.mp4', mode=link), '/etc/passwd')), "'FVC2/link.mp4' is a symbolic link"),
        'written through a link': (zipped((entry('FVC2/youtube', mode=link), str(here / 'elsewhere')), good), "'FVC2/youtube' is a symbolic link"),
        'link made on a Mac': (zipped(good, (entry('FVC2/l.mp4', 19, link), '/etc/passwd')), "'FVC2/l.mp4' is a symbolic link"),
        'link said to be from DOS': (zipped(good, (entry('FVC2/l.mp4', 0, link), '/etc/passwd')), "'FVC2/l.mp4' is a symbolic link"),
        'pipe': (zipped(good, (entry('FVC2/pipe.mp4', mode=fifo), b'')), "'FVC2/pipe.mp4' is a device"),
        'device': (zipped(good, (entry('FVC2/zero.mp4', mode=device), b'')), "'FVC2/zero.mp4' is a device"),
        'one name twice': (zipped(good, (GOOD, b'other')), f"'{GOOD}' is there twice"),
        'names that differ in case': (zipped(good, (GOOD.upper(), b'other')), f"'{GOOD.upper()}' and '{GOOD}' are one name"),
        'names that differ in accents': (zipped(('é.mp4', film), (unicodedata.normalize('NFD', 'é.mp4'), film)), 'are one name'),
        'file and folder': (zipped(('FVC2/youtube', b'x'), good), "'FVC2/youtube' is a file and a folder"),
        'nothing for a name': (zipped(good, ('/', b'')), 'has an absolute path'),
        'zero byte in a name': (zipped(good, ('FVC2/a.mp4\0.txt', film)), 'has control characters'),
        'terminal codes in a name': (zipped(good, ('FVC2/\x1b[2J.mp4', film)), r"'FVC2/\x1b[2J.mp4' has control characters"),
        'line end in a name': (zipped(good, ('FVC2/a\n.mp4', film)), r"'FVC2/a\n.mp4' has control characters"),
        'name too long': (zipped(good, ('FVC2/' + 'x' * 300, film)), 'longer than 255 bytes'),
        'two names for one member': (patched(whole, GOOD.encode(), b'../../../../../escaped/a.mp4/x.mp4', 1), f"'{GOOD}' where the content says"),
        'bomb': (zipped((GOOD, bytes(3_000_000))), f"'{GOOD}' grows"),
        'bomb of small members': (zipped(*((f'FVC2/youtube/{n:011}/video.mp4', bytes(1 << 20)) for n in range(8))), 'in all'),
        'too much': (zipped((GOOD, noise * 8)), f"most of it in '{GOOD}'", 'stages.setup.max_gigabytes=0.001'),
        'claims terabytes': (central(central(whole, 24, '<I', 2**32 - 2), 20, '<I', 2**31), f"'{GOOD}' is cut short"),
        'overlapping members': (overlapping(), "overlaps"),
        'endless directory': (crowded(), 'directory'),
        'more than it says': (central(zipped((GOOD, noise)), 24, '<I', 1000), f"'{GOOD}'"),
        'far more than it says': (central(zipped((GOOD, bytes(70 << 20))), 24, '<I', 1000), f"'{GOOD}' does not match"),
        'less than it says': (central(whole, 24, '<I', len(film) + 1000), f"'{GOOD}'"),
        'wrong check sum': (patched(both, noise[:64], bytes(64)), f"'{GOOD}' does not match"),
        'unknown compression': (central(whole[:8] + b'\x61\0' + whole[10:], 10, '<H', 0x61), f"'{GOOD}' cannot be read"),
        'cut in the directory': (whole[:-40], 'FVC2.zip is not a complete zip'),
        'cut in a member': (both[:100_000], 'FVC2.zip is not a complete zip'),
        'bytes lost in a member': (both[:1000] + both[3000:], 'FVC2.zip'),
        'a web page': (b'<!doctype html><title>404</title>', 'FVC2.zip is not a complete zip'),
        'another archive': (b'Rar!\x1a\x07\x01\0' + noise, 'FVC2.zip is not a complete zip'),
        'nothing': (b'', 'FVC2.zip is not a complete zip'),
        'no member': (zipped(), 'FVC2.zip holds no video'),
        'wrong password': (locked(film, aes=False), 'FVC2.zip: the password is wrong', '', 'sesame'),
        'wrong password, AES': (locked(film, aes=True), 'FVC2.zip: the password is wrong', '', 'sesame'),
        'no password': (locked(film, aes=True), 'no password was given', '', None),
        'damaged under AES': (flipped(locked(film + noise, aes=True)), f"'{GOOD}'"),
        'damaged under ZipCrypto': (flipped(locked(film + noise, aes=False)), f"'{GOOD}'")}
    return {name: (*case, *('', PASSWORD)[len(case) - 2:]) for name, case in found.items()}


def tree(root):
    "Every file and folder with its content."
    return {str(p.relative_to(root)): p.is_file() and not p.is_symlink() and hashlib.sha1(p.read_bytes()).hexdigest()
            for p in sorted(root.rglob('*'))}


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    "A folder with sound archives FVC1, FVC3 and Metadata, and the hostile ones beside it."
    root = tmp_path_factory.mktemp('archives')
    for name in ('source', 'elsewhere', 'tmp', 'hostile'): (root / name).mkdir()
    rows = 'f0,good0000000,fake r0,real0000000,real f1,fake1111111,fake r1,real1111111,real'.split()
    lines = [f'{c},https://www.youtube.com/watch?v={v},{label}' for c, v, label in (r.split(',') for r in rows)]
    ids = {'FVC1': ('real0000000', 'fake1111111'), 'FVC3': ('real1111111',)}
    for n, (name, videos) in enumerate(ids.items()):
        members = {f'{name}/youtube/{v}/video.mp4': write_clip(root / 'tmp' / f'{v}.mp4', 9 * n + k, frames=2) for k, v in enumerate(videos)}
        write_zip(root / 'source' / f'{name}.zip', members)
    (root / 'tmp' / 'FVC.csv').write_text('cascade_id,video_url,label\n' + '\n'.join(lines) + '\n')
    write_zip(root / 'source' / 'Metadata.zip', {'FVC.csv': root / 'tmp' / 'FVC.csv'})
    for file in (root / 'tmp').iterdir(): file.unlink()
    return root


def command(here, monkeypatch, capsys, settings, password):
    "Exit code, sentence, seconds and growth of memory (MB) of `fvc setup`."
    monkeypatch.setattr(tempfile, 'tempdir', str(here / 'tmp'))
    for name in ('FVC_ARCHIVE_PASSWORD', 'FVC_ARCHIVE_PASSWORD_FILE', 'FVC_DEBUG'): monkeypatch.delenv(name, raising=False)
    if password: monkeypatch.setenv('FVC_ARCHIVE_PASSWORD', password)
    start, memory = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = ['setup', '--source', str(here / 'source'), '--data', str(here / 'work'), 'split.n_splits=2', 'stages.workers=1', *settings.split()]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20, limits[1]))  # no file beyond 32 MB, complete or not
    try: code = main(words)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('fvc: ')]
    return code, said, time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024


def test_hostile_archives_are_refused_whole(here, monkeypatch, capsys, subtests):
    hostile = cases(here)
    sound = {hashlib.sha1(content).hexdigest() for name in ('FVC1', 'FVC3', 'Metadata')
             for z in [zipfile.ZipFile(here / 'source' / f'{name}.zip')] for content in map(z.read, z.namelist())}
    for name, (data, says, settings, password) in hostile.items():
        with subtests.test(msg=name):
            (here / 'source' / 'FVC2.zip').write_bytes(data)
            before = tree(here)
            code, said, seconds, megabytes = command(here, monkeypatch, capsys, settings, password)
            after, left = tree(here), tree(here / 'work') if (here / 'work').exists() else {}
            shutil.rmtree(here / 'work', ignore_errors=True)
            assert code == 2 and len(said) == 1, (code, said)
            assert says in said[0] and ('FVC2.zip' in said[0] or not password), said[0]
            assert {k: v for k, v in after.items() if k.split('/')[0] != 'work'} == before
            assert {v for k, v in left.items() if v and k != '.lock'} <= sound, left  # what came before it, whole
            assert seconds < 30 and megabytes < 300, (seconds, megabytes)
    assert len(hostile) >= 20
    print(f'{len(hostile)} hostile archives refused')


def test_hostile_metadata_and_workspace(here, monkeypatch, capsys, subtests):
    "The archive of tables is read first, from a copy in the temporary folder; links that lie in the workspace are not followed."
    (here / 'source' / 'FVC2.zip').write_bytes(zipped((GOOD, write_clip(here / 'tmp' / 'b.mp4', 98, frames=2).read_bytes())))
    (here / 'tmp' / 'b.mp4').unlink()
    sound = (here / 'source' / 'Metadata.zip').read_bytes()
    table = zipfile.ZipFile(io.BytesIO(sound)).read('FVC.csv')
    hostile = {'two tables of one name': (zipped(('FVC.csv', table), ('deep/FVC.csv', table)), "'deep/FVC.csv' would be written over"),
               'climbing table': (zipped(('FVC.csv', table), ('../FVC_dup.csv', table)), "'../FVC_dup.csv' climbs out"),
               'table that is a link': (zipped((entry('FVC.csv', mode=stat.S_IFLNK), '/etc/passwd')), "'FVC.csv' is a symbolic link"),
               'endless table': (zipped(('FVC.csv', table + b'\n' * 3_000_000)), "'FVC.csv' grows")}
    for name, (data, says) in hostile.items():
        with subtests.test(msg=name):
            (here / 'source' / 'Metadata.zip').write_bytes(data)
            before = tree(here)
            code, said, *_ = command(here, monkeypatch, capsys, '', PASSWORD)
            assert code == 2 and len(said) == 1 and says in said[0] and 'Metadata.zip' in said[0], said
            assert tree(here) == before
    (here / 'source' / 'Metadata.zip').write_bytes(sound)
    with subtests.test(msg='link in the workspace'):
        (here / 'work').mkdir()
        (here / 'work' / 'videos').symlink_to(here / 'elsewhere')
        code, said, *_ = command(here, monkeypatch, capsys, '', PASSWORD)
        assert code == 2 and 'outside' in said[0] and not list((here / 'elsewhere').iterdir()), said
        shutil.rmtree(here / 'work')


def test_a_sound_archive_beside_them_passes_and_a_nested_one_fails_as_a_video(here, monkeypatch, capsys):
    film = write_clip(here / 'tmp' / 'c.mp4', 97, frames=2).read_bytes()
    (here / 'source' / 'FVC2.zip').write_bytes(zipped((GOOD, film), ('FVC2/youtube/nested00000/video.mp4', zipped(('../escaped.mp4', film)))))
    code, said, *_ = command(here, monkeypatch, capsys, '', PASSWORD)
    assert (code, said) == (0, [])
    rows = read_table(here / 'work' / 'video_index_input.csv').to_dicts()
    found = lambda name: next(r for r in rows if name in r['path'])
    assert found('good0000000')['status'] == 'ok' and 'is a zip archive' in found('nested00000')['reason']
    shutil.rmtree(here / 'work')
