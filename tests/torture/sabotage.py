"""The engine broken on purpose, in memory: the torture must notice each of these."""
from contextlib import contextmanager
from pathlib import Path


def in_place():
    "Files are written under their own names."
    import fvc.core.files
    import fvc.core.table

    @contextmanager
    def atomic_path(target):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        yield Path(target)

    fvc.core.files.atomic_path = fvc.core.table.atomic_path = atomic_path


def blind():
    "What is found is believed."
    import fvc.engine.per_video
    fvc.engine.per_video._is_whole = lambda *anything: True


def untidy():
    "Half-written files of killed runs stay."
    import fvc.engine.per_video
    fvc.engine.per_video._sweep = lambda files: None


def unlocked():
    "Anybody may write."
    import fvc.engine.per_video
    import fvc.core.files
    import fvc.core.table

    @contextmanager
    def locked(*args, **rest):
        yield

    fvc.core.files.locked = fvc.core.table.locked = fvc.engine.per_video.locked = locked


def forgetful():
    "A part is kept only in memory until the end."
    import fvc.core.table
    append, compact, held = fvc.core.table.Parts.append, fvc.core.table.Parts.compact, []

    def late(self, *args):
        for one in held:
            append(self, *one)
        return compact(self, *args)

    fvc.core.table.Parts.append = lambda self, *one: held.append(one)
    fvc.core.table.Parts.compact = late


def hasty():
    "A signal stops the run wherever it is."
    import fvc.engine.per_video

    class Hasty(fvc.engine.per_video.Stop):
        heeding = property(lambda self: True, lambda self, value: None)

    fvc.engine.per_video.Stop = Hasty


SABOTAGE = {f.__name__: f for f in (in_place, blind, untidy, unlocked, forgetful, hasty)}
