"""Fine-tuning, Cloze and Transformers in turn: the same checkpoint, rows and settings, several seeds each; dev accuracy and seconds.

    python finetune_side_by_side.py --peer-python PYTHON --peer finetune_hf.py --cloze target/release/cloze \\
        --model CHECKPOINT --train train.tsv --dev dev.tsv --text sentence --label label --limit 2000 --epochs 3 --seeds 5

The peer is a script that takes model, train, dev, --text-a, --text-b, --label, --epochs, --batch, --lr, --max-len, --seed, --limit
and --dtype, fine-tunes BertForSequenceClassification with AdamW (decay 0.01, clip 1, warmup over a tenth, linear decay) and prints one
JSON line with accuracy, train_seconds and eval_seconds. Within a seed the programs alternate. Prints JSON lines, then a table.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--peer-python", required=True, help="a Python with torch and transformers")
p.add_argument("--peer", required=True, help="the peer's script")
p.add_argument("--cloze", required=True, help="the cloze binary, built for release")
p.add_argument("--model", required=True)
p.add_argument("--train", required=True)
p.add_argument("--dev", required=True)
p.add_argument("--text", default="sentence")
p.add_argument("--pair")
p.add_argument("--label", default="label")
p.add_argument("--limit", type=int, default=0, help="training rows; 0: all")
p.add_argument("--epochs", type=int, default=3)
p.add_argument("--batch", type=int, default=32)
p.add_argument("--lr", type=float, default=5e-5)
p.add_argument("--max-len", type=int, default=128)
p.add_argument("--seeds", type=int, default=5)
p.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
a = p.parse_args()


def last_json(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(seed):
    out = tempfile.mkdtemp()
    command = [a.cloze, "finetune", "classify", "--model", a.model, "--train", a.train, "--dev", a.dev]
    command += ["--text", a.text, "--label", a.label, "--epochs", str(a.epochs), "--batch", str(a.batch)]
    command += ["--lr", str(a.lr), "--max-len", str(a.max_len), "--seed", str(seed), "--precision", a.dtype]
    command += ["--pair", a.pair] if a.pair else []
    command += ["--limit", str(a.limit)] if a.limit else []
    # The peer judges once, after the last epoch.
    run = os.path.join(out, "run")
    found = last_json(command + ["--out", run, "--json", "--quiet"])
    with open(os.path.join(run, "metrics.jsonl")) as lines:
        evals = [line for line in map(json.loads, lines) if line["kind"] == "eval"]
    shutil.rmtree(out)
    return dict(accuracy=evals[-1]["scores"]["accuracy"], train_seconds=found["runs"][0]["train_seconds"],
                eval_seconds=evals[-1]["eval_seconds"])


def peer(seed):
    command = [a.peer_python, a.peer, a.model, a.train, a.dev, "--text-a", a.text, "--label", a.label]
    command += ["--epochs", str(a.epochs), "--batch", str(a.batch), "--lr", str(a.lr), "--max-len", str(a.max_len)]
    command += ["--seed", str(seed), "--limit", str(a.limit), "--dtype", a.dtype]
    command += ["--text-b", a.pair] if a.pair else []
    return last_json(command)


programs = {"Cloze": ours, "Transformers": peer}
found = {name: [] for name in programs}
for seed in range(1, a.seeds + 1):
    for name, run in programs.items():
        result = run(seed)
        found[name].append(result)
        print(json.dumps(dict(program=name, seed=seed, **{k: result[k] for k in ("accuracy", "train_seconds", "eval_seconds")})), flush=True)


def spread(name, key):
    values = [result[key] for result in found[name]]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.mean(values), deviation


print(f"\n| {os.path.basename(os.path.dirname(os.path.abspath(a.train)))}, {a.limit or 'all'} rows, {a.epochs} epochs, {a.seeds} seeds, {a.dtype} "
      "| dev accuracy | seconds to train | seconds to judge |\n| --- | --- | --- | --- |")
for name in programs:
    accuracy, seconds, judging = (spread(name, key) for key in ("accuracy", "train_seconds", "eval_seconds"))
    print(f"| {name} | {100 * accuracy[0]:.2f} ± {100 * accuracy[1]:.2f} % | {seconds[0]:.1f} ± {seconds[1]:.1f} | {judging[0]:.1f} |")
ratios = [theirs["train_seconds"] / ours["train_seconds"] for ours, theirs in zip(found["Cloze"], found["Transformers"])]
print(f"| ratio, median of {len(ratios)} | | {statistics.median(ratios):.2f} | |")
