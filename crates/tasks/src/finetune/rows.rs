//! The encoded rows of a fine-tuning, and data.json: what tells them from others.

use std::fs;
use std::path::{Path, PathBuf};

use cloze_model::Config;
use cloze_text::{SpecialTokens, TextError, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use super::config::FineTuneConfig;
use crate::TaskError;
use crate::any_task::{AnyEncoded, AnyTask};
use crate::example::{Example, Target};
use crate::task_settings::TaskSettings;

/// The rows of a fine-tuning as the network reads them.
pub(super) struct EncodedRows<'a> {
    pub(super) tokenizer: Tokenizer,
    pub(super) examples: Vec<Example>,
    pub(super) dev: Box<dyn AnyEncoded<'a> + 'a>,
    pub(super) data: Data,
    /// Rows some of whose tokens were cut off.
    pub(super) cut_rows: usize,
}

impl<'a> EncodedRows<'a> {
    pub(super) fn new(asked: &FineTuneConfig<'a>) -> Result<EncodedRows<'a>, TaskError> {
        asked.settings.validate()?;
        if asked.train.is_empty() {
            return Err(TaskError::NoRows("training"));
        }
        let tokenizer = read_tokenizer(asked.model, asked.settings.special_tokens)?;
        let encoded = asked.train.encode(&tokenizer, asked.device.threads())?;
        let dev = asked.dev.encode(&tokenizer, asked.device.threads())?;
        let data = Data::new(asked, [encoded.examples(), dev.examples()]);
        let cut_rows = encoded.cut_rows() + dev.cut_rows();
        let examples = encoded.into_examples();
        if examples.is_empty() {
            return Err(TaskError::NoRows("training"));
        }
        Ok(EncodedRows { tokenizer, examples, dev, data, cut_rows })
    }
}

/// The tokenizer of a model, which reads the names of special tokens in texts as `how` says, else as its folder does.
///
/// # Errors
/// Those of [`Tokenizer::open`].
pub fn read_tokenizer(model: &Path, how: Option<SpecialTokens>) -> Result<Tokenizer, TextError> {
    let tokenizer = Tokenizer::open(model)?;
    Ok(how.map_or_else(|| tokenizer.clone(), |how| tokenizer.with_special_tokens(how)))
}

/// Fails unless the run in a folder began with the rows that are asked for, read and scored alike.
///
/// # Errors
/// [`TaskError::OtherRows`], [`TaskError::Folder`] naming what differs; rows or a tokenizer that cannot be used.
pub fn check_data(asked: &FineTuneConfig<'_>, run: &Path) -> Result<(), TaskError> {
    let tokenizer = read_tokenizer(asked.model, asked.settings.special_tokens)?;
    let [train, dev] = [asked.train, asked.dev].map(|rows| rows.encode(&tokenizer, asked.device.threads()));
    Data::new(asked, [train?.examples(), dev?.examples()]).check(run)
}

/// What a run learns from and is judged by, to resume it, or to compare it with another, on the same.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Data {
    /// How rows are read and scored.
    remember: Value,
    /// What the rows are.
    rows: String,
    /// What each of them is, those to learn and those to judge by: to say which one is another. Early versions had none.
    #[serde(default)]
    examples: [Examples; 2],
}

/// Examples whose fingerprints are kept, of either part.
const MOST_KEPT: usize = 10_000;

/// The examples of a part.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Examples {
    count: usize,
    /// The fingerprints of the first, eight hexadecimal digits each.
    first: String,
}

impl Examples {
    fn new(examples: &[&Example]) -> Examples {
        let first = examples.iter().take(MOST_KEPT).map(|example| {
            let mut hash = Xxh3::new();
            add(&mut hash, example);
            format!("{:08x}", hash.digest() as u32)
        });
        Examples { count: examples.len(), first: first.collect() }
    }

    /// How these differ from those that a run began with, if that shows.
    fn difference(&self, began: &Examples, name: &str) -> Option<String> {
        let of = |examples: &Examples| -> Vec<String> {
            examples.first.as_bytes().chunks(8).map(|digits| String::from_utf8_lossy(digits).into_owned()).collect()
        };
        let (now, before) = (of(self), of(began));
        let other = now.iter().zip(&before).position(|(now, before)| now != before);
        match other {
            Some(number) => Some(format!("example {} of the {name} rows is another one", number + 1)),
            None if self.count != began.count => {
                Some(format!("there were {} examples of the {name} rows, now there are {}", began.count, self.count))
            }
            None => None,
        }
    }
}

impl Data {
    /// Of the examples to learn and those to judge by.
    fn new(asked: &FineTuneConfig<'_>, examples: [Vec<&Example>; 2]) -> Data {
        let each = [Examples::new(&examples[0]), Examples::new(&examples[1])];
        Data { remember: asked.task_settings.to_json(), examples: each, rows: fingerprint(asked.task, examples) }
    }

    fn path(run: &Path) -> PathBuf {
        run.join("data.json")
    }

    pub(super) fn write(&self, run: &Path) -> Result<(), TaskError> {
        let path = Data::path(run);
        Ok(cloze_files::write(&path, &pretty(&path, self)?)?)
    }

    /// Refuses unless a run began with the same: scores of other rows, or of another kind, cannot be compared.
    pub(super) fn check(&self, run: &Path) -> Result<(), TaskError> {
        let path = Data::path(run);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                let problem = "nothing says on what rows (no data.json): choose another --out".to_owned();
                TaskError::Folder { path: run.to_owned(), problem }
            }
            _ => TaskError::io("read", &path, source),
        })?;
        let began: Data = serde_json::from_slice(&text)
            .map_err(|e| TaskError::File { path: path.clone(), problem: format!("is damaged: {e}") })?;
        // As this version would write them.
        let settings = TaskSettings::from_json(&began.remember);
        let before = settings.map_err(|problem| TaskError::file(&path, format!("\"remember\" {problem}")))?.to_json();
        let keys = |of: &Value| -> Vec<String> {
            of.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
        };
        let all: Vec<String> = [keys(&before), keys(&self.remember)].concat();
        if let Some(key) = all.iter().find(|key| before.get(key) != self.remember.get(key)) {
            let shown = |of: &Value| of.get(key).map_or("not given".to_owned(), Value::to_string);
            let problem = format!(
                "the run began with {key} = {}, now it is {}; give the same again, or choose another --out",
                shown(&before),
                shown(&self.remember),
            );
            return Err(TaskError::Folder { path: run.to_owned(), problem });
        }
        if began.rows == self.rows {
            return Ok(());
        }
        let is_known = began.examples != <[Examples; 2]>::default();
        let parts = self.examples.iter().zip(&began.examples).zip(["training", "dev"]);
        let differ = parts.filter_map(|((now, before), name)| now.difference(before, name)).filter(|_| is_known);
        Err(TaskError::OtherRows { run: run.to_owned(), differ: differ.collect::<Vec<_>>().join("; ") })
    }
}

/// What the rows are, wherever they came from, and the labels' names.
fn fingerprint(task: &dyn AnyTask, examples: [Vec<&Example>; 2]) -> String {
    let mut hash = Xxh3::new();
    let mut config = Config::default();
    task.describe(&mut config);
    hash.update(format!("{:?} {:?}", task.head(), config.labels()).as_bytes());
    for (part, examples) in (0u8..).zip(examples) {
        hash.update(&[part]);
        examples.into_iter().for_each(|example| add(&mut hash, example));
    }
    format!("{:032x}", hash.digest128())
}

/// Adds an example to what tells rows from others.
fn add(hash: &mut Xxh3, example: &Example) {
    for sequence in &example.sequences {
        sequence.ids.iter().for_each(|id| hash.update(&id.to_le_bytes()));
        hash.update(&sequence.segments);
    }
    hash.update(fingerprint_of(example).as_bytes());
}

/// What is right of an example. Runs are resumed by it: its text stays the same in all versions.
fn fingerprint_of(example: &Example) -> String {
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

/// JSON for people, with a newline at its end.
pub(super) fn pretty(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, TaskError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| TaskError::io("write", path, e.into()))?;
    Ok((text + "\n").into_bytes())
}
