#!/usr/bin/env python3
"""Uses the web page of `cloze serve` in Chromium: every panel, the attention viewer, the runs, a key; with the mouse and the keyboard,
light and dark, on a desktop and on a phone.

    python3 crates/serve/web/test.py --cloze target/release/cloze [--shots FOLDER]

Needs Python 3.9 and Chromium, nothing else; without Chromium it prints "skipped: no chromium". The models are tiny and random: the test
is about the page. It fails on an error in the console, on a violation of the page's Content-Security-Policy, and on a request to any
other server.
"""

import argparse
import base64
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

# ------------------------------------------------------------------------------------------------ models and runs

WORDS = (
    "the a of is in was and it to on by this that as at an did not because too how who capital france paris animal street cross tired man "
    "playing guitar someone plays instrument stock market fell today shares lost value cat sleeps sofa light house metres high lamp built "
    "she opened door room behind dark example new phone battery lasts two days technology sport politics he put kettle stove waited water "
    "boil flew moon bright quiet film stays you for ada met london"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 16, 3, 4, 32, 96


def tiny_model(folder, architecture, labels=(), seed=1, **more):
    """A random BERT with the head of a class of Transformers."""
    numbers = random.Random(seed)
    letters = string.ascii_lowercase + string.digits
    vocabulary = SPECIAL + list(string.punctuation + letters) + ["##" + letter for letter in letters] + WORDS
    vocabulary = list(dict.fromkeys(vocabulary))
    tensors = {}

    def tensor(name, *shape, ones=False):
        count = 1
        for size in shape:
            count *= size
        tensors[name] = (shape, [1.0] * count if ones else [numbers.gauss(0, 0.35) for _ in range(count)])

    def norm(name):
        tensor(f"{name}.weight", HIDDEN, ones=True)
        tensor(f"{name}.bias", HIDDEN)

    def dense(name, outputs, inputs):
        tensor(f"{name}.weight", outputs, inputs)
        tensor(f"{name}.bias", outputs)

    for table, rows in [("word", len(vocabulary)), ("position", POSITIONS), ("token_type", 2)]:
        tensor(f"bert.embeddings.{table}_embeddings.weight", rows, HIDDEN)
    norm("bert.embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"bert.encoder.layer.{layer}"
        for part in ["query", "key", "value"]:
            dense(f"{name}.attention.self.{part}", HIDDEN, HIDDEN)
        dense(f"{name}.attention.output.dense", HIDDEN, HIDDEN)
        norm(f"{name}.attention.output.LayerNorm")
        dense(f"{name}.intermediate.dense", INNER, HIDDEN)
        dense(f"{name}.output.dense", HIDDEN, INNER)
        norm(f"{name}.output.LayerNorm")
    kind = architecture.removeprefix("BertFor")
    if kind in ["PreTraining", "SequenceClassification", "MultipleChoice"]:
        dense("bert.pooler.dense", HIDDEN, HIDDEN)
    if kind == "PreTraining":
        dense("cls.predictions.transform.dense", HIDDEN, HIDDEN)
        norm("cls.predictions.transform.LayerNorm")
        tensor("cls.predictions.bias", len(vocabulary))
        dense("cls.seq_relationship", 2, HIDDEN)
    if kind in ["SequenceClassification", "TokenClassification"]:
        dense("classifier", len(labels), HIDDEN)
    if kind == "MultipleChoice":
        dense("classifier", 1, HIDDEN)
    if kind == "QuestionAnswering":
        dense("qa_outputs", 2, HIDDEN)
    config = dict(
        architectures=[architecture], model_type="bert", vocab_size=len(vocabulary), hidden_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=INNER, hidden_act="gelu", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
        max_position_embeddings=POSITIONS, type_vocab_size=2, initializer_range=0.02, layer_norm_eps=1e-12, pad_token_id=0, **more,
    )  # fmt: skip
    if labels:
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")


def records(steps, start):
    """Lines of metrics.jsonl, and an evaluation after them."""
    lines = []
    for step in steps:
        loss = start + 5.0 / (1 + step / 40) + 0.1 * (step * 7919 % 13) / 13
        line = dict(kind="train", step=step, tokens=900 * step, seconds=0.4 * step, mlm_loss=loss, mlm_accuracy=1 / (1 + loss), loss=loss)
        lines.append({**line, "lr": 0.001, "grad_norm": 1.5, "tokens_per_s": 2250.0, "phase": 0})
    last = lines[-1]
    lines.append(dict(kind="eval", step=last["step"], mlm_loss=last["mlm_loss"] + 0.1, mlm_accuracy=last["mlm_accuracy"]))
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_run(folder, start, steps):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text("seed = 1\nsteps = 400\n")
    with open(folder / "metrics.jsonl", "a") as file:
        if steps.start == 5:
            file.write(json.dumps(dict(kind="start", step=0, machine="CPU", threads=1, version="0")) + "\n")
        file.write(records(steps, start))


# ------------------------------------------------------------------------------------------------ Chromium


def chromium():
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """A page in Chromium, by the DevTools protocol over a pipe."""

    def __init__(self, program, profile):
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()

        def descriptors():
            # Where the browser expects them; both are moved away first, because they may be 3 or 4 themselves.
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)

        flags = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        self.process = subprocess.Popen(
            [program, *flags, "about:blank"], close_fds=False, preexec_fn=descriptors, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.number, self.received, self.events = 0, b"", []
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.received:
            more = os.read(self.read_end, 1 << 16)
            if not more:
                raise RuntimeError("Chromium has ended")
            self.received += more
        first, self.received = self.received.split(b"\0", 1)
        return json.loads(first)

    def call(self, method, **parameters):
        self.number += 1
        number = self.number
        request = dict(id=number, method=method, params=parameters)
        if self.session:
            request["sessionId"] = self.session
        os.write(self.write_end, json.dumps(request).encode() + b"\0")
        while True:
            found = self.message()
            if found.get("id") == number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
            self.events.append(found)

    def view(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[dict(name="prefers-color-scheme", value=scheme)])

    def open(self, url):
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def js(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, condition, seconds=15):
        end = time.monotonic() + seconds
        while True:
            try:
                if self.js(f"Boolean({condition})"):
                    return
            except RuntimeError as error:
                # The page may not be there yet.
                if "null" not in str(error) and "undefined" not in str(error) and "context" not in str(error):
                    raise
            if time.monotonic() > end:
                raise AssertionError(f"not in {seconds} s: {condition}\n{self.js('document.body.innerText')[:2000]}")
            time.sleep(0.05)

    def key(self, key):
        code = dict(Enter=13, Tab=9).get(key, 0)
        for kind in ["keyDown", "keyUp"]:
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def type(self, selector, text):
        """Replaces the text of a field as a user does."""
        self.js(f"(() => {{ const f = document.querySelector({selector!r}); f.focus(); f.select(); }})()")
        self.call("Input.insertText", text=text)

    def point(self, selector):
        place = "(() => { const r = document.querySelector(%r).getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        x, y = self.js(place % selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def click(self, selector):
        self.js(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        x, y = self.point(selector)
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path):
        height = self.js("document.documentElement.scrollHeight")
        clip = dict(x=0, y=0, width=self.js("innerWidth"), height=height, scale=1)
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def problems(self, own, expected=()):
        """Errors of the console, and requests to other servers, since the last call. `expected`: statuses of failures that were meant."""
        self.js("0")
        found = []
        for event in self.events:
            method, parameters = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(parameters["exceptionDetails"])[:600])
            elif method == "Runtime.consoleAPICalled" and parameters["type"] in ["error", "warning", "assert"]:
                found.append(json.dumps(parameters["args"])[:600])
            elif method == "Log.entryAdded" and parameters["entry"]["level"] in ["error", "warning"]:
                text = parameters["entry"]["text"]
                if not any(f"status of {status} " in text for status in expected):
                    found.append(f"{text} {parameters['entry'].get('url', '')}")
            elif method == "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                if not url.startswith((own, "about:")):
                    found.append(f"a request to {url}")
        self.events = []
        return found


# ------------------------------------------------------------------------------------------------ the test


class Server:
    def __init__(self, cloze, arguments, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        self.log = open(folder / f"serve-{port}.log", "w+")
        command = [cloze, "serve", *map(str, arguments), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{self.url}healthz", timeout=1).read()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.log.seek(0)
                    raise AssertionError(f"{' '.join(command)} does not answer:\n{self.log.read()}") from None
                time.sleep(0.1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


# What each panel shows: a model, the panel, and a condition.
PANELS = [
    ("pretrained", "fill-mask", "document.querySelectorAll('.chip').length === 8 && document.querySelector('.filled')"),
    ("pretrained", "similarity", "document.querySelectorAll('.heat').length === 25"),
    ("pretrained", "next-sentence", "document.querySelectorAll('.bar').length === 2"),
    ("pretrained", "attention", "document.querySelectorAll('.lines line').length > 5"),
    ("pretrained", "token-vectors", "document.querySelectorAll('.norms .bar').length ** 2 === document.querySelectorAll('.heat').length"),
    ("pretrained", "tokenize", "document.querySelectorAll('.piece').length > 5 && document.querySelector('.decoded')?.textContent"),
    ("nli", "classify", "document.querySelectorAll('.bar').length === 3"),
    ("nli", "zero-shot", "document.querySelectorAll('.bar').length === 3"),
    ("several", "classify", "document.querySelectorAll('.bar').length === 4"),
    ("tagger", "tag", "document.querySelectorAll('.entity').length > 0"),
    ("reader", "answer", "document.querySelectorAll('.bar').length > 0"),
    ("reranker", "rerank", "document.querySelectorAll('.ranked li').length === 4"),
    ("chooser", "choose", "document.querySelectorAll('.bar').length === 3"),
]
DONE = "document.querySelector('.output')?.getAttribute('aria-busy') === 'false' && document.querySelector('.output .error').hidden && "
TEXT = "#panel textarea"


def panels(browser, url, shots):
    """Every panel answers, in each layout, without a horizontal scroll bar."""
    for width, height, dark in [(1200, 800, False), (1200, 800, True), (360, 740, False), (360, 740, True)]:
        browser.view(width, height, dark)
        for model, task, condition in PANELS:
            browser.open(f"{url}#model={model}&task={task}")
            browser.wait(DONE + condition)
            selected = browser.js("document.querySelector('[role=tab][aria-selected=true]').id")
            assert selected == f"tab-{task}", (selected, task)
            assert browser.js("document.documentElement.scrollWidth") <= width, f"{task} is wider than {width}"
            assert browser.js("document.querySelectorAll('#panel :is(textarea, select, input):not([type=checkbox])').length > 0")
            unlabelled = browser.js("[...document.querySelectorAll('textarea, select, input')].filter((c) => !c.labels.length).length")
            assert unlabelled == 0, f"{task}: {unlabelled} controls without a label"
            if shots:
                browser.picture(shots / f"{task}-{model}-{width}{'-dark' if dark else ''}.png")
        lightness = browser.js("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
        assert (lightness < 100) == dark, lightness


def typing(browser, url):
    """Masks are filled while typing; candidates fill in; the text of users and models is only text."""
    browser.open(f"{url}#model=pretrained&task=fill-mask")
    browser.wait(DONE + "document.querySelectorAll('.chips').length === 1")
    browser.type(TEXT, "the [MASK] sleeps on [MASK] sofa")
    browser.wait(DONE + "document.querySelectorAll('.chips').length === 2")
    first = browser.js("document.querySelector('.chip-text').textContent")
    browser.click(".chip")
    browser.wait(DONE + "document.querySelectorAll('.chips').length === 1")
    filled = browser.js(f"document.querySelector({TEXT!r}).value")
    assert filled == f"the {first} sleeps on [MASK] sofa" or first.startswith("##"), (filled, first)
    browser.type(TEXT, "no mask")
    browser.wait(DONE + "document.querySelector('.empty').textContent.includes('[MASK]')")
    browser.type(TEXT, "<img src=x onerror=alert(1)> [MASK] <script>alert(2)</script>")
    browser.wait(DONE + "document.querySelector('.reading').textContent.includes('<img src=x onerror=alert(1)>')")
    assert browser.js("document.querySelectorAll('#panel img, #panel script').length") == 0
    # Results of earlier texts never replace those of later ones.
    for text in ["a [MASK]", "b [MASK]", "c [MASK]", "the cat [MASK] last"]:
        browser.type(TEXT, text)
    browser.wait(DONE + "document.querySelector('.reading').textContent.startsWith('the cat') && document.querySelector('.reading').textContent.endsWith('last')")
    assert browser.js("document.getElementById('status').textContent").startswith("Filled in: ")
    assert browser.problems(url) == []
    # A failure is one line, and goes away.
    browser.type(TEXT, "[MASK] " * 200)
    browser.wait("!document.querySelector('.output .error').hidden")
    message = browser.js("document.querySelector('.output .error').textContent")
    assert "202 tokens" in message and "positions" in message, message
    assert "\n" not in message and browser.js("document.querySelector('.output .error').getAttribute('role')") == "alert"
    browser.type(TEXT, "a [MASK]")
    browser.wait(DONE + "document.querySelectorAll('.chip').length === 8")
    assert browser.problems(url, expected=[400, 413, 422]) == []
    # Entities keep the places of characters that are more than one code unit.
    browser.open(f"{url}#model=tagger&task=tag")
    browser.wait(DONE + "document.querySelector('.entities')")
    browser.type(TEXT, "\U0001f600 ada met \U0001f600 london")
    browser.wait(DONE + "document.querySelector('.entities').textContent.includes('\U0001f600')")
    shown = browser.js(
        "[...document.querySelector('.entities').childNodes].map((n) => n.nodeName === 'MARK' ? n.firstChild.textContent : n.textContent).join('')"
    )
    assert shown == "\U0001f600 ada met \U0001f600 london", shown


def tokens(browser, url):
    """Ids of a text, their places in it, and back."""
    browser.open(f"{url}#model=pretrained&task=tokenize")
    browser.wait(DONE + "document.querySelector('.decoded')")
    browser.type(TEXT, "the cat \U0001f600 sleeps")
    browser.wait(DONE + "document.querySelector('.decoded').textContent === 'the cat sleeps'")
    browser.click("#panel summary")
    table = browser.js("[...document.querySelectorAll('.list tbody tr')].map((r) => [...r.children].slice(2).map((c) => c.textContent))")
    assert table == [
        ["[CLS]", "–", ""], ["the", "0–3", "the"], ["cat", "4–7", "cat"], ["[UNK]", "8–9", "\U0001f600"], ["sleeps", "10–16", "sleeps"], ["[SEP]", "–", ""],
    ], table  # fmt: skip
    ids = browser.js("document.querySelectorAll('#panel textarea')[1].value").split()
    assert len(ids) == 6 and ids == browser.js("[...document.querySelectorAll('.piece-id')].map((i) => i.textContent)"), ids
    browser.js("document.querySelectorAll('#panel textarea')[1].select()")
    browser.call("Input.insertText", text=f"{ids[2]}, {ids[1]}")
    browser.wait("document.querySelector('.decoded')?.textContent === 'cat the'")
    browser.js("document.querySelectorAll('#panel textarea')[1].select()")
    browser.call("Input.insertText", text="1 x")
    browser.wait("[...document.querySelectorAll('#panel .empty')].some((e) => e.textContent.startsWith('x is not an id'))")
    assert browser.problems(url) == []
    browser.js("document.querySelectorAll('#panel textarea')[1].select()")
    browser.call("Input.insertText", text="99999")
    browser.wait("[...document.querySelectorAll('.output .error')].some((e) => !e.hidden && e.textContent.includes('found 99999'))")


def keyboard(browser, url, shots):
    """Tabs and heads by arrow keys; a head's lines by its tokens."""
    browser.open(f"{url}#model=pretrained&task=fill-mask")
    browser.wait(DONE + "true")
    browser.key("Tab")
    browser.wait("document.activeElement.classList.contains('skip')")
    browser.key("Enter")
    browser.wait("document.activeElement.id === 'panel' && location.hash.includes('fill-mask')")
    browser.js("document.getElementById('tab-fill-mask').focus()")
    browser.key("ArrowRight")
    browser.wait("location.hash.includes('task=similarity') && document.activeElement.id === 'tab-similarity'")
    browser.key("Home")
    browser.wait("document.activeElement.id === 'tab-fill-mask'")
    outline = browser.js("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", f"focus is not visible: {outline}"
    # The address names the model and the task; another one opens them.
    browser.js("location.hash = 'model=nli&task=zero-shot'")
    browser.wait(DONE + "document.getElementById('model').value === 'nli' && document.querySelectorAll('.bar').length === 3")
    browser.js("history.back()")
    browser.wait("document.getElementById('model').value === 'pretrained'")

    browser.open(f"{url}#model=pretrained&task=attention")
    browser.wait(DONE + f"document.querySelectorAll('.cell').length === {LAYERS * HEADS}")
    assert browser.js("document.querySelectorAll('.cell[tabindex=\"0\"]').length") == 1
    browser.js("document.querySelector('.cell[tabindex=\"0\"]').focus()")
    for key in ["ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowRight", "ArrowRight"]:
        browser.key(key)
    browser.wait("document.querySelector('.viewer-head h3').textContent === 'Layer 3, head 3'")
    label = browser.js("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("Layer 3, head 3: entropy "), label
    browser.key("End")
    browser.wait("document.querySelector('.viewer-head h3').textContent === 'Layer 3, head 4'")
    figures = browser.js("[...document.querySelectorAll('.figures dd')].map((d) => parseFloat(d.textContent))")
    assert len(figures) == 3 and 0 < figures[0] <= figures[1] and figures[2] > 0, figures
    # Only the lines of the token that is pointed at or has the focus.
    tokens = browser.js("document.querySelectorAll('.tokens.from .token').length")
    browser.js("document.querySelector('.tokens.from .token').focus()")
    browser.key("ArrowDown")
    browser.wait("document.querySelector('.tokens.from .token:nth-child(2)').classList.contains('pointed')")
    starts = browser.js("[...new Set([...document.querySelectorAll('.lines line')].map((l) => l.getAttribute('y1')))]")
    assert len(starts) == 1, starts
    assert " attends to " in browser.js("document.getElementById('status').textContent")
    browser.point(".tokens.to .token:nth-child(3)")
    browser.wait("document.querySelector('.tokens.to .token:nth-child(3)').classList.contains('pointed')")
    browser.point(".map")
    browser.wait("document.querySelector('.viewer .readout').textContent.includes(' → ')")
    if shots:
        browser.picture(shots / "attention-pointed.png")
    browser.js("(() => { const s = document.querySelector('.viewer select'); s.value = 'entropy'; s.dispatchEvent(new Event('change')); })()")
    browser.click(".viewer-head input[type=checkbox]")
    hidden = browser.js("[...document.querySelectorAll('.lines line')].filter((l) => +l.getAttribute('y1') === 11 || +l.getAttribute('y2') === 11).length")
    assert hidden == 0, "lines of [CLS] are hidden"
    browser.js("document.querySelectorAll('#panel textarea')[1].focus()")
    browser.call("Input.insertText", text="it was tired")
    browser.wait(DONE + f"document.querySelectorAll('.tokens.from .token').length > {tokens} + 2")
    if shots:
        browser.picture(shots / "attention-pair-entropy.png")


def runs(browser, url, folder, shots):
    """Curves of several runs, which grow while the run does."""
    for width, dark in [(360, True), (1200, True), (1200, False)]:
        browser.view(width, 800, dark)
        browser.open(f"{url}runs")
        browser.wait("document.querySelectorAll('.chart path.curve').length > 4")
        assert browser.js("document.documentElement.scrollWidth") <= width
        if shots:
            browser.picture(shots / f"runs-{width}{'-dark' if dark else ''}.png")
    assert browser.js("document.querySelectorAll('#runs tbody tr').length") == 2
    assert browser.js("document.querySelector('.chart svg').querySelectorAll('[class^=line-] path').length >= 2"), "two runs in one chart"
    before = browser.js("document.querySelector('#runs tbody td.number').textContent")
    write_run(folder / "first", 2.0, range(105, 205, 5))
    browser.wait(f"document.querySelector('#runs tbody td.number').textContent !== {before!r}")
    assert browser.js("document.querySelector('#runs tbody td.number').textContent") == "200 / 400"
    browser.wait("document.querySelector('.chart svg').getAttribute('aria-label').includes('eval')")
    asked = [event["params"]["request"]["url"] for event in browser.events if event.get("method") == "Network.requestWillBeSent"]
    assert any("first.json?after=100" in url for url in asked), "only new records are requested"
    browser.click("#runs tbody tr:nth-child(2) input")
    browser.wait("location.hash.includes('run=first') && !location.hash.includes('second')")
    browser.js("(() => { const s = document.querySelector('#controls select'); s.value = 'tokens'; s.dispatchEvent(new Event('change')); })()")
    browser.wait("location.hash.includes('x=tokens') && document.querySelector('.chart svg').getAttribute('aria-label').includes('by tokens')")
    browser.point(".chart svg")
    browser.wait("document.querySelector('.chart .readout').textContent.startsWith('tokens ')")


def key(browser, url):
    """A server with keys: the page asks until the key is right."""
    browser.open(f"{url}#model=pretrained&task=fill-mask")
    for given in ["wrong", "secret"]:
        browser.wait("document.querySelector('dialog[open] #key') && document.querySelector('dialog #key').value === ''")
        browser.type("#key", given)
        browser.key("Enter")
        if given == "wrong":
            browser.wait("document.querySelector('dialog[open] p')?.textContent.includes('does not accept')")
    browser.wait(DONE + "document.querySelectorAll('.chip').length === 8")
    assert browser.js("document.querySelectorAll('dialog').length") == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cloze", default="target/release/cloze", help="the program")
    parser.add_argument("--shots", type=pathlib.Path, help="a folder for screenshots")
    options = parser.parse_args()
    program = chromium()
    if not program:
        print("skipped: no chromium")
        return
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    begin, servers, browser = time.monotonic(), [], None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = pathlib.Path(folder)
        classes = dict(
            pretrained=("BertForPreTraining", []),
            nli=("BertForSequenceClassification", ["entailment", "neutral", "contradiction"]),
            several=("BertForSequenceClassification", ["calm", "funny", "sad", "long"]),
            tagger=("BertForTokenClassification", ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]),
            reader=("BertForQuestionAnswering", []),
            reranker=("BertForSequenceClassification", ["LABEL_0"]),
            chooser=("BertForMultipleChoice", []),
        )
        for seed, (name, (architecture, labels)) in enumerate(classes.items()):
            more = dict(problem_type="multi_label_classification") if name == "several" else {}
            tiny_model(folder / name, architecture, labels, seed, **more)
        # What distinguishes a cross-encoder from a model of numbers.
        (folder / "reranker/config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
        models = [folder / name for name in classes]
        for name, start in [("first", 2.0), ("second", 2.4)]:
            write_run(folder / "runs" / name, start, range(5, 105, 5))
        (folder / "keys").write_text("secret\n")
        try:
            open_server = Server(options.cloze, [*models, "--run", folder / "runs"], folder)
            servers.append(open_server)
            closed = Server(options.cloze, [models[0], "--keys", folder / "keys"], folder)
            servers.append(closed)
            browser = Browser(program, folder / "profile")
            url = open_server.url
            steps = [
                ("panels", url, lambda: panels(browser, url, options.shots), []),
                ("typing", url, lambda: typing(browser, url), []),
                ("tokens", url, lambda: tokens(browser, url), [422]),
                ("keyboard", url, lambda: keyboard(browser, url, options.shots), []),
                ("runs", url, lambda: runs(browser, url, folder / "runs", options.shots), []),
                ("key", closed.url, lambda: key(browser, closed.url), [401]),
            ]
            for name, own, step, expected in steps:
                browser.view(1200, 800)
                step()
                problems = browser.problems(own, expected)
                assert not problems, f"{name}: " + "\n".join(problems)
                print(f"{name}: ok")
        finally:
            if browser:
                browser.process.terminate()
                browser.process.wait()
            for server in servers:
                server.stop()
    print(f"all ok in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"failed: {error}")
