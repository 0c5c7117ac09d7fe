//! Labelled rows about the world of the stories, for three tasks. Pre-training on the stories helps with each of them.
//!
//! | rows | task | file |
//! | --- | --- | --- |
//! | [`topics`] | the story form of a sentence | TSV: `text`, `label` |
//! | [`entities`] | the people, places and things in a sentence | CoNLL columns: word, BIO tag |
//! | [`questions`] | the part of a passage that answers a question | SQuAD 1.1's JSON |
//!
//! Like the stories, the rows are a pure function of the seed. No text occurs twice in the two files.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::json;

use super::stories::{GENERAL, STORIES, StoryForm};
use super::{Dice, Scene, Sentence};

/// The contents of a training file and a dev file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Training rows, generated with the seed.
    pub train: String,
    /// Dev rows, generated with the next seed.
    pub dev: String,
}

/// Sentences, each with the form of its story (`work`, `journey`, …).
pub fn topics(seed: u64, train: usize, dev: usize) -> Files {
    files::<Topic>(seed, train, dev)
}

/// Sentences of tagged words: PER, people; LOC, towns, rivers, regions and buildings; THING, central objects of a story
/// that can be held in a hand. Articles do not belong to a name.
pub fn entities(seed: u64, train: usize, dev: usize) -> Files {
    files::<Tagged>(seed, train, dev)
}

/// Short passages, each with a question and the only span that answers it.
pub fn questions(seed: u64, train: usize, dev: usize) -> Files {
    files::<Question>(seed, train, dev)
}

trait Row: Sized {
    fn draw(dice: &mut Dice) -> Self;
    /// The text that must not occur twice.
    fn text(&self) -> String;
    fn file(rows: &[Self]) -> String;
}

fn files<R: Row>(seed: u64, train: usize, dev: usize) -> Files {
    let mut seen = HashSet::new();
    let mut draw = |seed: u64, count: usize| {
        let drawn = (0..).map(|index| R::draw(&mut Dice::new(seed, index)));
        let rows: Vec<R> = drawn.filter(|row| seen.insert(row.text())).take(count).collect();
        R::file(&rows)
    };
    Files { train: draw(seed, train), dev: draw(seed.wrapping_add(1), dev) }
}

/// The sentences that occur only in stories of this form.
fn own(story: &StoryForm) -> Vec<&'static str> {
    [story.openings, story.middles, story.endings].concat()
}

struct Topic {
    text: String,
    label: &'static str,
}

impl Row for Topic {
    fn draw(dice: &mut Dice) -> Topic {
        let story = dice.pick(STORIES);
        let template = dice.pick(&own(story));
        Topic { text: Scene::new(dice).render(template, dice).text, label: story.name }
    }

    fn text(&self) -> String {
        self.text.clone()
    }

    fn file(rows: &[Topic]) -> String {
        let lines = rows.iter().map(|row| format!("{}\t{}\n", row.text, row.label));
        "text\tlabel\n".to_owned() + &lines.collect::<String>()
    }
}

struct Tagged {
    /// Each word, its tag.
    words: Vec<(String, String)>,
}

impl Tagged {
    /// The words of a sentence, tagged by the slots that they fill; `None` if no slot is an entity.
    fn of(sentence: &Sentence) -> Option<Tagged> {
        let Sentence { text, slots } = sentence;
        let named = |(slot, span): &(&str, Range<usize>)| Some((kind(slot)?, without_article(text, span)));
        let entities: Vec<(&str, Range<usize>)> = slots.iter().filter_map(named).collect();
        let tag = |word: &Range<usize>| match entities.iter().find(|(_, span)| span.contains(&word.start)) {
            Some((kind, span)) if span.start == word.start => format!("B-{kind}"),
            Some((kind, _)) => format!("I-{kind}"),
            None => "O".to_owned(),
        };
        let words = words(text).into_iter().map(|word| (text[word.clone()].to_owned(), tag(&word))).collect();
        (!entities.is_empty()).then_some(Tagged { words })
    }
}

/// The entity type of a slot.
fn kind(slot: &str) -> Option<&'static str> {
    Some(match slot {
        "p" | "P" | "q" | "Q" | "r" | "surname" => "PER",
        "town" | "town2" | "river" | "river2" | "region" | "region2" | "landmark" | "landmark2" => "LOC",
        "tool" | "lost" | "gift" | "instrument" | "book" | "pan" => "THING",
        _ => return None,
    })
}

fn without_article(text: &str, span: &Range<usize>) -> Range<usize> {
    let first = text[span.clone()].split_once(' ').map_or("", |(first, _)| first);
    let is_article = ["a", "an", "the"].iter().any(|article| first.eq_ignore_ascii_case(article));
    if is_article { span.start + first.len() + 1..span.end } else { span.clone() }
}

/// Splits text into words as BERT does: runs of letters and digits, and each other character separately.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    for (at, sign) in text.char_indices() {
        let end = at + sign.len_utf8();
        match words.last_mut() {
            Some(word) if open && sign.is_alphanumeric() => word.end = end,
            _ if !sign.is_whitespace() => words.push(at..end),
            _ => {}
        }
        open = sign.is_alphanumeric();
    }
    words
}

impl Row for Tagged {
    fn draw(dice: &mut Dice) -> Tagged {
        let scene = Scene::new(dice);
        loop {
            let template = match STORIES.get(dice.below(STORIES.len() + 1)) {
                Some(story) => dice.pick(&own(story)),
                None => dice.pick(GENERAL),
            };
            if let Some(row) = Tagged::of(&scene.render(template, dice)) {
                return row;
            }
        }
    }

    fn text(&self) -> String {
        self.words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn file(rows: &[Tagged]) -> String {
        let sentence = |row: &Tagged| -> String {
            row.words.iter().map(|(word, tag)| format!("{word} {tag}\n")).chain(["\n".to_owned()]).collect()
        };
        rows.iter().map(sentence).collect()
    }
}

/// A sentence of a passage, and its questions, each with the slot that answers it.
type Fact = (&'static str, &'static [(&'static str, &'static str)]);

/// The facts of one scene, in the order of a passage.
const FACTS: &[Fact] = &[
    ("{P} was born in {town} in {born}.", &[("When was {p} born?", "born"), ("Where was {p} born?", "town")]),
    ("{P} is {a job} in {town}.", &[("What is the trade of {p}?", "job")]),
    (
        "{p} lives in {town}, a [small|quiet|busy] town on the river {river}.",
        &[("Where does {p} live?", "town"), ("On which river does {p} live?", "river")],
    ),
    (
        "{q} lives in {town2}, on the river {river2}.",
        &[("Where does {q} live?", "town2"), ("On which river does {q} live?", "river2")],
    ),
    (
        "{town} lies in {region}, and people come from far away to see {landmark}.",
        &[("Where does {town} lie?", "region"), ("What do people see in {town}?", "landmark")],
    ),
    (
        "{q} is {p}'s {qrel}, {a adj2} person who [laughs often|speaks little|loves old songs].",
        &[("Who is {p}'s {qrel}?", "q"), ("Who is {a adj2} person?", "q")],
    ),
    ("Everybody in {town} knows {p} by {his} {colour} hat.", &[("What colour is the hat of {p}?", "colour")]),
    ("{p} and {q} see each other every {day}.", &[("When do {p} and {q} see each other?", "day")]),
    (
        "In {month} {p} {went} from {town} to {town2}.",
        &[("When did {p} leave {town}?", "month"), ("Where did {p} go?", "town2")],
    ),
    ("The day was {weather}, and {p} wore {wear}.", &[("What did {p} wear?", "wear")]),
    (
        "The {animal} of {p} sleeps in the {home} and eats {food}.",
        &[("Where does the {animal} sleep?", "home"), ("What does the {animal} eat?", "food")],
    ),
    (
        "{p} made {dish} for {his} {qrel} {q}.",
        &[("What did {p} make?", "dish"), ("For whom did {p} make {dish}?", "q")],
    ),
    ("{q} plays the {instrument} in the orchestra of {town2}.", &[("What does {q} play?", "instrument")]),
    ("{q} teaches {subject} at the school in {town2}.", &[("What does {q} teach?", "subject")]),
    ("{p} grows {plant} in {his} garden.", &[("What does {p} grow?", "plant")]),
    ("{p} lost {his} {lost} on {day}.", &[("What did {p} lose?", "lost"), ("When did {p} lose it?", "day")]),
    ("The guests brought {gift}.", &[("What did the guests bring?", "gift")]),
    ("At last {q} found the {lost} {found}.", &[("Where was the {lost}?", "found"), ("Who found the {lost}?", "q")]),
];

/// Number of sentences in a passage. With the question they fit into the sequence length of the quickstart's
/// pre-training.
const PASSAGE: usize = 3;

struct Question {
    passage: String,
    question: String,
    answer: Range<usize>,
}

impl Row for Question {
    fn draw(dice: &mut Dice) -> Question {
        let scene = Scene::new(dice);
        let told = dice.subset(FACTS.len(), PASSAGE);
        let about = dice.pick(&told);
        let (question, answering) = dice.pick(FACTS[about].1);
        let (mut passage, mut answer) = (String::new(), 0..0);
        for fact in told {
            let Sentence { text, slots } = scene.render(FACTS[fact].0, dice);
            if !passage.is_empty() {
                passage.push(' ');
            }
            if fact == about
                && let Some((_, span)) = slots.iter().find(|(slot, _)| *slot == answering)
            {
                answer = passage.len() + span.start..passage.len() + span.end;
            }
            passage += &text;
        }
        Question { passage, question: scene.render(question, dice).text, answer }
    }

    fn text(&self) -> String {
        format!("{} {}", self.passage, self.question)
    }

    fn file(rows: &[Question]) -> String {
        let paragraphs = rows.iter().enumerate().map(|(number, row)| {
            let start = row.passage[..row.answer.start].chars().count();
            let answer = json!({"text": row.passage[row.answer.clone()], "answer_start": start});
            let question = json!({"id": (number + 1).to_string(), "question": row.question, "answers": [answer]});
            json!({"context": row.passage, "qas": [question]})
        });
        let articles = [json!({"title": "stories", "paragraphs": paragraphs.collect::<Vec<_>>()})];
        format!("{:#}\n", json!({"version": "1.1", "data": articles}))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::path::PathBuf;

    use cloze_tasks::datasets::LabelsNeeded;
    use cloze_tasks::datasets::classification::{LabelledTexts, TextColumns};
    use cloze_tasks::datasets::squad::{BadAnswers, Questions};
    use cloze_tasks::datasets::table::{Column, RaggedRows};
    use cloze_tasks::datasets::tagged::TaggedSentences;

    use super::*;

    /// Reads both files like the commands.
    fn read<R>(files: &Files, name: &str, read: impl Fn(&PathBuf) -> Vec<R>) -> [Vec<R>; 2] {
        let dir = tempfile::tempdir().unwrap();
        [("train", &files.train), ("dev", &files.dev)].map(|(part, text)| {
            let path = dir.path().join(format!("{part}.{name}"));
            std::fs::write(&path, text).unwrap();
            read(&path)
        })
    }

    fn check_distinct<'a>(rows: [impl Iterator<Item = &'a str>; 2], sizes: [usize; 2]) {
        let mut seen = HashSet::new();
        for (rows, size) in rows.into_iter().zip(sizes) {
            assert_eq!(rows.filter(|row| seen.insert(row.to_lowercase())).count(), size);
        }
    }

    #[test]
    fn files_depend_only_on_the_seed() {
        for make in [topics, entities, questions] {
            assert_eq!(make(5, 40, 30), make(5, 40, 30));
            assert_ne!(make(5, 40, 30).train, make(6, 40, 30).train);
            // The dev rows are those of the next seed, except for rows that are in the training file.
            assert_ne!(make(5, 40, 40).train, make(5, 40, 40).dev);
        }
    }

    #[test]
    fn topics_have_sentences_of_their_form() {
        let files = topics(5, 200, 300);
        let columns = TextColumns { text: Column::name("text"), pair: None, label: Some(Column::name("label")) };
        let rows = read(&files, "tsv", |path| {
            let texts = LabelledTexts::read(path, &columns, LabelsNeeded::Required, RaggedRows::Error).unwrap();
            assert_eq!(texts.labels().unwrap().names().len(), STORIES.len());
            texts.without_labels().into_iter().map(Result::unwrap).collect::<Vec<_>>()
        });
        check_distinct([0, 1].map(|part| rows[part].iter().map(|row| row.text.as_str())), [200, 300]);
        let of = |topic: &str| rows[0].iter().filter(|row| row.label.as_deref() == Some(topic)).collect::<Vec<_>>();
        assert!(of("concert").iter().any(|row| row.text.contains("teacher") || row.text.contains("concert")));
        assert!(of("concert").iter().all(|row| !row.text.contains("passengers")));
    }

    #[test]
    fn tags_mark_the_right_words() {
        let files = entities(5, 150, 150);
        let rows = read(&files, "conll", |path| {
            TaggedSentences::read(path, None, LabelsNeeded::Required).unwrap().sentences().to_vec()
        });
        let texts: Vec<Vec<String>> =
            rows.iter().map(|rows| rows.iter().map(|row| row.words.join(" ")).collect()).collect();
        check_distinct([0, 1].map(|part| texts[part].iter().map(String::as_str)), [150, 150]);
        let mut tags: HashMap<&str, HashSet<&str>> = HashMap::new();
        for row in rows.iter().flatten() {
            assert!(row.tags.iter().any(|tag| tag != "O"), "{row:?}");
            for (at, (word, tag)) in row.words.iter().zip(&row.tags).enumerate() {
                tags.entry(tag).or_default().insert(word);
                if let Some(kind) = tag.strip_prefix("I-") {
                    let before = &row.tags[at - 1];
                    assert!(before == tag || *before == format!("B-{kind}"), "{row:?}");
                }
            }
        }
        let mut kinds: Vec<&str> = tags.keys().copied().collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["B-LOC", "B-PER", "B-THING", "I-LOC", "I-PER", "I-THING", "O"]);
        for word in &tags["B-PER"] {
            assert!(word.starts_with(char::is_uppercase), "{word}");
        }
        for article in ["a", "an", "the", "The"] {
            assert!(tags.iter().all(|(tag, words)| !tag.starts_with("B-") || !words.contains(article)), "{article}");
        }
        assert!(!tags["O"].contains("Oakham") && tags["B-LOC"].contains("Oakham"));
    }

    #[test]
    fn a_sentence_is_split_and_tagged() {
        let text = "The castle of Anna Holt's town, Oakham.".to_owned();
        let slots = vec![("landmark", 0..10), ("P", 14..23), ("town", 32..38)];
        let tagged = Tagged::of(&Sentence { text, slots }).unwrap();
        let expected = "The/O castle/B-LOC of/O Anna/B-PER Holt/I-PER '/O s/O town/O ,/O Oakham/B-LOC ./O";
        let found: Vec<String> = tagged.words.iter().map(|(word, tag)| format!("{word}/{tag}")).collect();
        assert_eq!(found.join(" "), expected);
        assert!(Tagged::of(&Sentence { text: "It rained.".to_owned(), slots: vec![] }).is_none());
    }

    #[test]
    fn answers_are_spans_of_their_passages() {
        let files = questions(5, 150, 200);
        let rows = read(&files, "json", |path| {
            let questions = Questions::read(path, BadAnswers::Error).unwrap();
            // The reader searches for an answer that is not at the given position.
            assert_eq!(questions.notes(), Default::default());
            questions.into_questions().into_iter().collect::<Result<Vec<_>, _>>().unwrap()
        });
        let texts: Vec<Vec<String>> = rows
            .iter()
            .map(|rows| rows.iter().map(|row| format!("{} {}", row.context, row.question)).collect())
            .collect();
        check_distinct([0, 1].map(|part| texts[part].iter().map(String::as_str)), [150, 200]);
        let mut asked = HashSet::new();
        for row in rows.iter().flatten() {
            let [answer] = &row.answers[..] else { panic!("{row:?}") };
            assert!(!answer.text.is_empty() && row.context[answer.start..].starts_with(&answer.text), "{row:?}");
            assert!(row.question.ends_with('?') && !row.question.contains('{'), "{row:?}");
            asked.insert(row.question.split(' ').next().unwrap().to_owned());
        }
        assert!(["Who", "Where", "When", "What"].iter().all(|word| asked.contains(*word)), "{asked:?}");
    }

    #[test]
    fn facts_contain_the_answers_to_their_questions() {
        let mut dice = Dice::new(3, 3);
        let scene = Scene::new(&mut dice);
        for (fact, questions) in FACTS {
            let told = scene.render(fact, &mut dice);
            assert!(!told.text.contains(['{', '}', '[', ']']), "{}", told.text);
            for (question, slot) in *questions {
                assert_eq!(told.slots.iter().filter(|(name, _)| name == slot).count(), 1, "{fact} {question}");
                assert!(!question.contains(&format!("{{{slot}}}")), "{question} gives its answer away");
            }
        }
    }
}
