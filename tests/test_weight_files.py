"""Weights fetched from a server on the loopback: whole or absent, never larger than allowed, and the same ever after."""
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from conftest import ROOT
from fvc.core.weight_files import MissingWeights, Published, obtain
from fvc.learning import weights
from fvc.learning.pretraining import wanted_weights
from fvc.models.i3d import i3d
from fvc.running.cli import main
from fvc.scores.tasks import Task
from safetensors.torch import save as as_safetensors


class Server(ThreadingHTTPServer):
    "Files by their address; notes what was asked for."
    daemon_threads = True

    def __init__(self):
        self.files, self.asked, self.length, self.pause, self.sent = {}, [], None, 0, []
        super().__init__(('127.0.0.1', 0), Answer)

    def handle_error(self, *said): pass  # a client that hangs up

    @property
    def address(self): return f'http://127.0.0.1:{self.server_port}'


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self): self.answer(body=False)

    def do_GET(self): self.answer(body=True)

    def answer(self, body):
        held = self.server
        held.asked.append((self.command, self.path))
        found = held.files.get(self.path)
        if found is None: return self.send_error(404)
        self.send_response(200)
        if held.length != 0: self.send_header('Content-Length', str(len(found) if held.length is None else held.length))
        self.send_header('ETag', f'"{hashlib.sha256(found).hexdigest()}"')
        self.send_header('X-Repo-Commit', 'c' * 40)  # as the hub says which revision it is
        self.end_headers()
        if not body: return
        self.wfile.write(found[:len(found) // 2])
        self.wfile.flush()
        time.sleep(held.pause)
        held.sent.append(self.path)
        self.wfile.write(found[len(found) // 2:])

    def log_message(self, *said): pass


@pytest.fixture
def server():
    held = Server()
    thread = threading.Thread(target=held.serve_forever, daemon=True)
    thread.start()
    yield held
    held.shutdown()
    held.server_close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    "Torch's hub folder, empty."
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path))
    monkeypatch.delenv('FVC_WEIGHTS', raising=False)
    return tmp_path / 'checkpoints'


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def kept(home): return sorted(p.name for p in home.iterdir()) if home.is_dir() else []


def small(server, **changed):
    "A source on the server, whose file is a small layer's."
    server.files['/net.pth'] = changed.pop('file', saved(torch.nn.Linear(64, 9).state_dict()))
    vars(server).update(changed)
    return Published('small', f'{server.address}/net.pth')


def test_the_command_lists_fetches_and_checks_what_a_model_starts_from(server, home, monkeypatch, capsys):
    monkeypatch.setattr(weights, 'KINETICS', server.address)
    trunk = {k.removeprefix('backbone.'): v for k, v in i3d(Task(), width=8, pretrained=False).state_dict().items() if k.startswith('backbone.')}
    server.files['/I3D_8x8_R50.pyth'] = published = saved({'model_state': trunk | {'blocks.6.proj.weight': torch.ones(400, 4)}})

    def said(*words, code=0):
        assert main(['weights', *words, '--json']) == code
        return json.loads(capsys.readouterr().out)
    line, = said('list', 'i3d', 'model.width=8')
    assert (line['state'], line['source'], server.asked) == ('absent', f'{server.address}/I3D_8x8_R50.pyth', [])
    line, = said('fetch', 'i3d', 'model.width=8')
    assert line['state'] == 'here' and Path(line['file']).read_bytes() == published
    assert line['sha256'] == hashlib.sha256(published).hexdigest()[:12] == (home / 'i3d_r50.pyth.sha256').read_text()[:12]
    assert said('check', 'i3d')[0]['state'] == 'holds' and said('fetch', 'i3d', 'model.width=8') == [line] and len(server.asked) == 1, 'what is here is not fetched again'
    assert i3d(Task(), width=8).origin.endswith(hashlib.sha256(published).hexdigest())
    Path(line['file']).write_bytes(saved({'model_state': {k: v + 1 for k, v in trunk.items()}}))
    assert said('check', 'i3d', code=1)[0]['state'] == 'CHANGED'
    assert main(['weights', 'fetch', 'i3d', 'model.width=8']) == 2
    error = capsys.readouterr().err
    assert 'is not the file that was fetched first' in error and str(home / 'i3d_r50.pyth.sha256') in error and len(error.strip().splitlines()) == 1
    assert main(['weights', 'fetch']) == 2 and 'no model named' in capsys.readouterr().err


def test_every_variant_is_listed():
    found = {s.name: models for s, models in wanted_weights().items()}
    assert found['x3d_l'] == ['x3d@l'] and found['x3d_xs'] == ['x3d@xs'] and found['vit_base_patch16_224'] == ['vit_gru', 'vit_transformer']


def test_weights_that_do_not_fit_the_model_are_told_when_they_are_fetched(server, home, monkeypatch, capsys):
    monkeypatch.setattr(weights, 'KINETICS', server.address)
    server.files['/I3D_8x8_R50.pyth'] = saved({'blocks.0.weight': torch.ones(2)})
    assert main(['weights', 'fetch', 'i3d', 'model.width=8']) == 2
    assert 'does not fit I3D' in capsys.readouterr().err


@pytest.mark.parametrize('changed, error, says', [
    (dict(length=10**6), MissingWeights, 'it ended after .* of 1000000 bytes'),
    (dict(file=b'<html>Not here any more</html>'), ValueError, 'is no file of weights')])
def test_a_download_that_is_cut_short_or_no_weights_leaves_nothing(server, home, changed, error, says):
    source = small(server, **changed)
    with pytest.raises(error, match=says): obtain(source)
    assert [n for n in kept(home) if not n.endswith('.lock')] == [] and source.recorded == ''
    server.length = None
    small(server)
    assert obtain(source)[0].is_file(), 'and the next try starts afresh'


@pytest.mark.parametrize('length', [5 * 10**9, 0])
def test_a_file_that_is_too_large_is_refused(server, home, length):
    "By what the server says before, and by what comes where it says nothing."
    source = small(server, length=length, pause=3 if length else 0)
    with pytest.raises(ValueError, match='net.pth is larger than .* GB .*--max-gb'): obtain(source, 4.0 if length else 1e-6)
    assert [n for n in kept(home) if not n.endswith('.lock')] == []
    if length: assert not server.sent, 'nobody waits for a file that will be refused'
    else: assert obtain(source, 1e-5)[0].is_file()


def test_a_server_that_has_no_such_file_is_named(server, home):
    with pytest.raises(MissingWeights, match=r"'other'.*other.pth \(HTTP Error 404.*FVC_WEIGHTS"): obtain(Published('other', f'{server.address}/other.pth'))


def test_an_interrupted_download_leaves_nothing_under_its_name(server, tmp_path):
    source = small(server, pause=30)
    code = f'from fvc.core.weight_files import *; import torch; torch.hub.set_dir({str(tmp_path)!r}); obtain(Published("small", {source.address!r}))'
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # also where these tests run in the background of a shell
    with subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.DEVNULL, preexec_fn=heard) as fetching:
        for _ in range(600):
            if server.asked: break
            time.sleep(0.1)
        time.sleep(0.5)
        fetching.send_signal(signal.SIGINT)
    assert fetching.returncode and server.asked and [n for n in kept(tmp_path / 'checkpoints') if not n.endswith('.lock')] == []


def test_several_that_want_a_file_at_once_fetch_it_once(server, home):
    source, found = small(server, pause=0.3), []
    threads = [threading.Thread(target=lambda: found.append(obtain(source)[1])) for _ in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(found) == 3 and len(set(found)) == 1 and len(server.asked) == 1


def test_weights_of_the_hub_are_fetched_recorded_and_taken_from_its_cache(server, tmp_path):
    "The command in a process of its own, told that the hub is on the loopback; the second time without any hub."
    server.files['/timm/test_vit.r160_in1k/resolve/main/model.safetensors'] = file = as_safetensors(timm.create_model('test_vit').state_dict())
    quiet = {k: v for k, v in os.environ.items() if k != 'FVC_WEIGHTS'}

    def weights_command(*words, **more):
        run = subprocess.run([sys.executable, '-c', 'import sys; from fvc.running.cli import main; sys.exit(main())', 'weights', *words, 'vit_gru', 'model.vit=test_vit', '--json'], cwd=ROOT,
                             env={**quiet, 'HF_HOME': str(tmp_path / 'hf'), 'TORCH_HOME': str(tmp_path / 'torch'), 'HF_ENDPOINT': server.address, **more}, capture_output=True, text=True)
        return run.returncode, json.loads(run.stdout) if run.stdout.strip() else run.stderr
    code, said = weights_command('fetch', '--max-gb', '0.0001')
    assert code == 2 and 'hub timm/test_vit.r160_in1k is larger than 0.0001 GB' in said, said
    code, said = weights_command('fetch')
    assert code == 0, said
    assert (said[0]['state'], said[0]['sha256']) == ('here', hashlib.sha256(file).hexdigest()[:12]) and Path(said[0]['file']).read_bytes() == file
    asked = len(server.asked)
    assert weights_command('check', HF_HUB_OFFLINE='1')[1][0]['state'] == 'holds' and len(server.asked) == asked
