"""A training step of Transformers' BertForPreTraining shared by several processes: PyTorch's DistributedDataParallel with gloo.

    torchrun --nproc-per-node 2 ddp_gloo.py --layers 12 --hidden 768 --heads 12 --batch 8 --seq 128 --micro-batches 2

It measures what `cloze bench scale` measures, and prints one JSON object at rank 0: the median of a step with all micro-batches; of the
exchange of the gradients alone; and of a step in which each process trains alone with its micro-batches, inside `no_sync()`. Gradients
are exchanged in the last micro-batch of each process only. Both programs clip the gradient and update the weights with AdamW.
"""
import argparse
import contextlib
import json
import os
import resource
import statistics
import time
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import BertConfig, BertForPreTraining

WARM_UP = 2
BUCKET_MB = 25  # DistributedDataParallel's default
MASKED, IGNORED = 0.15, -100


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--hidden", type=int, default=768)
    p.add_argument("--heads", type=int, default=12)
    p.add_argument("--vocab", type=int, default=30522)
    p.add_argument("--batch", type=int, default=8, help="sequences in a micro-batch")
    p.add_argument("--seq", type=int, default=128, help="tokens of a sequence")
    p.add_argument("--micro-batches", type=int, help="micro-batches of a step; default: one for each process")
    p.add_argument("--precision", choices=["f32", "bf16"], default="bf16", help="bf16: torch.autocast")
    p.add_argument("--gradients", choices=["f32", "bf16"], default="f32", help="bf16: bf16_compress_hook")
    p.add_argument("--steps", type=int, default=5, help="measured steps")
    p.add_argument("--threads", type=int, default=1, help="of each process")
    return p.parse_args()


def micro_batch(a):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000 % a.vocab, a.vocab, (a.batch, a.seq), generator=generator)
    chosen = torch.rand(ids.shape, generator=generator) < MASKED
    chosen[:, 0] = True  # no row without a prediction
    return dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
        labels=torch.where(chosen, ids, torch.full_like(ids, IGNORED)),
        next_sentence_label=torch.randint(0, 2, (a.batch,), generator=generator),
    )


def measure(steps, run):
    """The median of the seconds that `run` takes at all processes together."""
    seconds = []
    for number in range(WARM_UP + steps):
        dist.barrier()
        start = time.perf_counter()
        run()
        dist.barrier()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main():
    a = parse()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    count = a.micro_batches or size
    own = (rank + 1) * count // size - rank * count // size
    if count < size:
        raise SystemExit(f"--micro-batches {count}: expected at least {size}, one for each process")
    config = BertConfig(
        vocab_size=a.vocab,
        num_hidden_layers=a.layers,
        hidden_size=a.hidden,
        num_attention_heads=a.heads,
        intermediate_size=4 * a.hidden,
        max_position_embeddings=max(a.seq, 512),
    )
    model = BertForPreTraining(config).train()
    parameters = list(model.parameters())
    weights = sum(p.numel() for p in parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True)
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=BUCKET_MB) if size > 1 else model
    if size > 1 and a.gradients == "bf16":
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

        ddp.register_comm_hook(None, bf16_compress_hook)
    inputs = micro_batch(a)

    def step(together):
        for micro in range(own):
            quiet = size > 1 and not (together and micro == own - 1)
            with ddp.no_sync() if quiet else contextlib.nullcontext():
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.precision == "bf16"):
                    loss = ddp(**inputs).loss * (size / count)
                loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        # Gradients are views of the buckets: they are set to zero, and kept.
        optimizer.zero_grad(set_to_none=size == 1)

    together = measure(a.steps, lambda: step(True))
    peak = torch.tensor([1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)

    dtype = torch.bfloat16 if a.gradients == "bf16" else torch.float32
    of_bucket = BUCKET_MB * 2**20 // 4
    lengths = [min(of_bucket, weights - start) for start in range(0, weights, of_bucket)]
    buckets = [torch.zeros(length, dtype=dtype) for length in lengths]

    def exchange():
        for work in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
            work.wait()

    exchanged = measure(a.steps, exchange) if size > 1 else 0.0
    alone = measure(a.steps, lambda: step(False))
    if rank == 0:
        sent = buckets[0].element_size() * weights * (size - 1) / size
        print(
            json.dumps(
                dict(
                    bench="ddp gloo", ranks=size, threads=torch.get_num_threads(), transport=f"gloo, PyTorch {torch.__version__}",
                    layers=a.layers, hidden=a.hidden, batch=a.batch, seq=a.seq, precision=a.precision, micro_batches=count,
                    gradients=a.gradients, parameters=weights, steps_per_s=1 / together,
                    real_tokens_per_s=count * a.batch * a.seq / together, ms=1e3 * together, alone_ms=1e3 * alone,
                    exchange_ms=1e3 * exchanged, communication_share=max(0.0, 1 - alone / together),
                    exchange_bytes_per_s=2 * sent / exchanged if exchanged else 0.0, peak_rss_bytes=int(peak[0]),
                    interface=os.environ.get("GLOO_SOCKET_IFNAME"),
                )
            ),
            flush=True,
        )
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
