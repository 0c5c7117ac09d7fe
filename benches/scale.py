"""A training step on 1, 2 and 4 ranks: Cloze with MPI, and PyTorch's DistributedDataParallel with gloo, alternately on one machine.

    python scale.py --cloze target/release/cloze --mpirun mpirun --peer-python PYTHON --ranks 1 2 4 --rounds 3

PYTHON has torch and transformers (ddp_gloo.py). The cores are divided among the ranks; with more ranks than cores, ranks share them. All
runs train the same number of micro-batches in a step, so that their times can be compared. Both programs report: a step; a step with
the same micro-batches without communication; the exchange alone; the share of the step that communication takes; the peak memory of a
rank. Prints JSON lines, then a table in Markdown with medians.

--rate 1gbit (and --delay 0.1ms, one way) repeats the runs of several ranks with each rank in a network namespace of its own, connected by
a bridge and limited by tc. This needs root, iproute2, and the kernel's tbf (and netem for --delay); without them, a line says "skipped".
"""
import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SUBNET = "10.213.77"
BITS = {"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
# The timer of tc's token bucket needs a bucket for this many seconds.
BURST_SECONDS = 0.004


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cloze", required=True, help="the cloze binary, built for release")
    p.add_argument("--mpirun", default="mpirun", help="that of Open MPI or MPICH")
    p.add_argument("--peer-python", help="a Python with torch and transformers; without it, only Cloze runs")
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--hidden", type=int, default=768)
    p.add_argument("--heads", type=int, default=12)
    p.add_argument("--vocab", type=int, default=30522)
    p.add_argument("--batch", type=int, default=8, help="sequences in a micro-batch")
    p.add_argument("--seq", type=int, default=128, help="tokens of a sequence")
    p.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    p.add_argument("--micro-batches", type=int, help="of a step; default: the largest number of ranks")
    p.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    p.add_argument("--gradients", choices=["f32", "bf16"], default="f32", help="type of the gradients between ranks")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all ranks together; default: all cores")
    p.add_argument("--steps", type=int, default=5, help="measured steps in each run")
    p.add_argument("--rounds", type=int, default=3, help="the result is the median")
    p.add_argument("--rate", action="append", default=[], help="also with links of this rate, as tc writes it; may be repeated")
    p.add_argument("--delay", help="of these links, one way, as tc writes it")
    p.add_argument("--only-links", action="store_true", help="skip the runs in shared memory")
    p.add_argument("--limit", type=float, default=1200, help="seconds for one run")
    p.add_argument("--out", help="also append the JSON lines here")
    a = p.parse_args()
    a.micro_batches = a.micro_batches or max(a.ranks)
    if a.micro_batches < max(a.ranks):
        p.error(f"--micro-batches {a.micro_batches}: expected at least {max(a.ranks)}, one for each rank")
    if max(a.ranks) > 1 and not shutil.which(a.mpirun):
        p.error(f"--mpirun {a.mpirun}: no such program")
    for rate in a.rate:
        if bits(rate) is None:
            p.error(f"--rate {rate}: expected a number with one of {', '.join(BITS)}, for example 1gbit")
    return a


def bits(rate):
    """Bits per second of a rate as tc writes it; None if it is not one."""
    found = re.fullmatch(r"([0-9.]+)([kmg]?bit)", rate)
    return float(found[1]) * BITS[found[2]] if found else None


class Links:
    """A network namespace for each rank, with a limited link to a common bridge. Removes them when it is closed."""

    def __init__(self, ranks, rate, delay):
        self.rate, self.delay, self.name = rate, delay, f"cloze{os.getpid() % 100000}"
        self.bridge = f"{self.name}b"
        self.made = []
        self.note = None
        try:
            self.make(ranks)
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise RuntimeError(complaint(error)) from error

    def namespace(self, rank):
        return f"{self.name}r{rank}"

    def address(self, rank):
        return f"{SUBNET}.{rank + 1}"

    def inside(self, rank):
        return ["ip", "netns", "exec", self.namespace(rank)]

    def make(self, ranks):
        self.call("ip", "link", "add", self.bridge, "type", "bridge")
        self.made.append(["ip", "link", "del", self.bridge])
        self.call("ip", "addr", "add", f"{SUBNET}.254/24", "dev", self.bridge)
        self.call("ip", "link", "set", self.bridge, "up")
        for rank in range(ranks):
            outer, namespace = f"{self.name}v{rank}", self.namespace(rank)
            self.call("ip", "netns", "add", namespace)
            self.made.append(["ip", "netns", "del", namespace])
            self.call("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            # The namespace lives until its processes have ended, its link with it.
            self.made.append(["ip", "link", "del", outer])
            self.call("ip", "link", "set", outer, "master", self.bridge, "up")
            self.call("ip", "-n", namespace, "addr", "add", f"{self.address(rank)}/24", "dev", "eth0")
            self.call("ip", "-n", namespace, "link", "set", "eth0", "up")
            self.call("ip", "-n", namespace, "link", "set", "lo", "up")
            # What a rank sends, and what it receives.
            self.limit(["tc", "-n", namespace], "eth0")
            self.limit(["tc"], outer, delayed=False)

    def limit(self, tc, device, delayed=True):
        burst = max(256 * 1024, int(bits(self.rate) / 8 * BURST_SECONDS))
        bucket = ["tbf", "rate", self.rate, "burst", str(burst), "latency", "50ms"]
        self.call(*tc, "qdisc", "add", "dev", device, "root", "handle", "1:", *bucket)
        if self.delay and delayed:
            try:
                delay = ["netem", "delay", self.delay, "limit", "100000"]
                self.call(*tc, "qdisc", "add", "dev", device, "parent", "1:1", "handle", "10:", *delay)
            except subprocess.CalledProcessError as error:
                self.note = f"skipped: the delay of {self.delay}: tc netem: {complaint(error)}"
                self.delay = None

    @staticmethod
    def call(*command):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def close(self):
        for command in reversed(self.made):
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        self.made = []

    def describe(self):
        return self.rate + (f", {self.delay} delay" if self.delay else "")


def complaint(error):
    """One line that says what went wrong."""
    lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return lines[-1] if lines else "no message"


def is_open_mpi(mpirun):
    version = subprocess.run([mpirun, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return "Open MPI" in version.stdout + version.stderr


def cloze_command(a, ranks, links, folder):
    """The command of a run of Cloze, and its environment."""
    shape = [f"--{key}={getattr(a, key)}" for key in ("layers", "hidden", "heads", "vocab", "batch", "seq", "precision", "gradients", "steps")]
    threads = max(1, a.threads // ranks)
    command = [a.cloze, "bench", "scale", *shape, f"--micro-batches={a.micro_batches}", f"--threads={threads}", "--json", "--quiet"]
    environment = dict(os.environ)
    if ranks == 1:
        return command, environment
    open_mpi = is_open_mpi(a.mpirun)
    start = [a.mpirun]
    if open_mpi:
        # Without --bind-to none, each rank gets one core.
        start += ["--oversubscribe", "--bind-to", "none"]
        if os.geteuid() == 0:
            environment |= dict(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    if links:
        script = os.path.join(folder, "rank.sh")
        with open(script, "w") as file:
            file.write(f'#!/bin/sh\nexec ip netns exec "{links.name}r${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}}" "$@"\n')
        os.chmod(script, 0o755)
        command = [script, *command]
        if open_mpi:
            start += ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", f"{SUBNET}.0/24"]
            # Ranks reach mpirun over the bridge: their loopback interface is another one.
            environment |= dict(PMIX_MCA_ptl_base_remote_connections="1", PMIX_MCA_ptl_base_if_include=links.bridge)
        else:
            # MPICH: no shared memory between ranks of a machine.
            environment |= dict(MPIR_CVAR_NOLOCAL="1", MPIR_CVAR_CH4_NETMOD="ofi", FI_PROVIDER="tcp", FI_TCP_IFACE="eth0")
    return [*start, "-np", str(ranks), *command], environment


def free_port():
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


def peer_commands(a, ranks, links):
    """The commands of the processes of a run of PyTorch, with the environment of torchrun."""
    shape = [f"--{key}={getattr(a, key)}" for key in ("layers", "hidden", "heads", "vocab", "batch", "seq", "precision", "gradients", "steps")]
    threads = max(1, a.threads // ranks)
    command = [a.peer_python, os.path.join(HERE, "ddp_gloo.py"), *shape, f"--micro-batches={a.micro_batches}", f"--threads={threads}"]
    address, interface = (links.address(0), "eth0") if links else ("127.0.0.1", "lo")
    common = dict(os.environ, WORLD_SIZE=str(ranks), MASTER_ADDR=address, MASTER_PORT=str(free_port()))
    common |= dict(GLOO_SOCKET_IFNAME=interface, OMP_NUM_THREADS=str(threads))
    inside = links.inside if links else lambda _: []
    return [([*inside(rank), *command], dict(common, RANK=str(rank), LOCAL_RANK=str(rank))) for rank in range(ranks)]


def run(commands, limit):
    """Runs processes at the same time. The JSON object that the first one prints, or an error."""
    end = time.monotonic() + limit
    with contextlib.ExitStack() as stack:
        files = [[stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)] for _ in commands]
        children = []

        def stop():
            for child in children:
                if child.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGTERM)
            for child in children:
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()

        stack.callback(stop)
        for (command, environment), (output, errors) in zip(commands, files):
            children.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
                )
            )
        while any(child.poll() is None for child in children):
            failed = next((i for i, child in enumerate(children) if child.poll() not in (None, 0)), None)
            if failed is not None or time.monotonic() > end:
                break
            time.sleep(0.05)
        failed = next((i for i, child in enumerate(children) if child.poll() not in (None, 0)), None)
        if failed is not None:
            files[failed][1].seek(0)
            lines = [line.strip() for line in files[failed][1] if line.strip()]
            told = [line for line in lines if line.startswith("error:")] or lines[-1:]
            return dict(error=f"exit status {children[failed].returncode}: {' '.join(told) or 'no message'}")
        if any(child.poll() is None for child in children):
            return dict(error=f"stopped after {limit:.0f} s")
        files[0][0].seek(0)
        objects = [json.loads(line) for line in files[0][0] if line.startswith("{")]
        return objects[-1] if objects else dict(error="printed no JSON")


def sent_and_received(program, result):
    """Bytes that each rank sends in an exchange, as many as it receives: Cloze sends gradients in their type, and weights in f32; DDP sums
    gradients twice around a ring, in their type."""
    wire = 2 if result["gradients"] == "bf16" else 4
    each = wire + 4 if program == "cloze" else 2 * wire
    return each * result["parameters"] * (result["ranks"] - 1) / result["ranks"]


def main():
    a = parse()
    record = open(a.out, "a") if a.out else None
    # Namespaces are removed after an interruption, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def say(**line):
        text = json.dumps(line, ensure_ascii=False)
        print(text, flush=True)
        if record:
            record.write(text + "\n")
            record.flush()

    results, skipped = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for rate in ([] if a.only_links else [None]) + a.rate:
            counts = [ranks for ranks in a.ranks if ranks > 1 or not rate]
            links = None
            if rate:
                try:
                    links = Links(max(counts, default=0), rate, a.delay)
                except RuntimeError as error:
                    skipped.append(f"skipped: links of {rate}: {error}")
                    print(skipped[-1], file=sys.stderr)
                    continue
                if links.note:
                    skipped.append(links.note)
                    print(links.note, file=sys.stderr)
            link = links.describe() if links else "memory"
            try:
                # The programs alternate, so that a slow phase of the machine affects both.
                for round_ in range(a.rounds):
                    for ranks in counts:
                        runs = {"cloze": [cloze_command(a, ranks, links, folder)]}
                        if a.peer_python:
                            runs["ddp gloo"] = peer_commands(a, ranks, links)
                        for program, commands in runs.items():
                            result = run(commands, a.limit)
                            about = dict(program=program, link=link, round=round_ + 1, ranks=ranks)
                            if rate:
                                about["link_bits_per_s"] = bits(rate)
                            say(**{**result, **about})
                            if "error" not in result and ranks > 1:
                                result["exchange_bytes_per_s"] = sent_and_received(program, result) / (result["exchange_ms"] / 1e3)
                            if "error" not in result:
                                results.setdefault((link, ranks, program), []).append(result)
            finally:
                if links:
                    links.close()

    fields = ("ms", "alone_ms", "exchange_ms", "communication_share", "exchange_bytes_per_s", "peak_rss_bytes", "threads")
    median = {key: {f: statistics.median(row[f] for row in rows) for f in fields} for key, rows in results.items()}
    for line in skipped:
        print(f"\n{line}")
    if not results:
        return "nothing ran"
    print(
        f"\nL{a.layers} H{a.hidden}, {a.micro_batches} micro-batches of {a.batch}×{a.seq}, {a.precision}, gradients in {a.gradients}, "
        f"{a.threads} threads in all; medians of up to {a.rounds} runs of {a.steps} steps.\n"
    )
    print("| link | ranks × threads | program | ms per step | alone, ms | exchange, ms | sent, GB/s | communication | memory of a rank "
          "| × one rank's speed | × one rank's memory | × DDP's speed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (link, ranks, program), m in median.items():
        one = median.get(("memory", 1, program))
        peer = median.get((link, ranks, "ddp gloo")) if program == "cloze" else None
        speed = f"{one['ms'] / m['ms']:.2f}" if one else "–"
        memory = f"{m['peak_rss_bytes'] / one['peak_rss_bytes']:.2f}" if one else "–"
        exchange = f"{m['exchange_ms']:,.1f} | {m['exchange_bytes_per_s'] / 1e9:.2f}" if ranks > 1 else "– | –"
        share = f"{100 * m['communication_share']:.1f} %" if ranks > 1 else "–"
        times = f"{peer['ms'] / m['ms']:.2f}" if peer else "–"
        print(
            f"| {link if ranks > 1 else '–'} | {ranks} × {m['threads']:.0f} | {program} | {m['ms']:,.1f} | {m['alone_ms']:,.1f} | {exchange} "
            f"| {share} | {m['peak_rss_bytes'] / 2**30:.2f} GiB | {speed} | {memory} | {times} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
