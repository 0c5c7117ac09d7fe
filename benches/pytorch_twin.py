"""Trains Transformers' BertForPreTraining, or ModernBertForMaskedLM, on the same batches as Cloze, from the same initial weights.

    python pytorch_twin.py --init FOLDER --batches FILE --minutes 30 --lr 5e-4 --warmup-steps 100 --total-steps 2000 --out CURVE.jsonl

FILE (and --eval-batches) is an Arrow IPC file with one row per sequence, sorted by step:
step int64, ids list<int32>, segments list<int32>, mlm_positions list<int32> (within the sequence), mlm_labels list<int32>,
nsp_label int32 (null or -1: NSP is off), and optionally lr float64: the step's learning rate, instead of the following schedule.

Step t = 1, 2, … uses the learning rate lr·t/warmup for t ≤ warmup, then lr·(total − t)/(total − warmup) (linear), a half cosine
(cosine) or lr (constant). It stops at --minutes of training, at --total-steps, or when FILE ends. Evaluation, compilation and
saving are not counted. Prints one JSON object per line, and appends it to --out.
"""
import argparse
import itertools
import json
import math
import resource
import time
import warnings

warnings.filterwarnings("ignore")
import numpy
import pyarrow
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, BertForPreTraining, ModernBertForMaskedLM

IGNORED = -100  # the label of a token that is not predicted


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--init", required=True, help="Hugging Face folder with the initial weights")
    p.add_argument("--batches", required=True, help="Arrow IPC file of training batches")
    p.add_argument("--minutes", type=float, default=math.inf, help="minutes of training")
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--warmup-steps", type=int, default=0)
    p.add_argument("--total-steps", type=int, help="end of the decay, and of the run; default: the steps in FILE")
    p.add_argument("--decay", choices=["linear", "cosine", "constant"], default="linear")
    p.add_argument("--clip", type=float, default=1.0, help="largest global gradient norm; 0 for none")
    p.add_argument("--weight-decay", type=float, default=0.01, help="on parameters with two dimensions or more")
    p.add_argument("--beta2", type=float, default=0.999)
    p.add_argument("--epsilon", type=float, default=1e-6)
    p.add_argument("--bias-correction", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="bf16: torch.autocast")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    p.add_argument("--seed", type=int, default=0, help="of dropout")
    p.add_argument("--eval-batches", help="Arrow IPC file of held-out batches")
    p.add_argument("--eval-every", type=int, default=100, help="steps between evaluations")
    p.add_argument("--log-every", type=int, default=10, help="steps between lines")
    p.add_argument("--out", required=True, help="the training curve as JSON lines")
    p.add_argument("--save", help="folder for the final model")
    return p.parse_args()


class Batches:
    """The steps of a memory-mapped Arrow IPC file as padded tensors."""

    def __init__(self, path):
        source = pyarrow.memory_map(path)
        try:
            self.table = pyarrow.ipc.open_file(source).read_all()
        except pyarrow.ArrowInvalid:
            self.table = pyarrow.ipc.open_stream(pyarrow.memory_map(path)).read_all()
        self.table = self.table.combine_chunks()
        steps = self.table["step"].to_numpy()
        if len(steps) == 0:
            raise SystemExit(f"{path}: no rows")
        cuts = numpy.flatnonzero(numpy.diff(steps)) + 1
        self.starts = [0, *cuts.tolist()]
        self.ends = [*cuts.tolist(), len(steps)]
        self.rates = self.table["lr"].to_numpy() if "lr" in self.table.column_names else None

    def __len__(self):
        return len(self.starts)

    def rate(self, k):
        return None if self.rates is None else float(self.rates[self.starts[k]])

    def __getitem__(self, k):
        """Step k as padded ids, mask, segments, labels [S, longest] and NSP labels [S], or None when NSP is off."""
        rows = self.table.slice(self.starts[k], self.ends[k] - self.starts[k])
        columns = {n: rows[n].to_pylist() for n in ("ids", "segments", "mlm_positions", "mlm_labels", "nsp_label")}
        shape = (len(columns["ids"]), max(map(len, columns["ids"])))
        ids, mask, segments = (numpy.zeros(shape, numpy.int64) for _ in range(3))
        labels = numpy.full(shape, IGNORED, numpy.int64)
        for r, row in enumerate(columns["ids"]):
            ids[r, : len(row)], mask[r, : len(row)] = row, 1
            segments[r, : len(row)] = columns["segments"][r]
            labels[r, columns["mlm_positions"][r]] = columns["mlm_labels"][r]
        nsp = numpy.asarray([-1 if label is None else label for label in columns["nsp_label"]], numpy.int64)
        if (nsp < 0).any():
            nsp = None
        return [None if x is None else torch.from_numpy(x) for x in (ids, mask, segments, labels, nsp)]


class BertAdamW:
    """google-research/bert's optimizer: Adam without bias correction, weight decay added to the update."""

    def __init__(self, groups, lr, eps, betas=(0.9, 0.999)):
        self.eps, self.betas = eps, betas
        self.param_groups = [dict(g, lr=lr) for g in groups]
        for g in self.param_groups:
            g["m"] = [torch.zeros_like(p) for p in g["params"]]
            g["v"] = [torch.zeros_like(p) for p in g["params"]]

    @torch.no_grad()
    def step(self):
        b1, b2 = self.betas
        for g in self.param_groups:
            grads = [p.grad for p in g["params"]]
            torch._foreach_lerp_(g["m"], grads, 1 - b1)
            torch._foreach_mul_(g["v"], b2)
            torch._foreach_addcmul_(g["v"], grads, grads, 1 - b2)
            scale = torch._foreach_sqrt(g["v"])
            torch._foreach_add_(scale, self.eps)
            if g["weight_decay"]:
                torch._foreach_mul_(g["params"], 1 - g["lr"] * g["weight_decay"])
            torch._foreach_addcdiv_(g["params"], g["m"], scale, -g["lr"])

    def zero_grad(self):
        for g in self.param_groups:
            for p in g["params"]:
                p.grad = None


class Losses(torch.nn.Module):
    """The model's loss and its NSP part; without NSP, the mean MLM loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask, segments, labels, nsp):
        if isinstance(self.model, ModernBertForMaskedLM):
            chosen = labels != IGNORED
            return cross_entropy(modern_logits(self.model, ids, mask, chosen), labels[chosen]), None
        inputs = dict(input_ids=ids, attention_mask=mask, token_type_ids=segments)
        if nsp is None:
            logits = self.model(**inputs).prediction_logits
            return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED), None
        out = self.model(**inputs, labels=labels, next_sentence_label=nsp)
        return out.loss, cross_entropy(out.seq_relationship_logits.detach().float(), nsp)


def modern_logits(model, ids, mask, chosen):
    """The logits of the chosen tokens: the head need not run for the others."""
    hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    return model.decoder(model.head(hidden[chosen]))


@torch.inference_mode()
def evaluate(model, batches):
    """Metrics on held-out batches in float32; the MLM head runs only for predicted tokens."""
    model.eval()
    loss = right = predicted = nsp_right = pairs = 0
    for k in range(len(batches)):
        ids, mask, segments, labels, nsp = batches[k]
        chosen = labels != IGNORED
        wanted = labels[chosen]
        if isinstance(model, ModernBertForMaskedLM):
            logits = modern_logits(model, ids, mask, chosen)
        else:
            hidden, pooled = model.bert(ids, attention_mask=mask, token_type_ids=segments, return_dict=False)
            logits = model.cls.predictions(hidden[chosen])
        loss += float(cross_entropy(logits, wanted, reduction="sum"))
        right += int((logits.argmax(-1) == wanted).sum())
        predicted += len(wanted)
        if nsp is not None:
            nsp_right += int((model.cls.seq_relationship(pooled).argmax(-1) == nsp).sum())
            pairs += len(nsp)
    model.train()
    return dict(
        eval_mlm_loss=round(loss / predicted, 5),
        eval_mlm_accuracy=round(right / predicted, 5),
        eval_nsp_accuracy=round(nsp_right / pairs, 5) if pairs else None,
    )


def rate(a, total, t):
    """The learning rate of step t = 1, 2, …"""
    if t <= a.warmup_steps:
        return a.lr * t / a.warmup_steps
    if a.decay == "constant":
        return a.lr
    left = (total - t) / max(1, total - a.warmup_steps)
    return a.lr * (left if a.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))


def main():
    a = parse()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    batches = Batches(a.batches)
    held_out = Batches(a.eval_batches) if a.eval_batches else None
    total = a.total_steps or len(batches)
    is_modern = AutoConfig.from_pretrained(a.init).model_type == "modernbert"
    model = (ModernBertForMaskedLM if is_modern else BertForPreTraining).from_pretrained(a.init).train()
    losses = Losses(model)
    run = torch.compile(losses) if a.compile else losses
    parameters = [p for _, p in model.named_parameters()]
    groups = [
        dict(params=[p for p in parameters if p.dim() > 1], weight_decay=a.weight_decay),
        dict(params=[p for p in parameters if p.dim() <= 1], weight_decay=0.0),
    ]
    if a.bias_correction:
        optimizer = torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, a.beta2), eps=a.epsilon, fused=True)
    else:
        optimizer = BertAdamW(groups, lr=a.lr, eps=a.epsilon)

    def forward(batch):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            return run(*batch)

    def forget_gradients():
        for p in parameters:
            p.grad = None

    # Before timing starts: allocate, and compile for up to three shapes (the second makes the compiler generalise).
    without_pooler = batches[0][4] is None
    seen = set()
    for k in range(min(len(batches), 50)):
        batch = batches[k]
        if batch[0].shape not in seen and len(seen) < 3:
            seen.add(batch[0].shape)
            forward(batch)[0].backward()
            forget_gradients()
    if without_pooler and not is_modern:  # parameters that do not contribute to the loss have no gradient
        for g in optimizer.param_groups:
            unreached = {id(p) for p in itertools.chain(model.bert.pooler.parameters(), model.cls.seq_relationship.parameters())}
            keep = [i for i, p in enumerate(g["params"]) if id(p) not in unreached]
            for key in ("params", "m", "v"):
                if key in g:
                    g[key] = [g[key][i] for i in keep]

    curve = open(a.out, "w")

    def say(**line):
        print(json.dumps(line), flush=True)
        curve.write(json.dumps(line) + "\n")
        curve.flush()

    if held_out:
        say(step=0, minute=0.0, tokens=0, **evaluate(model, held_out))
    trained, tokens, since = 0.0, 0, []
    t = 0
    for t in range(1, min(total, len(batches)) + 1):
        begin = time.perf_counter()
        batch = batches[t - 1]
        lr = batches.rate(t - 1)
        for g in optimizer.param_groups:
            g["lr"] = rate(a, total, t) if lr is None else lr
        loss, nsp = forward(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, a.clip if a.clip else math.inf)
        optimizer.step()
        forget_gradients()
        since.append((float(loss), float(nsp) if nsp is not None else 0.0, float(norm)))
        trained += time.perf_counter() - begin
        tokens += int(batch[1].sum())
        last = t == min(total, len(batches)) or trained >= 60 * a.minutes
        judge = held_out and (last or t % a.eval_every == 0)
        if last or judge or t % a.log_every == 0:
            whole, pair, norms = (sum(x) / len(since) for x in zip(*since))
            since = []
            say(
                step=t,
                minute=round(trained / 60, 4),
                mlm_loss=round(whole - pair, 5),
                nsp_loss=round(pair, 5) if nsp is not None else None,
                **(evaluate(model, held_out) if judge else {}),
                lr=optimizer.param_groups[0]["lr"],
                grad_norm=round(norms, 5),
                tokens=tokens,
                real_tokens_per_s=round(tokens / trained, 1),
            )
        if last:
            break
    if a.save:
        model.save_pretrained(a.save)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    say(done=True, steps=t, minutes=round(trained / 60, 4), tokens=tokens, real_tokens_per_s=round(tokens / trained, 1),
        peak_rss_bytes=peak, torch=torch.__version__, threads=torch.get_num_threads(), dtype=a.dtype, compile=a.compile)


if __name__ == "__main__":
    main()
