"""Target 5: picking frames against torchcodec and decord2, all as RGB arrays with one decoder thread, opening included."""
import statistics
from collections.abc import Callable
from pathlib import Path

from measure import Server, say, spread
from verdict import Verdict

COUNTS = (6, 8, 16, 32)
DOUBTFUL, AGAIN = 1.15, 5  # a ratio above this is measured again in so many times the rounds, and the second figure counts
SIDES = [("fvc", "fvc.video.frames.pick_frames(clip, n)"),
         ("torchcodec", "VideoDecoder(clip, dimension_order='NHWC', num_ffmpeg_threads=1, seek_mode='exact').get_frames_at(indices)"),
         ("approximate", "the same with seek_mode='approximate': shown beside it, not counted, since its times are computed from the mean rate"),
         ("decord", "VideoReader(clip, num_threads=1).get_batch(indices)")]


def rounds(servers: dict, clip: Path, n: int, repeats: int) -> dict[str, list[dict]]:
    "Each library's answers; who begins changes from turn to turn."
    names, answers = list(servers), {name: [] for name in servers}
    for turn in range(repeats + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            answer = servers[name]('pick', path=clip, n=n)
            if turn: answers[name].append(answer)  # the first is a warm-up
    return answers


def agreeing(answers: dict[str, list[dict]]) -> set[str]:
    "Libraries that gave the same shape and the same presentation times as fvc."
    ours = answers['fvc'][0]['value']
    same = lambda theirs: 'error' not in theirs and theirs['shape'] == ours['shape'] and max(
        abs(a - b) for a, b in zip(ours['times'], theirs['times'])) < 0.002
    return {name for name, said in answers.items() if name != 'fvc' and same(said[0]['value'])}


def measured(servers: dict, clip: Path, n: int, repeats: int) -> tuple[dict[str, float], set[str], dict]:
    "Milliseconds by library, the libraries that count for this clip, and the answers."
    answers = rounds(servers, clip, n, repeats)
    took = {name: statistics.median(a['cpu'] for a in said) * 1000 for name, said in answers.items()}
    return took, agreeing(answers) & {'torchcodec', 'decord'}, answers


def ratio(took: dict[str, float], rivals: set[str]) -> float: return took['fvc'] / min(took[name] for name in rivals)


def compare(servers: dict, clips: list[Path], repeats: int) -> tuple[list, list, list]:
    "(ratio, clip, n, milliseconds by library) of every clip and count; disagreements; clips whose pixels differ from a straight decode."
    rows, odd, wrong = [], [], []
    for number, clip in enumerate(clips, 1):
        if not servers['fvc']('same_pixels', path=clip, counts=COUNTS)['value']: wrong.append(clip.name)
        for n in COUNTS:
            took, same, answers = measured(servers, clip, n, repeats)
            if same and ratio(took, same) > DOUBTFUL: took, same, answers = measured(servers, clip, n, AGAIN * repeats)
            odd += [f'{clip.name}, n={n}: {name}: {answers[name][0]["value"].get("error", "other frames or size")}'
                    for name in ('torchcodec', 'decord') if name not in same]
            if same: rows.append((ratio(took, same), clip.name, n, took))
        if number % 20 == 0: say(f'   {number} of {len(clips)} clips')
    return rows, odd, wrong


def profile(fvc: Server, clips: list[Path], rows: list) -> str:
    "Where the time goes on the clip with the largest ratio."
    _, name, n, _ = max(rows)
    given = dict(path=str(next(clip for clip in clips if clip.name == name)), n=n)
    return f'profile of {name}, n={n}, own time of functions: {fvc("profile", of="pick", given=given)["value"]}'


def told(row: tuple) -> str:
    ratio, name, n, took = row
    return f'{name}, n={n}: {ratio:.2f} (' + ', '.join(f'{library} {ms:.1f} ms' for library, ms in took.items()) + ')'


def judged(rows: list, odd: list, wrong: list, profiled: str, clips: int, repeats: int) -> Verdict:
    ratios = sorted(row[0] for row in rows)
    middle, worst = statistics.median(ratios), ratios[-1]
    by_count = {n: [row[0] for row in rows if row[2] == n] for n in COUNTS}
    over = sorted((row for row in rows if row[0] > 1.3), reverse=True)
    lines = [f'{clips} clips x {len(COUNTS)} counts, median of {repeats} rounds each ({AGAIN * repeats} where the first ratio was over {DOUBTFUL}): '
             f'ratio to the better of the two {spread(ratios)}',
             *(f'n={n}: {spread(values)}' for n, values in by_count.items()),
             f'over 1.3: {len(over)} of {len(rows)}', *(told(row) for row in over[:12]),
             f'largest five: ' + '; '.join(told(row) for row in sorted(rows, reverse=True)[:5]),
             profiled,
             f'picked frames equal a straight decode, times and pixels, on {clips - len(wrong)} of {clips} clips' + ': not ' * bool(wrong)
             + ', '.join(wrong),
             f'a rival gave other frames or failed, and was left out, {len(odd)} times' + (': ' + '; '.join(odd[:8]) if odd else '')]
    return Verdict(5, 'Picking frames against torchcodec and decord2', 'median at most 1.0, no clip over 1.3, the same frames and pixels',
                   f'median {middle:.2f}, largest {worst:.2f}, {len(wrong)} clips with other pixels', middle <= 1 and worst <= 1.3 and not wrong,
                   lines, [f'{name}: {text}' for name, text in SIDES],
                   'processor time of the call alone, in processes that have imported their library; the file is in the page cache',
                   'all three decode with libavcodec; fvc decodes less (of H.264 only what the wanted frames depend on), and reads the index '
                   'of files whose frames are in order; else it walks through the packets in Python, which shows on small pictures')


def picking(clips: list[Path], python: Path, repeats: int, every: int = 1, servers: Callable = Server) -> Verdict:
    "All decodable clips of the shared data, or every so many."
    if not clips: return Verdict(5, 'Picking frames', 'median at most 1.0', 'the shared clips are not here (set FVC_SHARED)', None, [], [])
    chosen = clips[::every]
    with servers('fvc') as fvc, servers('torchcodec', python) as exact, servers('approximate', python) as near, \
            servers('decord', python) as decord:
        found = compare(dict(fvc=fvc, torchcodec=exact, approximate=near, decord=decord), chosen, repeats)
        profiled = profile(fvc, chosen, found[0])
    return judged(*found, profiled, len(chosen), repeats)
