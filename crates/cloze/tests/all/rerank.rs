//! `rerank`, `finetune rerank` and the evaluations of embedding models and cross-encoders, with random models.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{
    Bench, cloze, cloze_with, fails, fails_with, is_refused, json_file, json_lines, predict, success, success_with,
    text, with_epochs,
};

/// The result of a command with `--json`, and its notes.
#[track_caller]
fn json_of(arguments: &[&str]) -> (Value, String) {
    let output = cloze(&[arguments, &["--json"]].concat());
    let notes = text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {notes}");
    (serde_json::from_slice(&output.stdout).unwrap(), notes)
}

#[test]
fn documents_are_shown_in_order_of_score() {
    let folder = Bench::of_letter_tasks();
    let (model, long) = (folder.path("reranker"), ["a"; 50].join(" "));
    let lines = folder.file("lines.txt", &format!("a b c\n\nd e\n{long}\nf g h i\n"));
    let base = ["rerank", "--model", &model, "--documents", &lines];
    let (found, notes) = json_of(&[&base[..], &["--query", "a b"]].concat());
    let results = found["results"].as_array().unwrap();
    assert_eq!((&found["query"], results.len()), (&"a b".into(), 4), "{found}");
    let scores: Vec<f64> = results.iter().map(|result| result["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| (0.0..=1.0).contains(score)), "{found}");
    let mut rows: Vec<u64> = results.iter().map(|result| result["line"].as_u64().unwrap()).collect();
    rows.sort();
    assert_eq!(rows, [1, 3, 4, 5], "the blank line is left out");
    assert!(notes.contains("blank texts, left out: 1"), "{notes}");
    assert!(notes.contains("1 of 4 pairs were longer than 40 tokens and were truncated (see --max-len)"), "{notes}");

    // Queries of a file and of standard input; the sigmoid does not change the order.
    let queries = folder.file("queries.tsv", "id\ttext\n1\ta b\n2\td e\n");
    let from_file = success(&[&base[..], &["--queries", &queries, "--json", "--top", "2", "--quiet"]].concat());
    let piped = success_with(&[&base[..], &["--json", "--top", "2", "--quiet"]].concat(), "a b\nd e\n");
    assert_eq!(from_file, piped);
    let found = json_lines(&from_file);
    assert_eq!(found[0]["results"].as_array().unwrap()[..], results[..2]);
    let (logits, _) = json_of(&[&base[..], &["--query", "a b", "--logits", "--top", "2"]].concat());
    for (logit, result) in logits["results"].as_array().unwrap().iter().zip(results) {
        let sigmoid = 1.0 / (1.0 + (-logit["score"].as_f64().unwrap()).exp());
        assert!(logit["line"] == result["line"] && (sigmoid - result["score"].as_f64().unwrap()).abs() < 1e-6);
    }
    let shown = success(&[&base[..], &["--query", "a b", "--quiet", "--top", "1"]].concat());
    let best = results[0]["line"].as_u64().unwrap();
    assert!(shown.starts_with("a b\n  ") && shown.contains(&format!("  {:>8}  ", best)), "{shown}");
    // Several files.
    let more = folder.file("more.jsonl", "{\"body\": \"x y\"}\n{\"text\": \"x\"}\n{\"body\": \"y\"}\n");
    let output = cloze(&[
        "rerank",
        "--model",
        &model,
        "--documents",
        &more,
        &more,
        "--column",
        "body",
        "--query",
        "x",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["results"].as_array().unwrap().len(), 4);
    assert!(found["results"][0]["file"] == more && found["results"][0]["line"].is_u64(), "{found}");
    assert!(text(&output.stderr).contains("1 of 3 rows could not be read; they are left out"));
}

#[test]
fn the_results_of_a_search_are_reranked() {
    let folder = Bench::of_letter_tasks();
    let (encoder, model) = (folder.path("encoder"), folder.path("reranker"));
    let lines = folder.file("lines.txt", "a b c\nd e\nf g h i\n");
    let similar = ["similar", "--model", &encoder, "--corpus", &lines, "--json", "--quiet", "--top", "2"];
    let found = success(&[&similar[..], &["--query", "d e", "--query", "g"]].concat());
    let base = ["rerank", "--model", &model, "--input", "-", "--json", "--quiet"];
    let reranked = json_lines(&success_with(&base, &found));
    assert_eq!(reranked.len(), 2);
    for (before, after) in json_lines(&found).iter().zip(&reranked) {
        assert_eq!(before["query"], after["query"]);
        let lines = |value: &Value| {
            let mut lines: Vec<u64> =
                value["results"].as_array().unwrap().iter().map(|one| one["line"].as_u64().unwrap()).collect();
            lines.sort();
            lines
        };
        assert_eq!(lines(before), lines(after));
    }
    let input = "{\"query\": \"a\", \"documents\": [\"b\", {\"text\": \"c\", \"id\": \"x\"}]}\n";
    let found = json_lines(&success_with(&base, input));
    let ids: Vec<&Value> = found[0]["results"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert!(ids.contains(&&json!("x")) && found[0]["results"][0]["index"].is_u64(), "{found:?}");
    // A line that cannot be used does not affect the others.
    let output = cloze_with(&base, &format!("{{\"query\": \"a\"}}\n{input}"));
    assert_eq!(output.status.code(), Some(1));
    let found = json_lines(&text(&output.stdout));
    assert!(found[0]["error"].as_str().unwrap().contains("documents") && found[1]["query"] == "a", "{found:?}");
    assert!(text(&output.stderr).contains("1 of 2 lines could not be answered"));
}

#[test]
fn models_and_inputs_that_cannot_be_reranked_give_one_line() {
    let folder = Bench::of_letter_tasks();
    let (model, encoder, classes) = (folder.path("reranker"), folder.path("encoder"), folder.path("classes"));
    let lines = folder.file("lines.txt", "a b c\n");
    let blank = folder.file("blank.txt", "\n\n");
    let with = |model: &str, documents: &str, expected: &[&str]| {
        fails(&["rerank", "--model", model, "--documents", documents, "--query", "a", "--quiet"], expected);
    };
    with(&encoder, &lines, &["a classification head", "found a BertModel"]);
    with(&classes, &lines, &["a model with one output", "found 3 outputs"]);
    with(&model, &blank, &["blank.txt: expected at least one document"]);
    with(&model, &folder.path("absent.txt"), &["absent.txt"]);
    let base = ["rerank", "--model", &model, "--quiet"];
    fails_with(&[&base[..], &["--documents", &lines]].concat(), "", &["no query"]);
    fails_with(&[&base[..], &["--input", "-"]].concat(), "", &["lines with a query and its documents"]);
    fails(
        &[&base[..], &["--documents", &lines, "--query", "a", "--max-len", "41"]].concat(),
        &["--max-len: expected 4 to 40"],
    );
    is_refused(&[&base[..], &["--query", "a"]].concat(), &["--documents", "--input"]);
    is_refused(&[&base[..], &["--documents", "-", "--query", "a"]].concat(), &["standard input"]);
    is_refused(&[&base[..], &["--documents", &lines, "--query", " "]].concat(), &["--query", "white space"]);
}

#[test]
fn pairs_and_triplets_are_evaluated() {
    let folder = Bench::of_letter_tasks();
    let model = folder.path("encoder");
    let sts =
        folder.file("sts.tsv", "sentence1\tsentence2\tscore\na b\ta b\t5\na b\tc d e\t1\na b\ta c\t3.5\nx\ty\t0\n");
    let base = ["evaluate", "sts", "--model", &model, "--data", &sts];
    let (found, _) = json_of(&[&base[..], &["--dimensions", "8,32,4"]].concat());
    assert_eq!((&found["pairs"], &found["similarity"], &found["width"]), (&4.into(), &"cosine".into(), &32.into()));
    for name in ["cosine", "dot", "euclidean", "manhattan"] {
        for key in ["spearman", "pearson"] {
            assert!(found[format!("{key}_{name}")].as_f64().is_some_and(|r| r.abs() <= 1.0), "{found}");
        }
    }
    assert_eq!(found["spearman"], found["spearman_cosine"]);
    let dimensions: Vec<&Value> =
        found["dimensions"].as_array().unwrap().iter().map(|one| &one["dimensions"]).collect();
    assert_eq!(dimensions, [&json!(8), &json!(4)], "32 is the model's");
    let (by_dot, _) = json_of(&[&base[..], &["--similarity", "dot"]].concat());
    assert_eq!((&by_dot["spearman"], by_dot.get("dimensions")), (&found["spearman_dot"], None));
    let shown = success(&[&base[..], &["--dimensions", "8", "--quiet"]].concat());
    assert!(shown.starts_with("Spearman ") && shown.contains("(cosine), 4 pairs\nsimilarity"), "{shown}");
    assert_eq!(shown.lines().count(), 9, "{shown}");
    is_refused(&[&base[..], &["--dimensions", "33", "--quiet"]].concat(), &["--dimensions", "1 to 32", "found 33"]);

    let pairs = folder.file("pairs.csv", "text1,text2,label\na b,a b,1\na b,c d e,0\nx y,y x,1\nx,b,0\n");
    let base = ["evaluate", "pairs", "--model", &model, "--data", &pairs];
    let (found, _) = json_of(&base);
    assert_eq!((&found["pairs"], &found["similar"]), (&4.into(), &2.into()));
    assert!(found["ap"] == found["cosine_ap"] && found["euclidean_f1_threshold"].as_f64().unwrap() >= 0.0, "{found}");
    let shown = success(&[&base[..], &["--quiet"]].concat());
    assert!(shown.starts_with("average precision ") && shown.lines().count() == 6, "{shown}");

    let triplets = folder.file("triplets.jsonl", "{\"anchor\": \"a b\", \"positive\": \"a b\", \"negative\": \"x\"}\n");
    let base = ["evaluate", "triplets", "--model", &model, "--data", &triplets];
    let (found, _) = json_of(&base);
    assert_eq!((&found["accuracy"], &found["manhattan_accuracy"]), (&1.0.into(), &1.0.into()), "{found}");
    assert!(success(&[&base[..], &["--quiet"]].concat()).starts_with("accuracy 100.00 % (cosine), 1 triplets"));

    let texts = folder.file("texts.tsv", "id\ttext\n1\ta b\n2\ta b\n3\tx y\n4\ty\n");
    let duplicates = folder.file("duplicates.tsv", "1\t2\n4\t9\n");
    let base = ["evaluate", "mining", "--model", &model, "--data", &texts, "--duplicates", &duplicates];
    let (found, notes) = json_of(&base);
    assert_eq!((&found["average_precision"], &found["f1"]), (&1.0.into(), &1.0.into()), "{found}");
    assert_eq!((&found["candidates"], &found["duplicates"]), (&6.into(), &1.into()), "{found}");
    assert!(notes.contains("pairs with an unknown id, ignored: 1"), "{notes}");
    assert!(
        success(&[&base[..], &["--transitive", "--quiet"]].concat()).starts_with("average precision 1.0000, F1 1.0000")
    );
}

#[test]
fn data_that_cannot_be_evaluated_gives_one_line() {
    let folder = Bench::of_letter_tasks();
    let model = folder.path("encoder");
    let with = |what: &str, text: &str, expected: &[&str]| {
        let file = folder.file("x.tsv", text);
        fails(&["evaluate", what, "--model", &model, "--data", &file, "--quiet"], expected);
    };
    let header = "text1\ttext2\tscore\n";
    with("sts", &format!("{header}a\tb\tNaN\n"), &["x.tsv:2: column \"score\": expected a finite number", "NaN"]);
    with("sts", &format!("{header}a\tb\thigh\n"), &["x.tsv:2: column \"score\"", "high"]);
    with("sts", &format!("{header}a\t\t1\n"), &["x.tsv:2: column \"text2\": expected a text"]);
    with("sts", &format!("{header}a\tb\t1\nc\td\t1\n"), &["all scores are 1"]);
    with("sts", "a\tb\n", &["two texts and a number", "set --text, --pair, --label"]);
    with("pairs", &format!("{header}a\tb\t0.5\n"), &["x.tsv:2: column \"score\": expected 1 for similar texts or 0"]);
    with("pairs", &format!("{header}a\tb\t1\n"), &["all labels are 1"]);
    with("triplets", "anchor\tpositive\tnegative\na\tb\t \n", &["x.tsv:2: column \"negative\""]);
    let folder_of = folder.path("");
    is_refused(&["evaluate", "sts", "--model", &model, "--data", &folder_of, "--quiet"], &["is a folder", "--task"]);
}

#[test]
fn a_cross_encoder_is_evaluated_on_lists_and_on_a_collection() {
    let folder = Bench::of_letter_tasks();
    let (model, encoder) = (folder.path("reranker"), folder.path("encoder"));
    let data = folder.file(
        "lists.jsonl",
        "{\"query\": \"a\", \"positive\": [\"a b\"], \"negative\": [\"c\", \"d e\"]}\n\
         {\"query\": \"b\", \"positive\": [\"b\"], \"documents\": [\"x\", \"b\", \"c\"]}\n\
         {\"query\": \"c\", \"positive\": [], \"documents\": [\"x\"]}\n",
    );
    let base = ["evaluate", "rerank", "--model", &model, "--data", &data];
    let (found, notes) = json_of(&base);
    assert_eq!(
        (&found["queries"], &found["pairs"], &found["queries_without_relevant"]),
        (&3.into(), &6.into(), &1.into())
    );
    // The positive is second of three; the other query counts as 0.
    assert_eq!((&found["base_map"], &found["base_mrr_at_10"]), (&0.25.into(), &0.25.into()), "{found}");
    assert!(found["ndcg_at_10"].as_f64().is_some_and(|ndcg| (0.3..=0.67).contains(&ndcg)), "{found}");
    assert!(notes.contains("queries without a relevant document, which count as 0"), "{notes}");
    let shown = success(&[&base[..], &["--at", "2", "--quiet"]].concat());
    assert!(shown.starts_with("before: MAP 0.2500, MRR@2 0.2500") && shown.contains("3 queries, 6 pairs"), "{shown}");

    let corpus = folder.file(
        "corpus.jsonl",
        "{\"_id\": \"1\", \"text\": \"a b c\"}\n{\"_id\": \"2\", \"text\": \"d e\"}\n{\"_id\": \"3\", \"text\": \"x y x\"}\n",
    );
    let queries =
        folder.file("queries.jsonl", "{\"_id\": \"p\", \"text\": \"a b c\"}\n{\"_id\": \"q\", \"text\": \"d e\"}\n");
    let qrels = folder.file("qrels.tsv", "query-id\tcorpus-id\tscore\np\t1\t1\nq\t2\t2\n");
    let collection = ["--corpus", &corpus, "--queries", &queries, "--qrels", &qrels];
    let base = [&["evaluate", "rerank", "--model", &model][..], &collection].concat();
    let (found, _) = json_of(&[&base[..], &["--retriever", &encoder, "--top", "2"]].concat());
    // The text of each query equals that of its relevant document.
    assert_eq!((&found["base_ndcg_at_10"], &found["base_recall_at_100"]), (&1.0.into(), &1.0.into()), "{found}");
    assert_eq!((&found["recall_at_100"], &found["pairs"]), (&1.0.into(), &4.into()), "{found}");
    let run = folder.file("x.run", "p Q0 1 1 2.5 x\np Q0 3 2 1.5 x\nq Q0 2 1 0.5 x\nq Q0 9 2 0.25 x\nz Q0 1 1 1 x\n");
    let (by_run, notes) = json_of(&[&base[..], &["--run", &run]].concat());
    assert_eq!((&by_run["pairs"], &by_run["base_mrr"]), (&3.into(), &1.0.into()), "{by_run}");
    assert!(
        notes.contains("an unknown document, ignored: 1") && notes.contains("a query without judgements, ignored: 1")
    );
    let shown = success(&[&base[..], &["--run", &run, "--quiet"]].concat());
    assert!(
        shown.starts_with("before:  nDCG@10 1.0000, MAP 1.0000") && shown.contains("\nafter:   nDCG@10 "),
        "{shown}"
    );

    // A model that is not a reranker, and a search that is missing.
    fails(&["evaluate", "rerank", "--model", &encoder, "--data", &data, "--quiet"], &["a classification head"]);
    is_refused(&[&base[..], &["--quiet"]].concat(), &["--retriever or --run"]);
    let bad = folder.file("bad.jsonl", "{\"query\": \"a\", \"positive\": [\"b\"]}\n");
    fails(
        &["evaluate", "rerank", "--model", &model, "--data", &bad, "--quiet"],
        &["bad.jsonl:1", "\"negative\" or \"documents\""],
    );

    let base = [&["evaluate", "retrieval", "--model", &encoder, "--dimensions", "16,4"][..], &collection].concat();
    let (found, _) = json_of(&base);
    assert_eq!(found["dimensions"][1]["dimensions"], 4, "{found}");
    assert!(found["dimensions"][0]["ndcg_at_10"].as_f64().is_some_and(|ndcg| ndcg <= 1.0), "{found}");
    let shown = success(&[&base[..], &["--quiet"]].concat());
    assert!(shown.contains("\ndimensions  nDCG@10") && shown.contains("\n32         "), "{shown}");
}

#[test]
fn a_fine_tuned_reranker_gives_the_same_scores_everywhere() {
    let bench = Bench::new();
    let rows = "query\tdocument\tlabel\n\
        who paints\tanna paints .\t1\n\
        who paints\tthe owl leaves rome\t0\n\
        who leaves\tthe owl leaves rome\t1\n\
        who leaves\tanna paints .\t0\n\
        where\tthe red fox in paris\t1\n\
        where\tanna paints .\t0\n";
    let file = bench.file("pairs.tsv", rows);
    let paths = bench.paths("run");
    let columns = ["--text", "query", "--pair", "document", "--metric", "ndcg_at_10"];
    success(&with_epochs(bench.finetune("rerank", &file, &paths, &columns), "80"));
    let model = format!("{}/model", paths[1]);
    let config = json_file(&format!("{model}/config.json"));
    assert_eq!(config["sentence_transformers"]["activation_fn"], "torch.nn.modules.activation.Sigmoid");
    assert_eq!(
        (&config["architectures"][0], &config["cloze"]["kind"]),
        (&"BertForSequenceClassification".into(), &"rerank".into())
    );

    let (found, _) = json_of(&["evaluate", "--model", &model, "--data", &file, "--precision", "f32"]);
    assert!(found["ndcg_at_10"] == 1.0 && found["average_precision"].as_f64().unwrap() > 0.8, "{found}");
    let lines = "who paints\tanna paints .\nwho paints\tthe owl leaves rome\n";
    let predicted = predict("rerank", &model, "-", lines);
    let documents = bench.file("documents.txt", "the owl leaves rome\nanna paints .\n");
    let (ranked, _) = json_of(&["rerank", "--model", &model, "--documents", &documents, "--query", "who paints"]);
    for (result, line) in ranked["results"].as_array().unwrap().iter().zip(&predicted) {
        let gap = result["score"].as_f64().unwrap() - line["score"].as_f64().unwrap();
        assert!(gap.abs() < 1e-6, "{ranked} {predicted:?}");
    }
    // A cross-encoder of another program is recognized without a kind.
    let mut plain = config.clone();
    plain.as_object_mut().unwrap().remove("cloze");
    fs::write(Path::new(&model).join("config.json"), plain.to_string()).unwrap();
    let found = json_lines(&success_with(
        &["predict", "--model", &model, "--input", "-", "--precision", "f32", "--quiet", "--no-verify"],
        lines,
    ));
    assert_eq!(found, predicted);

    let bad = bench.file("bad.tsv", "query\tdocument\tlabel\na\tb\t3\n");
    let finetune = |file: &str, more: &[&str], expected: &[&str]| {
        let paths = bench.paths("other");
        fails(&[bench.finetune("rerank", file, &paths, &columns[..2]), more.to_vec()].concat(), expected);
    };
    finetune(&bad, &columns[2..4], &["bad.tsv:2: column \"label\": expected 1 (relevant), 0", "--loss to mse"]);
    finetune(&file, &[], &["expected a query and a document", "--pair"]);
}

#[test]
fn a_reranker_learns_from_lists() {
    let bench = Bench::new();
    let lists = "{\"query\": \"who paints\", \"positive\": [\"anna paints .\"], \"negative\": [\"the owl leaves rome\", \"red\"]}\n\
        {\"query\": \"who leaves\", \"positive\": [\"the owl leaves rome\"], \"negative\": [\"anna paints .\"]}\n\
        {\"query\": \"where\", \"positive\": [\"in paris\", \"in rome\"], \"negative\": [\"anna paints .\", \"the red fox\"]}\n\
        {\"query\": \"who\", \"positive\": [], \"negative\": [\"red\"]}\n";
    let file = bench.file("lists.jsonl", lists);
    let paths = bench.paths("run");
    let output =
        cloze(&with_epochs(bench.finetune("rerank", &file, &paths, &["--loss", "listwise", "--metric", "map"]), "60"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let model = format!("{}/model", paths[1]);
    let (found, _) = json_of(&["evaluate", "--model", &model, "--data", &file, "--precision", "f32"]);
    assert_eq!((&found["map"], &found["rows"]), (&1.0.into(), &10.into()), "{found}");
    // The same lists are ranked by the evaluation of cross-encoders, which counts the query without a positive.
    let (found, _) = json_of(&["evaluate", "rerank", "--model", &model, "--data", &file]);
    assert_eq!(found["map"], 0.75, "{found}");
    let none = bench.file("none.jsonl", "{\"query\": \"who\", \"positive\": [], \"negative\": [\"red\"]}\n");
    let other = bench.paths("other");
    fails(
        &bench.finetune("rerank", &none, &other, &["--loss", "listwise"]),
        &["--loss: listwise needs", "no query has both"],
    );
}
