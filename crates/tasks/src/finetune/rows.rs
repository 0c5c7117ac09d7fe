//! The encoded rows of a fine-tuning run, and data.json, which identifies them.

use std::fs;
use std::path::{Path, PathBuf};

use cloze_model::{Config, TaskHead};
use cloze_text::{SpecialTokens, TextError, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use super::config::FineTuneConfig;
use super::opening::RunData;
use crate::TaskError;
use crate::any_task::{AnyEncoded, AnyTask};
use crate::example::{Example, Target};
use crate::task_settings::TaskSettings;

/// The encoded rows of a fine-tuning run.
pub(super) struct EncodedRows<'a> {
    pub(super) tokenizer: Tokenizer,
    pub(super) examples: Vec<Example>,
    pub(super) dev: Box<dyn AnyEncoded<'a> + 'a>,
    pub(super) data: RowFingerprints,
    /// The number of rows that were truncated.
    pub(super) cut_rows: usize,
}

impl<'a> EncodedRows<'a> {
    pub(super) fn new(config: &FineTuneConfig<'a>) -> Result<EncodedRows<'a>, TaskError> {
        config.settings.validate()?;
        if config.train.is_empty() {
            return Err(TaskError::NoRows("training"));
        }
        let tokenizer = read_tokenizer(config.model, config.settings.special_tokens)?;
        let encoded = config.train.encode(&tokenizer, config.device.threads())?;
        let dev = config.dev.encode(&tokenizer, config.device.threads())?;
        let data = RowFingerprints::new(config, [encoded.examples(), dev.examples()]);
        let cut_rows = encoded.cut_rows() + dev.cut_rows();
        let examples = encoded.into_examples();
        if examples.is_empty() {
            return Err(TaskError::NoRows("training"));
        }
        Ok(EncodedRows { tokenizer, examples, dev, data, cut_rows })
    }
}

/// The tokenizer of a model. `how` overrides how the names of special tokens in texts are tokenized.
///
/// # Errors
/// Those of [`Tokenizer::open`].
pub fn read_tokenizer(model: &Path, how: Option<SpecialTokens>) -> Result<Tokenizer, TextError> {
    let tokenizer = Tokenizer::open(model)?;
    Ok(how.map_or_else(|| tokenizer.clone(), |how| tokenizer.with_special_tokens(how)))
}

/// Checks that the run in a folder started with the same rows and task settings as this configuration.
///
/// # Errors
/// [`TaskError::DifferentRows`] or [`TaskError::Folder`] with the difference; rows or a tokenizer that cannot be used.
pub fn check_data(config: &FineTuneConfig<'_>, run: &Path) -> Result<(), TaskError> {
    let tokenizer = read_tokenizer(config.model, config.settings.special_tokens)?;
    let [train, dev] = [config.train, config.dev].map(|rows| rows.encode(&tokenizer, config.device.threads()));
    RowFingerprints::new(config, [train?.examples(), dev?.examples()]).check(run)
}

/// Identifies the rows and the task settings of a run, so that it is resumed with the same rows and compared only with
/// runs that have the same rows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RowFingerprints {
    /// The task settings.
    remember: Value,
    /// The fingerprint of all rows.
    rows: String,
    /// The fingerprints of the training and of the dev examples, to report which one differs. Early versions did not
    /// store them.
    #[serde(default)]
    examples: [ExampleFingerprints; 2],
}

/// Maximum number of examples of a part whose fingerprints are stored.
const MAX_FINGERPRINTS: usize = 10_000;

/// The fingerprints of the examples of a part.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct ExampleFingerprints {
    count: usize,
    /// The fingerprints of the first examples, eight hexadecimal digits each.
    first: String,
}

impl ExampleFingerprints {
    fn new(examples: &[&Example]) -> ExampleFingerprints {
        let first = examples.iter().take(MAX_FINGERPRINTS).map(|example| {
            let mut hash = Xxh3::new();
            add_example(&mut hash, example);
            format!("{:08x}", hash.digest() as u32)
        });
        ExampleFingerprints { count: examples.len(), first: first.collect() }
    }

    /// How these differ from those that a run started with; none if no difference is visible.
    fn difference(&self, started: &ExampleFingerprints, name: &str) -> Option<String> {
        let of = |examples: &ExampleFingerprints| -> Vec<String> {
            examples.first.as_bytes().chunks(8).map(|digits| String::from_utf8_lossy(digits).into_owned()).collect()
        };
        let (now, before) = (of(self), of(started));
        let other = now.iter().zip(&before).position(|(now, before)| now != before);
        match other {
            Some(number) => Some(format!("example {} of the {name} rows is different", number + 1)),
            None if self.count != started.count => {
                Some(format!("there were {} examples of the {name} rows, now there are {}", started.count, self.count))
            }
            None => None,
        }
    }
}

impl RowFingerprints {
    /// The fingerprints of the training examples and the dev examples.
    fn new(config: &FineTuneConfig<'_>, examples: [Vec<&Example>; 2]) -> RowFingerprints {
        let each = [ExampleFingerprints::new(&examples[0]), ExampleFingerprints::new(&examples[1])];
        RowFingerprints {
            remember: config.task_settings.to_json(),
            examples: each,
            rows: fingerprint(config.task, examples),
        }
    }

    fn path(run: &Path) -> PathBuf {
        run.join("data.json")
    }
}

impl RunData for RowFingerprints {
    fn write(&self, run: &Path) -> Result<(), TaskError> {
        let path = RowFingerprints::path(run);
        Ok(cloze_files::write(&path, &pretty(&path, self)?)?)
    }

    fn identity(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Checks that a run started with the same rows and settings. Otherwise its scores cannot be compared.
    fn check(&self, run: &Path) -> Result<(), TaskError> {
        let path = RowFingerprints::path(run);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                let problem = "the rows of the run are not known (no data.json); choose a different `out`".to_owned();
                TaskError::Folder { path: run.to_owned(), problem }
            }
            _ => TaskError::io("read", &path, source),
        })?;
        let started: RowFingerprints = serde_json::from_slice(&text)
            .map_err(|e| TaskError::File { path: path.clone(), problem: format!("is damaged: {e}") })?;
        // In the form that this version writes.
        let settings = TaskSettings::from_json(&started.remember);
        let before = settings.map_err(|problem| TaskError::file(&path, format!("\"remember\" {problem}")))?.to_json();
        let keys = |of: &Value| -> Vec<String> {
            of.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
        };
        let all: Vec<String> = [keys(&before), keys(&self.remember)].concat();
        if let Some(key) = all.iter().find(|key| before.get(key) != self.remember.get(key)) {
            let shown = |of: &Value| of.get(key).map_or("not given".to_owned(), Value::to_string);
            let problem = format!(
                "the run started with {key} = {}, now {}; use the same value, or choose a different `out`",
                shown(&before),
                shown(&self.remember),
            );
            return Err(TaskError::Folder { path: run.to_owned(), problem });
        }
        if started.rows == self.rows {
            return Ok(());
        }
        let is_known = started.examples != <[ExampleFingerprints; 2]>::default();
        let parts = self.examples.iter().zip(&started.examples).zip(["training", "dev"]);
        let differ = parts.filter_map(|((now, before), name)| now.difference(before, name)).filter(|_| is_known);
        Err(TaskError::DifferentRows { run: run.to_owned(), differ: differ.collect::<Vec<_>>().join("; ") })
    }
}

/// The fingerprint of the examples and of the labels' names. It does not depend on the files.
fn fingerprint(task: &dyn AnyTask, examples: [Vec<&Example>; 2]) -> String {
    let mut hash = Xxh3::new();
    let mut model_config = Config::default();
    task.describe(&mut model_config);
    // Runs are resumed by this fingerprint, so the text must not change between versions.
    let head = match task.head() {
        TaskHead::Tag { labels } => format!("Tag {{ labels: {labels}, layers: 1 }}"),
        other => format!("{other:?}"),
    };
    hash.update(format!("{head} {:?}", model_config.labels()).as_bytes());
    for (part, examples) in (0u8..).zip(examples) {
        hash.update(&[part]);
        examples.into_iter().for_each(|example| add_example(&mut hash, example));
    }
    format!("{:032x}", hash.digest128())
}

/// Adds an example to a fingerprint.
fn add_example(hash: &mut Xxh3, example: &Example) {
    for sequence in &example.sequences {
        sequence.ids.iter().for_each(|id| hash.update(&id.to_le_bytes()));
        hash.update(&sequence.segments);
    }
    hash.update(target_fingerprint(example).as_bytes());
}

/// The target of an example as text. Runs are resumed by this fingerprint, so the text must not change between
/// versions.
fn target_fingerprint(example: &Example) -> String {
    let known = |label: &i32| usize::try_from(*label).ok();
    match (&example.target, &example.tokens[..]) {
        (Target::Classes(classes), []) => format!("Class({:?})", classes.first().and_then(known)),
        (Target::Classes(classes), tokens) => {
            let labels: Option<Vec<usize>> = classes.iter().map(known).collect();
            format!("Tags {{ rows: {tokens:?}, labels: {labels:?} }}")
        }
        (Target::Values(values), _) => format!("Value({:?})", values.first().filter(|value| !value.is_nan())),
        (Target::Binary(labels), _) => format!("Binary({labels:?})"),
        (Target::Positions(rows), _) => match &rows[..] {
            [row] => format!("Choice({:?})", known(row)),
            [start, end] => format!("Span({:?})", known(start).zip(known(end))),
            more => format!("Positions({more:?})"),
        },
    }
}

/// Formatted JSON with a final newline.
pub(crate) fn pretty(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, TaskError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| TaskError::io("write", path, e.into()))?;
    Ok((text + "\n").into_bytes())
}
