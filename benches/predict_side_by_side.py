"""Sentences per second of a fine-tuned classifier and of embeddings: Cloze, Transformers and OpenVINO alternately on one machine.

    python predict_side_by_side.py --cloze target/release/cloze --model runs/sst2/model --data dev.tsv --text sentence --rounds 3

Run it with a Python that has torch, transformers and openvino. Every program processes the same rows; the other programs get them sorted
by length, in padded batches of --batch, already tokenised (the time of their tokenizer is not counted, that of Cloze is). OpenVINO runs
the model that `cloze convert --to onnx` writes. `embed` is the mean of the last hidden states over real tokens. The results are medians
of the rounds, in f32 and, with --bf16, also in bf16. Prints a table.
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
import numpy
import openvino
import torch
import transformers

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--cloze", required=True)
p.add_argument("--model", required=True, help="a classifier written by `cloze finetune classify`")
p.add_argument("--data", required=True, help="a TSV file with a header")
p.add_argument("--text", default="sentence")
p.add_argument("--label", default="label")
p.add_argument("--max-len", type=int, default=128)
p.add_argument("--batch", type=int, default=64)
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--bf16", action="store_true")
a = p.parse_args()
torch.set_num_threads(a.threads)
transformers.logging.set_verbosity_error()

with open(a.data, encoding="utf-8") as f:
    texts = [row[a.text] for row in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)]
tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
ids = tokenizer(texts, truncation=True, max_length=a.max_len)["input_ids"]
order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
batches = []
for first in range(0, len(order), a.batch):
    chosen = [ids[i] for i in order[first : first + a.batch]]
    width = max(map(len, chosen))
    padded = numpy.zeros((len(chosen), width), dtype=numpy.int64)
    mask = numpy.zeros_like(padded)
    for row, tokens in enumerate(chosen):
        padded[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    batches.append(dict(input_ids=padded, attention_mask=mask, token_type_ids=numpy.zeros_like(padded)))
classifier = transformers.AutoModelForSequenceClassification.from_pretrained(a.model).eval()
encoder = transformers.AutoModel.from_pretrained(a.model).eval()


def mean(hidden, mask):
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)


def with_torch(task, dtype):
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
        for batch in batches:
            x = {k: torch.from_numpy(v) for k, v in batch.items()}
            classifier(**x).logits if task == "classify" else mean(encoder(**x).last_hidden_state, x["attention_mask"])


def with_openvino(task, dtype):
    request = compiled[task, dtype]
    for batch in batches:
        found = request.infer(batch)
        if task == "embed":
            mean(next(iter(found.values())), batch["attention_mask"])


def ours(task, dtype):
    if task == "classify":
        command = [a.cloze, "evaluate", "classify", "--model", a.model, "--data", a.data, "--text", a.text, "--label", a.label]
        command += ["--max-len", str(a.max_len), "--precision", dtype, "--json", "--quiet", "--threads", str(a.threads)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)["seconds"]
    with tempfile.TemporaryDirectory() as out:
        lines = os.path.join(out, "lines.txt")
        with open(lines, "w") as f:
            f.write("\n".join(texts) + "\n")
        command = [a.cloze, "embed", "--model", a.model, "--input", lines, "--pool", "mean", "--max-len", str(a.max_len)]
        command += ["--precision", dtype, "--out", os.path.join(out, "x.npy"), "--json", "--quiet", "--threads", str(a.threads)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)["seconds"]


def timed(run, task, dtype):
    start = time.perf_counter()
    seconds = run(task, dtype)
    # Cloze reports the time without loading the model, which is not counted for the other programs either.
    return seconds if seconds is not None else time.perf_counter() - start


dtypes = ["f32", "bf16"] if a.bf16 else ["f32"]
compiled = {}
core = openvino.Core()
with tempfile.TemporaryDirectory() as folder:
    for task, source in [("classify", a.model), ("embed", os.path.join(folder, "encoder"))]:
        if task == "embed":
            encoder.save_pretrained(source)
            tokenizer.save_pretrained(source)
        out = os.path.join(folder, "onnx-" + task)
        subprocess.run([a.cloze, "convert", source, "--to", "onnx", "--out", out, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        for dtype in dtypes:
            hints = {"INFERENCE_PRECISION_HINT": dtype, "INFERENCE_NUM_THREADS": a.threads, "PERFORMANCE_HINT": "LATENCY"}
            model = core.compile_model(core.read_model(os.path.join(out, "model.onnx")), "CPU", hints)
            compiled[task, dtype] = model.create_infer_request()
    programs = {"Cloze": ours, "Transformers": with_torch, "OpenVINO": with_openvino}
    for run in (with_torch, with_openvino):
        for task in ("classify", "embed"):
            run(task, dtypes[0])  # warm up
    print(f"| {len(texts)} sentences of {sum(map(len, ids)) / len(ids):.1f} tokens | " + " | ".join(programs) + " | ratio to the best |")
    print("| --- |" + " --- |" * (len(programs) + 1))
    for task in ("classify", "embed"):
        for dtype in dtypes:
            seconds = {name: [] for name in programs}
            for _ in range(a.rounds):
                for name, run in programs.items():
                    seconds[name].append(timed(run, task, dtype))
            rates = {name: len(texts) / statistics.median(s) for name, s in seconds.items()}
            best = max(rate for name, rate in rates.items() if name != "Cloze")
            print(f"| {task}, {dtype} | " + " | ".join(f"{rate:,.0f}/s" for rate in rates.values()) + f" | {rates['Cloze'] / best:.2f} |")
