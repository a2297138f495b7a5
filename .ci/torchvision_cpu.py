"""Let a CUDA-built torchvision import beside a CPU-only torch, in this environment only.

The package index has one torchvision, built for CUDA; on import it adds meta kernels to the operators `torchvision::nms`
and `torchvision::qnms`, which its compiled library cannot define without CUDA's. Nothing in fvc calls them, so declaring
them is enough. The hook does nothing when the two builds match. Run with the environment's own Python.
"""
import site
from pathlib import Path

HOOK = '''
import importlib.util, sys

class Finder:
    """Declares torchvision's operators once, just before torchvision is imported beside a CPU-only torch."""
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != 'torchvision': return None
        sys.meta_path.remove(cls)
        found = importlib.util.find_spec(name)
        if found is not None and '+cu' in cls.build(found.origin):
            import torch
            if torch.version.cuda is None:
                cls.library = torch.library.Library('torchvision', 'FRAGMENT')  # kept: dropping it undoes the declaration
                for op in ('nms', 'qnms'): cls.library.define(f'{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        return found

    @staticmethod
    def build(origin):
        with open(origin.replace('__init__.py', 'version.py'), encoding='utf-8') as f: return f.read()

sys.meta_path.insert(0, Finder)
'''

folder = Path(site.getsitepackages()[0])
(folder/'_fvc_torchvision_cpu.py').write_text(HOOK)
(folder/'_fvc_torchvision_cpu.pth').write_text('import _fvc_torchvision_cpu\n')
