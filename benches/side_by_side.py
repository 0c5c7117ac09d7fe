"""The speed of a pre-training step and of the encoder's forward pass, with Cloze and other programs alternately on one machine:
tokens/s, useful GFLOP/s, peak memory.

    python side_by_side.py --peer-python PYTHON --peers FOLDER --cloze target/release/cloze --pairs 3

FOLDER contains train_hf.py (one step of Transformers' BertForPreTraining: MLM + NSP, AdamW, clipping) and infer_hf.py (the encoder
in PyTorch and OpenVINO, all modes in one process); PYTHON has torch, transformers and openvino. The first round of each training
shape runs PyTorch in f32 and bf16, eager and compiled; later rounds run only the modes whose speed was at least --near of the best
(--every-mode: all modes), because compilation takes longer than the measurement. Within a round, the programs alternate. The result is
compared with the best median of the other programs. Prints JSON lines, then a table in Markdown.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

BASE, MINI, TINY = (dict(layers=l, hidden=h, heads=a) for l, h, a in ((12, 768, 12), (4, 256, 4), (2, 128, 2)))
MINILM = dict(layers=6, hidden=384, heads=12)
# By default, the first three are measured; --shape selects others.
SHAPES = {
    "train base 16×128 full": dict(**BASE, batch=16, seq=128, lengths="full"),
    "train base 8×512 uniform": dict(**BASE, batch=8, seq=512, lengths="uniform"),
    "train mini 32×128 full": dict(**MINI, batch=32, seq=128, lengths="full"),
    "train base 64×128 full": dict(**BASE, batch=64, seq=128, lengths="full"),
    "train base 4×512 full": dict(**BASE, batch=4, seq=512, lengths="full"),
    "train base 16×128 uniform": dict(**BASE, batch=16, seq=128, lengths="uniform"),
    "train mini 32×128 uniform": dict(**MINI, batch=32, seq=128, lengths="uniform"),
    "train tiny 64×128 full": dict(**TINY, batch=64, seq=128, lengths="full"),
    # The losses of each family's pre-training, in both programs.
    **{
        f"train mini 32×128 {family}": dict(**MINI, batch=32, seq=128, family=family)
        for family in ("bert", "roberta", "distilbert", "albert", "electra")
    },
    "infer base 32×128": dict(**BASE, batch=32, seq=128),
    "infer base 8×128": dict(**BASE, batch=8, seq=128),
    "infer base 1×32": dict(**BASE, batch=1, seq=32),
    "infer MiniLM 8×128": dict(**MINILM, batch=8, seq=128),
    # The other programs pad each sequence to the maximal length; only real tokens are counted.
    "infer MiniLM 8×128 uniform": dict(**MINILM, batch=8, seq=128, lengths="uniform"),
}
DEFAULT = list(SHAPES)[:3]
PEER_MODES = [(dtype, compiled) for dtype in ("f32", "bf16") for compiled in (False, True)]
PRECISIONS = ("f32", "bf16")


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer-python", required=True, help="a Python with torch and transformers")
    p.add_argument("--peers", required=True, help="the folder with train_hf.py")
    p.add_argument("--cloze", required=True, help="the cloze binary, built for release")
    p.add_argument("--pairs", type=int, default=3, help="rounds; the result is the median")
    p.add_argument("--steps", type=int, default=5, help="timed steps in each run")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for both; default: all cores")
    p.add_argument("--shape", action="append", choices=list(SHAPES), help="only this shape; may be repeated")
    p.add_argument("--peer-mode", action="append", help="only this mode of PyTorch, as f32, f32-compiled, bf16 or bf16-compiled")
    p.add_argument("--precision", action="append", choices=PRECISIONS, help="only this precision of cloze")
    p.add_argument("--near", type=float, default=0.7, help="minimal speed of a mode, relative to the best one, to be measured in further rounds")
    p.add_argument("--every-mode", action="store_true")
    p.add_argument("--limit", type=float, default=1200, help="seconds for one run")
    p.add_argument("--out", help="also append the JSON lines here")
    return p.parse_args()


def measured(command, limit):
    """The JSON objects that the program prints, each with its wall time and its peak memory from wait4 (the maximum of the program
    and the processes that it started)."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True)
        alarm = threading.Timer(limit, os.killpg, (child.pid, signal.SIGKILL))
        alarm.start()
        _, status, usage = os.wait4(child.pid, 0)
        alarm.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0), errors.seek(0)
        objects = [json.loads(line) for line in output if line.startswith("{")]
        complaint = errors.read().strip().splitlines()[-1:]
    result = dict(wall_s=round(time.monotonic() - begin, 1), process_peak_bytes=1024 * usage.ru_maxrss)
    if child.returncode == -signal.SIGKILL and result["wall_s"] >= limit:
        return [dict(result, error=f"stopped after {limit:.0f} s")]
    if child.returncode != 0:
        return [dict(result, error=f"exit status {child.returncode}: {' '.join(complaint) or 'no message'}")]
    return [{**o, **result} for o in objects] or [dict(result, error="printed no JSON")]


def flags(shape):
    return [word for key, value in shape.items() for word in (f"--{key}", str(value))]


def commands(a, title):
    """The commands for a shape: {(program, mode): command}. With mode None, the program prints one line for each of its modes."""
    common = [*flags(SHAPES[title]), "--threads", str(a.threads)]
    if title.startswith("infer"):
        padded = {key: value for key, value in SHAPES[title].items() if key != "lengths"}
        peer = [os.path.join(a.peers, "infer_hf.py"), *flags(padded), "--threads", str(a.threads)]
        peers = {("peer", None): [a.peer_python, *peer]}
        ours = {p: [a.cloze, "bench", "infer", *common, "--steps", "7", "--precision", p, "--json"] for p in PRECISIONS}
    else:
        common += ["--steps", str(a.steps)]
        train = [a.peer_python, os.path.join(a.peers, "train_hf.py"), *common, "--dtype"]
        peers = {}
        for dtype, compiled in PEER_MODES:
            mode = f"{dtype}-compiled" if compiled else dtype
            if not a.peer_mode or mode in a.peer_mode:
                peers["pytorch", mode] = [*train, dtype, *(["--compile"] if compiled else [])]
        ours = {p: [a.cloze, "bench", "train", *common, "--precision", p, "--json"] for p in PRECISIONS}
    return peers, {("cloze", p): command for p, command in ours.items() if not a.precision or p in a.precision}


def main():
    a = parse()
    record = open(a.out, "a") if a.out else None

    def say(**line):
        text = json.dumps(line, ensure_ascii=False)
        print(text, flush=True)
        if record:
            record.write(text + "\n")
            record.flush()

    table = []
    for title in a.shape or DEFAULT:
        peers, ours = commands(a, title)
        programs = {**peers, **ours}
        results = {}
        # The programs alternate, so that a slow phase of the machine affects both.
        for round_ in range(a.pairs):
            if round_ == 1 and not a.every_mode and ("peer", None) not in peers:
                speed = {k: results[k][0]["real_tokens_per_s"] for k in peers if k in results}
                peers = {k: c for k, c in peers.items() if speed.get(k, 0) >= a.near * max(speed.values(), default=0)}
            theirs, mine = list(peers), list(ours)
            order = []
            for i in range(max(len(theirs), len(mine))):
                order += theirs[i : i + 1] + mine[i : i + 1]
            for program, mode in order:
                for result in measured(programs[program, mode], a.limit):
                    key = (program, mode or result.get("peer", "?"))
                    result.setdefault("real_tokens_per_s", result.get("tokens_per_s"))
                    result.setdefault("useful_gflops", result.get("gflops"))
                    say(shape=title, program=key[0], mode=key[1], round=round_ + 1, **result)
                    if "error" not in result:
                        results.setdefault(key, []).append(result)
        median = {
            k: {f: statistics.median(r[f] for r in rows) for f in ("real_tokens_per_s", "useful_gflops", "process_peak_bytes", "ms")}
            | {"runs": len(rows), "share_of_peak": statistics.median(r.get("share_of_peak") or 0 for r in rows)}
            for k, rows in results.items()
        }
        shape = SHAPES[title]
        if title.startswith("infer") and shape.get("lengths") == "uniform":
            tokens = next((m["real_tokens_per_s"] * m["ms"] / 1e3 for k, m in median.items() if k[0] == "cloze"), 0)
            for k in median:
                if k[0] != "cloze":
                    median[k]["real_tokens_per_s"] *= tokens / (shape["batch"] * shape["seq"])
        best_peer = max((k for k in median if k[0] != "cloze"), key=lambda k: median[k]["real_tokens_per_s"], default=None)
        for k, m in median.items():
            ratio = m["real_tokens_per_s"] / median[best_peer]["real_tokens_per_s"] if best_peer else None
            say(summary=title, program=k[0], mode=k[1], peers_best=k == best_peer, times_peers_best=ratio and round(ratio, 3), **m)
            table.append((title, k, m, ratio, k == best_peer))

    print(f"\n{a.threads} threads, median of up to {a.pairs} runs of {a.steps} steps.\n")
    print("| shape | program | real tokens/s | ms | useful GFLOP/s | share of peak | peak memory | × the peers' best |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for title, (program, mode), m, ratio, best in table:
        share = f"{100 * m['share_of_peak']:.0f} %" if m["share_of_peak"] else "–"
        memory = f"{m['process_peak_bytes'] / 2**30:.2f} GiB"
        name = f"{program} {mode}" + (" (best)" if best else "")
        times = f"{ratio:.2f}" if ratio else "–"
        speed = f"{m['real_tokens_per_s']:,.0f} | {m['ms']:,.1f} | {m['useful_gflops']:,.0f}"
        print(f"| {title} | {name} | {speed} | {share} | {memory} | {times} |")
    return 0 if table else "nothing ran"


if __name__ == "__main__":
    sys.exit(main())
