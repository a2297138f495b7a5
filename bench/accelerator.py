"""Target 11: every network's steps on a GPU at its own clip and batch, in bf16: clips per second, GPU memory, share of the GPU's peak.

Run by run.py where PyTorch shows a GPU. `python bench/accelerator.py step MODEL DEVICE STEPS [SETTINGS]` measures one network, on a CPU too.
"""
import json, statistics, sys, time
from contextlib import redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import models
from verdict import Verdict

PEAK = {'H200': 989, 'H100 PCIe': 756, 'H100': 989, 'A100': 312, 'A10G': 70, 'L40S': 362, 'L4': 121, 'RTX 4090': 165, 'RTX 3090': 71}  # dense bf16 TFLOP/s as published; a GPU that is not here gets no share
TRANSFORMERS, GOAL = ('timesformer', 'vivit', 'vit_gru', 'vit_transformer'), 0.4


def _train(network, batch, optimizer, device) -> None:
    "One step: forward in bf16 where autocast takes it, backward, AdamW, whatever optimiser the model has by default."
    import torch
    from fvc.learning.blocks import answer
    with torch.autocast(device, torch.bfloat16): cost = answer(network, batch).square().mean()
    cost.backward()
    optimizer.step()
    optimizer.zero_grad()


def _operations(network, batch, device) -> int:
    "Floating-point operations of forward and backward, as PyTorch counts them."
    import torch
    from fvc.learning.blocks import answer
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counted, torch.autocast(device, torch.bfloat16): answer(network, batch).square().mean().backward()
    network.zero_grad()
    return counted.get_total_flops()


def step(name: str, device: str, steps: int, words: str = '') -> dict:
    "Seconds of each step at the model's own batch, the most GPU memory, and operations of a step."
    import torch
    from fvc.core.config import compose
    from fvc.core.registry import spec_of
    from fvc.learning.detector import build, inputs_of
    from fvc.scores.tasks import Task
    spec = spec_of(name)
    cfg = compose(spec, f'pretrained=false {words}')
    network, size = build(spec, cfg, Task()).to(device).train(), cfg.training.batch_size
    batch = {k: v.to(device) for i in inputs_of(spec) for k, v in i.like(cfg, Task(), size).items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    done = _operations(network, batch, device)
    took = []
    for _ in range(steps + 2):
        wait()
        began = time.perf_counter()
        _train(network, batch, optimizer, device)
        wait()
        took.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == 'cuda' else None
    return dict(took=took[2:], memory=memory, operations=done, batch=size, shapes={k: list(v.shape[1:]) for k, v in batch.items()})


def _line(name: str, one: dict, peak: float | None) -> str:
    seconds = statistics.median(one['took'])
    reached = one['operations'] / seconds / 1e12
    share = f', {reached / peak:.0%} of the peak' if peak else ''
    shapes = ', '.join(f'{k} {"x".join(map(str, v))}' for k, v in one['shapes'].items())
    return f'{name}: {one["batch"] / seconds:.1f} clips a second, {one["memory"]:.1f} GiB, {reached:.1f} TFLOP/s{share}; batches of {one["batch"]}, {shapes}'


def accelerator(steps: int) -> Verdict:
    "Every network on the first GPU."
    import torch
    title, limit = 'Models on a GPU', f'the transformers at least {GOAL:.0%} of the peak in bf16'
    sides = ['python bench/accelerator.py step MODEL cuda STEPS']
    if not torch.cuda.is_available(): return Verdict(11, title, limit, 'no GPU here: "python bench/run.py --targets 11" on a machine that has one gives the figures', None, [], sides)
    gpu = torch.cuda.get_device_name()
    peak = next((v for k, v in PEAK.items() if k in gpu), None)
    found = {name: models.measured('step', name, 'cuda', steps, script=__file__) for name in models.networks()}
    shares = [found[n]['operations'] / statistics.median(found[n]['took']) / 1e12 / peak for n in TRANSFORMERS] if peak else []
    least = min(shares) if shares else None
    return Verdict(11, title, limit, f'{gpu}: {f"least share of a transformer {least:.0%}" if shares else "its peak is not known"}', None if least is None else least >= GOAL,
                   [_line(name, one, peak) for name, one in found.items()], sides,
                   'wall time of whole steps (forward, backward, AdamW) at the default clip and batch of each model, weights drawn at random, after two steps that are not counted')


def main() -> None:
    what, *given = sys.argv[1:]
    with redirect_stdout(sys.stderr): found = globals()[what](*(int(g) if g.isdigit() else g for g in given))
    print(json.dumps(found))


if __name__ == '__main__': main()
