//! What is known about a run apart from its curves, as labels and values for people: corpus, rows, machine.

use cloze_data::report::CorpusReport;
use serde_json::Value;

use super::measure::{percent, significant};
use super::model::{Kind, Run};
use crate::format;

type Facts = Vec<(String, String)>;

/// Adds a fact, if it is known.
fn add(facts: &mut Facts, label: &str, value: Option<String>) {
    facts.extend(value.filter(|value| !value.is_empty()).map(|value| (label.to_owned(), value)));
}

/// What a corpus is made of. Its warnings are sentences and stand elsewhere.
pub fn corpus(report: &CorpusReport) -> Facts {
    let about = if report.duplicates_estimated { "about " } else { "" };
    let per = |part: u64, whole: u64, unit: &str| match whole {
        0 => format::count(part),
        _ => format!("{} ({} a {unit})", format::count(part), significant(part as f64 / whole as f64, 3)),
    };
    let share = |about: &str, part: u64, whole: u64| match part {
        0 => "none".to_owned(),
        _ => format!("{about}{} ({})", format::count(part), percent(part as f64 / whole.max(1) as f64)),
    };
    let documents = format!("{} ({} held out)", format::count(report.documents), format::count(report.valid_documents));
    let mut facts = vec![
        ("files".to_owned(), format::count(report.files)),
        ("text".to_owned(), format::bytes(report.text_bytes)),
        ("documents".to_owned(), documents),
        ("sentences".to_owned(), per(report.sentences, report.documents, "document")),
        ("words".to_owned(), format::count(report.words)),
        ("tokens".to_owned(), per(report.tokens, report.sentences, "sentence")),
        ("tokens per word".to_owned(), significant(report.tokens_per_word, 4)),
        ("unknown tokens".to_owned(), percent(report.unknown_rate)),
        ("capital letters".to_owned(), percent(report.capitals_rate)),
        ("duplicate documents".to_owned(), share(about, report.duplicate_documents, report.documents)),
        ("duplicate lines".to_owned(), share(about, report.duplicate_lines, report.lines)),
        ("documents of one sentence".to_owned(), share("", report.one_sentence_documents, report.documents)),
    ];
    for (label, count) in [
        ("documents without text, left out", report.empty_documents),
        ("documents cut for their length", report.cut_documents),
        ("sentences cut for their length", report.cut_sentences),
        ("long files without a blank line", report.missing_boundaries),
        ("files without text", report.empty_files.len() as u64),
    ] {
        add(&mut facts, label, (count > 0).then(|| format::count(count)));
    }
    facts
}

/// What a fine-tuning learned from and was judged by.
pub fn rows(run: &Run) -> Facts {
    let mut facts = Vec::new();
    let mut reading = run.reading.clone();
    let mut take = |key: &str| reading.remove(key).map(|value| plain(&value));
    add(&mut facts, "kind of task", take("kind"));
    add(&mut facts, "known task", take("task"));
    if let Some(start) = run.start() {
        add(&mut facts, "training rows", start.train_rows.map(format::count));
        add(&mut facts, "training files", Some(start.train_files.join(", ")));
        // Each row is an example unless long ones are read in windows.
        let examples = start.examples.filter(|examples| Some(*examples) != start.train_rows);
        add(&mut facts, "training examples", examples.map(format::count));
        add(&mut facts, "training tokens", start.tokens.map(format::count));
        add(&mut facts, "dev rows", start.dev_rows.map(format::count));
        add(&mut facts, "dev files", Some(start.dev_files.join(", ")));
        add(&mut facts, "rows cut for their length", start.cut_rows.filter(|rows| *rows > 0).map(format::count));
    }
    add(&mut facts, "tokens of a sequence at most", take("max_len"));
    add(&mut facts, "deciding score", take("metric"));
    for (key, value) in &reading {
        add(&mut facts, &key.replace('_', " "), Some(plain(value)));
    }
    facts
}

/// A JSON value as people write it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{key} = {}", plain(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
    }
}

/// Where and how a run was made.
pub fn machine(run: &Run) -> Facts {
    let mut facts = Vec::new();
    let Some(start) = run.start() else { return facts };
    add(&mut facts, "machine", start.machine.clone());
    add(&mut facts, "compute threads", start.threads.map(format::count));
    add(&mut facts, "type of the activations", start.precision.clone());
    add(&mut facts, "reason for this choice", start.reason.clone());
    let peak = start.peak_gflops.map(|peak| format!("{} GFLOP/s", significant(peak, 3)));
    add(&mut facts, "measured matrix peak", peak);
    add(&mut facts, "weights of the model", start.parameters.map(format::count));
    match run.kind {
        Kind::PreTraining => add(&mut facts, "tokens of the training shards", start.corpus_tokens.map(format::count)),
        Kind::FineTuneConfig => add(&mut facts, "model at the start", start.model.clone()),
    }
    let resumed = run.starts.len() - 1;
    add(
        &mut facts,
        "resumed",
        (resumed > 0).then(|| if resumed == 1 { "once".into() } else { format!("{resumed} times") }),
    );
    add(&mut facts, "program", start.version.as_ref().map(|version| format!("cloze {version}")));
    add(&mut facts, "folder", Some(run.dir.display().to_string()));
    facts
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{finetuning, pretraining};
    use super::*;

    #[test]
    fn a_corpus_reads_well_and_has_no_blank_value() {
        let mut report = CorpusReport::default();
        report.files = 1;
        report.text_bytes = 1_500_000;
        report.documents = 1234;
        report.valid_documents = 12;
        report.tokens = 1_000_000;
        report.unknown_tokens = 15;
        report.unknown_rate = 1.48e-5;
        let facts = corpus(&report);
        let find = |label: &str| facts.iter().find(|fact| fact.0 == label).map(|fact| fact.1.as_str());
        assert_eq!(find("unknown tokens"), Some("0.0015 %"));
        assert_eq!(find("text"), Some("1.5 MB"));
        assert_eq!(find("documents"), Some("1,234 (12 held out)"));
        assert_eq!(find("duplicate documents"), Some("none"));
        assert!(facts.iter().all(|(label, value)| !label.contains('_') && !value.is_empty()), "{facts:?}");
    }

    #[test]
    fn machines_and_rows_are_named_for_people() {
        let facts = machine(&pretraining("r", 4));
        assert!(facts.contains(&("measured matrix peak".into(), "180 GFLOP/s".into())), "{facts:?}");
        assert!(facts.contains(&("weights of the model".into(), "4,400,000".into())), "{facts:?}");
        let mut run = finetuning("f", 0.9, "");
        run.reading = serde_json::from_str(r#"{"kind": "classify", "max_len": 128, "text_column": "review"}"#).unwrap();
        let facts = rows(&run);
        for fact in [
            ("kind of task", "classify"),
            ("training rows", "160"),
            ("training files", "a.tsv"),
            ("dev rows", "50"),
            ("text column", "review"),
        ] {
            assert!(facts.contains(&(fact.0.into(), fact.1.into())), "{fact:?}: {facts:?}");
        }
        assert!(facts.iter().all(|(label, value)| !label.contains('_') && !value.is_empty()), "{facts:?}");
    }
}
