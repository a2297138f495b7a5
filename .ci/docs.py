"""Build the documentation site into _docs/: with Quarto where it is installed, else with smalldocs."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

from chapters import write_sidebar
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs


def build(root: Path, quarto: bool) -> Path:
    "The folder of the rendered site; raises SystemExit when a step fails."
    os.chdir(root)
    refresh_quarto_yml()
    write_sidebar(root)
    proc_nbs(force=True)
    if quarto:
        subprocess.run(['quarto', 'render', '_proc'], check=True)
    else:
        subprocess.run([Path(sys.executable).with_name('smalldocs'), 'render', '--quiet', '_proc'], check=True)
    sites = [p.parent for p in (root / '_proc').rglob('index.html') if p.parent.name in ('_docs', '_site')]
    if not sites:
        raise SystemExit('the site has no index.html: see the messages above')
    shutil.rmtree(root / '_docs', ignore_errors=True)
    shutil.copytree(sites[0], root / '_docs')
    return root / '_docs'


if __name__ == '__main__':
    print('the site is in', build(Path(__file__).resolve().parents[1], bool(shutil.which('quarto'))))
