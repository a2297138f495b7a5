"""The engine broken on purpose, in memory: the torture must notice each of these."""
from contextlib import contextmanager
from pathlib import Path


def in_place():
    "Files are written under their own names."
    import fvc.table

    @contextmanager
    def atomic_path(target):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        yield Path(target)

    fvc.table.atomic_path = atomic_path


def blind():
    "What is found is believed."
    import fvc.stage
    fvc.stage._valid = lambda rows, *rest: bool(rows)


def untidy():
    "Half-written files of killed runs stay."
    import fvc.stage
    fvc.stage._sweep = lambda files: None


def unlocked():
    "Anybody may write."
    import fvc.stage
    import fvc.table

    @contextmanager
    def locked(*args, **rest):
        yield

    fvc.table.locked = fvc.stage.locked = locked


def forgetful():
    "A part is kept only in memory until the end."
    import fvc.table
    append, compact, held = fvc.table.Parts.append, fvc.table.Parts.compact, []

    def late(self, *args):
        for one in held:
            append(self, *one)
        return compact(self, *args)

    fvc.table.Parts.append = lambda self, *one: held.append(one)
    fvc.table.Parts.compact = late


def hasty():
    "A signal stops the run wherever it is."
    import fvc.stage

    class Hasty(fvc.stage.Stop):
        heeding = property(lambda self: True, lambda self, value: None)

    fvc.stage.Stop = Hasty


SABOTAGE = {f.__name__: f for f in (in_place, blind, untidy, unlocked, forgetful, hasty)}
