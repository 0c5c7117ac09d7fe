//! `cloze report` on tiny runs of every kind: the page, the JSON, and errors.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{cloze, failure, success};

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// Runs `cloze report RUNS --out FILE --json` and checks the page. Returns the JSON and the page.
    fn report(&self, runs: &[&str]) -> (Value, String) {
        let page = self.path("page.html");
        let line = success(&[&["report"], runs, &["--out", &page, "--json"]].concat());
        let html = fs::read_to_string(&page).unwrap();
        check_page(&html);
        (serde_json::from_str(line.trim()).unwrap(), html)
    }

    /// A tiny random model and a file of labelled rows, for short fine-tunings.
    fn labelled(&self) -> (String, String) {
        let (model, rows) = (self.path("start"), self.path("rows.tsv"));
        cloze_testing::save_model(cloze_testing::config(), Path::new(&model));
        cloze_testing::tokenizer(&[]).save(Path::new(&model)).unwrap();
        let row = |number: usize| if number.is_multiple_of(2) { "old red fox\tfox\n" } else { "owl sees river\towl\n" };
        fs::write(&rows, format!("text\tlabel\n{}", (0..24).map(row).collect::<String>())).unwrap();
        (model, rows)
    }

    fn finetune(&self, command: &str, out: &str, more: &[&str]) -> String {
        let ((model, rows), out) = (self.labelled(), self.path(out));
        let base = [command, "classify", "--train", &rows, "--dev", &rows, "--model", &model, "--out", &out];
        success(&[&base[..], &["--precision", "f32", "--threads", "1", "--quiet"], more].concat());
        out
    }
}

/// Checks a page: it is self-contained, the axes have labels, and there are no raw JSON values.
fn check_page(html: &str) {
    assert!(html.starts_with("<!doctype html>"));
    for outside in ["http:", "https:", "src=", "url(", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
    for (open, close) in
        [("<svg", "</svg>"), ("<table", "</table>"), ("<figure", "</figure>"), ("<script", "</script>")]
    {
        assert_eq!(html.matches(open).count(), html.matches(close).count(), "{open}");
    }
    let drawings: Vec<&str> =
        html.split("<svg class=\"chart").skip(1).map(|part| part.split("</svg>").next().unwrap()).collect();
    assert!(!drawings.is_empty(), "no chart");
    for drawing in drawings {
        assert_eq!(drawing.matches("class=\"name\"").count(), 2, "a name at each axis: {drawing}");
        assert!(drawing.contains("aria-label=\""), "{drawing}");
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
    }
    for cell in html.split("<td>").skip(1) {
        assert!(!cell.starts_with("null") && !cell.starts_with("false"), "{}", &cell[..cell.len().min(80)]);
    }
}

fn pretrain(place: &Place, shards: &str, name: &str, more: &[&str]) -> String {
    let (recipe, out, data) = (place.path("recipe.toml"), place.path(name), format!("data={shards}"));
    fs::write(
        &recipe,
        "data = \"shards\"\nsteps = 7\nprecision = \"f32\"\n[model]\nhidden_size = 16\nnum_hidden_layers = 1\n\
         num_attention_heads = 2\nmax_position_embeddings = 64\n[[phase]]\nseq_len = 32\nbatch_sequences = 4\n[optimizer]\nlr = 1e-3\n\
         [eval]\nevery = 4\nbatches = 2\n[log]\nevery = 2\n",
    )
    .unwrap();
    success(&[&["pretrain", &recipe, "--set", &data, "--out", &out, "--quiet", "--threads", "1"], more].concat());
    out
}

#[test]
fn pre_training_runs_are_reported_and_compared() {
    let place = Place::new();
    let (corpus, tokenizer, shards) = (place.path("stories.txt"), place.path("tokenizer"), place.path("shards"));
    fs::write(&corpus, crate::common::corpus(60)).unwrap();
    success(&["vocab", "--input", &corpus, "--size", "300", "--out", &tokenizer]);
    success(&["prepare", "--input", &corpus, "--tokenizer", &tokenizer, "--out", &shards, "--valid-fraction", "0.1"]);
    let slow = pretrain(&place, &shards, "work/run", &[]);
    let fast = pretrain(&place, &shards, "fast", &["--set", "optimizer.lr=5e-3"]);

    let (json, html) = place.report(&[&slow]);
    assert_eq!((&json["runs"][0]["kind"], &json["runs"][0]["steps"]), (&"pre-training".into(), &7.into()), "{json}");
    assert!(html.contains("<h1>work/run</h1>"), "a generic folder name is shown with its parent");
    // The last evaluation is at step 7, which is not a multiple of log.every.
    assert!(html.contains("<dt>steps</dt><dd>7</dd>"), "the tiles show the newest record");
    for text in [
        "<h3>MLM loss</h3>",
        ">nats per predicted token</text>",
        ">step</text>",
        ">tokens</text>",
        "held-out",
        " %</dd>",
    ] {
        assert!(html.contains(text), "{text}");
    }
    for text in
        ["unknown tokens", "tokens per word", "measured matrix peak", "Recipe (recipe.toml)", "batch_sequences = 4"]
    {
        assert!(html.contains(text), "{text}");
    }
    assert!(success(&["report", &slow]).contains("report.html") && Path::new(&slow).join("report.html").is_file());

    let (json, html) = place.report(&[&slow, &fast]);
    let differences = json["differences"].as_object().unwrap();
    assert_eq!(differences.keys().collect::<Vec<_>>(), ["optimizer.lr"], "{json}");
    assert_eq!(differences["optimizer.lr"]["fast"], "0.005", "{json}");
    assert!(html.contains("<h3>MLM loss, held-out</h3>") && html.contains("<h3>MLM loss, training</h3>"));
    assert!(html.contains("work/run") && html.contains("Final scores") && html.contains("What differs"));
}

#[test]
fn fine_tunings_are_reported() {
    let place = Place::new();
    let run = place.finetune("finetune", "stars", &["--epochs", "8", "--batch", "8"]);
    let (json, html) = place.report(&[&run]);
    let run = &json["runs"][0];
    assert_eq!(
        (&run["kind"], &run["steps"], &run["evaluations"]),
        (&"fine-tuning".into(), &24.into(), &8.into()),
        "{json}"
    );
    for text in [
        "<h3>Loss</h3>",
        "<h3>Accuracy</h3>",
        "<h3>Learning rate</h3>",
        ">epoch</text>",
        "best dev accuracy",
        "Evaluations on the dev rows",
        "<th scope=\"row\">training rows</th><td>24</td>",
        "rows.tsv",
        "Settings (finetune.toml)",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(!html.contains("MLM"), "nothing of pre-training");
}

#[test]
fn seeds_and_sweeps_are_summarised_and_compared() {
    let place = Place::new();
    let seeds = place.finetune("finetune", "seeds", &["--epochs", "7", "--batch", "8", "--seeds", "3"]);
    let (json, html) = place.report(&[&seeds]);
    assert_eq!(json["runs"][0]["runs"].as_array().map(Vec::len), Some(3), "{json}");
    assert_eq!(json["runs"][0]["settings"][0]["scores"]["accuracy"]["runs"], 3, "{json}");
    for text in [
        "mean ± standard deviation",
        "seed-1",
        "seed-3",
        "<h3>Accuracy, dev</h3>",
        "<h3>Loss, training</h3>",
        "dev accuracy, mean",
    ] {
        assert!(html.contains(text), "{text}");
    }

    // Collapsed and failed seeds are marked; failed ones have no scores.
    let results = Path::new(&seeds).join("results.json");
    let mut done: Value = serde_json::from_slice(&fs::read(&results).unwrap()).unwrap();
    done[1]["failed"] = "not finite at step 2".into();
    done[1]["best"] = Value::Null;
    fs::write(&results, done.to_string()).unwrap();
    let metrics = Path::new(&seeds).join("seed-1/metrics.jsonl");
    let collapsed = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if line["kind"] == "eval" {
            line["scores"]["collapsed"] = "owl".into();
        }
        format!("{line}\n")
    };
    let lines: String = fs::read_to_string(&metrics).unwrap().lines().map(collapsed).collect();
    fs::write(&metrics, lines).unwrap();
    let (json, html) = place.report(&[&seeds]);
    assert_eq!(json["runs"][0]["settings"][0]["scores"]["accuracy"]["runs"], 2, "a failed run has no score: {json}");
    assert!(html.contains("collapsed: always owl") && html.contains("failed: not finite at step 2"), "{html}");

    // Runs that results.json does not list are unfinished, so a collapse may be temporary.
    let all = fs::read(&results).unwrap();
    fs::write(&results, Value::Array(done.as_array().unwrap()[1..].to_vec()).to_string()).unwrap();
    let (_, html) = place.report(&[&seeds]);
    assert!(html.contains("<td>unfinished; so far collapsed: always owl</td>"), "{html}");
    fs::write(&results, all).unwrap();

    let sweep = place.finetune(
        "sweep",
        "grid",
        &["--epochs-list", "2", "--lrs", "1e-3,1e-5", "--batches", "8", "--seeds", "2"],
    );
    let (json, html) = place.report(&[&sweep]);
    let settings = json["runs"][0]["settings"].as_array().unwrap();
    assert_eq!((settings.len(), &settings[0]["runs"]), (2, &2.into()), "{json}");
    assert!(html.contains("fine-tunings over a grid of lr") && html.contains("lr 1e-5"), "{html}");

    let (json, html) = place.report(&[&seeds, &sweep]);
    assert!(json["differences"].get("seed").is_some() && json["differences"].get("batch").is_none(), "{json}");
    assert!(html.contains("grid: best setting, lr "), "{html}");
}

#[test]
fn folders_without_a_run_are_refused_in_one_line() {
    let place = Place::new();
    let run = place.finetune("finetune", "stars", &["--epochs", "1", "--batch", "8"]);
    assert!(failure(&["report", &place.path("nothing")]).contains("No such file"));
    assert!(failure(&["report", &place.path("rows.tsv")]).contains("is a file"));
    assert!(failure(&["report", &place.path("start")]).contains("no metrics.jsonl"));
    assert!(failure(&["report", &format!("{run}/model")]).contains("did you mean"));
    let output =
        Command::new(env!("CARGO_BIN_EXE_cloze")).args(["report", "model"]).current_dir(&run).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean .?"), "{output:?}");
    assert!(failure(&["report", &run, &run]).contains("twice"));

    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(format!("{empty}/metrics.jsonl"), "{\"kind\":\"start\",\"step\":0}\n").unwrap();
    assert!(failure(&["report", &empty]).contains("no training step"));
    fs::write(format!("{empty}/metrics.jsonl"), "{\"kind\":\"train\",\"step\":1,\"mlm_loss\":8.0}\n").unwrap();
    let error = failure(&["report", &run, &empty]);
    assert!(error.contains("is a fine-tuning run") && error.contains("is a pre-training run"), "{error}");
    assert_eq!(cloze(&["report"]).status.code(), Some(2), "no run given");
}
