"""Small models of every kind, for the tests alone: what twenty-four models stand on must carry these."""
import torch
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from fvc.core.registry import Clip, Need, register_model
from fvc.learning.run_scores import SoftVote, members_of

FAST = {'training.epochs': 2, 'optim.lr': 0.01, 'training.device': 'cpu', 'data.variants': 1, 'data.frames': 2, 'data.size': 32}
CLIP = Clip(frames=2, size=32)


def linear():
    return make_pipeline(SimpleImputer(strategy='median', keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.1))


class Both(nn.Module):
    "A clip and the video's feature row, side by side."
    def __init__(self, features, outputs):
        super().__init__()
        self.see, self.head = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4 + features, outputs)

    def forward(self, clip, features):
        return self.head(torch.cat([self.see(clip).relu().mean((2, 3, 4)), features], 1))


@register_model('proof_both', inputs=('clip', 'features'), clip=CLIP, defaults=FAST)
def proof_both(task, shapes):
    return Both(shapes['features'][0], task.outputs)


@register_model('proof_table', kind='estimator', inputs=('features',), serves=('binary', 'multiclass'), variants={'stage2': {'data.stages': [2]}})
def proof_table():
    return linear()


class Net(nn.Module):
    "One convolution, with embeddings that others may learn from."
    def __init__(self, outputs):
        super().__init__()
        self.see, self.head = nn.Conv3d(3, 6, 3, stride=(1, 2, 2), padding=1), nn.Linear(6, outputs)

    def embed(self, clip):
        return self.see(clip).relu().mean((2, 3, 4))

    def forward(self, clip):
        return self.head(self.embed(clip))


@register_model('proof_net', clip=CLIP, defaults=FAST)
def proof_net(task):
    return Net(task.outputs)


@register_model('proof_trees', kind='embedding', clip=CLIP, defaults=FAST, serves=('binary', 'multiclass'), needs=lambda cfg: (Need('proof_net', inner=2),))
def proof_trees():
    return None, linear()


@register_model('proof_vote', kind='estimator', inputs=('scores',), needs=members_of)
def proof_vote(task, members: list[str] = ['proof_table', 'proof_table@stage2']):
    return SoftVote(task.outputs)


@register_model('proof_stack', kind='estimator', inputs=('scores',), serves=('binary', 'multiclass'), needs=members_of)
def proof_stack(members: list[str] = ['proof_table', 'proof_table@stage2']):
    return linear()


class Picture(nn.Module):
    "Colours of a photograph, and the steps between its columns."
    def __init__(self, outputs):
        super().__init__()
        self.see, self.head = nn.Conv2d(3, 8, (1, 5), padding=(0, 2)), nn.Linear(8, outputs)

    def forward(self, image):
        return self.head(self.see(image).relu().mean((2, 3)))


@register_model('proof_picture', inputs=('image',), defaults={'training.epochs': 25, 'optim.lr': 0.03, 'training.device': 'cpu', 'training.patience': 0, 'augment.hflip.p': None})
def proof_picture(task):
    return Picture(task.outputs)


class Own(nn.Module):
    "A mean over what is picture, whatever its shape; what fills a batch up is left out."
    def __init__(self, outputs):
        super().__init__()
        self.see, self.head = nn.Conv3d(3, 6, 1), nn.Linear(6, outputs)

    def forward(self, clip, mask=None):
        seen = self.see(clip).relu()
        if mask is None: return self.head(seen.mean((2, 3, 4)))
        mask = mask[:, None]
        return self.head((seen * mask).sum((2, 3, 4)) / mask.sum((2, 3, 4)))


@register_model('proof_own', clip=CLIP, defaults={**FAST, 'data.fit': 'own'}, variants={'padded': {'data.pad_batches': True}})
def proof_own(task):
    return Own(task.outputs)
