"""Exact search for the nearest vectors: Cloze, torch (matmul and topk) and faiss (IndexFlatIP) in turn on one machine.

    python mining.py --search target/release/examples/nearest --queries 20000 --vectors 20000 --width 384 --top 10 --rounds 3

Run it with a Python that has numpy, torch and faiss-cpu; build the example with `cargo build --release --example nearest`. The vectors are random with norm 1. All
programs use the same number of threads and the same files, and their time is that of the search, without reading. For each query, the rows that two
programs find are compared; they may differ where scores differ by rounding. torch compares 1,024 queries at a time with all vectors. Prints
a table of medians.
"""
import argparse
import os
import statistics
import subprocess
import tempfile
import time

import faiss
import numpy as np
import torch

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--search", required=True, help="the example `nearest`, built for release")
p.add_argument("--queries", type=int, default=20000)
p.add_argument("--vectors", type=int, default=20000)
p.add_argument("--width", type=int, default=384)
p.add_argument("--top", type=int, default=10)
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
a = p.parse_args()
torch.set_num_threads(a.threads)
faiss.omp_set_num_threads(a.threads)


def unit(count):
    made = rng.standard_normal((count, a.width), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def cloze():
    command = [a.search, f"{folder}/queries.npy", f"{folder}/vectors.npy", f"{folder}/found.npy", str(a.top), str(a.threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout), np.load(f"{folder}/found.npy").astype(np.int64)


def with_torch():
    asked, stored = torch.from_numpy(queries), torch.from_numpy(vectors)
    start = time.perf_counter()
    found = torch.cat([(part @ stored.T).topk(a.top).indices for part in asked.split(1024)])
    return time.perf_counter() - start, found.numpy()


def with_faiss():
    index = faiss.IndexFlatIP(a.width)
    index.add(vectors)
    start = time.perf_counter()
    _, found = index.search(queries, a.top)
    return time.perf_counter() - start, found


programs = {"Cloze": cloze, f"torch {torch.__version__}": with_torch, f"faiss {faiss.__version__}": with_faiss}
rng = np.random.default_rng(1)
queries, vectors = unit(a.queries), unit(a.vectors)
seconds, found = {name: [] for name in programs}, {}
with tempfile.TemporaryDirectory() as folder:
    np.save(f"{folder}/queries.npy", queries)
    np.save(f"{folder}/vectors.npy", vectors)
    for _ in range(a.rounds):
        for name, run in programs.items():
            took, found[name] = run()
            seconds[name].append(took)
print(f"{a.queries:,} queries × {a.vectors:,} vectors × {a.width}, top {a.top}, {a.threads} threads, median of {a.rounds}; load {os.getloadavg()[0]:.1f}")
print("| program | seconds | GFLOP/s | same rows as Cloze |\n| --- | --- | --- | --- |")
for name in programs:
    median = statistics.median(seconds[name])
    same = np.mean(np.sort(found[name], axis=1) == np.sort(found["Cloze"], axis=1))
    print(f"| {name} | {median:.3f} | {2e-9 * a.queries * a.vectors * a.width / median:.0f} | {same:.5f} |")
