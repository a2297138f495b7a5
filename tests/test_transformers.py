"""Transformers of this project give what the publishers' own code gives, with the same weights, through the path that loads published files.

Weak weights prove nothing: with deviations of 0.05 a wrong activation moves a logit by 3e-7. These are strong."""
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer
from transformers import TimesformerConfig, TimesformerForVideoClassification, VivitConfig, VivitForVideoClassification
from fvc.learning.weights import FrameViT, MissingWeights, rename_tensors
from fvc.models.timesformer import NAMES, timesformer
from fvc.models.vit_gru import vit_gru
from fvc.models.vivit import vivit
from fvc.scores.tasks import Task

FOUR = Task('multiclass', ('a', 'b', 'c', 'd'))
SMALL = dict(width=64, depth=2, heads=4)  # of a transformer
HUGGING = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, num_labels=4)  # the same, in their words


@torch.no_grad()
def strengthen(network, seed=0):
    "Random weights of deviation 1.5/√fan_in, everything else 0.3 around what it is."
    torch.manual_seed(seed)
    for name, p in network.named_parameters():
        fan = p[0].numel() if p.ndim > 1 and 'embed' not in name.rpartition('.')[2] else 0
        if fan and 'token' not in name: nn.init.normal_(p, std=1.5 / fan ** 0.5)
        else: p.add_(0.3 * torch.randn_like(p))
    return network.eval()


def gap(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def keep(network, folder, name, monkeypatch):
    "A published file, as its publishers' library writes it, in the folder that FVC_WEIGHTS names."
    if hasattr(network, 'save_pretrained'):
        network.save_pretrained(folder)
        (folder / 'model.safetensors').rename(folder / f'{name}.safetensors')
    else: save_file({k: v.contiguous() for k, v in getattr(network, 'state_dict', lambda: network)().items()}, folder / f'{name}.safetensors')
    monkeypatch.setenv('FVC_WEIGHTS', str(folder))


# ---- ViT, frame by frame

TORCHVISION = {'class_token': 'cls_token', 'encoder.pos_embedding': 'pos_embed', 'conv_proj.': 'patch_embed.proj.', 'encoder.layers.encoder_layer_': 'blocks.', 'encoder.ln.': 'norm.',
               '.ln_1.': '.norm1.', '.ln_2.': '.norm2.', '.self_attention.in_proj_': '.attn.qkv.', '.self_attention.out_proj.': '.attn.proj.', '.mlp.0.': '.mlp.fc1.',
               '.mlp.3.': '.mlp.fc2.', '.mlp.linear_1.': '.mlp.fc1.', '.mlp.linear_2.': '.mlp.fc2.', 'heads.head.': 'head.'}


def test_vit_equals_torchvisions(tmp_path, monkeypatch):
    "timm's ViT, loaded from a file by its name, says of every frame what torchvision's says."
    theirs = strengthen(VisionTransformer(160, 16, 6, 2, 64, 192, num_classes=1000))
    state = {}
    for name, value in theirs.state_dict().items():
        for old, new in TORCHVISION.items(): name = name.replace(old, new)
        state[name] = value
    assert state.keys() == timm.create_model('test_vit').state_dict().keys()
    keep(state, tmp_path, 'test_vit', monkeypatch)
    network = vit_gru(FOUR, {'clip': (3, 3, 160, 160)}, 'test_vit').eval()
    clip = torch.rand(2, 3, 3, 160, 160)
    theirs.heads = nn.Identity()
    with torch.inference_mode():
        ours = network.frames(clip)
        each = torch.stack([theirs((clip[:, :, t] - 0.5) / 0.5) for t in range(3)], 1)  # mean and deviation of timm's weights
    assert ours.std() > 0.5 and gap(ours, each) < 1e-4
    assert network.origin.startswith('FVC_WEIGHTS, test_vit.safetensors, sha256 ')


def test_absent_vit_weights_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv('FVC_WEIGHTS', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(MissingWeights, match="'vit_base_patch16_224'.*vit_base_patch16_224.safetensors.*pretrained=false"):
        FrameViT('vit_base_patch16_224', (224, 224), True, False)


# ---- TimeSformer

def their_timesformer(attention, frames=3, side=48):
    config = TimesformerConfig(**HUGGING, image_size=side, num_frames=frames, attention_type=f'{attention}_space_time')
    return strengthen(TimesformerForVideoClassification(config))


@pytest.mark.parametrize('attention', ['divided', 'joint'])
def test_timesformer_equals_the_published_code(attention, tmp_path, monkeypatch):
    theirs, clip = their_timesformer(attention), torch.rand(2, 3, 3, 48, 48)
    keep(theirs, tmp_path, 'timesformer_k400', monkeypatch)
    ours = timesformer(FOUR, {'clip': (3, 3, 48, 48)}, attention, pretrained=False, **SMALL).eval()
    if attention == 'joint':
        with pytest.raises(ValueError, match='no Kinetics weights are published for attention=joint'): timesformer(FOUR, {'clip': (3, 3, 48, 48)}, attention, **SMALL)
        ours.load_state_dict(rename_tensors(theirs.state_dict(), NAMES, ('classifier.',)), strict=False)
    else:
        ours = timesformer(FOUR, {'clip': (3, 3, 48, 48)}, **SMALL).eval()
        assert ours.origin.startswith('FVC_WEIGHTS, timesformer_k400.safetensors, sha256 ')
    ours.head[1].load_state_dict(theirs.classifier.state_dict())
    with torch.inference_mode():
        expected = theirs((clip.transpose(1, 2) - 0.45) / 0.225).logits
        said = ours(clip)
        assert expected.std() > 0.3 and gap(said, expected) < 1e-4
        assert gap(ours(clip[:, :, [1, 0, 2]]), expected) > 1e-2  # another order of frames is another answer
        approximate = [setattr(b.mlp.act, 'approximate', 'tanh') for b in ours.blocks]
        assert len(approximate) == 2 and gap(ours(clip), expected) > 1e-4  # a wrong activation would be seen


def test_timesformer_resamples_published_positions(tmp_path, monkeypatch):
    theirs = their_timesformer('divided')
    keep(theirs, tmp_path, 'timesformer_k400', monkeypatch)
    ours = timesformer(FOUR, {'clip': (3, 6, 96, 64)}, **SMALL)
    assert ours.pos_embed.shape == (1, 1 + 6 * 4, 64) and ours.time_embed.shape == (1, 6, 64)
    published = theirs.timesformer.embeddings
    assert gap(ours.time_embed[:, [0, 5]], published.time_embeddings[:, [0, 2]]) < 1e-6 and gap(ours.pos_embed[:, 0], published.position_embeddings[:, 0]) == 0
    assert ours(torch.rand(1, 3, 6, 96, 64)).shape == (1, 4)


@pytest.fixture
def tiny_vit(tmp_path, monkeypatch):
    "Strong weights of ViT-Tiny in the folder of one's own; gives a trunk that has them, for frames of 48 pixels."
    keep(strengthen(timm.create_model('vit_tiny_patch16_224')), tmp_path, 'vit_tiny_patch16_224', monkeypatch)
    return FrameViT('vit_tiny_patch16_224', (48, 48), True, False).eval()


TINY = dict(width=192, depth=12, heads=3, vit='vit_tiny_patch16_224', weights='imagenet')


def test_inflated_timesformer_sees_still_frames_as_the_vit_does(tiny_vit):
    ours = timesformer(FOUR, {'clip': (3, 3, 48, 48)}, **TINY).eval()
    still = torch.rand(2, 3, 1, 48, 48).expand(-1, -1, 3, -1, -1)
    with torch.inference_mode():
        theirs = tiny_vit(still)[:, 0]
        assert theirs.std() > 0.5 and gap(ours.embed(still), theirs) < 1e-3
    block, source = ours.blocks[7], tiny_vit.net.net.blocks[7]
    assert gap(block.temporal_attn.qkv.weight, source.attn.qkv.weight) == 0 and gap(block.temporal_norm.bias, source.norm1.bias) == 0
    assert not block.temporal_fc.weight.any() and ours.origin.startswith('FVC_WEIGHTS, vit_tiny_patch16_224.safetensors, sha256 ')
    assert gap(ours.normalize.mean, torch.full((3,), 0.5)) == 0  # of the weights it has


def test_inflated_joint_attention_has_the_weights_of_the_vit(tiny_vit):
    ours = timesformer(FOUR, {'clip': (3, 3, 48, 48)}, attention='joint', **TINY)
    theirs = tiny_vit.net.net.state_dict()
    own = {k: v for k, v in ours.state_dict().items() if k.startswith(('blocks.', 'norm.', 'pos_embed', 'cls_token'))}
    assert len(own) == len(theirs) - 2 and all(torch.equal(v, theirs[k]) for k, v in own.items())


def test_timesformer_says_what_it_cannot_do():
    for given, words in ((dict(attention='spatial'), 'model.attention=spatial: divided or joint'), (dict(weights='jft'), 'model.weights=jft'), ({}, 'multiples of 16')):
        with pytest.raises(ValueError, match=words): timesformer(FOUR, {'clip': (3, 3, 50, 50)}, pretrained=False, **given)
    with pytest.raises(ValueError, match='data.fit=own'): timesformer(FOUR, {'clip': (3, 3, None, None)}, pretrained=False)
    with pytest.raises(ValueError, match='a clip of 3x64x48 .*takes 3x48x64'): timesformer(FOUR, {'clip': (3, 3, 48, 64)}, pretrained=False, **SMALL)(torch.rand(1, 3, 3, 64, 48))


# ---- ViViT

def their_vivit(side=48):
    return strengthen(VivitForVideoClassification(VivitConfig(**HUGGING, image_size=side, num_frames=32)))


def test_vivit_equals_the_published_code(tmp_path, monkeypatch):
    theirs, clip = their_vivit(), torch.rand(2, 3, 32, 48, 48)
    keep(theirs, tmp_path, 'vivit_k400', monkeypatch)
    ours = vivit(FOUR, {'clip': (3, 32, 48, 48)}, **SMALL).eval()
    assert ours.origin.startswith('FVC_WEIGHTS, vivit_k400.safetensors, sha256 ')
    ours.head[1].load_state_dict(theirs.classifier.state_dict())
    with torch.inference_mode():
        expected = theirs(clip.transpose(1, 2) * 2 - 1).logits  # pictures in [-1, 1]
        assert expected.std() > 0.3 and gap(ours(clip), expected) < 1e-4
        assert gap(ours(clip.roll(2, 2)), expected) > 1e-2  # another order of tubelets is another answer
        exact = [setattr(b.mlp.act, 'approximate', 'none') for b in ours.encoder.blocks]
        assert len(exact) == 2 and gap(ours(clip), expected) > 1e-4  # a wrong activation would be seen


def test_vivit_resamples_published_positions(tmp_path, monkeypatch):
    theirs = their_vivit()
    keep(theirs, tmp_path, 'vivit_k400', monkeypatch)
    ours, published = vivit(FOUR, {'clip': (3, 8, 96, 48)}, **SMALL), theirs.vivit.embeddings.position_embeddings
    assert ours.encoder.pos_embed.shape == (1, 1 + 4 * 6 * 3, 64) and gap(ours.encoder.pos_embed[:, 0], published[:, 0]) == 0
    grid, given = ours.encoder.pos_embed[0, 1:].view(4, 6, 3, 64), published[0, 1:].view(16, 3, 3, 64)
    assert gap(grid[:, 0], given.view(4, 4, 3, 3, 64)[:, 1:3, 0].mean(1)) < 1e-5  # four moments of sixteen; the first row of six is at the edge
    assert ours(torch.rand(1, 3, 8, 96, 48)).shape == (1, 4)


@pytest.mark.parametrize('tubelet, centre', [(2, 1), (4, 2)])
def test_inflated_vivit_looks_at_the_central_frames(tubelet, centre, tiny_vit):
    ours = vivit(FOUR, {'clip': (3, 8, 48, 48)}, tubelet=tubelet, **TINY)
    theirs, moments = tiny_vit.net.net, 8 // tubelet
    central = torch.arange(8) % tubelet == centre
    clip = torch.rand(2, 3, 8, 48, 48)
    with torch.inference_mode():
        tokens = ours.tubelets(ours.normalize(clip)).flatten(3)
        patches = torch.stack([theirs.patch_embed.proj(ours.normalize(clip)[:, :, t]).flatten(2) for t in central.nonzero().flatten()], 2)
        assert tokens.std() > 0.5 and gap(tokens, patches) < 1e-4
        noise = torch.where(central[:, None, None], clip, torch.rand_like(clip))
        assert gap(ours(noise), ours(clip)) == 0
    assert gap(ours.encoder.pos_embed[:, 1:].unflatten(1, (moments, 9)), theirs.pos_embed[:, None, 1:].expand(-1, moments, -1, -1)) == 0
    assert gap(ours.encoder.blocks[7].attn.qkv.weight, theirs.blocks[7].attn.qkv.weight) == 0


def test_factorised_vivit_sees_each_moment_as_the_vit_does(tiny_vit):
    ours = vivit(FOUR, {'clip': (3, 8, 48, 48)}, 'factorised', temporal_depth=2, **TINY).eval()
    for block in ours.encoder.blocks: block.mlp.act.approximate = 'none'
    clip, seen = torch.rand(2, 3, 8, 48, 48), []
    ours.over_time.register_forward_hook(lambda module, given, answer: seen.append(given[0]))
    with torch.inference_mode():
        embedded, moments = ours.embed(clip), tiny_vit(clip[:, :, 1::2])
        assert seen[0].shape == (2, 4, 192) and moments.std() > 0.5 and gap(seen[0], moments) < 1e-3
        strengthen(ours.over_time)
        assert gap(ours.embed(clip.roll(2, 2)), ours.embed(clip)) > 1e-2 and embedded.shape == (2, 192)  # the order of the moments counts
    with pytest.raises(ValueError, match='no Kinetics weights are published for encoder=factorised'): vivit(FOUR, {'clip': (3, 8, 48, 48)}, 'factorised', **SMALL)


def test_vivit_says_what_it_cannot_do():
    for clip, given, words in (((4, 48, 48), dict(encoder='axial'), 'model.encoder=axial: joint or factorised'), ((4, 48, 48), dict(weights='jft'), 'model.weights=jft'),
                               ((1, 48, 48), {}, 'data.frames=1.*tubelets of 2x16x16'), ((4, 48, 50), {}, 'multiples'), ((4, None, None), {}, 'data.fit=own')):
        with pytest.raises(ValueError, match=words): vivit(FOUR, {'clip': (3, *clip)}, pretrained=False, **given)
    with pytest.raises(ValueError, match='a clip of 4x64x48 .*takes 4x48x64'): vivit(FOUR, {'clip': (3, 4, 48, 64)}, pretrained=False, **SMALL)(torch.rand(1, 3, 4, 64, 48))


# ---- gradient checkpointing

def gradients(network, clip):
    network.zero_grad()
    network.train()(clip).square().sum().backward()
    return [p.grad.clone() for p in network.parameters()]


@pytest.mark.parametrize('build', [
    lambda checkpoint: timesformer(FOUR, {'clip': (3, 3, 48, 48)}, pretrained=False, checkpointing=checkpoint, **SMALL),
    lambda checkpoint: timesformer(FOUR, {'clip': (3, 3, 48, 48)}, 'joint', pretrained=False, checkpointing=checkpoint, **SMALL),
    lambda checkpoint: vivit(FOUR, {'clip': (3, 4, 48, 48)}, pretrained=False, checkpointing=checkpoint, **SMALL),
    lambda checkpoint: vivit(FOUR, {'clip': (3, 4, 48, 48)}, 'factorised', pretrained=False, checkpointing=checkpoint, **SMALL),
    lambda checkpoint: vit_gru(FOUR, {'clip': (3, 3, 48, 48)}, 'test_vit', dropout=0.0, pretrained=False, checkpointing=checkpoint)],
    ids=['divided', 'joint', 'tubelets', 'factorised', 'per frame'])
def test_checkpointing_gives_the_same_gradients(build):
    plain, saving = strengthen(build(False)), build(True)
    saving.load_state_dict(plain.state_dict())
    runs, clip = {True: 0, False: 0}, torch.rand(2, 3, 4 if hasattr(plain, 'tubelets') else 3, 48, 48)
    for network in (plain, saving):
        def count(*_, network=network): runs[network is saving] += 1
        block = next(m for n, m in network.named_modules() if n.endswith('blocks.0'))
        block.attn.register_forward_hook(count)
    assert all(torch.equal(a, b) for a, b in zip(gradients(plain, clip), gradients(saving, clip)))
    assert runs == {False: 1, True: 2}


# ---- absent weights

@pytest.mark.parametrize('build, name, shape', [(timesformer, 'timesformer_k400', (8, 224, 224)), (vivit, 'vivit_k400', (32, 224, 224))])
def test_absent_kinetics_weights_are_said(build, name, shape, tmp_path, monkeypatch):
    "Name, source and the way out; a file of that name in torch's folder is taken, one with the publishers' own name is another's."
    def unreachable(*_, **__): raise OSError('no network')
    monkeypatch.setattr('urllib.request.urlopen', unreachable)
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    torch.save({'another': torch.zeros(1)}, tmp_path / 'checkpoints' / 'pytorch_model.bin')
    with torch.device('meta'), pytest.raises(MissingWeights, match=f"'{name}'.*https://huggingface.co/.*{name}.safetensors.*pretrained=false"):
        build(Task(), {'clip': (3, *shape)})
