"""Speed and memory against the targets, both sides in one run: prints every figure and writes bench/RESULTS.md.

Needs Debian's ffmpeg (apt-get install ffmpeg). torchcodec and decord2 are put into bench/.venv, away from the library.
The exit code is 0 when every measured target is met, 1 when one is missed.
"""
import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import accelerator, encoding, models, orchestration, picking, pipeline, startup, surroundings
from measure import HERE, ROOT, say
from verdict import Verdict

NAMES = {1: 'stages', 2: 'stage 3 against ffmpeg', 3: 'stage 1 against ffmpeg', 4: 'maths', 5: 'picking', 6: 'length', 7: 'two workers', 8: 'start', 9: 'cluster', 10: 'models', 11: 'a GPU'}
NO_VIDEOS = {9, 10, 11}  # these look at none of the four clips


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--targets', default=','.join(map(str, NAMES)), help='numbers: ' + ', '.join(f'{n} {name}' for n, name in NAMES.items()))
    p.add_argument('--pairs', type=int, default=5, help='pairs a figure (short ones get three times as many, target 2 forty times)')
    p.add_argument('--clips', default='', help='folder with the four clips; else they are fetched once into bench/.cache')
    p.add_argument('--every', type=int, default=1, help='target 5: only every so many of the shared clips')
    p.add_argument('--minutes', type=float, default=60, help='target 6: length of the long video')
    p.add_argument('--hd-seconds', type=float, default=60, help='target 6: length of the 1080p video')
    p.add_argument('--runs', type=int, default=24, help='target 9: runs that are submitted, five folds each')
    p.add_argument('--results', type=Path, default=HERE / 'RESULTS.md', help='where to write')
    return p.parse_args()


def measured(number: int, a: argparse.Namespace, clips: dict):
    if number == 1: return pipeline.stages(clips, a.pairs)
    if number == 2: return encoding.scaling(clips, a.pairs)
    if number == 3: return encoding.augmenting(clips, a.pairs)
    if number == 4: return startup.maths(clips, a.pairs)
    if number == 5: return picking.picking(surroundings.shared_clips(), surroundings.rivals(), a.pairs, a.every)
    if number == 6: return pipeline.length(clips, a.minutes, a.hd_seconds)
    if number == 7: return pipeline.two_workers(clips, a.pairs)
    if number == 8: return startup.startup(a.pairs)
    if number == 9: return orchestration.orchestration(a.pairs, a.runs)
    if number == 10: return models.models_verdict(a.pairs)
    return accelerator.accelerator(4 * a.pairs)


def told_before(place: Path) -> tuple[dict[int, str], dict[int, str]]:
    "Lines of the table and sections of a page, by target: what this run does not measure stays as it was."
    text = place.read_text() if place.is_file() else ''
    rows = {int(m[1]): m[0] for m in re.finditer(r'^\| (\d+) \|.*$', text, re.MULTILINE)}
    return rows, {int(part[3:].partition('.')[0]): part.strip() for part in re.split(r'^(?=## \d+\. )', text, flags=re.MULTILINE)[1:]}


def page(place: Path, v: Verdict) -> str:
    "The results as a page, one section a target."
    rows, sections = told_before(place)
    rows[v.number], sections[v.number] = f'| {v.number} | {v.title} | {v.limit} | {v.found} | {v.word.lower()} |', v.markdown()
    table, parts = '\n'.join(rows[n] for n in sorted(rows)), '\n\n'.join(sections[n] for n in sorted(sections))
    return (f'# Speed and memory\n\nMade by `make bench`.\nProcessor seconds are user + system time of a process and its children; figures are medians '
            f'(least to most).\n\n| | Target | Limit | Found | |\n|---|---|---|---|---|\n{table}\n\n{parts}\n').replace(f'{ROOT}/', '')


def main() -> int:
    a, verdicts = options(), []
    numbers, clips = [int(n) for n in a.targets.split(',')], {}
    if set(numbers) - NO_VIDEOS:
        surroundings.need_ffmpeg()
        clips = surroundings.clips(a.clips)
    for number in numbers:
        say(f'target {number}: {NAMES[number]}')
        left_out = {5: f', every {a.every}. clip', 6: f', {a.minutes:g} minutes and {a.hd_seconds:g} s of 1080p, once', 9: f', {a.runs} runs'}
        verdicts.append(replace(measured(number, a, clips), run=f'--pairs {a.pairs}{left_out.get(number, "")}, on {surroundings.machine()}'))
        print(verdicts[-1].text(), flush=True)
        a.results.write_text(page(a.results, verdicts[-1]))
    missed = [str(v.number) for v in verdicts if v.met is False]
    print(f'targets missed: {", ".join(missed)}' if missed else 'all measured targets are met')
    return bool(missed)


if __name__ == '__main__': sys.exit(main())
