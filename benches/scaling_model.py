"""What training on several ranks costs: a model of the communication, with measured steps as its input. Its result is a computation, no
measurement.

    python scaling_model.py
    python scaling_model.py --step base=922.4@16x128 --alpha 20 --ranks 2 8 64
    python scaling_model.py --scale scale.jsonl            # measured steps from `cloze bench scale --json`, or benches/scale.py
    python scaling_model.py --check scale.jsonl            # the model's communication beside the measured one

Prints a table in Markdown: the efficiency in percent, which is the speed of n ranks divided by n times the speed of one rank that
trains alone with as many micro-batches as each of them. One rank per machine; each machine sends and receives at the link's rate at
the same time.

Measured: the milliseconds of a micro-batch (--step, --scale; by default, the lines of docs/measurements.md that STEPS names). A model
without a measurement takes that of the nearest one, multiplied by the ratio of the useful floating-point operations.
Assumed: the cost of a message (--alpha), the usable part of a link (--usable), the backward pass is two thirds of a micro-batch.
Computed, as crates/train/src/exchange.rs sends them:
- Gradients: rounds, in which each rank gets some blocks of 16,384 weights (4 MB for all of up to 16 ranks, then 4, 2 or 1 blocks for
  each). In each round, every rank sends every other rank its blocks (pairwise all-to-all): n - 1 messages in f32 or bf16. The rank with
  the most blocks decides: with many ranks, some have no block of the last round. A rank whose micro-batches are several sums of the tree sends each (if their number is a power of
  two, it is one sum). Buckets are sent during the backward pass of the last micro-batch, except those with the word embeddings, whose
  gradient is complete at its end.
- Weights: the same number of bytes in f32 (all-gather), after the update: nothing overlaps it.
- Four small all-gathers: counts, losses, sums for the norm.
- Local steps: no exchange of gradients; every N steps the means of the weights' changes and of both moments, 3 times the weights in f32
  (all-to-all, then all-gather, in equal parts of 4,194,304 numbers), which nothing overlaps.
Not modelled: the division of the optimizer's time among the ranks (a gain), packing and adding in memory, ranks of different speed,
congested switches.
"""
import argparse
import json
import math
import sys

# Weights of a block of the optimizer's shares: Share::BLOCK in crates/engine/src/share.rs.
BLOCK = 16_384
# Numbers of a part of the exchange of local steps: CHUNK in crates/train/src/local_steps.rs.
CHUNK = 1 << 22
SMALL_GATHERS = 4
BACKWARD = 2 / 3
PREDICTED = 0.15
MODELS = {
    "mini": dict(layers=4, hidden=256, vocab=8192, batch=32, seq=128),
    "base": dict(layers=12, hidden=768, vocab=30522, batch=16, seq=128),
    "large": dict(layers=24, hidden=1024, vocab=30522, batch=16, seq=128),
}
# Measured steps of docs/measurements.md, 2026-11-25: machine B, both cores, bf16.
STEPS = [
    dict(layers=4, hidden=256, vocab=30522, batch=32, seq=128, ms=158.7),
    dict(layers=12, hidden=768, vocab=30522, batch=16, seq=128, ms=922.4),
]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--step", action="append", default=[], metavar="MODEL=MS@BATCHxSEQ", help="a measured step of one micro-batch")
    p.add_argument("--scale", metavar="FILE", help="take measured steps from these JSON lines")
    p.add_argument("--check", metavar="FILE", help="compare the communication with these JSON lines instead")
    p.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    p.add_argument("--ranks", type=int, nargs="+", default=[2, 8, 64, 256, 1000])
    p.add_argument("--gbit", type=float, nargs="+", default=[1, 10, 100], help="rates of the links in Gb/s")
    p.add_argument("--micro-batches", type=int, nargs="+", default=[1, 8], help="of each rank in a step")
    p.add_argument("--local-steps", type=int, default=100, metavar="N", help="0: leave this row out")
    p.add_argument("--alpha", type=float, default=20, help="microseconds of a message")
    p.add_argument("--usable", type=float, default=0.9, help="part of a link's rate that the data get")
    p.add_argument("--faster", type=float, default=1, metavar="F", help="as if each machine computed F times as fast as measured")
    return p.parse_args()


def parameters(m):
    """The weights of a BERT with the heads of its pre-training."""
    h, v = m["hidden"], m["vocab"]
    layer = 12 * h * h + 13 * h
    heads = (h * h + h) + (h * h + 3 * h + v) + (2 * h + 2)
    return (v + 512 + 2 + 2) * h + m["layers"] * layer + heads


def vocabulary(line):
    """The vocabulary of a measured model, whose number of weights is known."""
    without = parameters(dict(line, vocab=0))
    return (line["parameters"] - without) // (line["hidden"] + 1)


def operations(m):
    """Useful floating-point operations of a micro-batch, forward and backward."""
    h, tokens = m["hidden"], m["batch"] * m["seq"]
    layers = m["layers"] * (12 * h * h + 2 * m["seq"] * h)
    return 6 * tokens * (layers + PREDICTED * (h * h + h * m["vocab"]))


def middle(start, end):
    return start + (1 << ((end - start - 1).bit_length() - 1))


def sums(parts, start, end):
    """The number of sums that a rank with the micro-batches start..end of a step sends: Tree::sums_of in crates/comm/src/tree.rs."""

    def cover(lo, hi):
        if hi <= start or end <= lo:
            return 0
        if start <= lo and hi <= end:
            return 1
        mid = middle(lo, hi)
        return cover(lo, mid) + cover(mid, hi)

    return cover(0, parts)


def most_sums(parts, ranks):
    return max(sums(parts, r * parts // ranks, (r + 1) * parts // ranks) for r in range(ranks))


def dealt(ranks):
    """Blocks that a rank gets in a round: Share::dealt."""
    least = 4 if ranks <= 64 else 2 if ranks <= 256 else 1
    return min(max(64 // ranks, least), 32)


class Network:
    """alpha: seconds of a message; beta: bytes per second of each rank, in each direction."""

    def __init__(self, alpha, beta):
        self.alpha, self.beta = alpha, beta

    def move(self, ranks, bucket, width):
        """Pairwise all-to-all or all-gather of a bucket of weights of `width` bytes each."""
        largest = min(bucket, dealt(ranks) * BLOCK)
        return (ranks - 1) * (self.alpha + width * largest / self.beta)

    def small(self, ranks):
        return SMALL_GATHERS * math.ceil(math.log2(ranks)) * self.alpha

    def buckets(self, weights, ranks):
        size = BLOCK * dealt(ranks) * ranks
        return [min(size, weights - start) for start in range(0, weights, size)]

    def gradients(self, weights, ranks, wire, pieces=1):
        return sum(self.move(ranks, bucket, wire * pieces) for bucket in self.buckets(weights, ranks))

    def weights(self, weights, ranks):
        return sum(self.move(ranks, bucket, 4) for bucket in self.buckets(weights, ranks))

    def local(self, weights, ranks):
        """The exchange of local steps."""
        parts = [min(CHUNK, weights - start) for start in range(0, weights, CHUNK)]
        return 3 * sum(2 * (ranks - 1) * (self.alpha + 4 * part / ranks / self.beta) for part in parts)

    def exposed(self, weights, embeddings, ranks, wire, backward, pieces):
        """The part of a step in which ranks only communicate."""
        all_buckets = len(self.buckets(weights, ranks))
        late = min(all_buckets, math.ceil(embeddings / (BLOCK * dealt(ranks) * ranks)))
        exchange = self.gradients(weights, ranks, wire, pieces)
        hidden = backward * (1 - late / all_buckets)
        gradients = max(exchange * late / all_buckets, exchange - hidden)
        return gradients + self.weights(weights, ranks) + self.small(ranks)


def read(path):
    with open(path) as file:
        lines = [json.loads(line) for line in file if line.startswith("{")]
    return [line for line in lines if line.get("bench") == "scale" and "error" not in line]


def measured_steps(a):
    """Measured micro-batches: shape, ms, and where they are from."""
    steps = []
    for text in a.step:
        try:
            model, rest = text.split("=")
            ms, shape = rest.split("@")
            batch, seq = shape.split("x")
            steps.append(dict(MODELS[model], batch=int(batch), seq=int(seq), ms=float(ms)))
        except (KeyError, ValueError):
            raise SystemExit(f"--step {text}: expected for example base=922.4@16x128")
    for line in read(a.scale) if a.scale else []:
        own = line["micro_batches"] / line["ranks"]
        shape = {key: line[key] for key in ("layers", "hidden", "batch", "seq")}
        steps.append(dict(shape, vocab=vocabulary(line), ms=line["alone_ms"] / own))
    return steps or STEPS


def micro_batch(model, steps):
    """Seconds of a micro-batch, and the measurement that they are computed from."""
    wanted = operations(model)
    nearest = min(steps, key=lambda step: abs(math.log(operations(step) / wanted)))
    return nearest["ms"] / 1e3 * wanted / operations(nearest), nearest


def check(a):
    lines = [line for line in read(a.check) if line["ranks"] > 1]
    if not lines:
        raise SystemExit(f"{a.check}: expected lines of `cloze bench scale --json` of several ranks, found none")
    # Where the rate is not known, that of the run with the fewest ranks is used for all.
    unknown = [line for line in lines if not line.get("link_bits_per_s")]
    first = min(unknown, key=lambda line: line["ranks"], default=None)

    def network(line):
        if line.get("link_bits_per_s"):
            return Network(a.alpha * 1e-6, a.usable * line["link_bits_per_s"] / 8)
        moved = 2 * 4 * first["parameters"] * (first["ranks"] - 1) / first["ranks"]
        return Network(0, moved / (first["exchange_ms"] / 1e3))

    print("The exchange alone, and a step; the compute time is that of the same line (`alone_ms`). Ranks of one machine share its cores.")
    if first:
        print(f"Without a link's rate, the exchange of the first line with {first['ranks']} ranks gives the bandwidth.")
    print("\n| link | ranks | weights | exchange: model, ms | measured, ms | measured / model | step: model, ms | measured, ms | measured / model |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in lines:
        net, ranks, weights = network(line), line["ranks"], line["parameters"]
        wire = 2 if line["gradients"] == "bf16" else 4
        exchange = 1e3 * (net.gradients(weights, ranks, wire) + net.weights(weights, ranks))
        own = line["micro_batches"] / ranks
        embeddings = vocabulary(line) * line["hidden"]
        backward = BACKWARD * line["alone_ms"] / 1e3 / own
        pieces = most_sums(line["micro_batches"], ranks)
        step = line["alone_ms"] + 1e3 * net.exposed(weights, embeddings, ranks, wire, backward, pieces)
        print(
            f"| {line.get('link', 'memory')} | {ranks} | {weights / 1e6:.1f} M | {exchange:,.1f} | {line['exchange_ms']:,.1f} "
            f"| {line['exchange_ms'] / exchange:.2f} | {step:,.1f} | {line['ms']:,.1f} | {line['ms'] / step:.2f} |"
        )


def main():
    a = parse()
    if a.check:
        return check(a)
    steps = measured_steps(a)
    print("A model, not a measurement: " + f"{a.alpha:g} µs for a message, {100 * a.usable:.0f} % of a link's rate, one rank per machine.\n")
    print("| model | weights | micro-batch | ms | from |")
    print("| --- | --- | --- | --- | --- |")
    times = {}
    for name in a.models:
        model = MODELS[name]
        seconds, source = micro_batch(model, steps)
        times[name] = seconds / a.faster
        shape = f"{source['batch']}×{source['seq']}, {source['layers']} layers, hidden {source['hidden']}, vocabulary {source['vocab']:,}"
        is_same = all(source[key] == model[key] for key in model)
        origin = "measured" if is_same else f"computed by operations from the measured {source['ms']:g} ms of {shape}"
        if a.faster != 1:
            origin += f"; divided by {a.faster:g}"
        print(f"| {name} | {parameters(model) / 1e6:.1f} M | {model['batch']}×{model['seq']} | {1e3 * times[name]:.1f} | {origin} |")
    ranks = " / ".join(f"{n:,}" for n in a.ranks)
    print(f"\nEfficiency in percent on {ranks} ranks:\n")
    print("| model | micro-batches of a rank | exchange |" + "".join(f" {g:g} Gb/s |" for g in a.gbit))
    print("| --- | --- | --- |" + " --- |" * len(a.gbit))
    rows = [("gradients in f32", 4, 0), ("gradients in bf16", 2, 0)]
    if a.local_steps:
        rows.append((f"{a.local_steps} local steps", 4, a.local_steps))
    for name in a.models:
        model, seconds = MODELS[name], times[name]
        weights, embeddings = parameters(model), model["vocab"] * model["hidden"]
        for own in a.micro_batches:
            for title, wire, local in rows:
                cells = []
                for gbit in a.gbit:
                    net = Network(a.alpha * 1e-6, a.usable * gbit * 1e9 / 8)
                    values = []
                    for n in a.ranks:
                        if local:
                            each = net.local(weights, n) / local + net.small(n)
                        else:
                            pieces = most_sums(n * own, n)
                            each = net.exposed(weights, embeddings, n, wire, BACKWARD * seconds, pieces)
                        values.append(f"{100 * own * seconds / (own * seconds + each):.0f}")
                    cells.append(" / ".join(values))
                print(f"| {name} | {own} | {title} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
