//! What the page shows about a run besides its curves, as labels and values: corpus, rows, machine.

use cloze_data::report::CorpusReport;
use serde_json::Value;

use super::measure::{percent, significant};
use super::model::{Kind, Run};
use crate::format;

type Details = Vec<(String, String)>;

/// Adds a label and its value, if the value is known.
fn add(details: &mut Details, label: &str, value: Option<String>) {
    details.extend(value.filter(|value| !value.is_empty()).map(|value| (label.to_owned(), value)));
}

/// The statistics of a corpus. Its warnings are shown in a separate list.
pub fn corpus(report: &CorpusReport) -> Details {
    let about = if report.duplicates_estimated { "about " } else { "" };
    let per = |part: u64, total: u64, unit: &str| match total {
        0 => format::count(part),
        _ => format!("{} ({} a {unit})", format::count(part), significant(part as f64 / total as f64, 3)),
    };
    let share = |about: &str, part: u64, total: u64| match part {
        0 => "none".to_owned(),
        _ => format!("{about}{} ({})", format::count(part), percent(part as f64 / total.max(1) as f64)),
    };
    let documents = format!("{} ({} held out)", format::count(report.documents), format::count(report.valid_documents));
    let mut details = vec![
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
        ("empty documents, skipped", report.empty_documents),
        ("documents truncated to the maximum length", report.cut_documents),
        ("sentences truncated to the maximum length", report.cut_sentences),
        ("long files without a blank line", report.missing_boundaries),
        ("files without text", report.empty_files.len() as u64),
    ] {
        add(&mut details, label, (count > 0).then(|| format::count(count)));
    }
    details
}

/// The training and dev rows of a fine-tuning, and how they were read.
pub fn rows(run: &Run) -> Details {
    let mut details = Vec::new();
    let mut reading = run.reading.clone();
    let mut take = |key: &str| reading.remove(key).map(|value| readable(&value));
    add(&mut details, "kind of task", take("kind"));
    add(&mut details, "known task", take("task"));
    if let Some(start) = run.start() {
        add(&mut details, "training rows", start.train_rows.map(format::count));
        add(&mut details, "training files", Some(start.train_files.join(", ")));
        // Without windows each row is one example, and the number is not repeated.
        let examples = start.examples.filter(|examples| Some(*examples) != start.train_rows);
        add(&mut details, "training examples", examples.map(format::count));
        add(&mut details, "training tokens", start.tokens.map(format::count));
        add(&mut details, "dev rows", start.dev_rows.map(format::count));
        add(&mut details, "dev files", Some(start.dev_files.join(", ")));
        add(
            &mut details,
            "rows truncated to the maximum length",
            start.cut_rows.filter(|rows| *rows > 0).map(format::count),
        );
    }
    add(&mut details, "maximum sequence length", take("max_len"));
    add(&mut details, "metric that selects the best model", take("metric"));
    for (key, value) in &reading {
        add(&mut details, &key.replace('_', " "), Some(readable(value)));
    }
    details
}

/// A JSON value as readable text.
fn readable(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(readable).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{key} = {}", readable(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
    }
}

/// The machine and the program that made a run.
pub fn machine(run: &Run) -> Details {
    let mut details = Vec::new();
    let Some(start) = run.start() else { return details };
    add(&mut details, "machine", start.machine.clone());
    add(&mut details, "compute threads", start.threads.map(format::count));
    add(&mut details, "precision of the activations", start.precision.clone());
    add(&mut details, "reason for this choice", start.reason.clone());
    let peak = start.peak_gflops.map(|peak| format!("{} GFLOP/s", significant(peak, 3)));
    add(&mut details, "measured matrix peak", peak);
    add(&mut details, "parameters of the model", start.parameters.map(format::count));
    match run.kind {
        Kind::PreTraining => add(&mut details, "tokens of the training shards", start.corpus_tokens.map(format::count)),
        Kind::FineTuning => add(&mut details, "initial model", start.model.clone()),
    }
    let resumed = run.starts.len() - 1;
    add(
        &mut details,
        "resumed",
        (resumed > 0).then(|| if resumed == 1 { "once".into() } else { format!("{resumed} times") }),
    );
    add(&mut details, "program", start.version.as_ref().map(|version| format!("cloze {version}")));
    add(&mut details, "folder", Some(run.dir.display().to_string()));
    details
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{finetuning, pretraining};
    use super::*;

    #[test]
    fn corpus_details_are_readable_and_complete() {
        let mut report = CorpusReport::default();
        report.files = 1;
        report.text_bytes = 1_500_000;
        report.documents = 1234;
        report.valid_documents = 12;
        report.tokens = 1_000_000;
        report.unknown_tokens = 15;
        report.unknown_rate = 1.48e-5;
        let details = corpus(&report);
        let find = |label: &str| details.iter().find(|entry| entry.0 == label).map(|entry| entry.1.as_str());
        assert_eq!(find("unknown tokens"), Some("0.0015 %"));
        assert_eq!(find("text"), Some("1.5 MB"));
        assert_eq!(find("documents"), Some("1,234 (12 held out)"));
        assert_eq!(find("duplicate documents"), Some("none"));
        assert!(details.iter().all(|(label, value)| !label.contains('_') && !value.is_empty()), "{details:?}");
    }

    #[test]
    fn machine_and_rows_have_readable_labels() {
        let details = machine(&pretraining("r", 4));
        assert!(details.contains(&("measured matrix peak".into(), "180 GFLOP/s".into())), "{details:?}");
        assert!(details.contains(&("parameters of the model".into(), "4,400,000".into())), "{details:?}");
        let mut run = finetuning("f", 0.9, "");
        run.reading = serde_json::from_str(r#"{"kind": "classify", "max_len": 128, "text_column": "review"}"#).unwrap();
        let details = rows(&run);
        for entry in [
            ("kind of task", "classify"),
            ("training rows", "160"),
            ("training files", "a.tsv"),
            ("dev rows", "50"),
            ("text column", "review"),
        ] {
            assert!(details.contains(&(entry.0.into(), entry.1.into())), "{entry:?}: {details:?}");
        }
        assert!(details.iter().all(|(label, value)| !label.contains('_') && !value.is_empty()), "{details:?}");
    }
}
