"""Retrieval of long documents: `cloze embed --long truncate`, `first`, `mean` and `max`, beside each other.

    python benches/long_documents.py --cloze target/release/cloze --model all-MiniLM-L6-v2 --articles wikipedia.jsonl.zst

The documents are whole articles of at least --words words: lines of JSON with a title and a text (.jsonl, .jsonl.gz, or .jsonl.zst, which needs the program
zstd). The queries are sentences of these articles, drawn from three parts of each: the first fifth, the middle fifth and the last fifth of its words. A query is
taken out of its document (all three of an article are), so that it must be found by its subject; with --keep it stays in. For each way of reading long texts,
the vectors of all documents are computed once (`cloze embed`), and the queries of each part are searched (`cloze similar`). Prints a table: accuracy@1,
accuracy@10 and MRR@10 of each part, the number of windows and the seconds of embedding. A model is read at its own maximum length, or at --max-len.

To measure what training on long documents changes: write pairs of other articles (--pairs), extend the model (`cloze convert MODEL --positions N`), train
it on them (`cloze finetune embed --max-len N`), and read each model with --long truncate --max-len N.

Only Python's standard library is used.
"""
import argparse
import gzip
import json
import os
import pathlib
import random
import re
import subprocess
import tempfile

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--cloze", required=True, help="the binary")
p.add_argument("--model", required=True, help="a folder, or a name on the hub")
p.add_argument("--articles", required=True, type=pathlib.Path)
p.add_argument("--count", type=int, default=500, help="articles")
p.add_argument("--words", type=int, default=1000, help="the least number of words of an article")
p.add_argument("--long", nargs="+", default=["truncate", "mean", "max"])
p.add_argument("--stride", type=int, help="for mean and max, windows start every N tokens")
p.add_argument("--max-len", type=int)
p.add_argument("--keep", action="store_true", help="leave the queries in their documents")
p.add_argument("--precision", default="f32")
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--seed", type=int, default=1)
p.add_argument("--pairs", type=pathlib.Path, help="only write the pairs (query, document) to this file, to train on them")
p.add_argument("--json", type=pathlib.Path, help="write the figures to this file too")
a = p.parse_args()
PARTS = {"first fifth": (0.0, 0.2), "middle fifth": (0.4, 0.6), "last fifth": (0.8, 1.0)}
TOP = 10


def lines(path):
    if path.suffix == ".zst":
        with subprocess.Popen(["zstd", "-dc", str(path)], stdout=subprocess.PIPE, text=True, encoding="utf-8") as program:
            yield from program.stdout
            program.stdout.close()
            program.terminate()
    elif path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    else:
        with open(path, encoding="utf-8") as file:
            yield from file


def sentences(text):
    """The sentences of a text, each with the share of the text's words before it."""
    found = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\"'])", " ".join(text.split()))
    total, before = sum(len(sentence.split()) for sentence in found), 0
    for sentence in found:
        yield before / total, sentence
        before += len(sentence.split())


def query_of(found, low, high, rng):
    """A sentence of a part, of 8 to 40 words."""
    fits = [sentence for share, sentence in found if low <= share < high and 8 <= len(sentence.split()) <= 40]
    return rng.choice(fits) if fits else None


def cloze(*arguments, stdin=None):
    command = [a.cloze, *arguments, "--threads", str(a.threads), "--quiet"]
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


rng = random.Random(a.seed)
documents, queries = [], {part: [] for part in PARTS}
for line in lines(a.articles):
    article = json.loads(line)
    if len(article["text"].split()) < a.words:
        continue
    found = list(sentences(article["text"]))
    own = {part: query_of(found, low, high, rng) for part, (low, high) in PARTS.items()}
    if None in own.values():
        continue
    left = [sentence for _, sentence in found if a.keep or sentence not in own.values()]
    documents.append(" ".join([article.get("title", ""), *left]).strip())
    for part, sentence in own.items():
        queries[part].append(sentence)
    if len(documents) == a.count:
        break

words = sorted(len(document.split()) for document in documents)
print(f"{len(documents)} articles of {words[0]} to {words[-1]} words (median {words[len(words) // 2]}), a query for each part of each\n")
if a.pairs:
    pairs = [{"anchor": query, "positive": document} for asked in queries.values() for query, document in zip(asked, documents)]
    a.pairs.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    raise SystemExit
figures = []
with tempfile.TemporaryDirectory() as folder:
    corpus, vectors = f"{folder}/corpus.jsonl", f"{folder}/vectors.npy"
    pathlib.Path(corpus).write_text("".join(json.dumps({"text": document}) + "\n" for document in documents), encoding="utf-8")
    length = ["--max-len", str(a.max_len)] if a.max_len else []
    common = ["--model", a.model, "--precision", a.precision, *length]
    for long in a.long:
        how = ["--long", long] + (["--stride", str(a.stride)] if a.stride and long in ("mean", "max") else [])
        embedded = cloze("embed", *common, *how, "--input", corpus, "--out", vectors, "--json")[-1]
        row = {key: embedded[key] for key in ["long", "stride", "max_len", "texts", "cut", "windowed", "windows", "seconds", "peak_rss_bytes"]}
        row["parts"] = {}
        for part, asked in queries.items():
            search = ["similar", *common, *how, "--corpus", corpus, "--embeddings", vectors, "--top", str(TOP), "--json"]
            answers = cloze(*search, stdin="".join(query + "\n" for query in asked))
            ranks = []
            for number, answer in enumerate(answers, 1):
                found = [result["line"] for result in answer["results"]]
                ranks.append(found.index(number) + 1 if number in found else None)
            assert len(ranks) == len(asked)
            share = lambda most: sum(rank is not None and rank <= most for rank in ranks) / len(ranks)
            mrr = sum(1 / rank for rank in ranks if rank) / len(ranks)
            row["parts"][part] = {"accuracy_at_1": share(1), "accuracy_at_10": share(TOP), "mrr_at_10": mrr}
        figures.append(row)

print("| --long | " + " | ".join(f"{part}: @1, @10, MRR" for part in PARTS) + " | windows | seconds |")
print("| --- |" + " --- |" * len(PARTS) + " ---: | ---: |")
for row in figures:
    cells = [f"{one['accuracy_at_1']:.3f}, {one['accuracy_at_10']:.3f}, {one['mrr_at_10']:.3f}" for one in row["parts"].values()]
    read = row["windows"] + row["texts"] - row["windowed"]
    print(f"| {row['long']} | " + " | ".join(cells) + f" | {read} | {row['seconds']:.1f} |")
if a.json:
    a.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
