"""Fine-tuning with Cloze and Transformers alternately: the same checkpoints, rows and settings for several seeds, and the same evaluation.

    python finetune_side_by_side.py --peer-python PYTHON --cloze target/release/cloze --data FOLDER --results FILE.jsonl \\
        --model own=runs/mini/model --model minilm=all-MiniLM-L6-v2 --task sst2 --task ner --seeds 3

FOLDER contains glue/SST-2 … STS-B, ner/wikiann-en.*.txt, ud-ewt/en_ewt-ud-*.conllu and squad/v{1,2}-learn-{train,dev}.json.
finetune_twin.py trains with Transformers; `cloze evaluate` scores the models of both programs on the dev rows. For each seed, the programs
alternate. Seconds are those of the training steps. Each run is one line of FILE.jsonl. A run that is already there, with the same settings,
is not repeated, so a table can be made in several sessions. Prints each line, and then the table of all lines of FILE.jsonl.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

# The files of each task, its score, and a size for a machine with two cores. Windows: Cloze, like Google's script, takes the step from one
# window to the next, Transformers the number of tokens that two windows share; they are equal except for the length of the question.
TASKS = {
    "sst2": dict(kind="classify", train="glue/SST-2/train.tsv", dev="glue/SST-2/dev.tsv", score="accuracy", rows=4000, epochs=2,
                 columns=dict(text="sentence", label="label")),
    "cola": dict(kind="classify", train="glue/CoLA/train.tsv", dev="glue/CoLA/dev.tsv", score="matthews", rows=3000, epochs=2,
                 columns=dict(text="#4", label="#2"), metric="matthews"),
    "mrpc": dict(kind="classify", train="glue/MRPC/train.tsv", dev="glue/MRPC/dev.tsv", score="f1", rows=1500, epochs=2,
                 columns=dict(text="#1 String", pair="#2 String", label="Quality"), metric="f1"),
    "stsb": dict(kind="regress", train="glue/STS-B/train.tsv", dev="glue/STS-B/dev.tsv", score="spearman", rows=2000, epochs=2,
                 columns=dict(text="sentence1", pair="sentence2", label="score")),
    "ner": dict(kind="tag", train="ner/wikiann-en.train.txt", dev="ner/wikiann-en.dev.txt", score="f1", rows=4000, epochs=1),
    "pos": dict(kind="tag", train="ud-ewt/en_ewt-ud-train.conllu", dev="ud-ewt/en_ewt-ud-dev.conllu", score="accuracy",
                rows=3000, epochs=1),
    "squad1": dict(kind="answer", train="squad/v1-learn-train.json", dev="squad/v1-learn-dev.json", score="f1", rows=2000, epochs=1,
                   step=64, overlap=48),
    "squad2": dict(kind="answer", train="squad/v2-learn-train.json", dev="squad/v2-learn-dev.json", score="best_f1", rows=2000, epochs=1,
                   step=64, overlap=48, null="0"),
}
MAX_LEN = 128

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--peer-python", required=True, help="a Python with torch and transformers")
p.add_argument("--cloze", required=True, help="the cloze binary, built for release")
p.add_argument("--data", required=True)
p.add_argument("--results", required=True)
p.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER[@RATE]", help="a checkpoint and its learning rate [5e-5]")
p.add_argument("--task", action="append", default=[], choices=TASKS)
p.add_argument("--rows", type=int, help="number of training rows; default: depends on the task")
p.add_argument("--epochs", type=int, help="default: depends on the task")
p.add_argument("--batch", type=int, default=32)
p.add_argument("--dropout", type=float, help="default: the checkpoint's")
p.add_argument("--seeds", type=int, default=3)
p.add_argument("--peer-seeds", type=int, help="number of seeds for Transformers, if fewer")
p.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
a = p.parse_args()


def last_json(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def options(values):
    """`--name value` for each value that is not None."""
    given = [(name, value) for name, value in values.items() if value is not None]
    return [word for name, value in given for word in (f"--{name.replace('_', '-')}", str(value))]


def reading(of):
    """The flags with which Cloze reads a task's rows, for training and evaluation."""
    return dict(max_len=MAX_LEN, stride=of.get("step"), null_threshold=of.get("null"), precision=a.dtype, **of.get("columns", {}))


def run(program, task, model, rate, seed, folder):
    """Trains a model; returns the seconds and the model's folder."""
    of = TASKS[task]
    shared = dict(model=model, train=os.path.join(a.data, of["train"]), limit=a.rows or of["rows"], epochs=a.epochs or of["epochs"],
                  batch=a.batch, lr=rate, seed=seed, dropout=a.dropout, out=folder)
    if program == "Cloze":
        command = [a.cloze, "finetune", of["kind"], *options(shared | reading(of)), "--json", "--quiet"]
        return last_json(command)["runs"][0]["train_seconds"], os.path.join(folder, "model")
    twin = os.path.join(os.path.dirname(os.path.abspath(__file__)), "finetune_twin.py")
    of_twin = dict(max_len=MAX_LEN, overlap=of.get("overlap"), dtype=a.dtype, **of.get("columns", {}))
    return last_json([a.peer_python, twin, of["kind"], *options(shared | of_twin)])["train_seconds"], folder


def judge(task, model):
    of = TASKS[task]
    asked = dict(model=model, data=os.path.join(a.data, of["dev"]), metric=of.get("metric"))
    return last_json([a.cloze, "evaluate", of["kind"], *options(asked | reading(of)), "--json", "--quiet"])


def lines():
    if not os.path.exists(a.results):
        return []
    with open(a.results, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


done = lines()
for task in a.task:
    of = TASKS[task]
    for name, place in (model.split("=", 1) for model in a.model):
        place, _, rate = place.partition("@")
        rate = rate or "5e-5"
        settings = dict(rows=a.rows or of["rows"], epochs=a.epochs or of["epochs"], rate=rate, batch=a.batch, dropout=a.dropout,
                        dtype=a.dtype)
        for seed in range(1, a.seeds + 1):
            for program in ("Cloze", "Transformers"):
                few = a.seeds if a.peer_seeds is None or program == "Cloze" else a.peer_seeds
                asked = dict(program=program, task=task, model=name, seed=seed) | settings
                if seed > few or any(asked.items() <= line.items() for line in done):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    seconds, trained = run(program, task, place, rate, seed, os.path.join(folder, "run"))
                    found = judge(task, trained)
                line = asked | dict(score=found[of["score"]], train_seconds=round(seconds, 2), judge_seconds=round(found["seconds"], 2),
                                    collapsed=found.get("collapsed"))
                with open(a.results, "a", encoding="utf-8") as file:
                    print(json.dumps(line), file=file)
                print(json.dumps(line), flush=True)


def summary(runs):
    """Mean ± standard deviation of the scores in per cent, the number of seeds, the mean training time."""
    if not runs:
        return "–"
    scores = [100 * line["score"] for line in runs.values()]
    spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    seconds = statistics.mean(line["train_seconds"] for line in runs.values())
    return f"{statistics.mean(scores):.1f}{spread} ({len(scores)}), {seconds:.0f} s"


found = lines()
columns = ("model", "rate", "batch", "dropout", "dtype")
models = list(dict.fromkeys(tuple(line[key] for key in columns) for line in found))
heads = (f"{name} ({', '.join(map(str, settings))}): Cloze | Transformers | ratio of times" for name, *settings in models)
print("\n| task: rows × epochs, score | " + " | ".join(heads) + " |")
print("| --- |" + " --- | --- | --- |" * len(models))
sizes = {(line["task"], line["rows"], line["epochs"]) for line in found}
for task, rows, epochs in sorted(sizes, key=lambda size: (list(TASKS).index(size[0]), size)):
    mine = [line for line in found if (line["task"], line["rows"], line["epochs"]) == (task, rows, epochs)]
    cells = []
    for model in models:
        ours, peers = ({line["seed"]: line for line in mine
                        if line["program"] == program and tuple(line[key] for key in columns) == model}
                       for program in ("Cloze", "Transformers"))
        ratios = [peers[seed]["train_seconds"] / ours[seed]["train_seconds"] for seed in ours if seed in peers]
        cells += [summary(ours), summary(peers), f"{statistics.median(ratios):.2f}" if ratios else "–"]
    print(f"| {task}: {rows} × {epochs}, {TASKS[task]['score']} | " + " | ".join(cells) + " |")
