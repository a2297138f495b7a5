"""A SLURM of two nodes on the loopback, for the tests: brought up in a folder, found again by the folder's name in the environment of its processes.

By hand: `python tests/cluster.py up DIR` prints the line that makes sbatch use it, `python tests/cluster.py down DIR` ends it. One that a test brings up
ends with the test's process, however that ends. Needs root and Debian's munge, slurmctld, slurmd, slurm-client."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch')
DAEMONS = ('munged', 'slurmctld', 'slurmscriptd', 'slurmd', 'slurmstepd')
NODES = 2

CONF = '''
ClusterName=fvctest
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={dir}/munge.sock,ttl=300
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool.%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=0,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=2
SlurmdTimeout=10
SlurmctldTimeout=10
MinJobAge=300
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
'''


def missing():
    "Why no cluster can be had here, '' where one can."
    absent = [p for p in PROGRAMS if shutil.which(p) is None]
    if absent: return f'SLURM is not installed ({", ".join(absent)}): apt-get install munge slurmctld slurmd slurm-client'
    return '' if os.geteuid() == 0 else 'a SLURM for tests needs root'


def free_ports():
    "The first of enough neighbouring ports that nobody listens at."
    for first in range(17100, 19000, 10):
        try:
            held = [socket.create_server(('127.0.0.1', first + k)) for k in range(NODES + 1)]
        except OSError: continue
        for s in held: s.close()
        return first
    raise RuntimeError('no free ports between 17100 and 19000')


def eventually(what, seconds=30, every=0.1):
    "Wait until something holds; raises TimeoutError."
    end = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > end: raise TimeoutError(f'{getattr(what, "__name__", what)} did not come true in {seconds} s')
        time.sleep(every)
    return found


def ask(folder, *words):
    "Standard output of one of SLURM's commands, '' where it fails."
    try: done = subprocess.run(words, capture_output=True, text=True, timeout=30, env=environment(folder))
    except subprocess.TimeoutExpired: return ''
    return done.stdout if done.returncode == 0 else ''


def environment(folder): return dict(os.environ, SLURM_CONF=str(folder / 'slurm.conf'))


def _about(process):
    "Name and environment of a process; nothing of one that has ended."
    try: return (process / 'comm').read_text().strip(), dict(v.partition(b'=')[::2] for v in (process / 'environ').read_bytes().split(b'\0'))
    except OSError: return '', {}


def environ(pid):
    "Environment that a process was started with; {} for one that has ended."
    return {k.decode(errors='replace'): v.decode(errors='replace') for k, v in _about(Path(f'/proc/{pid}'))[1].items()}


def processes(folder=None):
    "Process ids of a cluster's daemons and jobs, by folder; of one cluster or of all."
    found = {}
    for process in Path('/proc').glob('[0-9]*'):
        name, given = _about(process)
        conf = given.get(b'SLURM_CONF', b'').decode(errors='replace')
        home = Path(conf).parent
        if conf and (name[:15] in DAEMONS or b'SLURM_JOB_ID' in given) and folder in (None, home): found.setdefault(home, []).append(int(process.name))
    return found if folder is None else found.get(folder, [])


def _born(pid):
    "When a process began, in ticks since the machine did; '' for one that has ended. A number that is given out again is told apart by it."
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]
    except OSError: return ''


def reap():
    "End the clusters of tests that have ended without doing it."
    for folder in processes():
        owner = folder / 'owner'
        if not owner.is_file(): continue  # brought up by hand
        pid, born = owner.read_text().split()
        if _born(pid) != born: down(folder)


def daemon(folder, *words):
    "Start one of the daemons, which puts itself into the background."
    subprocess.run(words, check=True, capture_output=True, env=environment(folder), start_new_session=True)


def controller(folder): daemon(folder, 'slurmctld')


def node(folder, name): daemon(folder, 'slurmd', '-N', name)


def stop(folder, name, signum=signal.SIGTERM):
    "End one daemon: slurmctld, munged, or slurmd.n1; returns when it is gone."
    file = folder / f'{name}.pid'
    pid = int(file.read_text()) if file.is_file() else 0
    if pid not in processes(folder): return
    os.kill(pid, signum)
    eventually(lambda: not _born(pid), 20)


def up(folder, owned=False): # owned: it ends with this process
    "Bring it up; returns the path of slurm.conf."
    reap()
    folder = Path(folder).resolve()
    (folder / 'state').mkdir(parents=True)
    folder.chmod(0o755)
    port = free_ports()
    nodes = [f'NodeName=n{k} NodeHostname=n{k} NodeAddr=127.0.0.1 Port={port + k} CPUs=4 RealMemory=16000' for k in range(1, NODES + 1)]
    parts = ['PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP']
    conf = folder / 'slurm.conf'
    conf.write_text('\n'.join([CONF.format(dir=folder, port=port).strip(), *nodes, *parts]) + '\n')
    if owned:
        (folder / 'owner').write_text(f'{os.getpid()} {_born(os.getpid())}')
        keeper = subprocess.Popen([sys.executable, __file__, 'keep', folder], stdin=subprocess.PIPE, start_new_session=True)
        (folder / 'keeper.pid').write_text(str(keeper.pid))
    (folder / 'munge.key').write_bytes(os.urandom(128))
    (folder / 'munge.key').chmod(0o600)
    daemon(folder, 'munged', '--force', f'--key-file={folder}/munge.key', f'--socket={folder}/munge.sock', f'--pid-file={folder}/munged.pid',
           f'--log-file={folder}/munged.log', f'--seed-file={folder}/munged.seed')
    eventually(lambda: (folder / 'munge.sock').exists())
    controller(folder)
    for k in range(1, NODES + 1): node(folder, f'n{k}')
    eventually(lambda: ask(folder, 'sinfo', '-h', '-N', '-o', '%T').split().count('idle') == NODES, 60)
    return conf


def down(folder):
    "End it and its jobs, whatever they are at."
    folder = Path(folder).resolve()
    while processes(folder):
        for pid in processes(folder):
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: continue  # it has ended meanwhile
        time.sleep(0.05)


def keep(folder):
    "End a cluster when who brought it up has ended, however: its end of the pipe is closed then."
    sys.stdin.buffer.read()
    down(folder)


if __name__ == '__main__':
    if sys.argv[1:2] not in (['up'], ['down'], ['keep']) or len(sys.argv) != 3: sys.exit(__doc__)
    if sys.argv[1] == 'down': down(sys.argv[2])
    elif sys.argv[1] == 'keep': keep(sys.argv[2])
    elif why := missing(): sys.exit(why)
    else: print(f'export SLURM_CONF={up(sys.argv[2])}')
