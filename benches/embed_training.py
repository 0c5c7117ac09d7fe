"""Trains an embedding model in Cloze and in sentence-transformers, in turn, with the same rows and settings, and judges both folders.

    python embed_training.py --cloze target/release/cloze --model all-MiniLM-L6-v2 --train pairs.tsv --dev dev.tsv --loss info-nce --work DIR

The rows are tables with a header: anchor, positive (info-nce), two texts and a score (cosent), or one text (denoising, whose dev rows
have two texts and a score). Both programs train one epoch of AdamW
with linear decay after a warmup of a tenth, without evaluation, and write a folder; sentence-transformers opens both and scores them
on the dev rows: Spearman's correlation of scored pairs, or nDCG@10 of each anchor among all other texts. Prints one JSON line for
each program: seconds of training, peak memory, score. Needs sentence-transformers with `datasets` and `accelerate`.
"""
import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import time

import csv


def rows_of(path):
    with open(path, encoding="utf8", newline="") as f:
        rows = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    return rows[0], rows[1:]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cloze")
    p.add_argument("--model", required=True)
    p.add_argument("--train", required=True)
    p.add_argument("--dev", required=True)
    p.add_argument("--loss", choices=("info-nce", "cosent", "denoising"), default="info-nce")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=2e-5)
    p.add_argument("--max-len", type=int, default=128)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--limit", type=int)
    p.add_argument("--cached", action="store_true", help="sentence-transformers with CachedMultipleNegativesRankingLoss")
    p.add_argument("--bf16", action="store_true", help="sentence-transformers with bf16 autocast")
    p.add_argument("--work", required=True, help="a folder for both models")
    p.add_argument("--only", choices=("cloze", "peer", "judge"), help="for the program itself")
    return p.parse_args()


def damaged(batch):
    """Deletes words with probability 0.6, and keeps at least one. The columns are in the order that the loss reads."""
    texts = []
    for text in batch["positive"]:
        words = re.findall(r"\w+|[^\w\s]", text)
        kept = [word for word in words if random.random() > 0.6] or [random.choice(words)]
        texts.append(" ".join(kept))
    return {"anchor": texts, "positive": batch["positive"]}


def peer(a, out):
    """Trains in this process."""
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer import losses

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    header, rows = rows_of(a.train)
    rows = rows[: a.limit]
    columns = {"anchor": [r[0] for r in rows], "positive": [r[-1] if a.loss == "denoising" else r[1] for r in rows]}
    if a.loss == "cosent":
        columns["score"] = [float(r[2]) for r in rows]
    model = SentenceTransformer(a.model, device="cpu")
    model.max_seq_length = a.max_len
    dataset = Dataset.from_dict(columns)
    if a.loss == "cosent":
        loss = losses.CoSENTLoss(model)
    elif a.loss == "denoising":
        loss = losses.DenoisingAutoEncoderLoss(model, tie_encoder_decoder=True)
        dataset = dataset.select_columns(["positive"])
        dataset.set_transform(damaged)
    elif a.cached:
        loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=32)
    else:
        loss = losses.MultipleNegativesRankingLoss(model)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=out + ".tmp", num_train_epochs=1, per_device_train_batch_size=a.batch, learning_rate=a.lr, warmup_steps=0.1,
        weight_decay=0.01, seed=a.seed, bf16=a.bf16, use_cpu=True, save_strategy="no", report_to=[], logging_steps=1000000,
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss)
    start = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start
    model.save(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(dict(program="sentence-transformers", train_seconds=round(seconds, 2), peak_rss_bytes=peak)), flush=True)


def judge(a, folder):
    import numpy as np
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    _, rows = rows_of(a.dev)
    model = SentenceTransformer(folder, device="cpu")
    encode = lambda texts: model.encode(texts, normalize_embeddings=True, batch_size=64)
    if a.loss != "info-nce":
        similar = (encode([r[0] for r in rows]) * encode([r[1] for r in rows])).sum(1)
        return dict(spearman=round(float(spearmanr(similar, [float(r[2]) for r in rows])[0]), 4))
    documents = sorted({r[1] for r in rows})
    place = {text: i for i, text in enumerate(documents)}
    relevant = {}
    for r in rows:
        relevant.setdefault(r[0], set()).add(place[r[1]])
    queries = list(relevant)
    scores = encode(queries) @ encode(documents).T
    ndcg, first = [], []
    for query, row in zip(queries, scores):
        top = np.argsort(-row, kind="stable")[:10]
        gains = sum(1 / np.log2(rank + 2) for rank, d in enumerate(top) if d in relevant[query])
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(10, len(relevant[query]))))
        ndcg.append(gains / ideal)
        first.append(top[0] in relevant[query])
    return dict(ndcg_at_10=round(float(np.mean(ndcg)), 4), accuracy_at_1=round(float(np.mean(first)), 4), documents=len(documents))


def main():
    a = parse()
    os.makedirs(a.work, exist_ok=True)
    ours, theirs = os.path.join(a.work, "cloze"), os.path.join(a.work, "peer")
    if a.only == "peer":
        return peer(a, theirs)
    if a.only == "judge":
        print(json.dumps(dict(judged=a.model, **judge(a, a.model))))
        return
    command = [
        a.cloze, "finetune", "embed", "--model", a.model, "--train", a.train, "--out", ours, "--loss", a.loss, "--batch", str(a.batch), "--lr",
        str(a.lr), "--max-len", str(a.max_len), "--seed", str(a.seed), "--epochs", "1", "--query-prompt", "", "--document-prompt", "", "--json", "--quiet",
    ]  # fmt: skip
    if a.limit:
        command += ["--limit", str(a.limit)]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    line = dict(program="cloze", train_seconds=round(result["train_seconds"], 2), peak_rss_bytes=result["peak_rss_bytes"])
    print(json.dumps(line), flush=True)
    subprocess.run([sys.executable, *sys.argv, "--only", "peer"], check=True)
    for name, folder in (("start", a.model), ("cloze", os.path.join(ours, "model")), ("sentence-transformers", theirs)):
        print(json.dumps(dict(judged=name, **judge(a, folder))), flush=True)


main()
