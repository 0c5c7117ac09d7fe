//! Tagging schemes: how tags encode the starts and ends of entities. The scheme is detected from the tags.
//! | scheme | tags | parsed with |
//! | --- | --- | --- |
//! | IOB1, IOB2 (BIO) | `B-`, `I-` | seqeval's default mode |
//! | IOE1, IOE2 | `I-`, `E-` | seqeval's default mode | | BIOES (IOBES) | `B-`, `I-`, `E-`, `S-` | seqeval's default
//! mode | | BMES, BMEWO | `B-`, `M-`, `E-`, `S-` or `W-` | seqeval's default mode, `W-` as `S-` | | IO | `I-`, or only
//! types and `O` | seqeval's default mode |
//! | BILOU (BILUO) | `B-`, `I-`, `L-`, `U-` | seqeval's strict mode, because its default mode does not know `U-` and `L-` |
//!
//! The letter is before the type or after it (`PER-B`), separated by `-`, `_`, `:`, `.` or `/`, or there is only the
//! letter. It may be in upper or lower case. `O`, `o`, `0`, `OUT` and `OUTSIDE` are outside of entities, and so are the
//! fillers that some programs assign to word pieces and special tokens (`X`, `[CLS]`, …). All other tags must follow
//! the scheme. Parts of speech do not follow any scheme.

use std::collections::{BTreeSet, HashSet};

use super::entities::{Entity, EntityScores, entities, entity_scores, scores_of};

/// The tagging scheme of a set of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheme {
    family: Family,
    layout: Layout,
    /// The types of entities, sorted; `_` for tags without a type.
    types: Vec<String>,
}

/// Schemes with the same letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Io,
    Iob,
    Ioe,
    Bioes,
    Bmes,
    Bmewo,
    Bilou,
}

/// The position of the letter in a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `B-PER`, with this separator.
    Before(char),
    /// `PER-B`.
    After(char),
    /// `B`.
    Alone,
    /// `PER`: no letter.
    TypeOnly,
}

const SEPARATORS: [char; 5] = ['-', '_', ':', '.', '/'];

/// Universal and Penn Treebank parts of speech with more than one letter, which are never types of entities.
const PARTS_OF_SPEECH: [&str; 44] = [
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "CONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT",
    "SCONJ", "SYM", "VERB", "CC", "CD", "DT", "EX", "FW", "IN", "JJ", "JJR", "JJS", "LS", "MD", "NN", "NNS", "NNP",
    "NNPS", "PDT", "POS", "PRP", "RB", "RBR", "RBS", "RP", "TO", "UH", "VB", "VBZ", "WDT",
];

impl Layout {
    fn all() -> impl Iterator<Item = Layout> {
        SEPARATORS
            .into_iter()
            .map(Layout::Before)
            .chain(SEPARATORS.into_iter().map(Layout::After))
            .chain([Layout::Alone])
    }

    /// The letter of a tag, in upper case, and its type.
    fn parts(self, tag: &str) -> Option<(char, &str)> {
        let letter = |text: &str| {
            let mut letters = text.chars();
            let only = letters.next().filter(|_| letters.next().is_none())?;
            Some(only.to_ascii_uppercase()).filter(|letter| "BIESMWLU".contains(*letter))
        };
        let (letter, kind) = match self {
            Layout::Before(separator) => tag.split_once(separator).map(|(before, kind)| (letter(before), kind))?,
            Layout::After(separator) => tag.rsplit_once(separator).map(|(kind, after)| (letter(after), kind))?,
            Layout::Alone => (letter(tag), ""),
            Layout::TypeOnly => (Some('I'), tag),
        };
        Some((letter?, if kind.is_empty() { "_" } else { kind }))
    }
}

fn is_outside(tag: &str) -> bool {
    tag == "0" || ["o", "out", "outside"].contains(&tag.to_lowercase().as_str())
}

fn is_filler(tag: &str) -> bool {
    ["X", "[CLS]", "[SEP]", "[PAD]", "PAD", "<pad>", "<PAD>", "<unk>", "<UNK>"].contains(&tag)
}

impl Scheme {
    /// Detects the scheme of a set of tags; none if they do not follow any scheme.
    pub fn of<S: AsRef<str>>(tags: &[S]) -> Option<Scheme> {
        let all = || tags.iter().map(AsRef::as_ref).filter(|tag| !tag.is_empty());
        let marked: Vec<&str> = all().filter(|tag| !is_outside(tag) && !is_filler(tag)).collect();
        if marked.is_empty() {
            return None;
        }
        let lettered = Layout::all().find_map(|layout| {
            let parts: Vec<(char, &str)> = marked.iter().map(|tag| layout.parts(tag)).collect::<Option<_>>()?;
            let letters: BTreeSet<char> = parts.iter().map(|(letter, _)| *letter).collect();
            let family = Family::of(&letters)?;
            // A single letter may be something else, such as a part of speech: there must be several tags.
            let is_sure = layout != Layout::Alone || all().count() > 1;
            is_sure.then(|| Scheme::new(family, layout, parts.iter().map(|(_, kind)| *kind)))
        });
        lettered.or_else(|| {
            let names_type = |tag: &&str| {
                tag.chars().filter(|letter| letter.is_alphabetic()).count() > 1 && !PARTS_OF_SPEECH.contains(tag)
            };
            let has_outside = all().any(|tag| is_outside(tag) && tag != "0");
            (has_outside && marked.iter().all(names_type))
                .then(|| Scheme::new(Family::Io, Layout::TypeOnly, marked.iter().copied()))
        })
    }

    fn new<'a>(family: Family, layout: Layout, types: impl Iterator<Item = &'a str>) -> Scheme {
        let types: BTreeSet<&str> = types.collect();
        Scheme { family, layout, types: types.into_iter().map(str::to_owned).collect() }
    }

    /// The entities of a sentence.
    pub fn entities<S: AsRef<str>>(&self, tags: &[S]) -> Vec<Entity> {
        let tags = self.plain(tags);
        if self.family == Family::Bilou { strict_bilou(&tags) } else { entities(&tags) }
    }

    /// Scores predicted tags, sentence by sentence, as seqeval does.
    ///
    /// # Panics
    /// If the numbers of gold and predicted sentences differ, or the numbers of tags of a sentence.
    pub fn scores<S: AsRef<str>, P: AsRef<str>>(&self, gold: &[Vec<S>], predicted: &[Vec<P>]) -> EntityScores {
        let gold: Vec<Vec<String>> = gold.iter().map(|tags| self.plain(tags)).collect();
        let predicted: Vec<Vec<String>> = predicted.iter().map(|tags| self.plain(tags)).collect();
        if self.family != Family::Bilou {
            return entity_scores(&gold, &predicted);
        }
        let all = |sentences: &[Vec<String>]| -> HashSet<(usize, Entity)> {
            let of_sentence = |(number, tags): (usize, &Vec<String>)| {
                strict_bilou(tags).into_iter().map(move |entity| (number, entity)).collect::<Vec<_>>()
            };
            sentences.iter().enumerate().flat_map(of_sentence).collect()
        };
        scores_of(&all(&gold), &all(&predicted))
    }

    /// Converts tags to the form of seqeval: `B-PER`, `O`. A tag that does not follow the scheme is outside.
    fn plain<S: AsRef<str>>(&self, tags: &[S]) -> Vec<String> {
        let plain = |tag: &S| {
            let tag = tag.as_ref();
            match self.layout.parts(tag).filter(|_| !is_outside(tag) && !is_filler(tag)) {
                Some(('W', kind)) => format!("S-{kind}"),
                Some((letter, kind)) => format!("{letter}-{kind}"),
                None => "O".to_owned(),
            }
        };
        tags.iter().map(plain).collect()
    }

    /// A description for users: the name of the scheme, its form and its types, such as `IOB2 tags (B-PER) of 4 types:
    /// LOC, MISC, ORG, PER`. The sentences distinguish schemes with the same letters.
    pub fn describe<'a, S: AsRef<str> + 'a>(&self, sentences: impl IntoIterator<Item = &'a [S]>) -> String {
        let name = match self.family {
            Family::Iob => self.name_of_iob(sentences),
            Family::Io => "IO",
            Family::Ioe => "IOE",
            Family::Bioes => "BIOES",
            Family::Bmes => "BMES",
            Family::Bmewo => "BMEWO",
            Family::Bilou => "BILOU",
        };
        let first = self.types.first().map_or("_", String::as_str);
        let letter = if self.family == Family::Io { 'I' } else { 'B' };
        let example = match self.layout {
            Layout::Before(separator) => format!("{letter}{separator}{first}"),
            Layout::After(separator) => format!("{first}{separator}{letter}"),
            Layout::Alone => letter.to_string(),
            Layout::TypeOnly => first.to_owned(),
        };
        if self.layout == Layout::Alone {
            return format!("{name} tags ({example}) without types");
        }
        let mut types: Vec<&str> = self.types.iter().take(8).map(String::as_str).collect();
        if self.types.len() > types.len() {
            types.push("…");
        }
        let (count, s) = (self.types.len(), if self.types.len() == 1 { "" } else { "s" });
        format!("{name} tags ({example}) of {count} type{s}: {}", types.join(", "))
    }

    /// The name of a scheme with `B-` and `I-`. IOB1 uses `B-` only for entities that directly follow another one of
    /// the same type.
    fn name_of_iob<'a, S: AsRef<str> + 'a>(&self, sentences: impl IntoIterator<Item = &'a [S]>) -> &'static str {
        let (mut begins_inside, mut needless) = (false, false);
        for sentence in sentences {
            let mut before: Option<String> = None;
            for tag in self.plain(sentence) {
                let Some((letter, kind)) = tag.split_once('-') else {
                    before = None;
                    continue;
                };
                let follows = before.as_deref() == Some(kind);
                begins_inside |= letter == "I" && !follows;
                needless |= letter == "B" && !follows;
                before = Some(kind.to_owned());
            }
        }
        match (begins_inside, needless) {
            (true, false) => "IOB1",
            (true, true) => "IOB (IOB1 and IOB2 mixed)",
            (false, _) => "IOB2",
        }
    }
}

impl Family {
    fn of(letters: &BTreeSet<char>) -> Option<Family> {
        let within = |all: &str| letters.iter().all(|letter| all.contains(*letter));
        let families = [
            ("I", Family::Io),
            ("BI", Family::Iob),
            ("IE", Family::Ioe),
            ("BIES", Family::Bioes),
            ("BMES", Family::Bmes),
            ("BMEW", Family::Bmewo),
            ("BILU", Family::Bilou),
        ];
        families.into_iter().find(|(all, _)| within(all)).map(|(_, family)| family)
    }
}

/// The entities of BILOU tags as in seqeval's strict mode: only spans from `B-` to `L-`, and single `U-` tags.
fn strict_bilou(tags: &[String]) -> Vec<Entity> {
    let parts = |tag: &String| {
        let (letter, kind) = tag.split_once('-').unwrap_or((tag, ""));
        // seqeval removes hyphens from both ends of a type.
        let kind = kind.trim_matches('-');
        (letter.to_owned(), if kind.is_empty() { "_".to_owned() } else { kind.to_owned() })
    };
    let tags: Vec<(String, String)> = tags.iter().map(parts).collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tags.len() {
        let (start, (letter, kind)) = (at, &tags[at]);
        at += 1;
        if letter != "B" && letter != "U" {
            continue;
        }
        while at < tags.len()
            && matches!(tags[at - 1].0.as_str(), "B" | "I")
            && matches!(tags[at].0.as_str(), "I" | "L")
            && tags[at].1 == *kind
        {
            at += 1;
        }
        if matches!(tags[at - 1].0.as_str(), "U" | "L") {
            found.push(Entity { kind: kind.clone(), start, end: at });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::super::fixtures::{Expected, assert_score, read};
    use super::*;

    fn tags(text: &str) -> Vec<&str> {
        text.split_ascii_whitespace().collect()
    }

    fn of(text: &str) -> Option<String> {
        let tags = tags(text);
        Scheme::of(&tags).map(|scheme| scheme.describe([&tags[..]]))
    }

    fn found(text: &str) -> Vec<(String, usize, usize)> {
        let tags = tags(text);
        let scheme = Scheme::of(&tags).unwrap();
        scheme.entities(&tags).into_iter().map(|e| (e.kind, e.start, e.end)).collect()
    }

    #[test]
    fn r35_schemes_are_detected_in_all_their_forms() {
        for (text, expected) in [
            ("O B-PER I-PER O B-LOC", "IOB2 tags (B-LOC) of 2 types: LOC, PER"),
            ("O I-PER I-PER B-PER O I-LOC", "IOB1 tags (B-LOC) of 2 types: LOC, PER"),
            ("O I-PER O B-PER", "IOB (IOB1 and IOB2 mixed) tags (B-PER) of 1 type: PER"),
            ("O I-PER I-LOC", "IO tags (I-LOC) of 2 types: LOC, PER"),
            ("PER PER O LOC", "IO tags (LOC) of 2 types: LOC, PER"),
            ("I-X E-X O", "IOE tags (B-X) of 1 type: X"),
            ("B-X I-X E-X S-X O", "BIOES tags (B-X) of 1 type: X"),
            ("B-X M-X E-X S-X O", "BMES tags (B-X) of 1 type: X"),
            ("B-X M-X E-X W-X O", "BMEWO tags (B-X) of 1 type: X"),
            ("B-X I-X L-X U-X O", "BILOU tags (B-X) of 1 type: X"),
            ("B-X L-X O", "BILOU tags (B-X) of 1 type: X"),
            ("O PER-B PER-I", "IOB2 tags (PER-B) of 1 type: PER"),
            ("O B_PER I_PER", "IOB2 tags (B_PER) of 1 type: PER"),
            ("O B:PER I:PER", "IOB2 tags (B:PER) of 1 type: PER"),
            ("O B.PER I.PER", "IOB2 tags (B.PER) of 1 type: PER"),
            ("o b-per i-per", "IOB2 tags (B-per) of 1 type: per"),
            ("0 B-PER I-PER", "IOB2 tags (B-PER) of 1 type: PER"),
            ("OUT B-PER I-PER", "IOB2 tags (B-PER) of 1 type: PER"),
            ("O B I I", "IOB2 tags (B) without types"),
            ("B I E S O", "BIOES tags (B) without types"),
            ("B M E S", "BMES tags (B) without types"),
            ("O B-PER I-PER X [CLS] [SEP]", "IOB2 tags (B-PER) of 1 type: PER"),
            ("O B-cell_type I-cell_type B-A-B", "IOB2 tags (B-A-B) of 2 types: A-B, cell_type"),
        ] {
            assert_eq!(of(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "NOUN VERB I-x",
            "NOUN VERB PUNCT X",
            "NN VBZ DT",
            "O NOUN VERB",
            "O N V",
            "LABEL_0 LABEL_1",
            "B-PER I-PER PER",
            "O",
            "",
            "B-X I-X L-X W-X",
            "yes no",
            "S",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn r34_bilou_is_parsed_correctly() {
        let entity = |start, end| ("PER".to_owned(), start, end);
        let expected = vec![entity(0, 2), entity(2, 4), entity(4, 5), entity(5, 6)];
        for text in [
            "B-PER L-PER B-PER L-PER U-PER U-PER",
            "B_PER L_PER B_PER L_PER U_PER U_PER",
            "b-PER l-PER b-PER l-PER u-PER u-PER",
            "B-PER E-PER B-PER E-PER S-PER S-PER",
            "B-PER E-PER B-PER E-PER W-PER W-PER",
            "PER-B PER-E PER-B PER-E PER-W PER-W",
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
        assert_eq!(found("O PER PER LOC O PER"), [entity(1, 3), ("LOC".to_owned(), 3, 4), entity(5, 6)]);
        assert_eq!(found("o b i 0 b"), [("_".to_owned(), 1, 3), ("_".to_owned(), 4, 5)]);
        // Tags of a different scheme than the model's are outside.
        let scheme = Scheme::of(&["O", "B-PER", "I-PER"]).unwrap();
        assert_eq!(scheme.entities(&["PER", "B-LOC", "?"]).len(), 1);
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        gold: Vec<String>,
        predicted: Vec<String>,
        micro: Expected,
        #[serde(rename = "macro")]
        macro_average: Expected,
        by_type: BTreeMap<String, Expected>,
    }

    #[test]
    fn r34_scores_of_all_schemes_equal_seqeval() {
        let cases: Vec<Case> = read("schemes");
        assert!(cases.len() > 30);
        for Case { name, gold, predicted, micro, macro_average, by_type } in cases {
            let gold: Vec<_> = gold.iter().map(|s| tags(s)).collect();
            let predicted: Vec<_> = predicted.iter().map(|s| tags(s)).collect();
            let scheme = Scheme::of(&[gold.concat(), predicted.concat()].concat()).unwrap();
            let scores = scheme.scores(&gold, &predicted);
            assert_score(scores.micro, &micro, &name);
            assert_score(scores.macro_average, &macro_average, &name);
            assert!(scores.by_type.keys().eq(by_type.keys()), "{name}: {:?}", scores.by_type);
            for (kind, expected) in &by_type {
                assert_score(scores.by_type[kind], expected, &format!("{name}: {kind}"));
            }
        }
    }
}
