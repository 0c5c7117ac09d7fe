//! The complete pipeline in seconds: text, vocabulary, shards, pre-training of a tiny model, evaluation, masks, report.

use std::collections::HashSet;
use std::path::Path;

use cloze_engine::{DType, Device};
use cloze_model::TaskHead;
use cloze_tasks::Pretrained;

use crate::common::{cloze, json, success};

#[test]
fn pipeline_from_text_to_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (corpus, tokenizer, shards, run) = (path("stories.txt"), path("tokenizer"), path("shards"), path("run"));
    std::fs::write(&corpus, crate::common::corpus(400)).unwrap();
    success(&["vocab", "--input", &corpus, "--size", "800", "--out", &tokenizer]);
    success(&["prepare", "--input", &corpus, "--tokenizer", &tokenizer, "--out", &shards, "--valid-fraction", "0.1"]);

    let recipe = path("recipe.toml");
    std::fs::write(
        &recipe,
        "data = \"shards\"\nsteps = 60\n[model]\nhidden_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 2\n\
         max_position_embeddings = 64\n[[phase]]\nseq_len = 48\nbatch_sequences = 8\naccumulate = 2\n[optimizer]\n\
         kind = \"adamw\"\nlr = 5e-3\n[schedule]\nwarmup_share = 0.1\n[eval]\nevery = 30\nbatches = 4\n[log]\nevery = 5\n",
    )
    .unwrap();
    let data = format!("data={shards}");
    let seen = success(&["inspect", &recipe, "--set", &data]);
    assert!(seen.contains("60 steps") && seen.contains("example 1"), "{seen}");

    // The range test writes only the table that is named.
    let csv = path("rates.csv");
    let find = ["pretrain", &recipe, "--set", &data, "--out", &run, "--find-lr", "--lr-steps", "40", "--lr-csv", &csv];
    let table = success(&find);
    assert!(table.contains("smoothed") && table.contains("suggested peak: --set optimizer.lr="), "{table}");
    let lines = std::fs::read_to_string(&csv).unwrap();
    assert!(lines.starts_with("step,lr,loss,smoothed\n0,1e-6,") && !Path::new(&run).exists(), "{lines}");
    let bad = cloze(&["pretrain", &recipe, "--set", &data, "--find-lr", "--lr-to", "1e-9"]);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("--lr-to"));

    let outcome = json(&success(&["pretrain", &recipe, "--set", &data, "--out", &run, "--json", "--quiet"]));
    assert_eq!((&outcome["step"], &outcome["finished"]), (&60.into(), &true.into()), "{outcome}");
    let model = outcome["model"].as_str().unwrap();
    let metrics = std::fs::read_to_string(Path::new(&run).join("metrics.jsonl")).unwrap();
    let losses: Vec<f64> = metrics
        .lines()
        .map(json)
        .filter(|line| line["kind"] == "train")
        .filter_map(|line| line["mlm_loss"].as_f64())
        .collect();
    assert_eq!(losses.len(), 12);
    assert!(losses[11] < losses[0] - 0.5, "nothing was learned: {losses:?}");

    // The folder of a run is not reused by accident.
    let again = cloze(&["pretrain", &recipe, "--set", &data, "--out", &run]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));

    let figures =
        json(&success(&["evaluate", "pretrain", "--model", model, "--data", &shards, "--seq-len", "48", "--json"]));
    let loss = figures["mlm_loss"].as_f64().unwrap();
    assert!((1.0..7.0).contains(&loss), "{figures}");
    assert!((figures["mlm_perplexity"].as_f64().unwrap() / loss.exp() - 1.0).abs() < 1e-6, "{figures}");
    assert!(figures["nsp_accuracy"].as_f64().is_some_and(|share| (0.2..=1.0).contains(&share)), "{figures}");
    let bits = figures["mlm_bits_per_character"].as_f64().unwrap();
    assert!(bits > 0.0 && bits < loss / std::f64::consts::LN_2, "{figures}");
    let too_long = cloze(&["evaluate", "pretrain", "--model", model, "--data", &shards, "--seq-len", "512"]);
    assert_eq!(too_long.status.code(), Some(1));

    let filled = json(&success(&["fill", "--model", model, "Anna is a [MASK] in [MASK].", "--top", "3", "--json"]));
    let masks = filled["masks"].as_array().unwrap();
    assert_eq!((masks.len(), masks[0].as_array().unwrap().len()), (2, 3), "{filled}");
    let no_mask = cloze(&["fill", "--model", model, "nothing to fill"]);
    assert!(String::from_utf8_lossy(&no_mask.stderr).contains("[MASK]"));

    let (pairs, scored) = (path("pairs.jsonl"), path("scored.jsonl"));
    let pair = |good: &str, bad: &str, paradigm: &str| {
        let keys = format!("\"UID\": \"{paradigm}\", \"linguistics_term\": \"order\", \"field\": \"syntax\"");
        format!("{{\"sentence_good\": \"{good}\", \"sentence_bad\": \"{bad}\", {keys}}}\n")
    };
    let text = pair("Anna is here.", "Anna here is.", "verb") + &pair("the end.", "The end.", "case");
    std::fs::write(&pairs, &text).unwrap();
    let accuracy = json(&success(&["evaluate", "blimp", model, &pairs, "--pairs", &scored, "--json"]));
    assert_eq!((&accuracy["pairs"], &accuracy["ties"], &accuracy["score"]), (&2.into(), &1.into(), &"word-l2r".into()));
    let lines: Vec<_> = std::fs::read_to_string(&scored).unwrap().lines().map(json).collect();
    assert_eq!((&lines[1]["correct"], &accuracy["paradigms"][1]["accuracy"]), (&0.5.into(), &0.5.into()));
    assert!(lines[0]["score_good"].as_f64().is_some_and(|score| score < 0.0), "{lines:?}");
    let shown = success(&["evaluate", "blimp", model, &pairs, "--score", "pll"]);
    assert!(shown.contains("mean over 2 paradigms, 2 pairs, 1 with equal scores (pll)"), "{shown}");
    std::fs::write(&pairs, text.replace("sentence_bad", "sentence")).unwrap();
    let missing = cloze(&["evaluate", "blimp", model, &pairs]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("pairs.jsonl:1: expected \"sentence_bad\""));

    let lines = success(&["inspect", model, "--json"]);
    let parameters: u64 = lines.lines().skip(1).map(|line| json(line)["parameters"].as_u64().unwrap()).sum();
    assert_eq!(json(lines.lines().next().unwrap())["parameters"], parameters);
    assert!(success(&["inspect", model]).contains("bert.embeddings.word_embeddings.weight"));
    assert!(success(&["inspect", &run]).contains("60 steps"));

    let page = success(&["report", &run]);
    assert!(page.contains("report.html"));
    let html = std::fs::read_to_string(Path::new(&run).join("report.html")).unwrap();
    assert!(html.contains("MLM loss") && html.contains("tokens per word"), "the corpus report is missing");
    assert!(html.contains("held-out MLM bits per character"));

    let batches = path("batches.arrow");
    success(&["inspect", &recipe, "--set", &data, "--write-batches", &batches, "--steps", "2..4"]);
    assert!(std::fs::read(&batches).unwrap().starts_with(b"ARROW1"));
}

#[test]
fn bench_prints_its_measurements() {
    let sizes = ["--layers", "1", "--hidden", "32", "--heads", "2", "--batch", "2", "--seq", "16", "--vocab", "100"];
    for work in ["train", "infer"] {
        for precision in ["f32", "bf16"] {
            let optimizer = if work == "train" { "lamb" } else { "bert-adamw" };
            let rest = [
                "--precision",
                precision,
                "--optimizer",
                optimizer,
                "--lengths",
                "uniform",
                "--steps",
                "2",
                "--threads",
                "1",
                "--json",
                "--profile",
            ];
            let line = json(&success(&[&["bench", work][..], &sizes, &rest].concat()));
            for key in ["real_tokens_per_s", "useful_gflops", "peak_gflops", "share_of_peak", "ms"] {
                assert!(line[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {line}");
            }
            assert!(line["profile"].is_object(), "{line}");
        }
    }
}

#[test]
fn quickstart_gives_models_for_three_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let done = json(&success(&["quickstart", "--short", "--json", "--quiet", "--out", &path("")]));
    let tasks = done["fine_tuned"].as_array().unwrap();
    let rows = std::fs::read_to_string(path("labelled/classify.train.tsv")).unwrap();
    let labels = rows.lines().skip(1).map(|row| row.rsplit('\t').next()).collect::<HashSet<_>>().len();
    let heads = [
        ("classify", "tsv", TaskHead::Classify { labels }),
        // O, and B- and I- of PER, LOC and THING.
        ("tag", "conll", TaskHead::Tag { labels: 7 }),
        ("answer", "json", TaskHead::Answer),
    ];
    assert_eq!(tasks.len(), heads.len(), "{done}");
    for (found, (task, ending, head)) in tasks.iter().zip(heads) {
        assert_eq!(found["task"], task);
        for part in ["train", "dev"] {
            assert!(Path::new(&path(&format!("labelled/{task}.{part}.{ending}"))).is_file(), "{task} {part}");
            assert!(found[format!("{part}_rows")].as_u64().is_some_and(|rows| rows > 0), "{found}");
        }
        for (score, folder) in [("pretrained", task.to_owned()), ("untrained", format!("{task}-untrained"))] {
            assert!(found[score].as_f64().is_some_and(|score| (0.0..=1.0).contains(&score)), "{found}");
            let model = path(&format!("finetuned/{folder}/model"));
            let model = Pretrained::open(Path::new(&model), Device::cpu(Some(1)).unwrap(), DType::F32).unwrap();
            assert_eq!(model.model.heads.task.unwrap(), head);
        }
    }
    assert!(success(&["inspect", &path("untrained")]).contains("tok_embeddings"));

    // `cloze finetune` on the same files gives the same score.
    let settings = std::fs::read_to_string(path("finetuned/classify/finetune.toml")).unwrap();
    let settings: toml::Table = settings.parse().unwrap();
    let of = |key: &str| settings[key].to_string();
    let (train, dev) = (path("labelled/classify.train.tsv"), path("labelled/classify.dev.tsv"));
    let again = json(&success(
        &[
            &[
                "finetune",
                "classify",
                "--train",
                &train,
                "--dev",
                &dev,
                "--model",
                &path("run/model"),
                "--out",
                &path("again"),
            ],
            &["--epochs", &of("epochs"), "--batch", &of("batch"), "--lr", &of("lr"), "--json", "--quiet"][..],
        ]
        .concat(),
    ));
    assert_eq!(again["runs"][0]["best"]["score"], tasks[0]["pretrained"], "{again}");
}

/// Byte-level BPE and Unigram: the special tokens are found by their roles.
#[test]
fn other_kinds_of_vocabularies_are_prepared_and_pretrained() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (corpus, recipe) = (path("stories.txt"), path("recipe.toml"));
    std::fs::write(&corpus, crate::common::corpus(60)).unwrap();
    std::fs::write(
        &recipe,
        "data = \"shards\"\nsteps = 2\n[model]\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
         max_position_embeddings = 64\n[[phase]]\nseq_len = 48\nbatch_sequences = 4\n[objective]\nwhole_word = true\n",
    )
    .unwrap();
    for (kind, mask, pad) in [("bpe", "<mask>", 1), ("unigram", "[MASK]", 0)] {
        let [tokenizer, shards, run] = ["tokenizer", "shards", "run"].map(|name| path(&format!("{kind}-{name}")));
        let learned = ["vocab", "--kind", kind, "--input", &corpus, "--size", "400", "--out", &tokenizer, "--json"];
        let learned = json(&success(&learned));
        assert_eq!((&learned["kind"], &learned["cased"]), (&kind.into(), &(kind == "bpe").into()), "{learned}");
        success(&["prepare", "--input", &corpus, "--tokenizer", &tokenizer, "--out", &shards]);
        let data = format!("data={shards}");
        let outcome = json(&success(&["pretrain", &recipe, "--set", &data, "--out", &run, "--json", "--quiet"]));
        let model = outcome["model"].as_str().unwrap();
        let config = std::fs::read_to_string(Path::new(model).join("config.json")).unwrap();
        assert_eq!(json(&config)["pad_token_id"], pad);
        let filled = json(&success(&["fill", "--model", model, &format!("Anna is a {mask}."), "--json"]));
        assert_eq!(filled["masks"].as_array().unwrap().len(), 1, "{filled}");
    }
    let refused = cloze(&["vocab", "--kind", "bpe", "--keep-accents", "--input", &corpus, "--out", &path("x")]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--keep-accents cannot be used with --kind bpe"));
}
