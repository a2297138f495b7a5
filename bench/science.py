"""Does the sample measure what it should? Whole corpora, from archives to scores, by the seeds below.

At the default strength the logistic regression on stage 2's features (5a) must reach a mean AUC of at least 0.75 (every group
alike, pairs within folds), and at least 0.10 more than a model that sees only metadata. At strength 0 nothing distinguishes
the labels, and its mean must lie between 0.45 and 0.55. Every figure is printed; the exit code is 1 when one claim fails.
Corpora that are finished are kept in --results and not made again.
"""
import argparse, contextlib, io, json, os, sys, tempfile, time
from pathlib import Path

import numpy as np

os.environ['TQDM_DISABLE'] = '1'  # one line a corpus is progress enough


def measure_corpus(seed: int,  # of the corpus
                   strength: float | None,  # None: the default of make_sample
                   settings: dict,  # further settings of make_sample
                   copies: int,  # augmented copies a video that 5a is trained on
                   ) -> dict:  # auc of 5a, auc of metadata alone, seconds
    "Make a corpus, run stages 0 to 2, train 5a on all folds and score both."
    from fvc.running.experiment import run_fold
    from fvc.evidence.floors import metadata_floor
    from fvc.scores.intervals import group_bootstrap
    from fvc.learning.runs import Run
    from fvc.corpus.sample import SAMPLE_PASSWORD, make_sample
    from fvc.stages.augmentation import stage1_augment_videos
    from fvc.stages.features import stage2_extract_features
    from fvc.stages.setup import setup
    from fvc.core.workspace import Workspace
    began = time.time()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        place, chosen = Path(folder) / 'data', {} if strength is None else {'strength': strength}
        archives = make_sample(Path(folder) / 'archives', seed, password=SAMPLE_PASSWORD, **settings, **chosen)
        setup(archives, str(place), password=SAMPLE_PASSWORD)
        stage1_augment_videos(str(place), f'stages.augmentation.num_augmentations={copies}')
        stage2_extract_features(str(place))
        corpus = Workspace(place).require()
        folds = sorted(corpus.read_folds()['fold'].unique())
        results = [run_fold('logistic_regression', int(fold), str(place), 'variant=stage2') for fold in folds]
        pred = Run(corpus, results[0].run).predictions()
        auc, floor = (group_bootstrap(p, 'auc', n=2).value for p in (pred, metadata_floor(corpus)))
    return dict(auc=auc, floor=floor, videos=len(pred), folds=len(results), seconds=round(time.time() - began))


def collect(name: str, count: int, known: dict, results: Path, **settings) -> list[dict]:
    "One line a corpus, measured now or read from the results."
    rows = []
    for seed in range(count):
        key = f'{name} seed {seed} ' + json.dumps(settings, sort_keys=True)
        if key not in known:
            known[key] = measure_corpus(seed, **settings)
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(known, indent=1))
        row = known[key]
        rows.append(row)
        print(f"{name} seed {seed:2}   5a {row['auc']:.3f}   metadata {row['floor']:.3f}   "
              f"{row['videos']} videos, {row['seconds']} s", flush=True)
    return rows


def main() -> int:
    "Print all figures and whether the claims hold."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--default-seeds', type=int, default=10, help='corpora at the default strength')
    p.add_argument('--control-seeds', type=int, default=20, help='small corpora at strength 0')
    p.add_argument('--copies', type=int, default=10, help='augmented copies a video')
    p.add_argument('--results', type=Path, default=Path(__file__).resolve().parent.parent / 'papermill_runs' / 'science.json')
    a = p.parse_args()
    known = json.loads(a.results.read_text()) if a.results.is_file() else {}
    default = collect('default', a.default_seeds, known, a.results, strength=None, settings={}, copies=a.copies)
    control = collect('control', a.control_seeds, known, a.results, strength=0.0,
                      settings=dict(seconds=1, side=200), copies=2)
    claims = []
    if default:
        auc, floor = (np.nanmean([row[k] for row in default]) for k in ('auc', 'floor'))
        claims += [(f'default: 5a mean {auc:.3f}, at least 0.75', auc >= .75),
                   (f'default: {auc - floor:.3f} above metadata ({floor:.3f}), at least 0.10', auc - floor >= .1)]
    if control:
        auc = np.nanmean([row['auc'] for row in control])
        claims.append((f'strength 0: 5a mean {auc:.3f}, within 0.45 and 0.55', .45 <= auc <= .55))
    for text, holds in claims: print('holds ' if holds else 'FAILS ', text)
    return 0 if all(holds for _, holds in claims) else 1


if __name__ == '__main__': sys.exit(main())
