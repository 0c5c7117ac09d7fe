//! Every family with every task: fine-tuning, prediction, vectors, a larger vocabulary, ONNX.

use std::fs;
use std::path::Path;

use cloze::model::{FAMILIES, Family, Heads, Model};
use cloze_engine::Device;
use cloze_testing::{config_of, tokenizer};
use serde_json::Value;

use crate::common::{Bench, TAGS, TEXTS, cloze, cloze_with, corpus, text};

const CHOICES: &str = "{\"context\": \"anna paints\", \"choices\": [\"a tower\", \"paris leaves\"], \"label\": 0}\n\
    {\"context\": \"the fox\", \"choices\": [\". . red\", \"leaves rome\"], \"label\": 1}\n";
const QUESTIONS: &str = "{\"id\": 1, \"question\": \"who paints\", \"context\": \"anna paints a fox .\", \
    \"answers\": {\"text\": [\"anna\"], \"answer_start\": [0]}}\n";

/// A masked language model of the family, with a tokenizer.
fn save(family: &Family, dir: &Path) {
    let device = Device::cpu(Some(1)).unwrap();
    Model::new(config_of(family), Heads::MLM, &device, 7).unwrap().save(dir).unwrap();
    tokenizer(&[]).save(dir).unwrap();
}

fn succeeds(arguments: &[&str], input: &str) -> String {
    let output = cloze_with(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn every_family_is_fine_tuned_with_every_head() {
    for family in FAMILIES {
        let bench = Bench(tempfile::tempdir().unwrap());
        let start = bench.path("start");
        save(family, Path::new(&start));
        // RoBERTa's family has one segment: pairs need a tokenizer with its template.
        let pairs: &[(&str, String)] = match config_of(family).type_vocab_size {
            1 => &[],
            _ => &[
                ("answer", bench.file("questions.jsonl", QUESTIONS)),
                ("choose", bench.file("choices.jsonl", CHOICES)),
            ],
        };
        let single = [("classify", bench.file("texts.tsv", TEXTS)), ("tag", bench.file("tags.txt", TAGS))];
        for (kind, file) in single.iter().chain(pairs) {
            let out = bench.path(kind);
            let words = ["--train", file, "--dev", file, "--model", &start, "--out", &out, "--epochs", "1", "--quiet"];
            succeeds(&[&["finetune", kind][..], &words].concat(), "");
            let class = fs::read_to_string(format!("{out}/model/config.json")).unwrap();
            let class: Value = serde_json::from_str(&class).unwrap();
            assert_eq!(class["model_type"], family.model_type);
            let predictions = succeeds(&["predict", "--model", &out, "--input", file], "");
            assert!(!predictions.is_empty(), "{}: {kind}", family.title);
            let onnx = bench.path(&format!("{kind}-onnx"));
            succeeds(&["convert", &format!("{out}/model"), "--to", "onnx", "--out", &onnx], "");
        }
    }
}

#[test]
fn every_family_fills_embeds_and_gets_new_words() {
    for family in FAMILIES {
        let bench = Bench(tempfile::tempdir().unwrap());
        let start = bench.path("start");
        save(family, Path::new(&start));
        let filled = succeeds(&["fill", "--model", &start, "--json", "anna sees the [MASK] ."], "");
        assert_eq!(filled.lines().count(), 1, "{}: {filled}", family.title);
        let vectors = bench.path("vectors.jsonl");
        let lines = bench.file("lines.txt", "anna sees the fox .\notto\n");
        succeeds(&["embed", "--model", &start, "--input", &lines, "--out", &vectors, "--pool", "mean"], "");
        assert_eq!(fs::read_to_string(&vectors).unwrap().lines().count(), 2);
        let shown = succeeds(&["inspect", &start], "");
        assert!(shown.contains(&format!("encoder        {}, 2 layers", family.title)), "{shown}");

        let (words, extended) = (bench.file("words.txt", "marten\nheron\n"), bench.path("extended"));
        succeeds(&["vocab", "extend", "--model", &start, "--words", &words, "--out", &extended], "");
        let model = Model::load(Path::new(&extended), &Device::cpu(Some(1)).unwrap()).unwrap();
        assert_eq!(model.config().vocab_size, config_of(family).vocab_size + 2, "{}", family.title);
    }
}

/// Rows of the paper's tables 5 and 7: a left-to-right model with a BiLSTM, and features with a BiLSTM.
#[test]
fn a_left_to_right_model_and_a_bilstm_work_in_every_command() {
    let bench = Bench(tempfile::tempdir().unwrap());
    let start = bench.path("start");
    let config = config_of(&cloze::model::family::BERT).causal();
    Model::new(config, Heads::MLM, &Device::cpu(Some(1)).unwrap(), 7).unwrap().save(Path::new(&start)).unwrap();
    tokenizer(&[]).save(Path::new(&start)).unwrap();
    let (texts, tags) = (bench.file("texts.tsv", TEXTS), bench.file("tags.txt", TAGS));
    let cases: [(&str, &String, &[&str], &str); 4] = [
        ("classify", &texts, &[], "last token of a sequence"),
        ("classify", &texts, &["--bilstm", "1"], "1-layer BiLSTM with 32 units in each direction, last token"),
        (
            "tag",
            &tags,
            &["--features", "sum-last-2", "--bilstm-size", "5"],
            "features sum-last-2, 2-layer BiLSTM with 5",
        ),
        ("tag", &tags, &["--features", "concat-last-2", "--bilstm", "0"], "features concat-last-2: only"),
    ];
    for (number, (kind, file, options, shown)) in cases.into_iter().enumerate() {
        let out = bench.path(&number.to_string());
        let words = ["--train", file, "--dev", file, "--model", &start, "--out", &out, "--epochs", "1", "--quiet"];
        let words = [&["finetune", kind][..], &words, options].concat();
        succeeds(&words, "");
        let predictions = succeeds(&["predict", "--model", &out, "--input", file], "");
        let scores = succeeds(&["evaluate", "--model", &out, "--data", file, "--json", "--precision", "f32"], "");
        assert!(!predictions.is_empty() && scores.contains("\"loss\""), "{scores}");
        let inspected = succeeds(&["inspect", &format!("{out}/model")], "");
        assert!(inspected.contains(shown) && inspected.contains("only Cloze computes its outputs"), "{inspected}");
        let vectors = bench.path(&format!("{number}.jsonl"));
        succeeds(&["embed", "--model", &out, "--input", &texts, "--out", &vectors, "--pool", "mean"], "");
        let onnx = bench.path(&format!("{number}-onnx"));
        succeeds(&["convert", &format!("{out}/model"), "--to", "onnx", "--out", &onnx], "");
        // A finished run is not changed; another size of the BiLSTM is another run.
        succeeds(&[&words[..], &["--resume"]].concat(), "");
        if options.contains(&"--bilstm-size") {
            let said = text(&cloze(&[&words[..words.len() - 1], &["6", "--resume"]].concat()).stderr);
            assert!(said.contains("bilstm-size = 5, now 6"), "{said}");
        }
    }
    // A new run from a model with a BiLSTM has no BiLSTM unless the option is given again.
    let (from, out) = (format!("{}/model", bench.path("1")), bench.path("again"));
    let words = ["finetune", "classify", "--train", &texts, "--model", &from, "--out", &out, "--epochs", "1"];
    let output = cloze(&words);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert!(output.status.success() && said.contains("not used from the checkpoint: task's head, BiLSTM"), "{said}");
    let stored = fs::read_to_string(format!("{out}/model/config.json")).unwrap();
    assert!(!stored.contains("cloze_bilstm") && stored.contains("\"cloze_sequence_token\": \"last\""), "{stored}");
}

/// `--model RUN` means the discriminator.
#[test]
fn a_run_of_replaced_token_detection_has_two_models() {
    let bench = Bench(tempfile::tempdir().unwrap());
    let (texts, vocab, shards, run) =
        (bench.file("texts.txt", &corpus(30)), bench.path("vocab"), bench.path("shards"), bench.path("run"));
    succeeds(&["vocab", "--input", &texts, "--size", "200", "--out", &vocab], "");
    succeeds(&["prepare", "--input", &texts, "--tokenizer", &vocab, "--out", &shards], "");
    let data = format!("data={shards}");
    let small = ["minutes=", "steps=4", "model.hidden_size=32", "model.num_hidden_layers=1", "model.embedding_size=16"];
    let mut words = vec!["pretrain", "electra", "--out", &run, "--set", &data, "--set", "phase.0.batch_sequences=4"];
    small.iter().for_each(|setting| words.extend(["--set", setting]));
    let output = cloze(&words);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("RTD loss") && said.contains("model/discriminator --train FILE"), "{said}");
    let shown = succeeds(&["inspect", &format!("{run}/model/discriminator")], "");
    assert!(shown.contains("ElectraForPreTraining"), "{shown}");
    succeeds(&["fill", "--model", &format!("{run}/model/generator"), "the [MASK]."], "");

    let (file, out) = (bench.file("texts.tsv", TEXTS), bench.path("tuned"));
    let words = ["finetune", "classify", "--train", &file, "--model", &run, "--out", &out, "--epochs", "1"];
    let output = cloze(&words);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert!(output.status.success() && said.contains("the discriminator of the run's model"), "{said}");
}

/// Each of these is one clear line.
#[test]
fn folders_that_do_not_fit_are_explained() {
    let bench = Bench(tempfile::tempdir().unwrap());
    let start = bench.path("start");
    save(&cloze::model::family::ROBERTA, Path::new(&start));
    let fails = |change: &dyn Fn(&mut Value), expected: &str| {
        let path = format!("{start}/config.json");
        let stored = fs::read_to_string(&path).unwrap();
        let mut config: Value = serde_json::from_str(&stored).unwrap();
        change(&mut config);
        fs::write(&path, config.to_string()).unwrap();
        let output = cloze(&["fill", "--model", &start, "anna [MASK]"]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{said}");
        fs::write(&path, stored).unwrap();
    };
    fails(
        &|config| config["model_type"] = "deberta-v2".into(),
        "expected one of the supported architectures, bert, roberta",
    );
    fails(
        &|config| config["pad_token_id"] = Value::Null,
        "pad_token_id is null: the positions of RoBERTa start after it",
    );
    fails(&|config| config["pad_token_id"] = 60.into(), "expected more than pad_token_id + 1, 61");
    // The same sizes, but another family.
    fails(&|config| config["model_type"] = "bert".into(), "tensors have the names of RoBERTa, not of BERT");
    // The recipe names keys that the family does not have.
    let output = cloze(&[
        "pretrain",
        "roberta",
        "--set",
        "model.embedding_size=64",
        "--set",
        "data=x",
        "--out",
        &bench.path("run"),
    ]);
    let said = text(&output.stderr);
    assert!(
        said.contains("`model.embedding_size` does not exist in the family roberta, only in albert, electra"),
        "{said}"
    );
}
