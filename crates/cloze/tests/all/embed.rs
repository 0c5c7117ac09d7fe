//! `embed`, `similar` and `evaluate retrieval` with a random model.

use cloze::model::Heads;
use serde_json::Value;

use crate::common::{Bench, cloze, cloze_with, text};

const LINES: [&str; 5] = ["a b c", "d e", "", "f g h i", "a b c d"];

/// Standard output and error of a command that must succeed.
fn success(arguments: &[&str], input: &str) -> (String, String) {
    let output = cloze_with(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn failure(arguments: &[&str], code: i32) -> String {
    let output = cloze(arguments);
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {line}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    line
}

/// A model with a tokenizer of letters, and `lines.txt`.
fn folder() -> Bench {
    let folder = Bench::of_letters(&[("model", Heads::ENCODER)]);
    folder.file("lines.txt", &LINES.map(|line| format!("{line}\n")).concat());
    folder
}

fn vectors(jsonl: &str) -> Vec<(String, Vec<f64>)> {
    let lines = std::fs::read_to_string(jsonl).unwrap();
    let parse = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let numbers = line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        (line["text"].as_str().unwrap().to_owned(), numbers)
    };
    lines.lines().map(parse).collect()
}

#[test]
fn embed_writes_vectors() {
    let folder = folder();
    let (model, lines, out) = (folder.path("model"), folder.path("lines.txt"), folder.path("out.jsonl"));
    let (said, notes) = success(&["embed", "--model", &model, "--input", &lines, "--out", &out, "--json", "-v"], "");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["texts"], &said["width"], &said["blank"]), (&5.into(), &32.into(), &1.into()), "{said}");
    assert!(
        notes.contains("vectors: mean of layer 2, not normalised (the default for a model without pooling settings"),
        "{notes}"
    );
    assert!(notes.contains("at most 40 tokens"), "{notes}");
    assert!(notes.contains("1 of 5 texts are blank"), "{notes}");
    let found = vectors(&out);
    assert_eq!(found.iter().map(|(text, _)| &text[..]).collect::<Vec<_>>(), LINES);

    // The same texts from a column of standard input, with vectors of length 1.
    let rows: String = LINES.map(|line| format!("{{\"id\": 1, \"words\": {line:?}}}\n")).concat();
    let (npy, again) = (folder.path("out.npy"), folder.path("again.jsonl"));
    let base = ["embed", "--model", &model, "--input", "-", "--column", "words", "--normalize", "--quiet"];
    let (said, _) = success(&[&base[..], &["--out", &again]].concat(), &rows);
    assert!(said.contains("5 vectors of 32 numbers (mean of layer 2, normalised;"), "{said}");
    for ((_, raw), (_, unit)) in found.iter().zip(vectors(&again)) {
        let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!(raw.iter().zip(&unit).all(|(raw, unit)| (raw / length - unit).abs() < 1e-6));
    }
    success(&[&base[..], &["--out", &npy, "--layers", "-1,0", "--pool", "max"]].concat(), &rows);
    assert_eq!(std::fs::metadata(&npy).unwrap().len(), 128 + 5 * 64 * 4);
}

#[test]
fn each_text_is_nearest_to_itself() {
    let folder = folder();
    let (model, lines, npy) = (folder.path("model"), folder.path("lines.txt"), folder.path("out.npy"));
    success(&["embed", "--model", &model, "--input", &lines, "--out", &npy, "--quiet"], "");
    let base = ["similar", "--model", &model, "--corpus", &lines, "--json", "--top", "2", "--quiet"];
    let (computed, _) = success(&[&base[..], &["--query", "d e", "--query", "a b c d"]].concat(), "");
    let (reused, _) = success(&[&base[..], &["--embeddings", &npy]].concat(), "d e\na b c d\n");
    assert_eq!(computed, reused);
    let answers: Vec<Value> = computed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 2);
    for (answer, line) in answers.iter().zip([2usize, 5]) {
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), 2);
        assert_eq!((&results[0]["line"], &results[0]["text"]), (&line.into(), &LINES[line - 1].into()), "{answer}");
        let score = |n: usize| results[n]["score"].as_f64().unwrap();
        assert!((score(0) - 1.0).abs() < 1e-5 && score(1) < score(0), "{answer}");
    }
    let (shown, notes) = success(&["similar", "--model", &model, "--corpus", &lines, "--query", "f g h i"], "");
    assert!(shown.contains("  1.0000         4  f g h i"), "{shown}");
    // Regression: this note was printed for every model without sentence-transformers files.
    assert!(!notes.contains("sentence-transformers"), "{notes}");
}

/// The library's tests compare the numbers with sentence-transformers; this test checks the options of the commands.
#[test]
fn prompts_similarity_and_old_layouts_work_in_all_commands() {
    let folder = folder();
    let (model, lines, out) = (folder.path("old/0_Transformer"), folder.path("lines.txt"), folder.path("out.jsonl"));
    std::fs::create_dir_all(folder.path("old/1_Pooling")).unwrap();
    std::fs::rename(folder.path("model"), &model).unwrap();
    let module =
        |class: &str, path: &str| format!(r#"{{"type": "sentence_transformers.models.{class}", "path": "{path}"}}"#);
    folder.file(
        "old/modules.json",
        &format!("[{}, {}]", module("Transformer", "0_Transformer"), module("Pooling", "1_Pooling")),
    );
    folder.file("old/1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
    folder.file(
        "old/config_sentence_transformers.json",
        r#"{"prompts": {"query": "q ", "document": "d "}, "default_prompt_name": "document", "similarity_fn_name": "dot"}"#,
    );
    let old = folder.path("old");
    let embed = |model: &str, more: &[&str]| {
        let (said, notes) =
            success(&[&["embed", "--model", model, "--input", &lines, "--out", &out, "--json"], more].concat(), "");
        (serde_json::from_str::<Value>(&said).unwrap(), notes, vectors(&out))
    };
    let (said, notes, with_default) = embed(&old, &[]);
    assert_eq!((&said["pooling"], &said["prompt"]), (&"cls of layer 2, not normalised".into(), &"d ".into()), "{said}");
    assert!(notes.contains("the folder's default prompt \"d \" (document) is put before each text"), "{notes}");
    let (_, notes, named) = embed(&old, &["--prompt-name", "document"]);
    assert!(with_default == named && !notes.contains("default prompt"), "{notes}");
    assert_eq!(with_default, embed(&old, &["--prompt", "d "]).2);
    assert_ne!(with_default, embed(&old, &["--prompt", ""]).2);
    let conflict =
        ["embed", "--model", &old, "--input", &lines, "--out", &out, "--prompt", "a", "--prompt-name", "query"];
    assert!(failure(&conflict, 2).contains("cannot be used with"));
    let unknown = ["embed", "--model", &old, "--input", &lines, "--out", &out, "--prompt-name", "x", "--quiet"];
    assert!(failure(&unknown, 1).contains("the folder's prompts: query \"q \", document \"d \""));

    let search = |more: &[&str]| {
        let base = ["similar", "--model", &old, "--corpus", &lines, "--query", "d e", "--json", "--top", "1"];
        let (said, notes) = success(&[&base, more].concat(), "");
        (serde_json::from_str::<Value>(&said).unwrap(), notes)
    };
    let (said, notes) = search(&[]);
    assert!(
        said["similarity"] == "dot" && notes.contains("compared by dot product (set by the model)"),
        "{said} {notes}"
    );
    let (said, _) = search(&["--similarity", "euclidean", "--query-prompt", "", "--document-prompt", ""]);
    let nearest = &said["results"][0];
    assert!(nearest["line"] == 2 && nearest["score"].as_f64().unwrap().abs() < 1e-4, "{said}");

    // All commands support the old layout, and converting either folder keeps the pooling.
    assert!(success(&["inspect", &old], "").0.contains("modules        Transformer, Pooling"));
    for (source, name) in [(&old, "a"), (&model, "b")] {
        let to = folder.path(name);
        let (said, _) = success(&["convert", source, "--out", &to], "");
        assert!(said.contains("modules: Transformer, Pooling"), "{said}");
        assert_eq!(with_default, embed(&to, &[]).2);
    }
    let (_, notes, _) = embed(&model, &[]);
    assert!(notes.contains("is the model inside a sentence-transformers folder"), "{notes}");
}

#[test]
fn wrong_inputs_give_one_error_line() {
    let folder = folder();
    let (model, lines, out) = (folder.path("model"), folder.path("lines.txt"), folder.path("out.npy"));
    let empty = folder.file("empty.txt", "");
    let rows = folder.file("rows.jsonl", "{\"a\": \"x\"}\n");
    let embed = |input: &str, more: &[&str]| {
        failure(&[&["embed", "--model", &model, "--input", input, "--out", &out, "--quiet"], more].concat(), 1)
    };
    assert!(embed(&empty, &[]).contains("empty.txt: expected at least one text"));
    assert!(embed(&rows, &["--strict"]).contains("rows.jsonl:1: no key \"text\"; the keys are \"a\"; set --column"));
    assert!(embed(&lines, &["--layers", "7"]).contains("--layers: expected 0"));
    assert!(embed(&lines, &["--max-len", "41"]).contains("3 to 40"));
    let left: Vec<_> = std::fs::read_dir(folder.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("out.npy")), "{left:?}");
    let usage = failure(&["embed", "--model", &model, "--input", &lines, "--out", "x.csv"], 2);
    assert!(usage.contains(".safetensors"), "{usage}");

    let wide = folder.path("wide.npy");
    success(&["embed", "--model", &model, "--input", &lines, "--out", &wide, "--layers", "0,1", "--quiet"], "");
    let similar = |corpus: &str, embeddings: &str| {
        failure(
            &["similar", "--model", &model, "--corpus", corpus, "--embeddings", embeddings, "--query", "a", "--quiet"],
            1,
        )
    };
    assert!(similar(&lines, &wide).contains("expected 5 vectors of 32 numbers"));
    let fewer = folder.file("fewer.txt", "a\nb\n");
    assert!(similar(&fewer, &wide).contains("expected 2 vectors"));
    assert!(similar(&lines, &lines).contains("lines.txt: expected a .npy file"));
    assert!(failure(&["similar", "--model", &model, "--corpus", &lines, "--quiet"], 1).contains("no query"));
    assert!(failure(&["similar", "--model", &model, "--corpus", "-", "--quiet"], 2).contains("--corpus"));
}

/// The library's tests compare the bytes with sentence-transformers; this test checks the options of the commands.
#[test]
fn shortened_and_quantized_vectors_are_written_and_searched() {
    let folder = folder();
    let model = folder.path("model");
    let texts: Vec<String> = (0..120u8)
        .map(|n| format!("{} {} {}", (b'a' + n % 9) as char, (b'a' + n / 9 % 9) as char, (b'a' + n % 5) as char))
        .collect();
    let lines = folder.file("many.txt", &texts.iter().map(|text| format!("{text}\n")).collect::<String>());
    let embed = |out: &str, more: &[&str]| {
        let base = ["embed", "--model", &model, "--input", &lines, "--out", out, "--json"];
        let (said, notes) = success(&[&base[..], more].concat(), "");
        (serde_json::from_str::<Value>(&said).unwrap(), notes)
    };
    let (full, short, unit) = (folder.path("full.jsonl"), folder.path("short.jsonl"), folder.path("unit.jsonl"));
    embed(&full, &[]);
    let (said, _) = embed(&short, &["--dimensions", "8"]);
    assert_eq!(
        (&said["width"], &said["pooling"]),
        (&8.into(), &"mean of layer 2, not normalised, then the first 8 numbers".into())
    );
    embed(&unit, &["--dimensions", "8", "--normalize"]);
    for (((_, full), (_, short)), (_, unit)) in vectors(&full).iter().zip(vectors(&short)).zip(vectors(&unit)) {
        assert_eq!(full[..8], short);
        let length = short.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!(short.iter().zip(&unit).all(|(x, unit)| (x / length - unit).abs() < 1e-6));
    }
    let line =
        failure(&["embed", "--model", &model, "--input", &lines, "--out", &full, "--dimensions", "33", "--quiet"], 1);
    assert!(line.contains("--dimensions: expected 1 to 32, the dimensions of the model's vectors, found 33"), "{line}");

    let f32s = folder.path("f32.safetensors");
    embed(&f32s, &[]);
    let search = |embeddings: &str, more: &[&str]| {
        let base = [
            "similar",
            "--model",
            &model,
            "--corpus",
            &lines,
            "--embeddings",
            embeddings,
            "--json",
            "--query",
            &texts[50],
        ];
        let (said, notes) = success(&[&base[..], more].concat(), "");
        (serde_json::from_str::<Value>(&said).unwrap(), notes)
    };
    let (exact, _) = search(&f32s, &[]);
    assert_eq!(exact["results"][0]["text"], texts[50]);
    for precision in ["int8", "uint8", "binary", "ubinary"] {
        for out in ["npy", "safetensors"].map(|format| folder.path(&format!("{precision}.{format}"))) {
            let (said, _) = embed(&out, &["--quantize", precision]);
            assert_eq!((&said["quantized"], &said["width"]), (&precision.into(), &32.into()));
            let (found, notes) = search(&out, &["--rescore-embeddings", &f32s, "--rescore-multiplier", "12"]);
            assert_eq!(found, exact, "all texts are candidates: {precision}");
            assert!(!notes.contains("with bits"), "{notes}");
            let (found, notes) = search(&out, &[]);
            assert_eq!(notes.contains("dot products of the query with bits"), precision.contains("binary"), "{notes}");
            if precision.contains("int8") {
                assert_eq!(found["results"][0]["text"], texts[50], "{found}");
                let gap =
                    found["results"][0]["score"].as_f64().unwrap() - exact["results"][0]["score"].as_f64().unwrap();
                assert!(gap.abs() < 0.01, "{found}");
            }
        }
    }
    // Ranges of other vectors give other bytes; those of the same vectors the same.
    let (own, same, few) = (folder.path("int8.npy"), folder.path("same.npy"), folder.path("few.npy"));
    embed(&same, &["--quantize", "int8", "--calibrate", &f32s]);
    assert_eq!(std::fs::read(&own).unwrap(), std::fs::read(&same).unwrap());
    assert_eq!(
        std::fs::read(folder.path("int8.ranges.npy")).unwrap(),
        std::fs::read(folder.path("same.ranges.npy")).unwrap()
    );
    let (three, three_lines) = (folder.path("three.npy"), folder.file("three.txt", "a\nb c\nd\n"));
    let (_, notes) = success(&["embed", "--model", &model, "--input", &three_lines, "--out", &three], "");
    assert!(!notes.contains("ranges"), "{notes}");
    embed(&few, &["--quantize", "int8", "--calibrate", &three]);
    assert_ne!(std::fs::read(&own).unwrap(), std::fs::read(&few).unwrap());
    let base = ["embed", "--model", &model, "--input", &three_lines, "--quantize", "int8"];
    let (_, notes) = success(&[&base[..], &["--out", &few]].concat(), "");
    assert!(notes.contains("those of only 3 vectors; --calibrate"), "{notes}");
    let left: Vec<String> = std::fs::read_dir(folder.0.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(left.iter().all(|name| !name.starts_with('.')), "temporary files are left: {left:?}");

    // Errors of one line.
    let wrong = |more: &[&str], code| failure(&[&base[..], &["--quiet"], more].concat(), code);
    assert!(wrong(&["--out", &full], 2).contains("--out: expected .npy or .safetensors"));
    assert!(
        wrong(&["--out", &few, "--calibrate", &three, "--dimensions", "4"], 1)
            .contains("expected vectors of 4 numbers")
    );
    assert!(wrong(&["--out", &few, "--calibrate", &own], 1).contains("found quantized ones"));
    let one = folder.file("one.txt", "a\n");
    let single = ["embed", "--model", &model, "--input", &one, "--out", &few, "--quantize", "uint8", "--quiet"];
    assert!(failure(&single, 1).contains("at least two vectors"));
    let bits =
        ["embed", "--model", &model, "--input", &lines, "--out", &few, "--quantize", "binary", "--calibrate", &three];
    assert!(failure(&bits, 2).contains("--calibrate: bits need no ranges"));
    let searches = |embeddings: &str, more: &[&str], code| {
        let base =
            ["similar", "--model", &model, "--corpus", &lines, "--embeddings", embeddings, "--query", "a", "--quiet"];
        failure(&[&base[..], more].concat(), code)
    };
    assert!(searches(&f32s, &["--rescore-embeddings", &f32s], 2).contains("expected quantized --embeddings"));
    assert!(searches(&own, &["--rescore-embeddings", &own], 1).contains("expected vectors in f32"));
    std::fs::remove_file(folder.path("int8.ranges.npy")).unwrap();
    assert!(searches(&own, &[], 1).contains("int8.ranges.npy"));
    let eight = folder.path("eight.npy");
    embed(&eight, &["--dimensions", "8"]);
    assert!(searches(&eight, &[], 1).contains("or use --dimensions 8 if they were shortened"));
    assert_eq!(search(&eight, &["--dimensions", "8"]).0["results"][0]["text"], texts[50]);
}

#[test]
fn hard_negatives_are_mined() {
    let folder = folder();
    let model = folder.path("model");
    let pairs = folder.file("pairs.tsv", "question\tanswer\na b c\ta b c d\nf g\tf g h\na b c\ta b\nf g\tf g h\n");
    let corpus = folder.file("corpus.txt", "a b c\na c\nf h\n\nx y z\na c\na b\n");
    let out = folder.path("out.jsonl");
    let base = ["mine", "--model", &model, "--input", &pairs, "--out", &out];
    let read = || -> Vec<Value> {
        std::fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (said, notes) = success(&[&base[..], &["--corpus", &corpus, "--num-negatives", "2", "--json"]].concat(), "");
    let said: Value = serde_json::from_str(&said).unwrap();
    for part in [
        "anchors are in column \"question\", positives in column \"answer\" (the first two)",
        "4 pairs: 2 unique anchors, 7 unique documents",
        "1 pairs repeat an earlier one",
        "corpus.txt: 1 texts repeat an earlier one",
        "corpus.txt: 1 texts are blank",
        "1 anchors are also documents",
    ] {
        assert!(notes.contains(part), "{part} is not in: {notes}");
    }
    // Three different pairs, two negatives each.
    assert_eq!(
        (&said["rows"], &said["mined"]["negatives"], &said["mined"]["incomplete"]),
        (&6.into(), &4.into(), &0.into())
    );
    let rows = read();
    assert_eq!(rows.len(), 6);
    for row in &rows {
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["anchor", "negative", "positive"]);
        let anchor = row["anchor"].as_str().unwrap();
        assert_ne!(row["negative"], anchor);
        let own: &[&str] = if anchor == "f g" { &["f g h"] } else { &["a b c d", "a b"] };
        assert!(
            own.contains(&row["positive"].as_str().unwrap()) && !own.contains(&row["negative"].as_str().unwrap()),
            "{row}"
        );
    }
    let (shown, _) =
        success(&[&base[..], &["--output-format", "labeled-list", "--output-scores", "--quiet"]].concat(), "");
    assert!(shown.contains("out.jsonl: 3 rows (labeled-list; 3 negatives of 2 anchors"), "{shown}");
    assert!(shown.contains("anchors with fewer than 3 negatives: 2, 0 of them with none"), "{shown}");
    assert!(shown.contains("mean score: positives "), "{shown}");
    let first = &read()[0];
    assert_eq!(
        (first["documents"].as_array().unwrap().len(), first["scores"].as_array().unwrap().len()),
        (2, 2),
        "{first}"
    );
    let table = folder.path("out.tsv");
    let to_table =
        ["mine", "--model", &model, "--input", &pairs, "--out", &table, "--anchor", "question", "--positive", "answer"];
    success(
        &[&to_table[..], &["--dimensions", "8", "--sampling-strategy", "random", "--seed", "3", "--quiet"]].concat(),
        "",
    );
    assert!(
        std::fs::read_to_string(&table).unwrap().starts_with("anchor\tpositive\tnegative\na b c\ta b c d\tf g h\n")
    );

    // Errors of one line.
    let wrong = |more: &[&str], code| failure(&[&base[..], &["--quiet"], more].concat(), code);
    assert!(
        wrong(&["--range-max", "2"], 2)
            .contains("--range-max: expected at least 3, --range-min 0 and 3 negatives, found 2")
    );
    assert!(wrong(&["--max-score", "nan"], 2).contains("--max-score: expected a finite number"));
    assert!(wrong(&["--range-min", "9"], 1).contains("found no negatives"));
    assert!(wrong(&["--anchor", "question"], 2).contains("--positive"));
    assert!(wrong(&["--anchor", "x", "--positive", "answer"], 1).contains("no column \"x\""));
    let scores = ["mine", "--model", &model, "--input", &pairs, "--out", &table, "--output-scores"];
    assert!(failure(&scores, 2).contains("only triplets without scores"));
    let blank = folder.file("blank.tsv", "a\tb\nc\t \n");
    let line = failure(&["mine", "--model", &model, "--input", &blank, "--out", &out, "--quiet"], 1);
    assert!(line.contains("blank.tsv:2: column \"b\": expected a text, found only white space"), "{line}");
    assert!(
        failure(&["mine", "--model", &model, "--input", "-", "--out", &out], 2).contains("--input: expected a file")
    );
}

#[test]
fn retrieval_scores_are_computed() {
    let folder = folder();
    let model = folder.path("model");
    let corpus = folder.file(
        "corpus.jsonl",
        "{\"_id\": \"1\", \"title\": \"a\", \"text\": \"b c\"}\n{\"_id\": \"2\", \"text\": \"d e\"}\n{\"_id\": \"3\", \"text\": \"x y x\"}\n",
    );
    let queries =
        folder.file("queries.jsonl", "{\"_id\": \"p\", \"text\": \"a b c\"}\n{\"_id\": \"q\", \"text\": \"d e\"}\n");
    let qrels = folder.file("qrels.tsv", "query-id\tcorpus-id\tscore\np\t1\t1\nq\t2\t2\nq\t9\t0\n");
    let base = ["evaluate", "retrieval", "--model", &model, "--corpus", &corpus, "--queries", &queries];
    let (line, notes) = success(&[&base[..], &["--qrels", &qrels, "--json"]].concat(), "");
    let found: Value = serde_json::from_str(&line).unwrap();
    // The text of each query equals that of its relevant document.
    for key in ["ndcg_at_10", "map", "mrr", "recall_at_100"] {
        assert_eq!(found[key], 1.0, "{line}");
    }
    assert_eq!(
        (&found["queries"], &found["documents"], &found["judgements"]),
        (&2.into(), &3.into(), &3.into()),
        "{line}"
    );
    assert!(notes.contains("1 judged documents are not in the corpus"), "{notes}");
    let (shown, _) = success(&[&base[..], &["--qrels", &qrels, "--quiet"]].concat(), "");
    assert!(shown.contains("nDCG@10 1.0000, MAP 1.0000") && shown.contains("judgements: the given grades"), "{shown}");
    let none = folder.file("none.tsv", "p\t1\t0\n");
    let message = failure(&[&base[..], &["--qrels", &none, "--quiet"]].concat(), 1);
    assert!(message.contains("no query has a relevant document"), "{message}");
}

/// `crates/convert/fixtures/onnx/check_embeddings.py` compares the numbers with sentence-transformers; this test checks the command.
#[test]
fn an_embedding_model_is_exported_with_its_pooling() {
    let folder = folder();
    let model = folder.path("model");
    let module =
        |class: &str, path: &str| format!(r#"{{"type": "sentence_transformers.models.{class}", "path": "{path}"}}"#);
    let modules = [module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")];
    std::fs::create_dir(folder.path("model/1_Pooling")).unwrap();
    folder.file("model/modules.json", &format!("[{}]", modules.join(", ")));
    folder.file("model/1_Pooling/config.json", r#"{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}"#);
    folder.file("model/sentence_bert_config.json", r#"{"max_seq_length": 16}"#);
    folder.file("model/config_sentence_transformers.json", r#"{"truncate_dim": 48}"#);
    let convert = |out: &str, more: &[&str]| {
        let base = ["convert", &model, "--to", "onnx", "--out", out, "--json"];
        serde_json::from_str::<Value>(&success(&[&base[..], more].concat(), "").0).unwrap()
    };
    let (plain, bytes) = (folder.path("onnx"), folder.path("int8"));
    let said = convert(&plain, &[]);
    assert_eq!(said["outputs"], serde_json::json!(["last_hidden_state", "token_embeddings", "sentence_embedding"]));
    assert_eq!((&said["width"], &said["quantized"]), (&48.into(), &Value::Null), "{said}");
    let pooling = "cls and max of layer 2, Normalize, the first 48 numbers, not normalised";
    assert_eq!(said["pooling"], pooling);
    for file in
        ["model.onnx", "config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "vocab.txt"]
    {
        assert!(std::path::Path::new(&plain).join(file).is_file(), "{file}");
    }
    assert!(!std::path::Path::new(&plain).join("model.safetensors").exists());
    let smaller = convert(&bytes, &["--quantize", "int8"]);
    assert_eq!(smaller["quantized"], "int8");
    assert!(smaller["bytes"].as_u64() < said["bytes"].as_u64(), "{smaller} {said}");
    let again = folder.path("text");
    let (line, _) = success(&["convert", &model, "--to", "onnx", "--quantize", "int8", "--out", &again], "");
    assert!(
        line.contains(", as int8; inputs input_ids")
            && line.ends_with(&format!("sentence_embedding: 48 numbers ({pooling})\n")),
        "{line}"
    );

    // A graph does not know which tokens are a prompt's.
    folder.file("model/1_Pooling/config.json", r#"{"pooling_mode": "mean", "include_prompt": false}"#);
    let out = folder.path("refused");
    let line = failure(&["convert", &model, "--to", "onnx", "--out", &out, "--quiet"], 1);
    assert!(line.contains("include_prompt is false") && line.lines().count() == 1, "{line}");
    assert!(!std::path::Path::new(&out).exists());
    let with_lstm = [&modules[..], &[module("LSTM", "3_LSTM")]].concat();
    folder.file("model/modules.json", &format!("[{}]", with_lstm.join(", ")));
    folder.file("model/1_Pooling/config.json", "{}");
    let line = failure(&["convert", &model, "--to", "onnx", "--out", &out, "--quiet"], 1);
    assert!(line.contains("is LSTM") && line.contains("to export only the encoder, convert a copy"), "{line}");
    // Without a pooling, as rerankers have it, the outputs are those of the model's heads.
    folder.file("model/modules.json", &format!("[{}]", modules[0]));
    let said = convert(&folder.path("head"), &[]);
    assert_eq!(said["outputs"], serde_json::json!(["last_hidden_state", "pooler_output"]), "{said}");
}
