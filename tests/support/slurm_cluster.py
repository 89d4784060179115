"""A Slurm of its own on this machine: munged, slurmctld and two slurmd on loopback, from Debian's packages."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "runuser")
# The second node's name leads nowhere: it is for jobs of one task. A requeued job waits for cred_expire and more.
CONF = """\
ClusterName=course
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=2 Weight=1
NodeName=second NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=2 Weight=9
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def why_not() -> str:
    """Why there cannot be one here, after trying to install it; empty where there can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        return "only root can start munged and slurmd"
    if missing and shutil.which("apt-get") is None:
        return f"{', '.join(missing)}: not here, and no apt-get to install {' '.join(PACKAGES)}"
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
        for command in (install, ["apt-get", "update"], install):
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
            except subprocess.TimeoutExpired:
                return f"{' '.join(command)}: took more than 180 s"
            if command is install and done.returncode == 0:
                break
        else:
            return f"{' '.join(install)}: {' '.join(done.stderr.split())[-200:]}"
    try:
        socket.gethostbyname(socket.gethostname())
        pwd.getpwnam("munge")
    except (OSError, KeyError) as error:
        return f"Slurm cannot work here: {error}"
    return ""


@contextlib.contextmanager
def running_slurm() -> Iterator[dict[str, str]]:
    """Start it, and give the environment in which its commands find it; nothing is left of it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # munge's user must get there
    host = socket.gethostname().partition(".")[0]
    processes = []
    ports = free_ports(3)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, ports=ports))
    for name in ("state", f"spool.{host}", "spool.second", "munge"):
        (folder / name).mkdir()
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o400)
    folder.chmod(0o755)
    munge = pwd.getpwnam("munge")
    for path in (folder / "munge", key):
        os.chown(path, munge.pw_uid, munge.pw_gid)
    files = {name: folder / "munge" / name for name in ("socket", "pid", "log", "seed")}
    options = ["--foreground", f"--key-file={key}", f"--socket={files['socket']}"]
    options += [f"--{name}-file={files[name]}" for name in ("pid", "log", "seed")]
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    commands = [
        ["runuser", "-u", "munge", "--", shutil.which("munged"), *options],
        ["slurmctld", "-D", "-f", str(conf)],
        *(["slurmd", "-D", "-N", name, "-f", str(conf)] for name in (host, "second")),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, **quiet))
            time.sleep(0.3)
        end = time.monotonic() + 60
        while count_idle(environment) < 2:
            assert time.monotonic() < end, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
        end = time.monotonic() + 30
        while any_job(environment) and time.monotonic() < end:
            time.sleep(0.5)
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def count_idle(environment: dict[str, str]) -> int:
    command = ["sinfo", "--noheader", "--Node", "--format=%t"]
    return (
        subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split().count("idle")
    )


def any_job(environment: dict[str, str]) -> bool:
    command = ["squeue", "--noheader"]
    return bool(subprocess.run(command, env=environment, capture_output=True, text=True).stdout)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
