"""The speed of a pre-training step of Transformers' BertForPreTraining on a GPU, in bf16 with f32 weights (autocast), SDPA and fused AdamW:
tokens/s and memory for the shapes of gpu.sh. Rows are full, so that nothing is padded.

    python3 gpu_peer.py --mode eager|compiled
"""
import argparse
import statistics
import time

import torch
from transformers import BertConfig, BertForPreTraining

SHAPES = [("base", 512, 128), ("base", 128, 512), ("base", 16, 128), ("base", 32, 128), ("large", 128, 128)]
SIZES = {"base": (12, 768, 12), "large": (24, 1024, 16)}
PREDICTED = 0.15

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--mode", choices=["eager", "compiled"], required=True)
p.add_argument("--steps", type=int, default=10)
p.add_argument("--device", default="cuda")
a = p.parse_args()
torch.manual_seed(0)


def measure(size, batch, length):
    layers, hidden, heads = SIZES[size]
    config = BertConfig(num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=4 * hidden, attn_implementation="sdpa")
    model = BertForPreTraining(config).to(a.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=a.device == "cuda")
    ids = torch.randint(0, config.vocab_size, (batch, length), device=a.device)
    labels = torch.where(torch.rand(ids.shape, device=a.device) < PREDICTED, ids, -100)
    following = torch.randint(0, 2, (batch,), device=a.device)
    step = torch.compile(model) if a.mode == "compiled" else model

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(a.device, torch.bfloat16):
            loss = step(input_ids=ids, labels=labels, next_sentence_label=following).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    wait = torch.cuda.synchronize if a.device == "cuda" else lambda: None
    for _ in range(3):
        run()
    wait()
    seconds = []
    for _ in range(a.steps):
        start = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() / 2**30 if a.device == "cuda" else float("nan")
    print(f"pytorch {a.mode} {size} {batch}x{length}: {batch * length / statistics.median(seconds):,.0f} tokens/s, {memory:.1f} GiB", flush=True)


for size, batch, length in SHAPES:
    try:
        measure(size, batch, length)
    except torch.cuda.OutOfMemoryError as error:
        print(f"pytorch {a.mode} {size} {batch}x{length}: out of memory ({error})".splitlines()[0], flush=True)
    if a.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
