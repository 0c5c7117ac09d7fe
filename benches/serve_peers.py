"""Peers of `cloze serve` for `cargo run --release -p cloze-serve --example load`: FastAPI with `/embed`, in front of sentence-transformers or onnxruntime.

    python benches/serve_peers.py sentence-transformers|onnxruntime MODEL PORT [--threads N]

Both collect what arrives while a batch is computed, at most 32 texts, and pad it. onnxruntime reads MODEL/onnx/model.onnx or MODEL/model.onnx, with mean
pooling; export it with `cloze convert --to onnx`. Needs fastapi, uvicorn, and the library.
"""

import argparse
import asyncio
import pathlib

import fastapi
import numpy
import uvicorn

parser = argparse.ArgumentParser()
parser.add_argument("peer", choices=["sentence-transformers", "onnxruntime"])
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("port", type=int)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--most", type=int, default=32, help="texts of a batch")
parser.add_argument("--max-len", type=int, default=512)
given = parser.parse_args()


def sentence_transformers():
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(given.threads)
    model = SentenceTransformer(str(given.model), device="cpu")
    model.max_seq_length = given.max_len
    return lambda texts: model.encode(texts, batch_size=given.most, normalize_embeddings=True, show_progress_bar=False)


def onnxruntime():
    import onnxruntime as ort
    from tokenizers import Tokenizer

    options = ort.SessionOptions()
    options.intra_op_num_threads = given.threads
    path = next(path for path in (given.model / "onnx/model.onnx", given.model / "model.onnx") if path.exists())
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}
    outputs = [one.name for one in session.get_outputs()]
    tokenizer = Tokenizer.from_file(str(given.model / "tokenizer.json"))
    tokenizer.enable_truncation(given.max_len)
    tokenizer.enable_padding()

    def embed(texts):
        rows = tokenizer.encode_batch(texts)
        feed = {
            "input_ids": numpy.array([row.ids for row in rows], dtype=numpy.int64),
            "attention_mask": numpy.array([row.attention_mask for row in rows], dtype=numpy.int64),
            "token_type_ids": numpy.array([row.type_ids for row in rows], dtype=numpy.int64),
        }
        found = session.run(None, {name: value for name, value in feed.items() if name in names})
        if "sentence_embedding" in outputs:
            vectors = found[outputs.index("sentence_embedding")]
        else:
            mask = feed["attention_mask"][:, :, None]
            vectors = (found[0] * mask).sum(1) / mask.sum(1)
        return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


embed = {"sentence-transformers": sentence_transformers, "onnxruntime": onnxruntime}[given.peer]()
app = fastapi.FastAPI()
queue = asyncio.Queue()


async def compute():
    """Batches what waits."""
    while True:
        batch = [await queue.get()]
        while len(batch) < given.most and not queue.empty():
            batch.append(queue.get_nowait())
        texts = [text for texts, _ in batch for text in texts]
        vectors = await asyncio.to_thread(embed, texts)
        for texts, done in batch:
            done.set_result(vectors[: len(texts)].tolist())
            vectors = vectors[len(texts) :]


@app.on_event("startup")
async def start():
    app.state.task = asyncio.create_task(compute())


@app.post("/embed")
async def route(payload: dict):
    texts = payload["inputs"]
    done = asyncio.get_running_loop().create_future()
    await queue.put(([texts] if isinstance(texts, str) else texts, done))
    return fastapi.responses.JSONResponse(await done)


uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")
