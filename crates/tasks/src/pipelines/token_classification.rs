//! Token classification: a text → the entities of its tokens, words or groups of words, as `TokenClassificationPipeline`.
//!
//! The whole text is tokenized, and every token gets a label. (The [`tag`](crate::kinds::tag) kind of task reads a label for
//! each word.) A text with more tokens than the model reads is split into windows:
//!
//! - With `stride`, as in Transformers: the windows overlap by so many tokens, the entities of each are aggregated on their
//!   own, and of overlapping entities the longest is kept, or of two equally long ones that with the higher score.
//! - Without it, Transformers leaves out the rest of the text without a message. Here, the first window is the text that
//!   Transformers reads, and the tokens after it get their labels from further windows, each of which begins with the last
//!   quarter of the window before as context. Then all tokens are aggregated together. A note says so.

use std::ops::Range;
use std::sync::Arc;

use cloze_model::TaskHead;
use cloze_text::{Piece, Tokenizer};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::answers::Answers;
use super::fields::Fields;
use super::inputs::Inputs;
use super::logits::{are_finite, argmax, rounded, softmax};
use super::sequences::{limit, quoted, task_logits, windows, wrong_head};
use crate::TaskError;
use crate::example::{Example, IGNORE_INDEX, Target};
use crate::inference::executor::Executor;
use crate::inference::pretrained::Pretrained;
use crate::kinds::labels_of;
use crate::parallel;

/// How tokens are put together to entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AggregationStrategy {
    /// They are not: each token is an entity.
    None,
    /// Adjacent tokens with the same kind of entity are one, except before a `B-`.
    Simple,
    /// As `Simple`, with the label of a word's first token for the whole word.
    First,
    /// As `Simple`, with the best label of a word by the mean of the scores of its tokens.
    Average,
    /// As `Simple`, with the label of the token of a word that has the highest score.
    Max,
}

/// The parameters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
#[non_exhaustive]
pub struct Parameters {
    /// How tokens are put together to entities. None: [`AggregationStrategy::None`].
    pub aggregation_strategy: Option<AggregationStrategy>,
    /// Labels (of groups: without `B-` and `I-`) that are left out. None: `O`.
    pub ignore_labels: Option<Vec<String>>,
    /// The number of tokens that windows over a long text share. None: see the [module](self).
    pub stride: Option<usize>,
}

impl TryFrom<Value> for Parameters {
    type Error = TaskError;

    fn try_from(value: Value) -> Result<Parameters, TaskError> {
        let fields = Fields::of_parameters(value)?;
        let strategies = [
            ("none", AggregationStrategy::None),
            ("simple", AggregationStrategy::Simple),
            ("first", AggregationStrategy::First),
            ("average", AggregationStrategy::Average),
            ("max", AggregationStrategy::Max),
        ];
        Ok(Parameters {
            aggregation_strategy: fields.choice("aggregation_strategy", &strategies)?,
            ignore_labels: fields.texts("ignore_labels")?,
            stride: fields.count("stride")?,
        })
    }
}

/// A token, or a group of tokens.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entity {
    /// The label of the token (`entity`), or of the group, without `B-` and `I-` (`entity_group`).
    pub label: String,
    /// The probability of the label; of a group, the mean over its tokens or words.
    pub score: f64,
    /// The position of the token in the sequence, from 0, special tokens included; none for a group.
    pub index: Option<usize>,
    /// The token, or the decoded tokens of the group.
    pub word: String,
    /// The first character in the text.
    pub start: usize,
    /// One past the last character in the text.
    pub end: usize,
}

impl Serialize for Entity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(if self.index.is_some() { "entity" } else { "entity_group" }, &self.label)?;
        map.serialize_entry("score", &self.score)?;
        if let Some(index) = self.index {
            map.serialize_entry("index", &index)?;
        }
        map.serialize_entry("word", &self.word)?;
        map.serialize_entry("start", &self.start)?;
        map.serialize_entry("end", &self.end)?;
        map.end()
    }
}

/// A model that labels tokens.
pub struct TokenClassification {
    model: Arc<Pretrained>,
    labels: Vec<String>,
}

/// The tokens of a text and its windows.
struct Encoded {
    pieces: Vec<Piece>,
    /// The tokens of each sequence.
    windows: Vec<Range<usize>>,
}

/// A token, or a word, with its scores: what Transformers calls a pre-entity.
#[derive(Clone)]
struct Token {
    word: String,
    /// The probability of each label.
    scores: Vec<f64>,
    /// Its characters in the text.
    characters: Range<usize>,
    /// Its position in the sequence.
    index: usize,
    /// Whether it continues a word.
    is_subword: bool,
}

/// A token or word with its label.
struct Labelled {
    label: usize,
    score: f64,
    word: String,
    characters: Range<usize>,
    index: usize,
}

impl TokenClassification {
    /// Checks that a model has the head of a token classifier.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model without that head.
    pub fn new(model: Arc<Pretrained>) -> Result<TokenClassification, TaskError> {
        let Some(TaskHead::Tag { labels }) = model.model.heads.task else {
            return Err(wrong_head(&model, "a token classifier, such as BertForTokenClassification"));
        };
        Ok(TokenClassification { labels: labels_of(model.model.config(), labels), model })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Pretrained> {
        &self.model
    }

    /// The entities of each text, in the text's order.
    ///
    /// # Errors
    /// Those of [`run_on`](Self::run_on), except of an executor.
    pub fn run(&self, inputs: &Inputs<String>, parameters: &Parameters) -> Result<Answers<Vec<Entity>>, TaskError> {
        self.run_on(&*self.model, inputs, parameters)
    }

    /// As [`run`](Self::run); `executor` runs the model's forward passes.
    ///
    /// # Errors
    /// [`TaskError::Input`] for an empty list, a stride that leaves no room for other tokens, and a stride with the
    /// strategy `none`; [`TaskError::Logits`]; those of the executor.
    pub fn run_on(
        &self,
        executor: &dyn Executor,
        inputs: &Inputs<String>,
        parameters: &Parameters,
    ) -> Result<Answers<Vec<Entity>>, TaskError> {
        if inputs.rows.is_empty() {
            return Err(TaskError::input("\"inputs\"", "expected at least one text, found an empty list"));
        }
        let Pretrained { tokenizer, device, .. } = &*self.model;
        let template = tokenizer.template();
        let room = limit(&self.model).saturating_sub(template.added(false));
        if room == 0 {
            return Err(wrong_head(&self.model, "a model that reads at least one token beside the special tokens"));
        }
        match (parameters.stride, parameters.aggregation_strategy) {
            (Some(stride), _) if stride >= room => {
                let problem = format!("expected less than {room}, the tokens of a window, found {stride}");
                return Err(TaskError::input("\"stride\"", problem));
            }
            (Some(_), Some(AggregationStrategy::None)) => {
                let problem = "needs windows whose entities are aggregated; set \"aggregation_strategy\" to one of \"simple\", \
                               \"first\", \"average\", \"max\"";
                return Err(TaskError::input("\"stride\"", problem));
            }
            _ => {}
        }
        let encoded = parallel::map(&inputs.rows, device.threads(), |text| {
            let pieces = tokenizer.encode_with_offsets(text);
            let windows = match parameters.stride {
                Some(stride) => windows(pieces.len(), room, stride, tokenizer.truncates_left()),
                None => windows(pieces.len(), room, room / 4, tokenizer.truncates_left()),
            };
            Encoded { pieces, windows }
        });
        let start = template.start_of_first(false);
        let example = |(text, window): (&Encoded, &Range<usize>)| {
            let ids: Vec<u32> = text.pieces[window.clone()].iter().map(|piece| piece.id).collect();
            let tokens = (start..start + ids.len()).map(|token| token as u32).collect();
            let target = Target::Classes(vec![IGNORE_INDEX; ids.len()]);
            Example { tokens, ..Example::new(vec![template.sequence(&ids, None)], target) }
        };
        // A text without tokens has no entities.
        let of_windows = || {
            let of_text = |text| move |window| (text, window);
            encoded.iter().flat_map(move |text| text.windows.iter().map(of_text(text))).filter(|(_, w)| !w.is_empty())
        };
        let examples: Vec<Example> = of_windows().map(example).collect();
        let mut logits = task_logits(&self.model, executor, &examples)?.into_iter();
        let mut answers = Answers::new(Vec::with_capacity(encoded.len()), inputs.is_list);
        let mut long = 0;
        for (text, encoded) in inputs.rows.iter().zip(&encoded) {
            let count = encoded.windows.iter().filter(|window| !window.is_empty()).count();
            let scores = logits.by_ref().take(count).map(|logits| self.scores(text, &logits));
            let scores: Vec<Vec<Vec<f64>>> = scores.collect::<Result<_, _>>()?;
            long += usize::from(count > 1 && parameters.stride.is_none());
            answers.rows.push(self.entities(text, encoded, scores, parameters));
        }
        if long > 0 {
            let texts = if long == 1 { "text was" } else { "texts were" };
            answers.notes.push(format!(
                "{long} {texts} longer than the {} tokens that the model reads, and read in windows",
                limit(&self.model)
            ));
        }
        Ok(answers)
    }

    /// The probabilities of the labels of each token.
    fn scores(&self, text: &str, logits: &[f32]) -> Result<Vec<Vec<f64>>, TaskError> {
        match are_finite(logits) {
            true => Ok(logits.chunks(self.labels.len()).map(softmax).collect()),
            false => Err(TaskError::Logits(quoted(text))),
        }
    }

    /// The entities of a text, from the scores of the tokens of its windows.
    fn entities(
        &self,
        text: &str,
        encoded: &Encoded,
        scores: Vec<Vec<Vec<f64>>>,
        parameters: &Parameters,
    ) -> Vec<Entity> {
        let strategy = parameters.aggregation_strategy.unwrap_or(AggregationStrategy::None);
        let place = CharacterIndex::new(text);
        let start = self.model.tokenizer.template().start_of_first(false);
        let ignored = |entity: &Entity| match &parameters.ignore_labels {
            Some(labels) => labels.contains(&entity.label),
            None => entity.label == "O",
        };
        let entities = |tokens: Vec<Token>| {
            let mut entities = self.aggregate(tokens, strategy);
            entities.retain(|entity| !ignored(entity));
            entities
        };
        if parameters.stride.is_none() {
            // Each token has the scores of the first window that contains it.
            let mut all: Vec<Option<Vec<f64>>> = vec![None; encoded.pieces.len()];
            for (window, scores) in encoded.windows.iter().zip(scores) {
                for (token, scores) in window.clone().zip(scores) {
                    all[token].get_or_insert(scores);
                }
            }
            let tokens = encoded.pieces.iter().zip(all).enumerate();
            let token = |(number, (piece, scores)): (usize, (&Piece, Option<Vec<f64>>))| {
                self.token(text, &place, piece, start + number, scores.unwrap_or_default())
            };
            return entities(tokens.map(token).collect());
        }
        let several = encoded.windows.len() > 1;
        let mut all = Vec::new();
        for (window, scores) in encoded.windows.iter().zip(scores) {
            let tokens = encoded.pieces[window.clone()].iter().zip(scores).enumerate();
            let tokens = tokens.map(|(i, (piece, scores))| self.token(text, &place, piece, start + i, scores));
            all.extend(entities(tokens.collect()));
        }
        if several { without_overlaps(all) } else { all }
    }

    fn token(&self, text: &str, place: &CharacterIndex, piece: &Piece, index: usize, scores: Vec<f64>) -> Token {
        let tokenizer = &self.model.tokenizer;
        let characters = place.of(piece.start)..place.of(piece.end);
        let written = text.get(piece.start..piece.end).unwrap_or_default();
        let word = tokenizer.token(piece.id).unwrap_or_default();
        if piece.id == tokenizer.special().unk {
            return Token { word: written.to_owned(), scores, characters, index, is_subword: false };
        }
        let is_subword = if tokenizer.continuing_subword_prefix().is_some() {
            word.chars().count() != characters.len()
        } else {
            // Transformers' heuristic for tokenizers without such a prefix.
            let before = text.get(..piece.start).and_then(|text| text.chars().next_back());
            let first = text.get(piece.start..).and_then(|text| text.chars().next());
            before.is_some_and(|before| before != ' ') && first != Some(' ')
        };
        Token { word: word.to_owned(), scores, characters, index, is_subword }
    }

    fn aggregate(&self, tokens: Vec<Token>, strategy: AggregationStrategy) -> Vec<Entity> {
        let tokenizer = &self.model.tokenizer;
        if matches!(strategy, AggregationStrategy::None | AggregationStrategy::Simple) {
            let labelled = tokens.into_iter().map(|token| {
                let label = argmax(&token.scores);
                let Token { word, scores, characters, index, .. } = token;
                Labelled { label, score: scores[label], word, characters, index }
            });
            return match strategy {
                AggregationStrategy::None => labelled.map(|token| self.entity_of_token(token)).collect(),
                _ => self.group(labelled.collect()),
            };
        }
        let mut words: Vec<Vec<Token>> = Vec::new();
        for token in tokens {
            match words.last_mut() {
                Some(word) if token.is_subword => word.push(token),
                _ => words.push(vec![token]),
            }
        }
        self.group(words.into_iter().map(|word| word_of(tokenizer, word, strategy)).collect())
    }

    fn entity_of_token(&self, token: Labelled) -> Entity {
        let Labelled { label, score, word, characters: Range { start, end }, index } = token;
        Entity { label: self.labels[label].clone(), score, index: Some(index), word, start, end }
    }

    /// Groups adjacent tokens or words with the same kind of entity.
    fn group(&self, tokens: Vec<Labelled>) -> Vec<Entity> {
        let mut groups: Vec<Vec<Labelled>> = Vec::new();
        for token in tokens {
            let (begins, kind) = kind_of(&self.labels[token.label]);
            match groups.last_mut() {
                Some(group) if !begins && kind_of(&self.labels[group[group.len() - 1].label]).1 == kind => {
                    group.push(token);
                }
                _ => groups.push(vec![token]),
            }
        }
        groups.into_iter().map(|group| self.entity_of_group(group)).collect()
    }

    fn entity_of_group(&self, group: Vec<Labelled>) -> Entity {
        let label = &self.labels[group[0].label];
        // Transformers removes what is before the first hyphen, whatever it is.
        let label = label.split_once('-').map_or(label.as_str(), |(_, kind)| kind).to_owned();
        let score = rounded(group.iter().map(|token| token.score).sum::<f64>() / group.len() as f64);
        let (start, end) = (group[0].characters.start, group[group.len() - 1].characters.end);
        let words = group.into_iter().map(|token| token.word).collect();
        Entity { label, score, index: None, word: self.model.tokenizer.join_tokens(words), start, end }
    }
}

/// Whether a label begins an entity, and the kind of entity.
fn kind_of(label: &str) -> (bool, &str) {
    match (label.strip_prefix("B-"), label.strip_prefix("I-")) {
        (Some(kind), _) => (true, kind),
        (None, Some(kind)) => (false, kind),
        (None, None) => (false, label),
    }
}

/// A word with one label for all its tokens.
fn word_of(tokenizer: &Tokenizer, tokens: Vec<Token>, strategy: AggregationStrategy) -> Labelled {
    let highest = |token: &Token| token.scores[argmax(&token.scores)];
    let (first, last) = (&tokens[0], &tokens[tokens.len() - 1]);
    let scores = match strategy {
        AggregationStrategy::Average => {
            let mean = |label: usize| {
                rounded(tokens.iter().map(|token| token.scores[label]).sum::<f64>() / tokens.len() as f64)
            };
            (0..first.scores.len()).map(mean).collect()
        }
        AggregationStrategy::Max => {
            // The first of several, as Python's `max`.
            let best =
                tokens.iter().fold(first, |best, token| if highest(token) > highest(best) { token } else { best });
            best.scores.clone()
        }
        _ => first.scores.clone(),
    };
    let label = argmax(&scores);
    let (characters, index) = (first.characters.start..last.characters.end, first.index);
    let word = tokenizer.join_tokens(tokens.into_iter().map(|token| token.word).collect());
    Labelled { label, score: scores[label], word, characters, index }
}

/// The entities of windows, of which the longest of overlapping ones is kept: `aggregate_overlapping_entities`.
fn without_overlaps(mut entities: Vec<Entity>) -> Vec<Entity> {
    entities.sort_by_key(|entity| entity.start);
    let Some(mut previous) = entities.first().cloned() else { return entities };
    let mut kept = Vec::new();
    for entity in entities {
        if (previous.start..previous.end).contains(&entity.start) {
            let lengths = [&entity, &previous].map(|entity| entity.end.saturating_sub(entity.start));
            if lengths[0] > lengths[1] || (lengths[0] == lengths[1] && entity.score > previous.score) {
                previous = entity;
            }
        } else {
            kept.push(std::mem::replace(&mut previous, entity));
        }
    }
    kept.push(previous);
    kept
}

/// The numbers of characters before the bytes of a text.
struct CharacterIndex {
    /// The first byte of each character; empty if all characters have one byte.
    starts: Vec<usize>,
}

impl CharacterIndex {
    fn new(text: &str) -> CharacterIndex {
        let is_ascii = text.is_ascii();
        CharacterIndex { starts: if is_ascii { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() } }
    }

    /// The number of characters before a byte.
    fn of(&self, byte: usize) -> usize {
        if self.starts.is_empty() { byte } else { self.starts.partition_point(|start| *start < byte) }
    }
}
