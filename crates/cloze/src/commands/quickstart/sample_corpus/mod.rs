//! An embedded, deterministic generator of short English documents.
//!
//! The quickstart needs text without a download. A document is a short story of 6 to 14 sentences about one topic. Its
//! people keep their names, pronouns, trade and town through the story, towns keep their river and region through the
//! corpus, and every trouble has its own remedy. So masked words can be inferred from agreement, collocation and
//! context, and sentence pairs from topic and people: both pre-training losses can learn more than word frequencies.
//!
//! Document `i` is a pure function of (`seed`, `i`).

pub mod labelled;
mod stories;
mod words;

use std::io::Write;
use std::ops::Range;

use stories::{GENERAL, STORIES, StoryForm};
use words::{
    ADJECTIVES, ANIMALS, COLOURS, DAYS, DISHES, FEMALE_NAMES, GIFTS, INSTRUMENTS, LOST_THINGS, MALE_NAMES, MONTHS,
    NUMBERS, PLANTS, RELATIONS, SPORTS, SUBJECTS, SURNAMES, TRADES, TRAVELS, Trade, WEATHER,
};

/// One generated document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The name of its story form (`work`, `journey`, …).
    pub topic: &'static str,
    /// Its sentences in order, each ending in `.`, `!` or `?`.
    pub sentences: Vec<String>,
}

impl Document {
    /// The document as one line of running text.
    pub fn text(&self) -> String {
        self.sentences.join(" ")
    }
}

/// The documents `0..count` of the corpus with this seed.
pub fn documents(seed: u64, count: usize) -> impl Iterator<Item = Document> {
    (0..count as u64).map(move |index| document(seed, index))
}

/// Writes `count` documents as plain text: one paragraph per document, separated by blank lines.
///
/// Returns the number of bytes written.
///
/// # Errors
/// Errors of the writer.
pub fn write_text(seed: u64, count: usize, out: &mut dyn Write) -> std::io::Result<u64> {
    let mut bytes = 0;
    for (index, document) in documents(seed, count).enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        let text = format!("{gap}{}\n", document.text());
        out.write_all(text.as_bytes())?;
        bytes += text.len() as u64;
    }
    Ok(bytes)
}

/// Document number `index` of the corpus with this seed.
pub fn document(seed: u64, index: u64) -> Document {
    let mut dice = Dice::new(seed, index);
    let story = dice.pick(STORIES);
    let scene = Scene::new(&mut dice);
    let mut templates: Vec<&str> = vec![dice.pick(story.openings)];
    middle(&mut dice, story, &mut templates);
    templates.push(dice.pick(story.endings));
    let sentences = templates.iter().map(|template| scene.render(template, &mut dice).text).collect();
    Document { topic: story.name, sentences }
}

/// Chooses the sentences between the opening and the ending, each at most once: those of the story in their order,
/// mixed with up to three general ones about the people and the town.
fn middle<'a>(dice: &mut Dice, story: &'a StoryForm, templates: &mut Vec<&'a str>) {
    let own = dice.between(3, story.middles.len().min(9));
    let chosen = dice.subset(story.middles.len(), own);
    let mut general = dice.subset(GENERAL.len(), 3);
    general.truncate(dice.between(1, 3));
    for (place, &at) in chosen.iter().enumerate() {
        // People are introduced early: most general sentences follow the opening.
        if let Some(&sentence) = general.get(place) {
            templates.push(GENERAL[sentence]);
        }
        templates.push(story.middles[at]);
    }
}

/// What is constant in one document.
struct Scene {
    slots: Vec<(&'static str, String)>,
    trade: &'static Trade,
}

impl Scene {
    fn new(dice: &mut Dice) -> Scene {
        let woman = dice.chance(1, 2);
        // The second person has the other gender, so that every pronoun is unambiguous.
        let (names, others) = if woman { (FEMALE_NAMES, MALE_NAMES) } else { (MALE_NAMES, FEMALE_NAMES) };
        let (first, second) = (dice.pick(names), dice.pick(others));
        let third = loop {
            let alike = dice.chance(1, 2);
            let name = dice.pick(if alike { names } else { others });
            if name != first && name != second {
                break name;
            }
        };
        let (surname, other_surname) = (dice.pick(SURNAMES), dice.pick(SURNAMES));
        let pronouns = |woman: bool| {
            if woman { ["she", "her", "her", "herself"] } else { ["he", "him", "his", "himself"] }
        };
        let [he, him, his, himself] = pronouns(woman);
        let [qhe, qhim, qhis, _] = pronouns(!woman);
        let relation = dice.pick(RELATIONS);
        let town = dice.below(words::TOWNS.len());
        let other_town = (town + dice.between(1, words::TOWNS.len() - 1)) % words::TOWNS.len();
        let trade = &TRADES[dice.below(TRADES.len())];
        let trouble = dice.pick(trade.troubles);
        let weather = dice.pick(WEATHER);
        let animal = dice.pick(ANIMALS);
        let sport = dice.pick(SPORTS);
        let travel = dice.pick(TRAVELS);
        let subject = dice.pick(SUBJECTS);
        let dish = dice.pick(DISHES);
        let instrument = dice.pick(INSTRUMENTS);
        let plant = dice.pick(PLANTS);
        let lost = dice.pick(LOST_THINGS);
        let day = dice.below(DAYS.len());
        let small = dice.between(2, 9);
        let birth = dice.between(1850, 1960);
        let slots = vec![
            ("p", first.to_string()),
            ("P", format!("{first} {surname}")),
            ("he", he.into()),
            ("him", him.into()),
            ("his", his.into()),
            ("himself", himself.into()),
            ("man", if woman { "woman" } else { "man" }.into()),
            ("q", second.to_string()),
            ("Q", format!("{second} {other_surname}")),
            ("qhe", qhe.into()),
            ("qhim", qhim.into()),
            ("qhis", qhis.into()),
            ("qrel", if woman { relation.1 } else { relation.0 }.into()),
            ("prel", if woman { relation.2 } else { relation.3 }.into()),
            ("r", third.to_string()),
            ("surname", surname.to_string()),
            ("town", words::TOWNS[town].into()),
            ("river", words::RIVERS[town % words::RIVERS.len()].into()),
            ("region", words::REGIONS[town / 4 % words::REGIONS.len()].into()),
            ("landmark", words::LANDMARKS[town * 5 % words::LANDMARKS.len()].into()),
            ("town2", words::TOWNS[other_town].into()),
            ("river2", words::RIVERS[other_town % words::RIVERS.len()].into()),
            ("region2", words::REGIONS[other_town / 4 % words::REGIONS.len()].into()),
            ("landmark2", words::LANDMARKS[other_town * 5 % words::LANDMARKS.len()].into()),
            ("job", trade.job.into()),
            ("place", trade.place.into()),
            ("goods", dice.pick(trade.goods).into()),
            ("tool", dice.pick(trade.tools).into()),
            ("material", trade.material.into()),
            ("trouble", trouble.0.into()),
            ("fix", trouble.1.into()),
            ("weather", weather.0.into()),
            ("sky", weather.1.into()),
            ("wear", weather.2.into()),
            ("animal", animal.0.into()),
            ("animals", animal.1.into()),
            ("sound", animal.2.into()),
            ("food", animal.3.into()),
            ("home", animal.4.into()),
            ("sport", sport.0.into()),
            ("ball", sport.1.into()),
            ("field", sport.2.into()),
            ("scores", sport.3.into()),
            ("vehicle", travel.0.into()),
            ("went", travel.1.into()),
            ("stop", travel.2.into()),
            ("breakdown", travel.3.into()),
            ("repair", travel.4.into()),
            ("subject", subject.0.into()),
            ("lesson", subject.1.into()),
            ("book", subject.2.into()),
            ("dish", dish.0.into()),
            ("add", dish.1.into()),
            ("add2", dish.2.into()),
            ("pan", dish.3.into()),
            ("instrument", instrument.0.into()),
            ("plays", instrument.1.into()),
            ("part", instrument.2.into()),
            ("plant", plant.0.into()),
            ("crop", plant.1.into()),
            ("pest", plant.2.into()),
            ("cure", plant.3.into()),
            ("lost", lost.0.into()),
            ("found", lost.1.into()),
            ("gift", dice.pick(GIFTS).into()),
            ("adj", dice.pick(ADJECTIVES).into()),
            ("adj2", dice.pick(ADJECTIVES).into()),
            ("colour", dice.pick(COLOURS).into()),
            ("day", DAYS[day].into()),
            ("nextday", DAYS[(day + 1) % DAYS.len()].into()),
            ("month", dice.pick(MONTHS).into()),
            ("n", NUMBERS[small].into()),
            ("n1", NUMBERS[small + 1].into()),
            ("m", NUMBERS[dice.between(10, NUMBERS.len() - 1)].into()),
            ("born", birth.to_string()),
            ("grown", (birth + dice.between(17, 24)).to_string()),
            ("wed", (birth + dice.between(25, 32)).to_string()),
            ("old", (birth + dice.between(58, 70)).to_string()),
        ];
        Scene { slots, trade }
    }

    /// Fills a template: `{slot}` from the scene, `{do}`, `{does}`, `{did}` a fresh act of the trade, `{a slot}`
    /// with its article, `[x|y|z]` one of the alternatives (no nesting). Capitalises the first letter.
    fn render(&self, template: &str, dice: &mut Dice) -> Sentence {
        let chosen = choose(template, dice);
        let mut text = String::with_capacity(chosen.len() * 2);
        let mut slots = Vec::new();
        let mut rest = chosen.as_str();
        while let Some(open) = rest.find('{') {
            text.push_str(&rest[..open]);
            let close = rest[open..].find('}').map_or(rest.len(), |at| open + at);
            let key = &rest[open + 1..close];
            rest = rest.get(close + 1..).unwrap_or("");
            let (article, key) = key.strip_prefix("a ").map_or((false, key), |key| (true, key));
            let slot = self.slots.iter().find(|(name, _)| *name == key);
            let word = slot.map_or_else(|| self.act(key, dice), |(_, value)| value.clone());
            if article {
                text.push_str(if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an " } else { "a " });
            }
            let start = text.len();
            text.push_str(&word);
            slots.extend(slot.map(|(name, _)| (*name, start..text.len())));
        }
        text.push_str(rest);
        Sentence { text: capitalise(&text), slots }
    }

    /// A new act of the trade. An unknown slot is left unchanged, so that the test finds it.
    fn act(&self, key: &str, dice: &mut Dice) -> String {
        match key {
            "do" => dice.pick(self.trade.acts).0.to_string(),
            "does" => third_person(dice.pick(self.trade.acts).0),
            "did" => dice.pick(self.trade.acts).1.to_string(),
            _ => format!("{{{key}}}"),
        }
    }
}

/// A sentence, with the byte ranges of the scene's slots.
struct Sentence {
    text: String,
    slots: Vec<(&'static str, Range<usize>)>,
}

/// Replaces every `[x|y|z]` by one of its alternatives.
fn choose(template: &str, dice: &mut Dice) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        let (inside, tail) = after.split_once(']').unwrap_or((after, ""));
        let count = inside.split('|').count();
        out.push_str(inside.split('|').nth(dice.below(count)).unwrap_or(""));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The present tense of a regular verb phrase for he or she: "carry the bags" becomes "carries the bags".
fn third_person(phrase: &str) -> String {
    let (verb, rest) = phrase.split_once(' ').unwrap_or((phrase, ""));
    let stem = &verb[..verb.len().saturating_sub(1)];
    let vowel_before = stem.ends_with(['a', 'e', 'i', 'o', 'u']);
    let verb = if verb.ends_with('y') && !vowel_before {
        format!("{stem}ies")
    } else if ["s", "x", "z", "ch", "sh", "o"].iter().any(|end| verb.ends_with(end)) {
        format!("{verb}es")
    } else {
        format!("{verb}s")
    };
    if rest.is_empty() { verb } else { format!("{verb} {rest}") }
}

fn capitalise(text: &str) -> String {
    // A sentence can begin with a quotation mark; capitalise the first letter.
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
    let mut out = text.to_string();
    if let Some(letter) = out.get_mut(at..at + 1) {
        letter.make_ascii_uppercase();
    }
    out
}

/// SplitMix64 (Steele, Lea and Flood 2014) keyed by (seed, document): no state is shared between documents.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, index: u64) -> Dice {
        let mut dice = Dice(seed ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number in `low..=high`.
    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn chance(&mut self, part: usize, whole: usize) -> bool {
        self.below(whole) < part
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// `count` distinct numbers of `0..of`, ascending.
    fn subset(&mut self, of: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..of).collect();
        while all.len() > count {
            let at = self.below(all.len());
            all.remove(at);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn text_depends_only_on_the_seed() {
        let all = |seed| documents(seed, 50).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        assert_eq!(document(7, 31), all(7)[31]);
    }

    #[test]
    fn documents_are_distinct_and_sentences_mostly() {
        let mut seen = HashSet::new();
        let mut sentences: HashMap<String, usize> = HashMap::new();
        let mut total = 0usize;
        for document in documents(1, 5000) {
            assert!(seen.insert(document.text()), "twice: {}", document.text());
            for sentence in document.sentences {
                *sentences.entry(sentence).or_default() += 1;
                total += 1;
            }
        }
        let distinct = sentences.len() as f64 / total as f64;
        assert!(distinct > 0.6, "only {distinct:.2} of the sentences are distinct");
    }

    #[test]
    fn lengths_and_words_vary() {
        let documents: Vec<Document> = documents(1, 4000).collect();
        let bytes: usize = documents.iter().map(|document| document.text().len() + 2).sum();
        assert!((1_500_000..3_500_000).contains(&bytes), "{bytes} bytes");
        let lengths: HashSet<usize> = documents.iter().map(|document| document.sentences.len()).collect();
        assert!(lengths.iter().all(|n| (6..=15).contains(n)) && lengths.len() >= 6, "{lengths:?}");
        let topics: HashSet<&str> = documents.iter().map(|document| document.topic).collect();
        assert_eq!(topics.len(), STORIES.len());
        let mut words: HashMap<String, usize> = HashMap::new();
        for document in &documents {
            for word in document.text().split(|c: char| !c.is_alphanumeric()) {
                *words.entry(word.to_lowercase()).or_default() += 1;
            }
        }
        let common = words.values().filter(|&&count| count >= 5).count();
        assert!(common > 1500, "{common} words seen five times or more");
    }

    #[test]
    fn slots_are_known_and_sentences_well_formed() {
        let mut dice = Dice::new(3, 3);
        let scene = Scene::new(&mut dice);
        let templates = STORIES
            .iter()
            .flat_map(|story| story.openings.iter().chain(story.middles).chain(story.endings))
            .chain(GENERAL);
        for template in templates {
            assert!(!template.contains("|]") || template.contains("["), "{template}");
            for _ in 0..4 {
                let text = scene.render(template, &mut dice).text;
                assert!(!text.contains(['{', '}', '[', ']', '|']), "{template} -> {text}");
                assert!(text.ends_with(['.', '!', '?']), "{text}");
                assert!(!text.contains("  "), "{text}");
                assert!(text.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase), "{text}");
            }
        }
    }

    #[test]
    fn people_and_towns_are_consistent_in_a_document() {
        for document in documents(5, 300) {
            let text = document.text();
            let names: HashSet<&str> = FEMALE_NAMES
                .iter()
                .chain(MALE_NAMES)
                .copied()
                .filter(|name| document.sentences.iter().filter(|sentence| sentence.contains(name)).count() > 0)
                .collect();
            assert!(!names.is_empty(), "nobody in: {text}");
            assert!(names.len() <= 5, "a crowd in: {text}");
        }
    }

    #[test]
    fn the_sentence_splitter_recovers_the_sentences() {
        let (mut split, mut made) = (0, 0);
        for document in documents(2, 300) {
            made += document.sentences.len();
            split += cloze_data::sentences::split(&document.text()).count();
        }
        assert_eq!(split, made);
    }

    #[test]
    fn verbs_agree() {
        assert_eq!(third_person("carry the bags"), "carries the bags");
        assert_eq!(third_person("polish the glass"), "polishes the glass");
        assert_eq!(third_person("play"), "plays");
        assert_eq!(capitalise("\"no\" was all."), "\"No\" was all.");
    }

    #[test]
    fn documents_are_separated_by_blank_lines() {
        let mut out = Vec::new();
        let bytes = write_text(1, 3, &mut out).unwrap();
        assert_eq!(bytes, out.len() as u64);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.trim_end().split("\n\n").count(), 3);
    }
}
