"""A model of the speed of a pre-training step on a GPU: NOT a measurement. It counts what the kernels of crates/engine/src/ops/*/cuda.cu and
cuBLASLt must do for a token, and divides by assumed rates. Prints Markdown.

    python3 gpu_model.py

Rates are those that products, attention and memory are assumed to reach, not a card's peak.
"""

# Name, peak in TFLOP/s, and the assumed rates: products and attention in TFLOP/s, memory in TB/s.
CARDS = [
    ("H200, first version", 989, 620, 150, 3.8),
    ("H200, tuned", 989, 680, 200, 4.0),
    ("RTX 4090", 165, 150, 60, 0.92),
    ("RTX 3090", 71, 62, 30, 0.85),
]
# Name, layers, hidden size, sequence length, tokens in a step.
SHAPES = [
    ("base 512×128", 12, 768, 128, 65536),
    ("base 128×512", 12, 768, 512, 65536),
    ("large 128×128", 24, 1024, 128, 16384),
    ("base 16×128", 12, 768, 128, 2048),
]
VOCABULARY = 30522
PREDICTED = 0.15
# The share of rows that the last layer computes: predicted tokens and [CLS].
READ = PREDICTED + 0.01
# A kernel's launch and its start on an idle device, and kernels of a step for each layer.
LAUNCH, KERNELS = 4e-6, 30


def per_token(layers, hidden, length):
    """FLOP of products and of attention, and bytes of memory, for one token, forward and backward."""
    h, f = hidden, 4 * hidden
    # In multiply-adds: query, key, value, output, up, down. The last layer needs keys and values of all tokens.
    layer, last = 4 * h * h + 2 * h * f, 2 * h * h + READ * (2 * h * h + 2 * h * f)
    head = PREDICTED * (h * h + h * VOCABULARY)
    products = 3 * 2 * ((layers - 1) * layer + last + head)
    # Forward two products of scores and values, backward seven.
    attention = 2 * 9 * length * h * (layers - 1 + READ)
    # Bytes of bf16. Activation function: u → y, then u, dy → du. Two norms: x, r → y; then x, r, dy → dx, dr; then x, r, dy for the sums.
    # Biases: du of all linear layers.
    of_layer = 2 * ((2 + 3) * f + 2 * (3 + 5 + 3) * h + (3 * h + h + f + h))
    # The softmax of the vocabulary: f32 logits twice, bf16 out; the gradient of its bias.
    of_head = PREDICTED * VOCABULARY * (4 + 4 + 2 + 2)
    embeddings = 4 * 3 * h + 2 * h + 2 * 3 * h + 4 * 3 * h
    return products, attention, (layers - 1 + READ) * of_layer + of_head + embeddings


def weights(layers, hidden):
    return layers * 12 * hidden * hidden + (VOCABULARY + 512 + 2) * hidden


def useful(layers, hidden, length):
    """FLOP of a token as `cloze bench` counts them: products and attention, backward twice the forward pass."""
    products, attention, _ = per_token(layers, hidden, length)
    return products + attention * 12 / 18


print("| card | shape | tokens/s | useful TFLOP/s | share of the peak |\n| --- | --- | --- | --- | --- |")
for card, peak, products_rate, attention_rate, memory_rate in CARDS:
    for shape, layers, hidden, length, tokens in SHAPES:
        products, attention, memory = per_token(layers, hidden, length)
        seconds = tokens * (products / products_rate + attention / attention_rate + memory / memory_rate) / 1e12
        # The optimizer: w, m, v, g → w, m, v and a copy in bf16; the norm of the gradient; clearing the gradients of the embeddings.
        seconds += weights(layers, hidden) * (30 + 4) / (memory_rate * 1e12)
        seconds = max(seconds, layers * KERNELS * LAUNCH)
        rate = tokens / seconds
        flops = rate * useful(layers, hidden, length) / 1e12
        print(f"| {card} | {shape} | {rate / 1e3:,.0f}k | {flops:.0f} | {100 * flops / peak:.0f} % of {peak} |")
