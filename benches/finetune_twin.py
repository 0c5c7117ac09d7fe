"""Fine-tunes a checkpoint with Transformers on a task's files, with the default settings of `cloze finetune`: AdamW with weight decay
0.01 on matrices, clipping at 1, warmup over a tenth of the steps, linear decay. Saves the model, so that it can be scored like the others.

    python finetune_twin.py classify|regress|tag|answer --model CHECKPOINT --train FILE --out FOLDER [--text sentence --label label …]

Reads TSV (columns by name, or by number from 1 as #4 in a file without a header), WikiANN and CoNLL-U (UPOS), SQuAD's JSON. Prints one
JSON line: rows, training seconds (without reading, tokenising and saving), the seed.
"""
import argparse
import json
import re
import time
import warnings

warnings.filterwarnings("ignore")
import torch
import transformers

IGNORED = -100  # the label of a token that is not scored
KINDS = dict(classify="SequenceClassification", regress="SequenceClassification", tag="TokenClassification", answer="QuestionAnswering")

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("kind", choices=KINDS)
p.add_argument("--model", required=True)
p.add_argument("--train", required=True)
p.add_argument("--out", required=True)
p.add_argument("--text", default="text")
p.add_argument("--pair")
p.add_argument("--label", default="label")
p.add_argument("--limit", type=int, default=0, help="training rows; 0: all")
p.add_argument("--epochs", type=int, default=3)
p.add_argument("--batch", type=int, default=32)
p.add_argument("--lr", type=float, default=5e-5)
p.add_argument("--max-len", type=int, default=128)
p.add_argument("--dropout", type=float, help="default: the checkpoint's")
p.add_argument("--overlap", type=int, default=48, help="tokens that two windows of a paragraph share")
p.add_argument("--seed", type=int, default=1)
p.add_argument("--dtype", choices=["f32", "bf16"], default="bf16", help="bf16: torch.autocast")
a = p.parse_args()


def table_rows():
    """The texts and the label of each row of a TSV file."""
    with open(a.train, encoding="utf-8-sig") as lines:
        cells = [line.rstrip("\r\n").split("\t") for line in lines]
    columns = [name for name in (a.text, a.pair, a.label) if name]
    if all(re.fullmatch(r"#\d+", name) for name in columns):
        places = [int(name[1:]) - 1 for name in columns]
    else:
        header = cells.pop(0)
        places = [header.index(name) for name in columns]
    return [([row[i] for i in places[:-1]], row[places[-1]]) for row in cells]


def tagged_rows():
    """The words and tags of each sentence: word<TAB>tag (in WikiANN with a language prefix), or CoNLL-U with UPOS."""
    wide = a.train.endswith(".conllu")
    sentences, words, tags = [], [], []
    with open(a.train, encoding="utf-8") as lines:
        for line in [*lines, ""]:
            cells = line.rstrip("\n").split("\t")
            if len(cells) < 2:
                if words:
                    sentences.append((words, tags))
                words, tags = ([], []) if not line.startswith("#") else (words, tags)
            elif not wide:
                words.append(cells[0].split(":", 1)[1])
                tags.append(cells[1])
            elif cells[0].isdigit():
                words.append(cells[1])
                tags.append(cells[3])
    return sentences


def questions():
    """Question, paragraph, and start and text of the first answer, if there is one."""
    with open(a.train, encoding="utf-8") as file:
        articles = json.load(file)["data"]
    found = []
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        for question in paragraph["qas"]:
            answers = [] if question.get("is_impossible") else question["answers"]
            answer = (answers[0]["answer_start"], answers[0]["text"]) if answers else None
            found.append((question["question"].strip(), paragraph["context"], answer))
    return found


def labels_of(rows):
    """The names of the labels of all rows, in the order in which Cloze uses them."""
    if a.kind not in ("classify", "tag"):
        return []
    return sorted({label for _, labels in rows for label in (labels if a.kind == "tag" else [labels])})


def table_examples(tokenizer, rows, names):
    """Encoded texts with their label."""
    encoded = tokenizer(*map(list, zip(*(texts for texts, _ in rows))), truncation=True, max_length=a.max_len)
    labels = [names.index(label) if names else float(label) for _, label in rows]
    return [dict(ids=i, segments=t, labels=y) for i, t, y in zip(encoded["input_ids"], encoded["token_type_ids"], labels)]


def tagged_examples(tokenizer, rows, names):
    """Encoded sentences; the first piece of a word carries its tag."""
    encoded = tokenizer([words for words, _ in rows], is_split_into_words=True, truncation=True, max_length=a.max_len)
    examples = []
    for number, (_, tags) in enumerate(rows):
        owners = encoded.word_ids(number)
        first = [owner is not None and owner != before for owner, before in zip(owners, [None, *owners])]
        labels = [names.index(tags[owner]) if is_first else IGNORED for owner, is_first in zip(owners, first)]
        examples.append(dict(ids=encoded["input_ids"][number], segments=encoded["token_type_ids"][number], labels=labels))
    return examples


def answering_examples(tokenizer, rows, _):
    """Windows over each paragraph with the first and last piece of the answer; ([CLS], [CLS]) if the window does not contain it."""
    asked, contexts, answers = zip(*rows)
    encoded = tokenizer(list(asked), list(contexts), truncation="only_second", max_length=a.max_len, stride=a.overlap,
                        return_overflowing_tokens=True, return_offsets_mapping=True)
    examples = []
    for number, row in enumerate(encoded["overflow_to_sample_mapping"]):
        start = end = 0
        if answers[row]:
            first, last = answers[row][0], answers[row][0] + len(answers[row][1])
            inside = [i for i, sequence in enumerate(encoded.sequence_ids(number)) if sequence == 1]
            offsets = encoded["offset_mapping"][number]
            if offsets[inside[0]][0] <= first and offsets[inside[-1]][1] >= last:
                start = max(i for i in inside if offsets[i][0] <= first)
                end = min(i for i in inside if offsets[i][1] >= last)
        examples.append(dict(ids=encoded["input_ids"][number], segments=encoded["token_type_ids"][number], labels=(start, end)))
    return examples


def padded(lists, value):
    width = max(map(len, lists))
    return torch.tensor([row + [value] * (width - len(row)) for row in lists])


def batch(examples):
    ids = [example["ids"] for example in examples]
    inputs = dict(input_ids=padded(ids, 0), token_type_ids=padded([example["segments"] for example in examples], 0),
                  attention_mask=padded([[1] * len(row) for row in ids], 0))
    labels = [example["labels"] for example in examples]
    if a.kind == "answer":
        starts, ends = torch.tensor(labels).T
        return dict(inputs, start_positions=starts, end_positions=ends)
    return dict(inputs, labels=padded(labels, IGNORED) if a.kind == "tag" else torch.tensor(labels))


read, encode = dict(tag=(tagged_rows, tagged_examples), answer=(questions, answering_examples)).get(a.kind, (table_rows, table_examples))
rows = read()
names = labels_of(rows)
rows = rows[: a.limit] if a.limit else rows
tokenizer = transformers.BertTokenizerFast.from_pretrained(a.model)
examples = encode(tokenizer, rows, names)
torch.manual_seed(a.seed)
heads = dict(num_labels=1, problem_type="regression") if a.kind == "regress" else {}
heads = dict(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}) if names else heads
if a.dropout is not None:
    heads |= dict(hidden_dropout_prob=a.dropout, attention_probs_dropout_prob=a.dropout)
model = getattr(transformers, "BertFor" + KINDS[a.kind]).from_pretrained(a.model, **heads).train()

steps = (len(examples) + a.batch - 1) // a.batch * a.epochs
groups = [dict(params=[q for q in model.parameters() if q.dim() > 1], weight_decay=0.01),
          dict(params=[q for q in model.parameters() if q.dim() <= 1], weight_decay=0.0)]
optimizer = torch.optim.AdamW(groups, lr=a.lr)
schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(0.1 * steps), steps)
begun = time.perf_counter()
for _ in range(a.epochs):
    order = torch.randperm(len(examples)).tolist()
    for first in range(0, len(order), a.batch):
        inputs = batch([examples[i] for i in order[first : first + a.batch]])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad(set_to_none=True)
seconds = time.perf_counter() - begun
model.save_pretrained(a.out)
tokenizer.save_pretrained(a.out)
print(json.dumps(dict(peer="transformers", rows=len(rows), inputs=len(examples), train_seconds=round(seconds, 1), seed=a.seed)))
