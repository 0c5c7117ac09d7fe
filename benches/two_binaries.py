"""Compares two builds of cloze on one machine: is the new one slower in any workload?

    python two_binaries.py --old OLD/cloze --new target/release/cloze --corpus wiki.jsonl.zst --labelled train.tsv --pairs 7

The builds alternate, and so does the order within a pair. A ratio is new/old: of the milliseconds of a step or a forward pass for
`cloze bench`, of the wall-clock seconds for other commands. The output has the median ratio of the pairs with its 95 % interval
(bootstrap of the median), and a verdict: "slower" only if the lower end of the interval is above 1.02. The old build creates the input
files of the commands once, in a temporary folder; --labelled is a table with the columns `sentence` and `label` (GLUE's SST-2).
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

BASE = ["--layers", "12", "--hidden", "768", "--heads", "12"]
BENCHES = {
    "train base 16×128": ["train", *BASE, "--batch", "16", "--seq", "128", "--steps", "3"],
    "train mini 32×128": ["train", "--layers", "4", "--hidden", "256", "--heads", "4", "--batch", "32", "--seq", "128", "--steps", "10"],
    "train tiny 64×128": ["train", "--layers", "2", "--hidden", "128", "--heads", "2", "--batch", "64", "--seq", "128", "--steps", "20"],
    "forward base 8×128": ["infer", *BASE, "--batch", "8", "--seq", "128", "--steps", "5"],
    "forward MiniLM 8×128 uniform": [
        "infer", "--layers", "6", "--hidden", "384", "--heads", "12", "--batch", "8", "--seq", "128", "--lengths", "uniform", "--steps", "40",
    ],
}
COMMANDS = ("predict", "embed", "prepare", "vocab")


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--old", required=True)
    p.add_argument("--new", required=True)
    p.add_argument("--corpus", required=True, help="text for vocab and prepare")
    p.add_argument("--labelled", required=True, help="rows for finetune, predict and embed")
    p.add_argument("--pairs", type=int, default=7)
    p.add_argument("--only", action="append", choices=[*BENCHES, *COMMANDS], help="may be repeated")
    p.add_argument("--rows", type=int, default=6000, help="rows to predict and embed")
    return p.parse_args()


def run(binary, *arguments):
    start = time.perf_counter()
    done = subprocess.run([binary, "--quiet", *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"{binary} {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return seconds, done.stdout


def prepare_files(args, folder):
    """Creates a vocabulary, shards, a pre-trained and a fine-tuned mini model, and rows without labels."""
    at = lambda name: os.path.join(folder, name)
    run(args.old, "vocab", "--input", args.corpus, "--size", "8000", "--out", at("vocab"))
    run(args.old, "prepare", "--input", args.corpus, "--tokenizer", at("vocab"), "--out", at("shards"))
    recipe = at("mini.toml")
    with open(recipe, "w") as file:
        file.write(run(args.old, "recipe", "mini")[1])
    run(
        args.old, "pretrain", recipe, "--out", at("run"), "--set", f"data={at('shards')}",
        "--set", "steps=20",
    )
    with open(args.labelled) as file:
        header, *rows = file.read().splitlines()
    with open(at("few.tsv"), "w") as file:
        file.write("\n".join([header, *rows[:600]]) + "\n")
    run(
        args.old, "finetune", "classify", "--model", at("run"), "--train", at("few.tsv"), "--text", "sentence",
        "--epochs", "1", "--out", at("fine"),
    )
    texts = [row.split("\t")[0] for row in rows[: args.rows]]
    with open(at("texts.txt"), "w") as file:
        file.write("\n".join(texts) + "\n")


def workload(name, folder):
    """A function that runs the workload with a binary and returns the time."""
    at = lambda part: os.path.join(folder, part)
    if name in BENCHES:
        return lambda binary: json.loads(run(binary, "bench", *BENCHES[name], "--json")[1].splitlines()[-1])["ms"]

    def command(binary):
        out = tempfile.mkdtemp(dir=folder)
        arguments = {
            "predict": ["predict", "--model", at("fine"), "--input", at("texts.txt")],
            "embed": ["embed", "--model", at("run"), "--input", at("texts.txt"), "--out", os.path.join(out, "v.npy")],
            "prepare": ["prepare", "--input", ARGS.corpus, "--tokenizer", at("vocab"), "--out", os.path.join(out, "s")],
            "vocab": ["vocab", "--input", ARGS.corpus, "--size", "8000", "--out", os.path.join(out, "v")],
        }[name]
        return run(binary, *arguments)[0]

    return command


def interval(ratios):
    draws = random.Random(1)
    medians = sorted(statistics.median(draws.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return medians[250], medians[-251]


def main():
    names = ARGS.only or [*BENCHES, *COMMANDS]
    print("| | old | new | new/old | 95 % interval | |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        if any(name in COMMANDS for name in names):
            prepare_files(ARGS, folder)
        for name in names:
            measure = workload(name, folder)
            binaries, times = (ARGS.old, ARGS.new), ([], [])
            for pair in range(ARGS.pairs + 1):
                for which in (0, 1) if pair % 2 else (1, 0):
                    seconds = measure(binaries[which])
                    if pair > 0:  # the first pair warms up caches
                        times[which].append(seconds)
            old, new = times
            ratios = [b / a for a, b in zip(old, new)]
            low, high = interval(ratios)
            unit = "ms" if name in BENCHES else "s"
            verdict = "slower" if low > 1.02 else "faster" if high < 1 else "same"
            print(
                f"| {name} | {statistics.median(old):.3g} {unit} | {statistics.median(new):.3g} {unit} | "
                f"{statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} | {verdict} |",
                flush=True,
            )


ARGS = parse()
main()
