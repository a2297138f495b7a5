"""A SLURM of two nodes on the loopback, for the tests: brought up in a folder, ended by its own process numbers.

By hand: `python tests/cluster.py up DIR` prints the line that makes sbatch use it, `python tests/cluster.py down DIR` ends it. Needs root and Debian's munge, slurmctld, slurmd, slurm-client."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch')
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
KillWait=5
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
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, env=dict(os.environ, SLURM_CONF=str(folder / 'slurm.conf')))
    return done.stdout if done.returncode == 0 else ''


def up(folder):
    "Bring it up; returns the path of slurm.conf."
    folder = Path(folder).resolve()
    (folder / 'state').mkdir(parents=True)
    folder.chmod(0o755)
    port = free_ports()
    nodes = [f'NodeName=n{k} NodeHostname=n{k} NodeAddr=127.0.0.1 Port={port + k} CPUs=4 RealMemory=16000' for k in range(1, NODES + 1)]
    parts = ['PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP']
    conf = folder / 'slurm.conf'
    conf.write_text('\n'.join([CONF.format(dir=folder, port=port).strip(), *nodes, *parts]) + '\n')
    env = dict(os.environ, SLURM_CONF=str(conf))
    (folder / 'munge.key').write_bytes(os.urandom(128))
    (folder / 'munge.key').chmod(0o600)
    subprocess.run(['munged', '--force', f'--key-file={folder}/munge.key', f'--socket={folder}/munge.sock', f'--pid-file={folder}/munged.pid', f'--log-file={folder}/munged.log',
                    f'--seed-file={folder}/munged.seed'], check=True, capture_output=True)
    eventually(lambda: (folder / 'munge.sock').exists())
    subprocess.run(['slurmctld'], check=True, capture_output=True, env=env)
    for k in range(1, NODES + 1): subprocess.run(['slurmd', '-N', f'n{k}'], check=True, capture_output=True, env=env)
    eventually(lambda: ask(folder, 'sinfo', '-h', '-N', '-o', '%T').split().count('idle') == NODES, 60)
    return conf


def down(folder):
    "End it: its jobs, then the processes of its own pid files."
    folder = Path(folder).resolve()
    ask(folder, 'scancel', '--user=root')
    ask(folder, 'scancel', '--signal=KILL', '--user=root')
    for file in [*folder.glob('slurmd.*.pid'), folder / 'slurmctld.pid', folder / 'munged.pid']:
        if not file.is_file(): continue
        pid, name = int(file.read_text()), file.name.split('.')[0]
        if Path(f'/proc/{pid}/exe').exists() and name in os.readlink(f'/proc/{pid}/exe'):
            os.kill(pid, signal.SIGTERM)
            eventually(lambda: not Path(f'/proc/{pid}').exists(), 20)


if __name__ == '__main__':
    if sys.argv[1:2] not in (['up'], ['down']) or len(sys.argv) != 3: sys.exit(__doc__)
    if sys.argv[1] == 'down': down(sys.argv[2])
    elif why := missing(): sys.exit(why)
    else: print(f'export SLURM_CONF={up(sys.argv[2])}')
