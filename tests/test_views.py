"""Several views at evaluation: what happens outside the middle of a longer video is seen."""
import numpy as np
import polars as pl
import pytest
import torch
from fvc.core.config import compose
from fvc.core.registry import spec_of
from fvc.learning.clips import ClipInput
from fvc.learning.detector import Detector, Member
from fvc.learning.fitting import file_settings
from fvc.scores.tasks import Task
from fvc.video.toy_videos import write_toy_video

RATE = 12


class Board(torch.nn.Module):
    "Answers to the checkerboard that a forgery carries here; constructed, so that nothing but the view decides."
    def forward(self, clip):
        contrast = (clip[..., 1:] - clip[..., :-1]).abs().mean((1, 2, 3, 4))
        return 2000 * contrast[:, None] - 8


def film(path, seconds, forged=(0, 0)):
    "A grey video with the checkerboard between two moments, seconds."
    board = np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((4, 4))) * 160 + 40
    moments = np.arange(seconds * RATE) / RATE
    frames = [board.astype(np.uint8) if forged[0] <= moment < forged[1] else np.full((64, 64), 120, np.uint8) for moment in moments]
    return write_toy_video(path, frames, RATE)


def looking(words=''):
    "A detector that sees a second at a time."
    spec = spec_of('naive_cnn')
    cfg = compose(spec, f'data.frames=4 data.size=64 data.span=1.0 {words}')
    return Detector(spec, cfg, Task(), [Member(Board())], about=dict(thresholds=[0.5], tables=file_settings(cfg, [3])))


@pytest.mark.parametrize('seconds', [6, 15])
def test_a_forgery_in_the_last_second_is_seen_by_several_views_alone(tmp_path, seconds):
    "Six windows cover six seconds; of fifteen seconds ten windows leave gaps, but none at the end."
    whole, late, middle = film(tmp_path / 'real.mp4', seconds), film(tmp_path / 'late.mp4', seconds, (seconds - 1, seconds)), film(tmp_path / 'middle.mp4', seconds, (seconds / 2 - 1, seconds / 2 + 1))
    asked = [str(p) for p in (whole, late, middle)]
    found = {name: looking(words).score_paths(asked) for name, words in dict(views='', highest='data.pool=max', one='data.views=1').items()}
    assert all(table['reason'].is_null().all() for table in found.values())
    assert found['views']['decision'].to_list() == found['highest']['decision'].to_list() == [0, 1, 1]
    assert found['one']['decision'].to_list() == [0, 0, 1], 'a single view looks at the middle'
    assert found['highest']['score'][1] > found['views']['score'][1] > 0.5 > found['one']['score'][1]


def test_rows_of_the_workspace_are_seen_as_files_are(tmp_path):
    late = film(tmp_path / 'late.mp4', 6, (5, 6))
    row = pl.DataFrame([{'video_id': 'v', 'variant': 'original', 'clip.path': str(late), 'clip.width': 64, 'clip.height': 64, 'clip.frames': 72, 'clip.duration': 6.0}])
    assert looking().score(row).item() > 0.5 > looking('data.views=1').score(row).item()
    assert ClipInput().views(row.row(0, named=True), looking().cfg) == 6
