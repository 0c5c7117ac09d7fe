"""The speed of a pre-training step, Cloze and PyTorch in turn on one machine: tokens/s, useful GFLOP/s, peak memory.

    python side_by_side.py --peer-python PYTHON --peers FOLDER --cloze target/release/cloze --pairs 3

FOLDER holds train_hf.py (one step of Transformers' BertForPreTraining: MLM + NSP, AdamW, clipping); PYTHON has torch and
transformers. Each shape's first round runs PyTorch in f32 and bf16, eager and compiled; later rounds run only those of its modes
that came within --near of its best (--every-mode: all), for a compilation takes longer than the measurement. Within a round the
programs alternate. What counts is PyTorch's best median. Prints JSON lines, then a table in Markdown.
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

SHAPES = {
    "base 16×128 full": dict(layers=12, hidden=768, heads=12, batch=16, seq=128, lengths="full"),
    "base 8×512 uniform": dict(layers=12, hidden=768, heads=12, batch=8, seq=512, lengths="uniform"),
    "mini 32×128 full": dict(layers=4, hidden=256, heads=4, batch=32, seq=128, lengths="full"),
}
PEER_MODES = [(dtype, compiled) for dtype in ("f32", "bf16") for compiled in (False, True)]
PRECISIONS = ("f32", "bf16")


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer-python", required=True, help="a Python with torch and transformers")
    p.add_argument("--peers", required=True, help="the folder with train_hf.py")
    p.add_argument("--cloze", required=True, help="the cloze binary, built for release")
    p.add_argument("--pairs", type=int, default=3, help="rounds; the median counts")
    p.add_argument("--steps", type=int, default=5, help="timed steps in each run")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for both; default: all cores")
    p.add_argument("--shape", action="append", choices=list(SHAPES), help="only this shape; may be repeated")
    p.add_argument("--peer-mode", action="append", help="only this mode of PyTorch, as f32, f32-compiled, bf16 or bf16-compiled")
    p.add_argument("--precision", action="append", choices=PRECISIONS, help="only this precision of cloze")
    p.add_argument("--near", type=float, default=0.7, help="share of the peer's best that earns a mode further rounds")
    p.add_argument("--every-mode", action="store_true")
    p.add_argument("--limit", type=float, default=1200, help="seconds for one run")
    p.add_argument("--out", help="also append the JSON lines here")
    return p.parse_args()


def measured(command, limit):
    """The last JSON object that the program prints, with its wall time and, from wait4's account, its peak memory (its own or
    that of a process it started, whichever is more)."""
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
        return dict(result, error=f"stopped after {limit:.0f} s")
    if child.returncode != 0:
        return dict(result, error=f"exit status {child.returncode}: {' '.join(complaint) or 'no message'}")
    return {**objects[-1], **result} if objects else dict(result, error="printed no JSON")


def flags(shape):
    return [word for key, value in shape.items() for word in (f"--{key}", str(value))]


def peer_name(dtype, compiled):
    return f"{dtype}-compiled" if compiled else dtype


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
    for title in a.shape or SHAPES:
        shape = SHAPES[title]
        common = [*flags(shape), "--steps", str(a.steps), "--threads", str(a.threads)]
        programs = {}
        for dtype, compiled in PEER_MODES:
            name = peer_name(dtype, compiled)
            if not a.peer_mode or name in a.peer_mode:
                script = os.path.join(a.peers, "train_hf.py")
                programs["pytorch", name] = [a.peer_python, script, *common, "--dtype", dtype, *(["--compile"] if compiled else [])]
        for precision in a.precision or PRECISIONS:
            programs["cloze", precision] = [a.cloze, "bench", "train", *common, "--precision", precision, "--json"]
        # Peer, cloze, peer, cloze, …: a slow minute of the machine then falls on both.
        peers = [k for k in programs if k[0] == "pytorch"]
        ours = [k for k in programs if k[0] == "cloze"]
        results = {k: [] for k in programs}
        for round_ in range(a.pairs):
            if round_ == 1 and not a.every_mode:
                speed = {k: results[k][0]["real_tokens_per_s"] for k in peers if results[k]}
                peers = [k for k in peers if speed.get(k, 0) >= a.near * max(speed.values(), default=0)]
            order = []
            for i in range(max(len(peers), len(ours))):
                order += peers[i : i + 1] + ours[i : i + 1]
            for key in order:
                result = measured(programs[key], a.limit)
                say(shape=title, program=key[0], mode=key[1], round=round_ + 1, **result)
                if "error" not in result:
                    results[key].append(result)
        median = {
            k: {f: statistics.median(r[f] for r in rows) for f in ("real_tokens_per_s", "useful_gflops", "process_peak_bytes")}
            | {"runs": len(rows), "share_of_peak": statistics.median(r.get("share_of_peak") or 0 for r in rows)}
            for k, rows in results.items()
            if rows
        }
        best_peer = max((k for k in median if k[0] == "pytorch"), key=lambda k: median[k]["real_tokens_per_s"], default=None)
        for k, m in median.items():
            ratio = m["real_tokens_per_s"] / median[best_peer]["real_tokens_per_s"] if best_peer else None
            say(summary=title, program=k[0], mode=k[1], peers_best=k == best_peer, times_peers_best=ratio and round(ratio, 3), **m)
            table.append((title, k, m, ratio, k == best_peer))

    print(f"\n{a.threads} threads, median of up to {a.pairs} runs of {a.steps} steps.\n")
    print("| shape | program | real tokens/s | useful GFLOP/s | share of peak | peak memory | × PyTorch's best |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for title, (program, mode), m, ratio, best in table:
        share = f"{100 * m['share_of_peak']:.0f} %" if m["share_of_peak"] else "–"
        memory = f"{m['process_peak_bytes'] / 2**30:.2f} GiB"
        name = f"{program} {mode}" + (" (best)" if best else "")
        times = f"{ratio:.2f}" if ratio else "–"
        print(f"| {title} | {name} | {m['real_tokens_per_s']:,.0f} | {m['useful_gflops']:,.0f} | {share} | {memory} | {times} |")
    return 0 if table else "nothing ran"


if __name__ == "__main__":
    sys.exit(main())
