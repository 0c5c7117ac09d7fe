//! Tagging: the hidden state of each word's first piece, or other features of it, goes through one dense layer. If the
//! labels follow a scheme for entities, the entities are predicted too.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cloze_model::{Class, Config, TaskHead};
use cloze_text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::json;
use unicode_categories::UnicodeCategories;

use super::description::{Description, Examples, KindOption, RejectedOptions, Rows, Values, positive};
use super::kind::{Kind, Mismatch};
use super::labelled_texts::{label_counts, labels_of, merge_labels};
use super::probabilities::{argmax, collapsed, softmax};
use crate::TaskError;
use crate::datasets::labels::Labels;
use crate::datasets::table::Column;
use crate::datasets::tagged::{TagFormat, TaggedSentence, TaggedSentences};
use crate::datasets::{LabelsNeeded, plain_name, quoted_list};
use crate::example::{Example, IGNORE_INDEX, Target};
use crate::input::{Input, Object, string_of, text_key};
use crate::metrics::entities::token_accuracy;
use crate::metrics::scheme::Scheme;
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, HeadInit, Scores, Task};
use crate::task_settings::TaskSettings;

/// Why the option `text` does not apply to files of tagged words.
const NO_TEXT_COLUMN: (&str, &str) =
    ("text", "a file of tagged words has no column of texts; see `tag_format` and `tag_column`");

/// A label for each word.
pub static KIND: Kind = Kind::of::<Tag>(
    Description {
        name: "tag",
        about: "a label for each word: names, parts of speech",
        scores: "Scores of a tagger: entities' F1, precision, recall by type; accuracy",
        input: "a file of tagged words, by its extension (.conll, .conllu, .bio, .iob, .parquet) or with --tag-format; else lines, each \
                plain text or a JSON object: {\"text\": …}, {\"words\": […]} or {\"tokens\": […]}.",
        output: "tags, and entities with their characters in the text.",
        max_len: 128,
        metrics: &[],
        options: &["text", "label", "labels", "class_weights", "skip_bad"],
        own_options: &[
            KindOption {
                name: "tag_format",
                help: "Format of tagged words [default: detected]",
                rare: false,
                values: Values::OneOf {
                    placeholder: "FORMAT",
                    names: &[
                        ("columns", "Columns separated by white space, one word per line (CoNLL-2003)"),
                        ("wikiann", "`en:word`, a tab, the tag"),
                        ("conllu", "CoNLL-U"),
                        (
                            "objects",
                            "JSON with lists: {\"tokens\": […], \"tags\": […]}; --label names the list of tags",
                        ),
                    ],
                },
            },
            KindOption {
                name: "tag_column",
                help: "Column of the tag, from 1 [default: the last; for CoNLL-U the fourth, UPOS]",
                rare: true,
                values: Values::Parsed { placeholder: "N", parse: positive, missing: None },
            },
            KindOption {
                name: "unknown_tags",
                help: "How tags that the model does not know are handled",
                rare: true,
                values: Values::OneOf {
                    placeholder: "WHAT",
                    names: &[
                        ("refuse", "They are errors of the file (default)"),
                        ("wrong", "Their words count as wrong predictions, as in seqeval"),
                    ],
                },
            },
            KindOption {
                name: "context",
                help: "A tagger also sees the words around a sentence in its document, as many as fit",
                rare: false,
                values: Values::Switch { key: "context", to: true, against: "no_context" },
            },
            KindOption {
                name: "no_context",
                help: "A tagger sees only the sentence, even if the model was trained with --context",
                rare: true,
                values: Values::Switch { key: "context", to: false, against: "context" },
            },
        ],
        check: |given| given.own::<TagSettings>()?.format().map(drop),
        rows: Rows::Words,
        rejected_options: RejectedOptions {
            finetune: &[NO_TEXT_COLUMN],
            predict: &[("unknown_tags", "predicting does not look at tags")],
            evaluate: &[NO_TEXT_COLUMN],
        },
        examples: Examples {
            finetune: &[
                "cloze finetune tag --train en.train.conllu --dev en.dev.conllu --model runs/mini --out runs/pos",
                "cloze finetune tag --task conll2003 --data conll --model runs/mini --out runs/ner --context",
            ],
            sweep: &[
                "cloze sweep tag --train a.conllu --dev b.conllu --model runs/mini --out runs/grid --lrs 1e-4,5e-5 --batches 32 --epochs-list 3 --seeds 3",
            ],
            predict: &["cloze predict tag --model runs/ner --input articles.txt > entities.jsonl"],
            evaluate: &["cloze evaluate tag --model runs/pos --data en.test.conllu --bootstrap 1000"],
        },
    },
    |_, head| match head {
        TaskHead::Tag { .. } => Ok(()),
        _ => Err(Mismatch::Head),
    },
);

/// The settings specific to this kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct TagSettings {
    /// The name of the format of tagged words.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_format: Option<String>,
    /// The column of the tag, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_column: Option<usize>,
    /// Whether sequences contain the context of the sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<bool>,
    /// How unknown tags are handled. Not stored in models.
    #[serde(skip_serializing)]
    unknown_tags: Option<String>,
}

impl TagSettings {
    /// The format of tagged words, if it is given.
    fn format(&self) -> Result<Option<TagFormat>, TaskError> {
        Ok(match (self.tag_format.as_deref(), self.tag_column) {
            (None, None) => None,
            (Some("wikiann"), None) => Some(TagFormat::WikiAnn),
            (Some("wikiann"), Some(column)) => {
                return Err(TaskError::setting(
                    "tag_column",
                    format!("WikiANN has one tag per line, found column {column}"),
                ));
            }
            (Some("conllu"), column) => Some(column.map_or(TagFormat::UPOS, |tag| TagFormat::ConllU { tag })),
            (Some("columns") | None, tag) => Some(TagFormat::Columns { word: 1, tag }),
            (Some("objects"), None) => Some(TagFormat::Objects),
            (Some("objects"), Some(column)) => {
                let problem = format!("lists of tags have names, found column {column}; set `label` to the name");
                return Err(TaskError::setting("tag_column", problem));
            }
            (Some(other), _) => {
                return Err(TaskError::setting(
                    "tag_format",
                    format!("expected columns, wikiann, conllu or objects, found {other}"),
                ));
            }
        })
    }
}

/// Tagging of words.
#[derive(Debug, Clone)]
pub struct Tag {
    /// The names of the labels, by index.
    pub labels: Vec<String>,
    /// Maximum number of tokens of a sequence, special tokens included. A longer sentence is split between words.
    pub max_len: usize,
    /// Whether a sequence is filled up with the words around the sentence in its document ("the maximal document
    /// context", section 5.3).
    pub context: bool,
}

/// A sentence with its labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// Its words.
    pub words: Vec<String>,
    /// The indices of their labels, if known. An index of at least the number of labels refers to a tag in `unknown`.
    pub labels: Option<Vec<usize>>,
    /// Tags of the sentence that the task does not know. The first one has the index after the last label's.
    pub unknown: Vec<String>,
    /// The words before the sentence in its document, and those after it, in the order of the text.
    pub around: [Vec<String>; 2],
    /// The text and the byte ranges of the words in it, if the words come from a text.
    pub text: Option<(String, Vec<Range<usize>>)>,
}

impl Row {
    /// Splits a text into words: at white space, with punctuation at the ends of words split off.
    pub fn of_text(text: &str) -> Row {
        let places = words_of(text);
        let words = places.iter().map(|place| text[place.clone()].to_owned()).collect();
        Row { words, text: Some((text.to_owned(), places)), ..Row::default() }
    }
}

/// The byte ranges of a text's words. Punctuation characters at the ends of a word are separate words; those inside it
/// ("U.N.", "don't") are not.
fn words_of(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    for run in text.split_whitespace() {
        let start = run.as_ptr().addr() - text.as_ptr().addr();
        let first = run.find(char::is_alphanumeric).unwrap_or(run.len());
        let mut end = run.rfind(char::is_alphanumeric).map_or(run.len(), |last| run.ceil_char_boundary(last + 1));
        end += run[end..].chars().take_while(|mark| mark.is_mark()).map(char::len_utf8).sum::<usize>();
        // "U.N." and "e.g." keep their last full stop, because there is another inside.
        if run[end..].starts_with('.') && run[first..end].contains('.') {
            end += 1;
        }
        let marks = |part: Range<usize>| {
            let from = start + part.start;
            run[part].char_indices().map(move |(at, mark)| from + at..from + at + mark.len_utf8())
        };
        words.extend(marks(0..first));
        if first < end {
            words.push(start + first..start + end);
        }
        words.extend(marks(end..run.len()));
    }
    words
}

/// The predicted labels of a sentence's words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The words.
    pub words: Vec<String>,
    /// Their labels.
    pub tags: Vec<String>,
    /// The probability of each word's label.
    pub probabilities: Vec<f64>,
    /// The entities that the labels encode, if the labels follow a scheme for entities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entities: Option<Vec<Entity>>,
}

/// An entity in a sentence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text from the first to the last word; without a text, the words joined by spaces.
    pub text: String,
    /// The index of the first word, and the index after the last word.
    pub words: [usize; 2],
    /// The index of the first character in the text, and the index after the last character; none without a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub characters: Option<[usize; 2]>,
    /// The mean probability of the labels of its words.
    pub score: f64,
}

impl Tag {
    fn new(labels: Vec<String>, reading: &Reading) -> Result<Tag, TaskError> {
        let [given, stored] = settings_of(reading)?;
        let context = given.context.or(stored.context).unwrap_or(false);
        Ok(Tag { labels, max_len: reading.max_len(), context })
    }

    fn rows(
        &self,
        files: &[TaggedSentences],
        labels: &Labels,
        (reading, need): (&Reading, LabelsNeeded),
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let takes_unknown = settings_of(reading)?[0].unknown_tags.as_deref() == Some("wrong");
        let (mut rows, mut unknown_tags) = (Vec::new(), BTreeSet::new());
        for file in files {
            let sentences = file.sentences();
            for (number, sentence) in sentences.iter().enumerate() {
                let around =
                    if self.context { surrounding_words(sentences, number, self.max_len) } else { Default::default() };
                let mut unknown = Vec::new();
                let mut number_of = |tag: &str| {
                    takes_unknown.then(|| {
                        let known = unknown.iter().position(|known| known == tag);
                        labels.len()
                            + known.unwrap_or_else(|| {
                                unknown.push(tag.to_owned());
                                unknown.len() - 1
                            })
                    })
                };
                let known = (need == LabelsNeeded::Required)
                    .then(|| file.tag_ids(sentence, labels, &mut number_of))
                    .transpose();
                unknown_tags.extend(unknown.iter().cloned());
                if need == LabelsNeeded::Required && file.has_numbers() {
                    notes.assumed(labels, sentence.tags.iter().map(String::as_str));
                }
                rows.push(known.map(|labels| Row {
                    words: sentence.words.clone(),
                    labels,
                    unknown,
                    around,
                    text: None,
                }));
            }
        }
        if !unknown_tags.is_empty() {
            let tags = quoted_list(unknown_tags.iter().map(String::as_str));
            notes.once(format!("the model does not know the tags {tags}; words with these tags count as errors"));
        }
        Ok(rows)
    }

    /// The tag with this index in a row.
    fn tag_of<'a>(&'a self, row: &'a Row, label: usize) -> &'a str {
        match self.labels.get(label) {
            Some(label) => label,
            None => row.unknown.get(label - self.labels.len()).map_or("", String::as_str),
        }
    }

    /// The pieces of each word. A word without pieces becomes \[UNK\].
    fn pieces(words: &[String], tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
        let one = |word: &String| match tokenizer.encode_word(word) {
            pieces if pieces.is_empty() => vec![tokenizer.special().unk],
            pieces => pieces,
        };
        words.iter().map(one).collect()
    }
}

/// How many of the words, in order, fit into `room` tokens, and their number of tokens.
fn fitting_words<'a>(words: impl Iterator<Item = &'a Vec<u32>>, room: usize) -> (usize, usize) {
    let mut tokens = 0;
    let fits = |word: &&Vec<u32>| {
        tokens += word.len();
        tokens <= room
    };
    let (mut count, mut used) = (0, 0);
    for word in words.take_while(fits) {
        count += 1;
        used += word.len();
    }
    (count, used)
}

/// The caller's settings, and the settings stored in the model that apply to files like its training files.
fn settings_of(reading: &Reading) -> Result<[TagSettings; 2], TaskError> {
    let own = |settings: &TaskSettings| settings.own::<TagSettings>();
    Ok([own(&reading.options().settings)?, own(&reading.stored_of_files())?])
}

/// The sentences of files.
fn sentences(
    reading: &Reading,
    paths: &[PathBuf],
    need: LabelsNeeded,
    notes: &mut Notes,
) -> Result<Vec<TaggedSentences>, TaskError> {
    let [given, stored] = settings_of(reading)?;
    // If only a column is given, it is one of the model's format.
    let given = match given.tag_column {
        Some(_) => {
            let of_model: TagSettings = reading.stored().own()?;
            TagSettings { tag_format: given.tag_format.or(of_model.tag_format), ..given }
        }
        None => given,
    };
    let (given, stored) = (given.format()?, stored.format()?);
    // If a file's extension means a different format than that of the training files, the extension decides.
    let fits = |path: &Path, format: &TagFormat| {
        let name = plain_name(path);
        match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "conllu" => matches!(format, TagFormat::ConllU { .. }),
            "conll" | "bio" | "iob" => !matches!(format, TagFormat::ConllU { .. } | TagFormat::Objects),
            "json" | "jsonl" | "ndjson" => matches!(format, TagFormat::Objects),
            _ => true,
        }
    };
    let format = |path: &Path| given.or_else(|| stored.filter(|format| fits(path, format)));
    let key = match &reading.options().settings.label {
        Some(Column::Name(name)) => Some(name.as_ref()),
        Some(Column::Number(number)) => {
            return Err(TaskError::setting(
                "label",
                format!("expected the name of a list of tags, found #{number}; see `tag_column`"),
            ));
        }
        None => None,
    };
    let read = |path: &PathBuf| {
        let file = TaggedSentences::read_key(path, format(path), key, need)?;
        for note in file.notes() {
            notes.once(format!("{}: {note}", path.display()));
        }
        Ok(file)
    };
    paths.iter().map(read).collect()
}

/// The words before and after a sentence in its document, up to about `most` on each side.
fn surrounding_words(sentences: &[TaggedSentence], number: usize, most: usize) -> [Vec<String>; 2] {
    let document = sentences[number].document;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for sentence in sentences[..number].iter().rev().take_while(|sentence| sentence.document == document) {
        before.extend(sentence.words.iter().rev().cloned());
        if before.len() >= most {
            break;
        }
    }
    before.reverse();
    for sentence in sentences[number + 1..].iter().take_while(|sentence| sentence.document == document) {
        after.extend(sentence.words.iter().cloned());
        if after.len() >= most {
            break;
        }
    }
    [before, after]
}

impl Task for Tag {
    type Row = Row;
    type Aux = ();
    type Prediction = Prediction;

    fn from_training_files(
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Tag, FileRows<Row>), TaskError> {
        let files = sentences(reading, train, LabelsNeeded::Required, notes)?;
        let found = merge_labels(files.iter().map(TaggedSentences::labels))?;
        let labels = reading.labels(found.clone(), start, Class::Tag)?;
        if files.iter().any(TaggedSentences::has_numbers) && labels == found {
            let problem = "the tags are numbers without names; set `labels` to the names in the order of the numbers, such as O,B-PER,I-PER";
            return Err(TaskError::setting("labels", problem));
        }
        let task = Tag::new(labels.names().to_vec(), reading)?;
        let rows = task.rows(&files, &labels, (reading, LabelsNeeded::Required), notes)?;
        Ok((task, rows))
    }

    fn from_model(reading: &Reading, config: &Config, head: TaskHead) -> Result<Tag, TaskError> {
        Tag::new(labels_of(config, head.logits()), reading)
    }

    fn own_settings(&self, reading: &Reading) -> Object {
        // The format is stored only if it was given; a detected format is detected again.
        let mut own = reading.options().settings.own.clone();
        own.retain(|name, _| name == "tag_format" || name == "tag_column");
        if self.context {
            own.insert("context".to_owned(), true.into());
        }
        own
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let files = sentences(reading, paths, need, notes)?;
        self.rows(&files, &reading.labels_of(&self.labels)?, (reading, need), notes)
    }

    /// Plain text, or an object with a `text` or a list `words`.
    fn row(&self, reading: &Reading, input: Input<'_>, _: &Tokenizer) -> Result<Row, TaskError> {
        let object = match input {
            Input::Text(text) => return Ok(Row::of_text(text)),
            Input::Object(object) => object,
        };
        if let Some(key) = ["words", "tokens"].into_iter().find(|key| object.contains_key(*key)) {
            let words: Vec<String> = serde_json::from_value(object[key].clone())
                .map_err(|_| TaskError::input(format!("\"{key}\""), "expected a list of strings"))?;
            return Ok(Row { words, ..Row::default() });
        }
        let stored = reading.stored_of_files().text;
        let key = text_key(object, reading.options().settings.text.as_ref(), stored.as_ref(), "text");
        Ok(Row::of_text(&string_of(object, &key)?))
    }

    fn head(&self) -> TaskHead {
        TaskHead::Tag { labels: self.labels.len() }
    }

    fn describe(&self, config: &mut Config) {
        config.set_labels(&self.labels);
        config.extra.remove("problem_type");
    }

    fn head_init(&self, start: &Config, has_preset: bool) -> HeadInit {
        HeadInit::from_labels(&self.labels, start, has_preset)
    }

    fn summary(&self, rows: &[&Row]) -> Vec<String> {
        let known: Vec<(&Row, &Vec<usize>)> =
            rows.iter().filter_map(|row| Some((*row, row.labels.as_ref()?))).collect();
        let mut lines = label_counts(&self.labels, known.iter().flat_map(|(_, labels)| labels.iter().copied()));
        if lines.is_empty() {
            return lines;
        }
        lines.push(match Scheme::of(&self.labels) {
            Some(scheme) => {
                let tags: Vec<Vec<&str>> = known
                    .iter()
                    .map(|(row, labels)| labels.iter().map(|label| self.tag_of(row, *label)).collect())
                    .collect();
                scheme.describe(tags.iter().map(Vec::as_slice))
            }
            None => {
                "the tags do not follow a scheme for entities (parts of speech, for example): only accuracy is computed"
                    .to_owned()
            }
        });
        lines
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let template = tokenizer.template();
        let room = template.room(self.max_len, false);
        if room == 0 {
            let least = template.added(false) + 1;
            let problem = format!("expected at least {least}, so that a token fits; found {}", self.max_len);
            return Err(TaskError::setting("max_len", problem));
        }
        let mut pieces = Tag::pieces(&row.words, tokenizer);
        let mut cut = 0;
        for word in &mut pieces {
            cut += word.len().saturating_sub(room);
            word.truncate(room);
        }
        let mut examples = Vec::new();
        let mut first = 0;
        while first < pieces.len() {
            let (count, own) = fitting_words(pieces[first..].iter(), room);
            let words = first..first + count;
            let [before, after] = if self.context && words.len() == pieces.len() {
                // Each side gets half of the remaining room; what one side does not need, the other may use.
                let left = room - own;
                let [before, after] = [&row.around[0], &row.around[1]].map(|words| Tag::pieces(words, tokenizer));
                let (_, reserved) = fitting_words(after.iter(), left / 2);
                let (count_before, used) = fitting_words(before.iter().rev(), left - reserved);
                let (count_after, _) = fitting_words(after.iter(), left - used);
                [before[before.len() - count_before..].concat(), after[..count_after].concat()]
            } else {
                [Vec::new(), Vec::new()]
            };
            let mut ids = before;
            let mut tokens = Vec::with_capacity(count);
            for word in &pieces[words.clone()] {
                tokens.push((template.start_of_first(false) + ids.len()) as u32);
                ids.extend(word);
            }
            ids.extend(after);
            let labels = match &row.labels {
                Some(labels) => {
                    let target = |label: &usize| if *label < self.labels.len() { *label as i32 } else { IGNORE_INDEX };
                    labels[words.clone()].iter().map(target).collect()
                }
                None => vec![IGNORE_INDEX; count],
            };
            let sequences = vec![template.sequence(&ids, None)];
            examples.push(Example { tokens, ..Example::new(sequences, Target::Classes(labels)) });
            first = words.end;
        }
        Ok(Encoded { examples, cut, windows: None, aux: () })
    }

    /// The prediction contains the words.
    fn row_json(&self, row: &Row) -> Object {
        let labels = row.labels.as_ref();
        let gold: Option<Vec<&str>> =
            labels.map(|labels| labels.iter().map(|label| self.tag_of(row, *label)).collect());
        Object::from_iter([("gold".to_owned(), gold.into())])
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        let mut prediction =
            Prediction { words: row.words.clone(), tags: Vec::new(), probabilities: Vec::new(), entities: None };
        for logits in logits.iter().flat_map(|logits| logits.chunks(self.labels.len())) {
            let shares = softmax(logits).filter(|shares| shares.len() == self.labels.len());
            let shares = shares.ok_or_else(|| TaskError::Logits(format!("sentence {:?}", row.words.join(" "))))?;
            let class = argmax(&shares);
            prediction.tags.push(self.labels[class].clone());
            prediction.probabilities.push(shares[class]);
        }
        if let Some(scheme) = Scheme::of(&self.labels) {
            let entity = |found: crate::metrics::entities::Entity| {
                let words = found.start..found.end;
                let place = row.text.as_ref().and_then(|(text, places)| {
                    let bytes = places.get(words.start)?.start..places.get(words.end.checked_sub(1)?)?.end;
                    let before = text[..bytes.start].chars().count();
                    Some((text[bytes.clone()].to_owned(), [before, before + text[bytes].chars().count()]))
                });
                let (text, characters) = match place {
                    Some((text, characters)) => (text, Some(characters)),
                    None => (row.words[words.clone()].join(" "), None),
                };
                let shares = &prediction.probabilities[words.clone()];
                let score = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
                Entity { kind: found.kind, text, words: [words.start, words.end], characters, score }
            };
            prediction.entities = Some(scheme.entities(&prediction.tags).into_iter().map(entity).collect());
        }
        Ok(prediction)
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let known: Vec<(&Row, &Vec<usize>, &Prediction)> = rows
            .iter()
            .zip(predictions)
            .filter_map(|(row, found)| Some((*row, row.labels.as_ref()?, *found)))
            .collect();
        let gold: Vec<Vec<&str>> = known
            .iter()
            .map(|(row, labels, _)| labels.iter().map(|label| self.tag_of(row, *label)).collect())
            .collect();
        let found: Vec<Vec<&str>> =
            known.iter().map(|(.., found)| found.tags.iter().map(String::as_str).collect()).collect();
        let mut scores = Scores { rows: known.len(), ..Scores::default() };
        if let Some(scheme) = Scheme::of(&self.labels) {
            let of_entities = scheme.scores(&gold, &found);
            let micro = of_entities.micro;
            let named = [("f1", micro.f1), ("precision", micro.precision), ("recall", micro.recall)];
            scores.values.extend(named.map(|(name, value)| (name.to_owned(), value)));
            scores.details.insert("by_type".to_owned(), json!(of_entities.by_type));
            scores.details.insert("macro_average".to_owned(), json!(of_entities.macro_average));
        }
        scores.values.push(("accuracy".to_owned(), token_accuracy(&gold, &found)));
        scores.collapsed = collapsed(&gold.concat(), &found.concat()).map(|label| (*label).to_owned());
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_into_words_with_their_ranges() {
        let words = |text: &str| Row::of_text(text).words;
        assert_eq!(words("The U.N. said: \"No!\""), ["The", "U.N.", "said", ":", "\"", "No", "!", "\""]);
        assert_eq!(words("(Paris), don't."), ["(", "Paris", ")", ",", "don't", "."]);
        assert_eq!(words("  -- é\u{a0}日本。 "), ["-", "-", "é", "日本", "。"]);
        assert!(words(" \n").is_empty());
        // Marks that combine, an acute accent and a Tamil pulli, stay with their letter.
        assert_eq!(words("Rene\u{301}, தமிழ்."), ["Rene\u{301}", ",", "தமிழ்", "."]);
        let row = Row::of_text("In «Köln» a");
        let (text, places) = row.text.unwrap();
        assert_eq!(places.iter().map(|p| &text[p.clone()]).collect::<Vec<_>>(), row.words);
    }

    fn tokenizer() -> Tokenizer {
        let tokens =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "new", "york", "ny", "##c", "##s", "is", "big", "."];
        Tokenizer::from_tokens(tokens.map(str::to_owned).to_vec(), false).unwrap()
    }

    fn task(max_len: usize, context: bool) -> Tag {
        let labels = ["O", "B-LOC", "I-LOC"].map(str::to_owned).to_vec();
        Tag { labels, max_len, context }
    }

    fn row(words: &[&str], labels: &[usize]) -> Row {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Row { words, labels: Some(labels.to_vec()), ..Row::default() }
    }

    #[test]
    fn first_pieces_carry_the_labels() {
        let t = tokenizer();
        let encoded = task(16, false).encode(&row(&["NYCs", "is", "\u{200b}", "big"], &[1, 0, 0, 0]), &t).unwrap();
        assert_eq!(encoded.examples.len(), 1);
        let example = &encoded.examples[0];
        assert_eq!(example.sequences[0].ids, [2, 7, 8, 9, 10, 1, 11, 3]);
        assert_eq!((&example.tokens, &example.target), (&vec![1, 4, 5, 6], &Target::Classes(vec![1, 0, 0, 0])));
    }

    #[test]
    fn long_sentences_are_split_between_words() {
        let t = tokenizer();
        let long = row(&["new", "york", "nycs", "is", "big"], &[1, 2, 1, 0, 0]);
        let encoded = task(5, false).encode(&long, &t).unwrap();
        let ids: Vec<_> = encoded.examples.iter().map(|example| example.sequences[0].ids.clone()).collect();
        assert_eq!(ids, [vec![2, 5, 6, 3], vec![2, 7, 8, 9, 3], vec![2, 10, 11, 3]]);
        assert_eq!(encoded.cut, 0);
        // A word longer than a sequence keeps its first pieces.
        let encoded = task(4, false).encode(&row(&["nycs"], &[1]), &t).unwrap();
        assert_eq!((encoded.examples[0].sequences[0].ids.clone(), encoded.cut), (vec![2, 7, 8, 3], 1));
        assert!(task(2, false).encode(&long, &t).is_err());
    }

    #[test]
    fn context_surrounds_the_sentence_and_has_no_labels() {
        let t = tokenizer();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let around = [words(&["big", "new"]), words(&[".", "york", "big"])];
        let sentence = Row { around, ..row(&["is"], &[0]) };
        let encoded = task(6, true).encode(&sentence, &t).unwrap();
        // Room for four tokens: the sentence with one word before it and two after it, or two before and one after.
        assert_eq!(encoded.examples[0].sequences[0].ids, [2, 11, 5, 10, 12, 3]);
        assert_eq!(encoded.examples[0].tokens, [3]);
    }

    /// Regression test: the index of an unknown tag was out of bounds.
    #[test]
    fn gold_tags_may_be_unknown_to_the_model() {
        let row = Row { unknown: vec!["B-ORG".to_owned()], ..row(&["new", "york"], &[1, 3]) };
        assert_eq!(task(16, false).row_json(&row)["gold"], json!(["B-LOC", "B-ORG"]));
    }

    #[test]
    fn entities_have_positions_in_the_text() {
        let task = task(16, false);
        let row = Row::of_text("é New York.");
        let logits = vec![vec![9.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 9.0, 9.0, 0.0, 0.0]];
        let found = task.predict(&row, &Encoded { examples: vec![], cut: 0, windows: None, aux: () }, &logits).unwrap();
        assert_eq!(found.tags, ["O", "B-LOC", "I-LOC", "O"]);
        let entities = found.entities.unwrap();
        assert_eq!(entities.len(), 1);
        assert_eq!((entities[0].text.as_str(), entities[0].characters), ("New York", Some([2, 10])));
        assert!(entities[0].score > 0.99);
    }
}
