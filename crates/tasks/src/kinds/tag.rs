//! A label for each word: its first piece's hidden state through one dense layer; entities of the labels, if they are such.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cloze_model::{Class, Config, TaskHead};
use cloze_text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::json;
use unicode_categories::UnicodeCategories;

use super::description::{Description, Examples, Refused, Rows, TaskOption, Values, positive};
use super::kind::{Kind, Misfit};
use super::labelled_texts::{counted, found_in, labels_of};
use super::probabilities::{collapsed, largest, softmax};
use crate::TaskError;
use crate::datasets::labels::Labels;
use crate::datasets::table::Column;
use crate::datasets::tagged::{TagFormat, TaggedSentence, TaggedSentences};
use crate::datasets::{LabelsNeeded, listed, plain_name};
use crate::example::{Example, IGNORED, Target};
use crate::input::{Input, Object, string_of, text_key};
use crate::metrics::entities::token_accuracy;
use crate::metrics::scheme::Scheme;
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, HeadStart, Scores, Task};
use crate::task_settings::TaskSettings;

/// Why files of tagged words take no column of texts.
const NO_TEXT_COLUMN: (&str, &str) =
    ("text", "a file of tagged words has no column of texts; see --tag-format and --tag-column");

/// A label for each word.
pub static KIND: Kind = Kind::of::<Tag>(
    Description {
        name: "tag",
        about: "a label for each word: names, parts of speech",
        scores: "Scores of a tagger: entities' F1, precision, recall by type; accuracy",
        input: "a file of tagged words by its ending (.conll, .conllu, .bio, .iob, .parquet) or with --tag-format; else lines, each \
                plain text or a JSON object: {\"text\": …}, {\"words\": […]} or {\"tokens\": […]}.",
        output: "tags, and entities with their characters in the text.",
        max_len: 128,
        metrics: &[],
        options: &["text", "label", "labels", "features", "class_weights", "skip_bad"],
        own_options: &[
            TaskOption {
                name: "tag_format",
                help: "How tagged words are written [default: found out]",
                rare: false,
                values: Values::OneOf {
                    placeholder: "FORMAT",
                    names: &[
                        ("columns", "Columns between white space, one word a line (CoNLL-2003)"),
                        ("wikiann", "`en:word`, a tab, the tag"),
                        ("conllu", "CoNLL-U"),
                        (
                            "objects",
                            "JSON with lists: {\"tokens\": […], \"tags\": […]}; --label names the list of tags",
                        ),
                    ],
                },
            },
            TaskOption {
                name: "tag_column",
                help: "Column of the tag, from 1 [default: the last one; of CoNLL-U the fourth, UPOS]",
                rare: true,
                values: Values::Parsed { placeholder: "N", parse: positive, missing: None },
            },
            TaskOption {
                name: "unknown_tags",
                help: "Tags that the model does not know",
                rare: true,
                values: Values::OneOf {
                    placeholder: "WHAT",
                    names: &[
                        ("refuse", "An error (default)"),
                        ("wrong", "Words that the model has tagged wrongly, as seqeval counts them"),
                    ],
                },
            },
            TaskOption {
                name: "context",
                help: "A tagger sees what surrounds a sentence in its document, as far as it fits",
                rare: false,
                values: Values::Switch { key: "context", to: true, against: "no_context" },
            },
            TaskOption {
                name: "no_context",
                help: "A tagger sees each sentence alone, though the model was trained with --context",
                rare: true,
                values: Values::Switch { key: "context", to: false, against: "context" },
            },
        ],
        check: |given| given.own::<TagSettings>()?.format().map(drop),
        rows: Rows::Words,
        refused: Refused {
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
        _ => Err(Misfit::Head),
    },
);

/// The settings that taggers have for themselves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct TagSettings {
    /// How tagged words are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_format: Option<String>,
    /// The column of the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_column: Option<usize>,
    /// Whether a tagger sees what surrounds a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<bool>,
    /// What becomes of tags that the task does not know; not remembered.
    #[serde(skip_serializing)]
    unknown_tags: Option<String>,
    /// Last layers that a tagger reads; not remembered: the head's width tells it.
    #[serde(skip_serializing)]
    layers: Option<usize>,
}

impl TagSettings {
    /// How tagged words are written, if that is given.
    fn format(&self) -> Result<Option<TagFormat>, TaskError> {
        Ok(match (self.tag_format.as_deref(), self.tag_column) {
            (None, None) => None,
            (Some("wikiann"), None) => Some(TagFormat::WikiAnn),
            (Some("wikiann"), Some(column)) => {
                return Err(TaskError::setting("tag-column", format!("{column}: WikiANN's lines have one tag only")));
            }
            (Some("conllu"), column) => Some(column.map_or(TagFormat::UPOS, |tag| TagFormat::ConllU { tag })),
            (Some("columns") | None, tag) => Some(TagFormat::Columns { word: 1, tag }),
            (Some("objects"), None) => Some(TagFormat::Objects),
            (Some("objects"), Some(column)) => {
                let problem = format!("{column}: lists of tags have names; expected --label NAME");
                return Err(TaskError::setting("tag-column", problem));
            }
            (Some(other), _) => {
                return Err(TaskError::setting(
                    "tag-format",
                    format!("{other}: expected columns, wikiann, conllu or objects"),
                ));
            }
        })
    }
}

/// Tagging of words.
#[derive(Debug, Clone)]
pub struct Tag {
    /// The labels' names by their numbers.
    pub labels: Vec<String>,
    /// Tokens of a sequence at most; a longer sentence is read in several, cut between words.
    pub max_len: usize,
    /// The last layers under the head, side by side: 1, or several for the feature-based way.
    pub layers: usize,
    /// Whether a sequence is filled up with what surrounds the sentence in its document ("the maximal document context").
    pub context: bool,
}

/// A sentence with its labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// Its words.
    pub words: Vec<String>,
    /// Their labels' numbers, if known. A number beyond the labels is that of one of the tags `unknown`.
    pub labels: Option<Vec<usize>>,
    /// Tags of the sentence that the task does not know: the first has the number after the last label's.
    pub unknown: Vec<String>,
    /// The words before it in its document, the nearest last, and those after it.
    pub around: [Vec<String>; 2],
    /// Where the words lie in a text, in bytes, if they come from one.
    pub text: Option<(String, Vec<Range<usize>>)>,
}

impl Row {
    /// A text as words: what stands between white space, with punctuation at its ends split off.
    pub fn of_text(text: &str) -> Row {
        let places = words_of(text);
        let words = places.iter().map(|place| text[place.clone()].to_owned()).collect();
        Row { words, text: Some((text.to_owned(), places)), ..Row::default() }
    }
}

/// The places of a text's words, in bytes. Marks at a word's ends are words of their own; those inside it ("U.N.", "don't") are not.
fn words_of(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    for run in text.split_whitespace() {
        let start = run.as_ptr().addr() - text.as_ptr().addr();
        let first = run.find(char::is_alphanumeric).unwrap_or(run.len());
        let mut end = run.rfind(char::is_alphanumeric).map_or(run.len(), |last| run.ceil_char_boundary(last + 1));
        end += run[end..].chars().take_while(|mark| mark.is_mark()).map(char::len_utf8).sum::<usize>();
        // "U.N." and "e.g." keep their last full stop: there is another inside.
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

/// The labels of a sentence's words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The words.
    pub words: Vec<String>,
    /// Their labels.
    pub tags: Vec<String>,
    /// The probability of each word's label.
    pub probabilities: Vec<f64>,
    /// The entities that the labels spell, if they are entities' labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entities: Option<Vec<Entity>>,
}

/// An entity in a sentence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its words: the text from the first to the last, or joined by spaces.
    pub text: String,
    /// The first word, and the one after the last.
    pub words: [usize; 2],
    /// The first character of the text and the one after the last; none without a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub characters: Option<[usize; 2]>,
    /// The mean probability of its words' labels.
    pub score: f64,
}

impl Tag {
    fn new(labels: Vec<String>, layers: Option<usize>, reading: &Reading) -> Result<Tag, TaskError> {
        let [given, stored] = settings_of(reading)?;
        let context = given.context.or(stored.context).unwrap_or(false);
        Ok(Tag { labels, max_len: reading.max_len(), layers: layers.or(given.layers).unwrap_or(1), context })
    }

    fn rows(
        &self,
        files: &[TaggedSentences],
        labels: &Labels,
        (reading, need): (&Reading, LabelsNeeded),
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let takes_unknown = settings_of(reading)?[0].unknown_tags.as_deref() == Some("wrong");
        let (mut rows, mut not_known) = (Vec::new(), BTreeSet::new());
        for file in files {
            let sentences = file.sentences();
            for (number, sentence) in sentences.iter().enumerate() {
                let around = if self.context { around(sentences, number, self.max_len) } else { Default::default() };
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
                not_known.extend(unknown.iter().cloned());
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
        if !not_known.is_empty() {
            let tags = listed(not_known.iter().map(String::as_str));
            notes.once(format!("the model does not know the tags {tags}: words with them count as wrong"));
        }
        Ok(rows)
    }

    /// The tag of this number in a row.
    fn tag_of<'a>(&'a self, row: &'a Row, label: usize) -> &'a str {
        match self.labels.get(label) {
            Some(label) => label,
            None => row.unknown.get(label - self.labels.len()).map_or("", String::as_str),
        }
    }

    /// The pieces of each word; a word that the tokenizer sees nothing in is \[UNK\].
    fn pieces(words: &[String], tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
        let one = |word: &String| match tokenizer.encode_word(word) {
            pieces if pieces.is_empty() => vec![tokenizer.special().unk],
            pieces => pieces,
        };
        words.iter().map(one).collect()
    }
}

/// What fits into `room` tokens of the words nearest to a sentence: how many words, and their tokens.
fn nearest<'a>(words: impl Iterator<Item = &'a Vec<u32>>, room: usize) -> (usize, usize) {
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

/// What is given, and what a model remembers of files like its own.
fn settings_of(reading: &Reading) -> Result<[TagSettings; 2], TaskError> {
    let own = |settings: &TaskSettings| settings.own::<TagSettings>();
    Ok([own(&reading.given().settings)?, own(&reading.stored_of_files())?])
}

/// The sentences of some files.
fn sentences(
    reading: &Reading,
    paths: &[PathBuf],
    need: LabelsNeeded,
    notes: &mut Notes,
) -> Result<Vec<TaggedSentences>, TaskError> {
    let [given, stored] = settings_of(reading)?;
    // A column alone is one of the model's format.
    let given = match given.tag_column {
        Some(_) => {
            let of_model: TagSettings = reading.stored().own()?;
            TagSettings { tag_format: given.tag_format.or(of_model.tag_format), ..given }
        }
        None => given,
    };
    let (given, stored) = (given.format()?, stored.format()?);
    // A file whose ending names another format than the training files' is read as that.
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
    let key = match &reading.given().settings.label {
        Some(Column::Name(name)) => Some(name.as_ref()),
        Some(Column::Number(number)) => {
            return Err(TaskError::setting(
                "label",
                format!("#{number}: expected the name of a list of tags; see --tag-column"),
            ));
        }
        None => None,
    };
    let read = |path: &PathBuf| {
        let file = TaggedSentences::read_key(path, format(path), key, need)?;
        for remark in file.remarks() {
            notes.once(format!("{}: {remark}", path.display()));
        }
        Ok(file)
    };
    paths.iter().map(read).collect()
}

/// The words around a sentence in its document, more than a sequence can hold on neither side.
fn around(sentences: &[TaggedSentence], number: usize, most: usize) -> [Vec<String>; 2] {
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
    type Notes = ();
    type Prediction = Prediction;

    fn learned_from(
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Tag, FileRows<Row>), TaskError> {
        let files = sentences(reading, train, LabelsNeeded::Required, notes)?;
        let found = found_in(files.iter().map(TaggedSentences::labels))?;
        let labels = reading.labels(found.clone(), start, Class::Tag)?;
        if files.iter().any(TaggedSentences::has_numbers) && labels == found {
            let problem = "the tags are numbers without names; expected the names in the order of the numbers: --labels O,B-PER,I-PER";
            return Err(TaskError::setting("labels", problem));
        }
        let task = Tag::new(labels.names().to_vec(), None, reading)?;
        let rows = task.rows(&files, &labels, (reading, LabelsNeeded::Required), notes)?;
        Ok((task, rows))
    }

    fn of_model(reading: &Reading, config: &Config, head: TaskHead) -> Result<Tag, TaskError> {
        let layers = if let TaskHead::Tag { layers, .. } = head { Some(layers) } else { None };
        Tag::new(labels_of(config, head.logits()), layers, reading)
    }

    fn own_settings(&self, reading: &Reading) -> Object {
        // What was given of the files' format; a format that was found out is found out again.
        let mut own = reading.given().settings.own.clone();
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

    /// Plain text, or an object with a `text` or a list of `words`.
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
        let key = text_key(object, reading.given().settings.text.as_ref(), stored.as_ref(), "text");
        Ok(Row::of_text(&string_of(object, &key)?))
    }

    fn head(&self) -> TaskHead {
        TaskHead::Tag { labels: self.labels.len(), layers: self.layers }
    }

    fn describe(&self, config: &mut Config) {
        config.set_labels(&self.labels);
        config.extra.remove("problem_type");
    }

    fn head_start(&self, start: &Config, is_known: bool) -> HeadStart {
        HeadStart::of_labels(&self.labels, start, is_known)
    }

    fn summary(&self, rows: &[&Row]) -> Vec<String> {
        let known: Vec<(&Row, &Vec<usize>)> =
            rows.iter().filter_map(|row| Some((*row, row.labels.as_ref()?))).collect();
        let mut lines = counted(&self.labels, known.iter().flat_map(|(_, labels)| labels.iter().copied()));
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
            None => "tags of no scheme for entities, such as parts of speech: accuracy alone is scored".to_owned(),
        });
        lines
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let template = tokenizer.template();
        let room = template.room(self.max_len, false);
        if room == 0 {
            let least = template.added(false) + 1;
            let problem = format!("is {}: expected {least} at least, so that a token fits", self.max_len);
            return Err(TaskError::setting("max-len", problem));
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
            let (count, own) = nearest(pieces[first..].iter(), room);
            let words = first..first + count;
            let [before, after] = if self.context && words.len() == pieces.len() {
                // Half of what is left on either side; what one side does not need, the other may use.
                let left = room - own;
                let [back, on] = [&row.around[0], &row.around[1]].map(|words| Tag::pieces(words, tokenizer));
                let (_, wanted) = nearest(on.iter(), left / 2);
                let (behind, used) = nearest(back.iter().rev(), left - wanted);
                let (ahead, _) = nearest(on.iter(), left - used);
                [back[back.len() - behind..].concat(), on[..ahead].concat()]
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
                    let target = |label: &usize| if *label < self.labels.len() { *label as i32 } else { IGNORED };
                    labels[words.clone()].iter().map(target).collect()
                }
                None => vec![IGNORED; count],
            };
            let sequences = vec![template.sequence(&ids, None)];
            examples.push(Example { tokens, ..Example::new(sequences, Target::Classes(labels)) });
            first = words.end;
        }
        Ok(Encoded { examples, cut, notes: () })
    }

    /// The prediction has the words.
    fn shown(&self, row: &Row) -> Object {
        let labels = row.labels.as_ref();
        let gold: Option<Vec<&str>> =
            labels.map(|labels| labels.iter().map(|label| self.labels[*label].as_str()).collect());
        Object::from_iter([("gold".to_owned(), gold.into())])
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        let mut prediction =
            Prediction { words: row.words.clone(), tags: Vec::new(), probabilities: Vec::new(), entities: None };
        for logits in logits.iter().flat_map(|logits| logits.chunks(self.labels.len())) {
            let shares = softmax(logits).filter(|shares| shares.len() == self.labels.len());
            let shares = shares.ok_or_else(|| TaskError::Logits(format!("sentence {:?}", row.words.join(" "))))?;
            let class = largest(&shares);
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
    fn texts_are_cut_into_words_with_their_places() {
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
        Tag { labels, max_len, layers: 1, context }
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
    fn long_sentences_are_read_in_parts_cut_between_words() {
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
    fn context_surrounds_the_sentence_and_is_not_judged() {
        let t = tokenizer();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let around = [words(&["big", "new"]), words(&[".", "york", "big"])];
        let sentence = Row { around, ..row(&["is"], &[0]) };
        let encoded = task(6, true).encode(&sentence, &t).unwrap();
        // Room for four: the sentence, and of what is around it one word before and two after, or two and one.
        assert_eq!(encoded.examples[0].sequences[0].ids, [2, 11, 5, 10, 12, 3]);
        assert_eq!(encoded.examples[0].tokens, [3]);
    }

    #[test]
    fn entities_have_places_in_the_text() {
        let task = task(16, false);
        let row = Row::of_text("é New York.");
        let logits = vec![vec![9.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 9.0, 9.0, 0.0, 0.0]];
        let found = task.predict(&row, &Encoded { examples: vec![], cut: 0, notes: () }, &logits).unwrap();
        assert_eq!(found.tags, ["O", "B-LOC", "I-LOC", "O"]);
        let entities = found.entities.unwrap();
        assert_eq!(entities.len(), 1);
        assert_eq!((entities[0].text.as_str(), entities[0].characters), ("New York", Some([2, 10])));
        assert!(entities[0].score > 0.99);
    }
}
