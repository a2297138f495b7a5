"""The chapters of the library, lowest first, and the site's sidebar that follows from them.

An exported cell imports only from earlier notebooks of its chapter, or from chapters before it; a chapter is a folder of `nbs/` and a package of `fvc/` with one name."""
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ('core', 'engine', 'video', 'forensics', 'scores', 'corpus', 'learning', 'models', 'stages', 'evidence', 'running')
AFTER = {'running.model_training': 'notebooks', 'evidence.report': 'audit'}  # modules of stage notebooks: the notebook of the chapter that they follow
TITLES = {'core': 'Core', 'engine': 'Engine', 'video': 'Video', 'forensics': 'Forensics', 'scores': 'Scores', 'corpus': 'Corpus', 'learning': 'Learning',
          'evidence': 'Evidence', 'running': 'Running', 'howto': 'How to'}  # models and stages stand in nbs/ itself


def sidebar(root: Path = ROOT) -> str:
    "The text of nbs/sidebar.yml: the tour, stages and models, how-to pages, then the chapters."
    nbs = root / 'nbs'
    own = [p.name for p in nbs.glob('*.ipynb') if p.stem not in ('index', 'names')]
    contents = ['index.ipynb', *sorted(own), 'names.ipynb']
    for folder in ('howto', *CHAPTERS):
        pages = sorted(p.relative_to(nbs).as_posix() for p in (nbs / folder).glob('*.ipynb'))
        if pages: contents.append({'section': TITLES[folder], 'contents': pages})
    return yaml.safe_dump({'website': {'sidebar': {'contents': contents}}}, sort_keys=False)


def write_sidebar(root: Path = ROOT):
    "Bring nbs/sidebar.yml up to date."
    (root / 'nbs' / 'sidebar.yml').write_text(sidebar(root), encoding='utf-8')


if __name__ == '__main__': write_sidebar()
