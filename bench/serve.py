"""The measured process: imports one library, then reads tasks as lines of JSON and says what each took."""
import importlib, json, os, resource, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def memory(name: str) -> float:  # VmRSS: now; VmHWM: the most since it was set back
    "MB resident."
    line = next(line for line in open('/proc/self/status') if line.startswith(name))
    return int(line.split()[1]) / 1024


def main():
    tasks = importlib.import_module({'fvc': 'tasks', 'torchcodec': 'pickers', 'approximate': 'pickers', 'decord': 'pickers'}[sys.argv[1]])
    tasks.prepare(sys.argv[1])
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print goes to the messages
    base = memory('VmRSS')
    print(json.dumps(dict(peak=base)), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        Path('/proc/self/clear_refs').write_text('5')  # set back the peak
        began = processor_seconds()
        value = getattr(tasks, asked['task'])(**asked['arguments'])
        took = processor_seconds() - began
        print(json.dumps(dict(cpu=took, above=memory('VmHWM') - base, value=value)), file=answers, flush=True)


if __name__ == '__main__': main()
