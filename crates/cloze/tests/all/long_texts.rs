//! `--long`: texts that are longer than the model's maximum length, in all commands.

use serde_json::Value;

use crate::common::{Bench, cloze, cloze_with, text};

/// The vectors of a file.
fn vectors(path: &str) -> Vec<Vec<f64>> {
    let lines = std::fs::read_to_string(path).unwrap();
    let parse = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    lines.lines().map(parse).collect()
}

/// The last line of standard output as JSON, and the notes.
#[track_caller]
fn json_of(arguments: &[&str]) -> (Value, String) {
    let output = cloze(arguments);
    let notes = text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {notes}");
    let said = text(&output.stdout);
    (serde_json::from_str(said.lines().last().unwrap()).unwrap(), notes)
}

#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = cloze(arguments);
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {line}");
    line
}

/// A text of this many letters.
fn letters(count: usize) -> String {
    (0..count).map(|i| ["a", "b", "c", "d", "e", "f", "g"][i * i % 7]).collect::<Vec<_>>().join(" ")
}

#[test]
fn embed_reads_long_texts_in_windows() {
    let folder = Bench::of_letter_tasks();
    let (model, out) = (folder.path("encoder"), folder.path("out.jsonl"));
    let long = letters(12);
    let lines = folder.file("lines.txt", &format!("a b c\n{long}\nd\n"));
    let parts = folder.file("parts.txt", &format!("{}\n{}\n{}\n", &long[..9], &long[10..19], &long[20..]));
    let base = |input: &'static str| {
        [
            "embed",
            "--model",
            &model,
            "--input",
            if input == "lines" { &lines } else { &parts },
            "--out",
            &out,
            "--max-len",
            "7",
            "--json",
        ]
    };
    let (_, _) = json_of(&base("parts"));
    let windows = vectors(&folder.path("out.jsonl"));
    let (said, notes) = json_of(&base("lines"));
    assert_eq!(
        (&said["long"], &said["cut"], &said["windowed"], &said["windows"]),
        (&"truncate".into(), &1.into(), &0.into(), &0.into())
    );
    assert!(
        notes.contains("1 of 3 texts were longer than 7 tokens and were truncated (see --max-len and --long)"),
        "{notes}"
    );
    let truncated = vectors(&folder.path("out.jsonl"));
    assert_eq!(truncated[1], windows[0]);

    let (said, notes) = json_of(&[&base("lines")[..], &["--long", "first"]].concat());
    assert_eq!(vectors(&folder.path("out.jsonl")), truncated);
    assert!(notes.contains("only their first window was read (--long first)") && !notes.contains("warning"), "{notes}");
    assert_eq!((&said["cut"], &said["windowed"]), (&1.into(), &0.into()));

    let (said, notes) = json_of(&[&base("lines")[..], &["--long", "mean"]].concat());
    assert_eq!(
        (&said["long"], &said["cut"], &said["windowed"], &said["windows"]),
        (&"mean".into(), &0.into(), &1.into(), &3.into())
    );
    assert!(
        notes.contains("1 of 3 texts were longer than 7 tokens and were read in 3 windows (--long mean)"),
        "{notes}"
    );
    assert!(!notes.contains("truncated"), "{notes}");
    let mean = vectors(&folder.path("out.jsonl"));
    assert_eq!((&mean[0], &mean[2]), (&truncated[0], &truncated[2]));
    for (i, found) in mean[1].iter().enumerate() {
        let expected = (5.0 * windows[0][i] + 5.0 * windows[1][i] + 2.0 * windows[2][i]) / 12.0;
        assert!((found - expected).abs() < 1e-5);
    }
    let (said, _) = json_of(&[&base("lines")[..], &["--long", "max", "--stride", "1"]].concat());
    assert_eq!((&said["windows"], &said["stride"]), (&8.into(), &1.into()));
    let maxima = vectors(&folder.path("out.jsonl"));
    assert!(maxima[1].iter().zip(&windows[1]).all(|(max, one)| *max >= one - 1e-5) && maxima[1] != mean[1]);

    let line = refused(&[&base("lines")[..], &["--stride", "3"]].concat());
    assert!(line.contains("--stride: has an effect only with --long mean or --long max"), "{line}");
    assert!(refused(&[&base("lines")[..], &["--long", "middle"]].concat()).contains("truncate, first, mean, max"));
    let output = cloze(&[&base("lines")[..], &["--long", "mean", "--prompt", "x y z w v "]].concat());
    assert_eq!(output.status.code(), Some(1));
    let line = text(&output.stderr);
    assert!(
        line.contains("--max-len: expected at least 8, found 7: 2 special tokens and the prompt's 5 tokens"),
        "{line}"
    );
}

/// One line of 2 MB: only a batch of windows is in memory at a time.
#[test]
fn the_memory_for_a_long_text_is_that_of_a_batch_of_windows() {
    let folder = Bench::of_letter_tasks();
    let (model, out) = (folder.path("encoder"), folder.path("out.npy"));
    let megabytes = |name: &str, long: &str| {
        let path = folder.path(name);
        let (said, _) =
            json_of(&["embed", "--model", &model, "--input", &path, "--out", &out, "--json", "--long", long]);
        (said["peak_rss_bytes"].as_f64().unwrap() / 1e6, said["windows"].as_u64().unwrap())
    };
    folder.file("long.txt", &format!("{}\n", letters(1_000_000)));
    // As many tokens, in texts that fit.
    folder.file("short.txt", &format!("{}\n", letters(38)).repeat(26_316));
    let (long, windows) = megabytes("long.txt", "mean");
    assert_eq!(windows, 26_316);
    let (short, _) = megabytes("short.txt", "truncate");
    assert!(long < short + 100.0, "{long} MB for one text, {short} MB for many");
}

#[test]
fn searches_and_evaluations_read_long_texts_in_windows() {
    let folder = Bench::of_letter_tasks();
    let model = folder.path("encoder");
    // The second document differs from the first only after the first window.
    let [one, two] = ["x y", "v w"].map(|end| format!("{} {end} {end} {end}", letters(10)));
    let corpus = folder.file("corpus.txt", &format!("{one}\n{two}\n"));
    let long = ["--max-len", "8", "--long", "mean"];
    let similar = ["similar", "--model", &model, "--corpus", &corpus, "--json", "--query"];
    let (found, notes) = json_of(&[&similar[..], &[&two], &long[..]].concat());
    assert_eq!(found["results"][0]["line"], 2, "{found}");
    assert!(found["results"][1]["score"].as_f64().unwrap() < 0.9999, "{found}");
    assert!(notes.contains("the query was longer than 8 tokens and was read in 3 windows"), "{notes}");
    let (found, _) = json_of(&[&similar[..], &[&two], &long[..2]].concat());
    assert_eq!(found["results"][0]["score"], found["results"][1]["score"], "truncated, they are the same");

    let documents = folder.file(
        "c.jsonl",
        &format!("{{\"_id\": \"1\", \"text\": \"{one}\"}}\n{{\"_id\": \"2\", \"text\": \"{two}\"}}\n"),
    );
    let queries = folder.file("q.jsonl", &format!("{{\"_id\": \"q\", \"text\": \"{two}\"}}\n"));
    let qrels = folder.file("q.tsv", "query-id\tcorpus-id\tscore\nq\t2\t1\n");
    let base = [
        "evaluate",
        "retrieval",
        "--model",
        &model,
        "--corpus",
        &documents,
        "--queries",
        &queries,
        "--qrels",
        &qrels,
        "--json",
    ];
    let (found, notes) = json_of(&[&base[..], &long[..]].concat());
    assert_eq!((&found["mrr"], &found["long"]), (&1.0.into(), &"mean".into()), "{found}");
    assert_eq!(found["texts_read"], serde_json::json!({"texts": 3, "cut": 0, "windowed": 3, "windows": 9, "blank": 0}));
    assert!(notes.contains("2 of 2 texts were longer than 8 tokens and were read in 6 windows"), "{notes}");

    let pairs = folder.file("pairs.tsv", &format!("text\tpair\tscore\n{one}\t{two}\t0.1\na\ta\t1\nb\tc d\t0.4\n"));
    let (found, _) = json_of(
        &[
            &[
                "evaluate", "sts", "--model", &model, "--data", &pairs, "--text", "text", "--pair", "pair", "--label",
                "score", "--json",
            ][..],
            &long[..],
        ]
        .concat(),
    );
    assert_eq!((&found["texts_read"]["windowed"], &found["texts_read"]["windows"]), (&2.into(), &6.into()), "{found}");
}

#[test]
fn predict_and_evaluate_read_long_texts_in_windows() {
    let folder = Bench::of_letter_tasks();
    let (model, long) = (folder.path("classes"), letters(16));
    let base = ["predict", "classify", "--model", &model, "--max-len", "8", "--precision", "f32"];
    let input = format!("{long}\na b\n{}\n{}\n{}\n", &long[..11], &long[12..23], &long[24..]);
    let predict = |more: &[&str]| {
        let output = cloze_with(&[&base[..], more].concat(), &input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines, text(&output.stderr))
    };
    let (truncated, notes) = predict(&[]);
    assert!(
        notes.contains("1 of 5 rows were longer than 8 tokens and were truncated (see --max-len and --long)"),
        "{notes}"
    );
    assert_eq!(truncated[0]["probabilities"], truncated[2]["probabilities"]);
    let (first, notes) = predict(&["--long", "first"]);
    assert_eq!(first, truncated);
    assert!(notes.contains("1 of 5 rows were longer than 8 tokens; only their first window was read"), "{notes}");
    let (mean, notes) = predict(&["--long", "mean"]);
    assert!(
        notes.contains("1 of 5 rows were longer than 8 tokens and were read in 3 windows (--long mean)"),
        "{notes}"
    );
    assert_eq!((&mean[0]["windows"], mean[1..].to_vec()), (&3.into(), truncated[1..].to_vec()));
    let share = |line: &Value, label: &str| line["probabilities"][label].as_f64().unwrap();
    // ln(p / p₀) is a difference of logits.
    let odds = |line: &Value| (share(line, "LABEL_1") / share(line, "LABEL_0")).ln();
    let expected = (6.0 * odds(&mean[2]) + 6.0 * odds(&mean[3]) + 4.0 * odds(&mean[4])) / 16.0;
    assert!((odds(&mean[0]) - expected).abs() < 1e-5);
    let (max, _) = predict(&["--long", "max", "--stride", "4"]);
    assert_eq!(max[0]["windows"], 4);

    let rows = folder.file("rows.tsv", &format!("text\tlabel\n{long}\tLABEL_0\na b\tLABEL_2\n"));
    let evaluate = ["evaluate", "classify", "--model", &model, "--data", &rows, "--max-len", "8", "--json"];
    let (scores, notes) = json_of(&[&evaluate[..], &["--long", "mean", "--precision", "f32"]].concat());
    let loss = -(share(&mean[0], "LABEL_0").ln() + share(&mean[1], "LABEL_2").ln()) / 2.0;
    assert!((scores["loss"].as_f64().unwrap() - loss).abs() < 1e-5, "{scores} {loss}");
    assert_eq!((&scores["long"], &scores["max_len"]), (&"mean".into(), &8.into()));
    assert_eq!(scores["rows_read"], serde_json::json!({"rows": 2, "cut": 0, "windowed": 1, "windows": 3}));
    assert!(notes.contains("1 of 2 rows were longer than 8 tokens and were read in 3 windows"), "{notes}");

    for (arguments, expected) in [
        (
            &["predict", "tag", "--model", &model, "--long", "mean"][..],
            "--long has no effect for the kind tag; it is for classify, multi-label, regress",
        ),
        (
            &["finetune", "classify", "--model", &model, "--train", &rows, "--long", "mean"],
            "--long: training truncates long texts",
        ),
        (
            &["sweep", "classify", "--model", &model, "--train", &rows, "--out", "x", "--long", "mean"],
            "--long: training truncates long texts",
        ),
    ] {
        let line = refused(arguments);
        assert!(line.contains(expected), "{line}");
    }
    let output = cloze(&[&evaluate[..], &["--long", "first", "--stride", "3"]].concat());
    assert!(!output.status.success());
    let line = text(&output.stderr);
    assert!(line.contains("--stride: has no effect with --long first"), "{line}");
}

/// The library's tests compare the numbers with sentence-transformers.
#[test]
fn mine_rescores_candidates() {
    let folder = Bench::of_letter_tasks();
    let (model, reranker) = (folder.path("encoder"), folder.path("reranker"));
    let pairs = folder.file("pairs.tsv", "anchor\tpositive\na b c\ta b c d\nf g\tf g h\n");
    let corpus = folder.file("corpus.txt", &format!("a c\nf h\nx y z\nb b\n{}\n", letters(60)));
    let out = folder.path("out.jsonl");
    let base = [
        "mine",
        "--model",
        &model,
        "--input",
        &pairs,
        "--corpus",
        &corpus,
        "--out",
        &out,
        "--num-negatives",
        "2",
        "--range-max",
        "9",
    ];
    let scored = ["--rescore", &reranker, "--output-scores", "--output-format", "labeled-pair"];
    let (said, notes) = json_of(&[&base[..], &scored[..], &["--json"]].concat());
    let rescored = &said["rescored"];
    // Each anchor with two positives and the five texts of the corpus: its own positive, six candidates.
    assert_eq!(
        (&rescored["pairs"], &rescored["pairs_truncated"], &rescored["activation"]),
        (&14.into(), &2.into(), &"Sigmoid".into()),
        "{said}"
    );
    assert!(said["rescoring_seconds"].is_number());
    assert!(
        notes
            .contains("2 of 14 pairs to rescore were longer than 40 tokens and were truncated (see --rescore-max-len)"),
        "{notes}"
    );
    let rows: Vec<Value> =
        std::fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6);
    // The scores are those of `cloze rerank`.
    for row in &rows {
        let (anchor, document) =
            (row["anchor"].as_str().unwrap(), row["document"].as_str().or(row["positive"].as_str()).unwrap());
        let documents = folder.file("documents.txt", &format!("{document}\n"));
        let (found, _) =
            json_of(&["rerank", "--model", &reranker, "--documents", &documents, "--query", anchor, "--json"]);
        let [expected, found] = [&found["results"][0]["score"], &row["score"]].map(|score| score.as_f64().unwrap());
        assert!((found - expected).abs() < 1e-6, "{row}: {expected}");
    }
    let (shown, _) = {
        let output = cloze(&[&base[..], &scored[..]].concat());
        (text(&output.stdout), text(&output.stderr))
    };
    assert!(shown.contains("reranker, 14 pairs of anchors with candidates and positives"), "{shown}");

    let classes = folder.path("classes");
    let output = cloze(&[&base[..], &["--rescore", &classes]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("expected a reranker, a model with one output, found 3 outputs"));
    let line = refused(&[&base[..], &["--rescore", &reranker, "--rescore-max-len", "99"]].concat());
    assert!(line.contains("--rescore-max-len: expected 4 to 40"), "{line}");
    assert!(refused(&[&base[..], &["--rescore-max-len", "9"]].concat()).contains("--rescore"));
}
