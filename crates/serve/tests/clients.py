"""Real clients against `cloze serve`: openai, huggingface_hub, cohere and LangChain, each answer compared with the command's.

    python crates/serve/tests/clients.py CLOZE MODELS

CLOZE is the binary, MODELS a folder made by `cargo run -p cloze-testing --example models -- MODELS`. Clients that are not installed are reported as
skipped. Exits with 1 if an answer differs.
"""

import importlib
import json
import math
import os
import subprocess
import sys
import tempfile

CLOZE, MODELS = sys.argv[1], sys.argv[2]
TEXTS = ["a b c", "d e f g h", "x"]
checked, skipped = [], []


def close(a, b, bound=1e-5):
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, abs_tol=bound)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(close(x, y, bound) for x, y in zip(a, b))
    return a == b


def check(name, found, expected, bound=1e-5):
    if not close(found, expected, bound):
        sys.exit(f"{name}: expected {expected}, found {found}")
    checked.append(name)


def cloze(*arguments, stdin=None):
    done = subprocess.run([CLOZE, *arguments, "--quiet"], input=stdin, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"cloze {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def predict(model, *rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    arguments = ["predict", "--model", f"{MODELS}/{model}", "--input", "-", "--format", "jsonl", "--precision", "f32"]
    return rows_of(cloze(*arguments, stdin=lines))


def vectors():
    with tempfile.TemporaryDirectory() as folder:
        texts, out = f"{folder}/texts.txt", f"{folder}/v.jsonl"
        with open(texts, "w") as file:
            file.write("\n".join(TEXTS) + "\n")
        cloze("embed", "--model", f"{MODELS}/embed", "--input", texts, "--out", out)
        with open(out) as file:
            return [row["embedding"] for row in rows_of(file.read())]


def normalized(vector):
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector]


def client(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        skipped.append(name)
        return None


def openai(url, expected):
    module = client("openai")
    if not module:
        return
    api = module.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    # The client asks for base64.
    found = api.embeddings.create(model="embed", input=TEXTS)
    check("openai embeddings", [row.embedding for row in found.data], expected)
    check("openai usage", found.usage.total_tokens, 5 + 7 + 3)
    found = api.embeddings.create(model="embed", input=TEXTS[0], encoding_format="float", dimensions=8)
    check("openai dimensions", found.data[0].embedding, normalized(expected[0][:8]))
    check("openai models", sorted(model.id for model in api.models.list()), sorted([*os.listdir(MODELS), "org/name"]))
    found = api.embeddings.create(model="org/name", input=TEXTS[0])
    check("openai name with a slash", [found.model, found.data[0].embedding], ["org/name", expected[0]])
    check("openai models.retrieve", api.models.retrieve("org/name").id, "org/name")
    try:
        api.embeddings.create(model="none", input="a")
        sys.exit("openai: expected an error for an unknown model")
    except module.NotFoundError as error:
        check("openai error", (error.code, "does not exist" in error.message), ("model_not_found", True))


def hugging_face(url, expected):
    module = client("huggingface_hub")
    if not module:
        return
    api = module.InferenceClient
    found = api(model=f"{url}/models/embed").feature_extraction(TEXTS[0])
    check("InferenceClient.feature_extraction", found[0].tolist(), expected[0])
    found = api(model=f"{url}/models/org/name").feature_extraction(TEXTS[0])
    check("InferenceClient name with a slash", found[0].tolist(), expected[0])
    found = api(model=f"{url}/models/embed").sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    cosine = [sum(x * y for x, y in zip(normalized(expected[0]), normalized(other))) for other in expected]
    check("InferenceClient.sentence_similarity", found, cosine)
    row = predict("classify", {"text": TEXTS[0]})[0]
    found = api(model=f"{url}/models/classify").text_classification(TEXTS[0])
    shares = sorted(row["probabilities"].items(), key=lambda pair: -pair[1])
    check("InferenceClient.text_classification", [[one.label, one.score] for one in found], [list(pair) for pair in shares])
    found = api(model=f"{url}/models/answer").question_answering(question="a b", context="c d e f g")
    check("InferenceClient.question_answering", "c d e f g"[found.start : found.end], found.answer)
    found = api(model=f"{url}/models/mask").fill_mask("a [MASK] c", top_k=3)
    masks = rows_of(cloze("fill", "--model", f"{MODELS}/mask", "--top", "3", "--json", "a [MASK] c"))[0]["masks"][0]
    check("InferenceClient.fill_mask", [[one.token, one.score] for one in found], [[one["id"], one["probability"]] for one in masks])
    found = api(model=f"{url}/models/tag").token_classification("a b c", aggregation_strategy="simple")
    words = predict("tag", {"text": "a b c"})[0]
    check("InferenceClient.token_classification", sum(one.end - one.start for one in found) <= 5, True)
    check("tags", len(words["tags"]), 3)
    found = api(model=f"{url}/models/nli").zero_shot_classification(TEXTS[0], ["x", "y"])
    check("InferenceClient.zero_shot_classification", sum(one.score for one in found), 1.0)


def cohere(url, _):
    module = client("cohere")
    if not module:
        return
    api = module.ClientV2(api_key="none", base_url=url)
    found = api.rerank(model="rerank", query="a", documents=TEXTS, top_n=2)
    rows = rows_of(cloze("rerank", "--model", f"{MODELS}/rerank", "--query", "a", "--documents", write_texts(), "--json"))
    scores = [row["score"] for row in rows[0]["results"]][:2]
    check("cohere rerank", [one.relevance_score for one in found.results], scores)


def write_texts():
    path = os.path.join(tempfile.mkdtemp(), "texts.txt")
    with open(path, "w") as file:
        file.write("\n".join(TEXTS) + "\n")
    return path


def langchain(url, expected):
    module = client("langchain_openai")
    if not module:
        return
    # Texts, and not ids of OpenAI's vocabulary.
    api = module.OpenAIEmbeddings(model="embed", base_url=f"{url}/v1", api_key="none", check_embedding_ctx_length=False)
    check("LangChain embed_documents", api.embed_documents(TEXTS), expected)
    check("LangChain embed_query", api.embed_query(TEXTS[1]), expected[1])


def main():
    # One with a name as on the hub.
    models = [f"{MODELS}/{name}" for name in sorted(os.listdir(MODELS))] + [f"org/name={MODELS}/embed"]
    server = subprocess.Popen(
        [CLOZE, "serve", "--port", "0", "--threads", "1", "--precision", "f32", *models], stderr=subprocess.PIPE, text=True
    )
    try:
        for line in server.stderr:
            if "serving at " in line:
                url = line.split("serving at ")[1].strip()
                break
        else:
            sys.exit("the server did not start")
        expected = vectors()
        for one in (openai, hugging_face, cohere, langchain):
            one(url, expected)
    finally:
        server.terminate()
        server.wait()
    for name in skipped:
        print(f"skipped: {name} is not installed")
    print(f"{len(checked)} answers of real clients checked: {', '.join(checked)}")


main()
