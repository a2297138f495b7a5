"""README.md: the text of nbs/index.ipynb, with links that work in the repository."""
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def readme() -> str:
    "What README.md has to say."
    cells = json.loads((ROOT / 'nbs' / 'index.ipynb').read_text(encoding='utf-8'))['cells']
    text = '\n\n'.join(''.join(c['source']).strip() for c in cells if c['cell_type'] == 'markdown')
    return re.sub(r'\((names|howto/\w+)\.html\)', r'(nbs/\1.ipynb)', text) + '\n'


if __name__ == '__main__':
    (ROOT / 'README.md').write_text(readme(), encoding='utf-8')
