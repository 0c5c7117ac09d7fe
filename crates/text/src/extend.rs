//! Adds words to a vocabulary.

use std::path::Path;

use ahash::{AHashMap, AHashSet};
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::{Decoder, Model, ModelWrapper};

use crate::family::{merges_of, pieces_of};
use crate::kind::Other;
use crate::source::Source;
use crate::vocabulary::Vocabulary;
use crate::{TextError, Tokenizer, WordProblem};

impl Tokenizer {
    /// Checks that words can be added to this kind of tokenizer: BERT's WordPiece ([fast](Self::is_fast)), byte-level BPE, or
    /// Unigram whose tokens mark the beginnings of words.
    ///
    /// # Errors
    /// [`TextError::NotExtensible`].
    pub fn check_extensible(&self) -> Result<(), TextError> {
        let has_mark = || self.spaced_words("a").first().is_some_and(|word| self.text_of_word(word).is_some());
        let extensible = match self.hf().get_model() {
            ModelWrapper::WordPiece(_) => self.is_fast(),
            ModelWrapper::BPE(model) => {
                let has_suffix = model.end_of_word_suffix.as_ref().is_some_and(|suffix| !suffix.is_empty());
                self.other().is_some_and(Other::is_of_bytes) && !has_suffix && has_mark()
            }
            ModelWrapper::Unigram(_) => has_mark(),
            ModelWrapper::WordLevel(_) => false,
        };
        if extensible { Ok(()) } else { Err(TextError::NotExtensible { model: self.model() }) }
    }

    /// Whether `word`, exactly as given, can become one token: it must be one normalised word that is not in the vocabulary.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn check_new_word(&self, word: &str) -> Result<(), WordProblem> {
        if word.is_empty() {
            return Err(WordProblem::Empty);
        }
        if word.contains(char::is_whitespace) {
            return Err(WordProblem::WhiteSpace);
        }
        // In other kinds, a token without a mark is another token than the word.
        if self.id(word).is_some_and(|id| self.is_fast() || self.all_added().iter().any(|(added, _)| *added == id)) {
            return Err(WordProblem::Present);
        }
        if let ModelWrapper::WordPiece(model) = self.hf().get_model() {
            let (chars, max) = (word.chars().count(), model.max_input_chars_per_word);
            if chars > max {
                return Err(WordProblem::TooLong { chars, max });
            }
        }
        let words = self.spaced_words(word);
        let text = |word: &String| self.text_of_word(word).unwrap_or_else(|| word.clone());
        match words.as_slice() {
            [one] if self.text_of_word(one).as_deref() == Some(word) => {
                if let parts @ ([] | [_, _, ..]) = self.split_at_added(word).as_slice() {
                    return Err(WordProblem::Split { into: parts.to_vec() });
                }
                match self.hf().get_model() {
                    _ if self.id(one).is_some() => Err(WordProblem::Present),
                    ModelWrapper::BPE(_) if self.pieces(one).concat() != *one => Err(WordProblem::Unspelled),
                    _ => Ok(()),
                }
            }
            [other] => Err(WordProblem::Normalised { to: text(other) }),
            [] => Err(WordProblem::Normalised { to: String::new() }),
            parts => Err(WordProblem::Split { into: parts.iter().map(text).collect() }),
        }
    }

    /// The words into which the pre-tokeniser splits `word` after a space, with their marks.
    pub(crate) fn spaced_words(&self, word: &str) -> Vec<String> {
        if self.needs_space() { self.words(&format!(" {word}")) } else { self.words(word) }
    }

    /// The text of a word that the pre-tokeniser gives; `None` if it is not the beginning of a word.
    pub(crate) fn text_of_word(&self, word: &str) -> Option<String> {
        let Some(other) = self.other() else { return Some(word.to_owned()) };
        let text = other.after_mark(word)?.to_owned();
        if other.is_of_bytes() {
            ByteLevel::default().decode_chain(vec![text]).ok().map(|parts| parts.concat())
        } else {
            Some(text)
        }
    }

    /// The tokens that the model makes of a word of the pre-tokeniser.
    fn pieces(&self, word: &str) -> Vec<String> {
        let tokens = self.hf().get_model().tokenize(word).unwrap_or_default();
        tokens.into_iter().map(|token| token.value).collect()
    }

    /// This tokenizer with `words` appended to the vocabulary, one token each, in their order. Existing tokens keep their ids;
    /// normaliser, pre-tokeniser and settings do not change. In BPE and Unigram, the new token is that of the word after a space.
    /// A new token is also used in longer words that begin with it; words that do not begin with a new token keep their ids:
    ///
    /// - WordPiece takes the longest token that is a prefix of a word: `glioblastoma` also makes `glioblastomas` into
    ///   `glioblastoma ##s`. (A word that begins with a new token and whose rest cannot be spelled with `##` tokens becomes
    ///   \[UNK\]. Vocabularies that contain each character in its `##` form, as BERT's and those of [`learn`](crate::learn) do,
    ///   can spell any rest made of the same characters.)
    /// - Byte-level BPE gets new merges after all others, which join the word's present tokens from left to right. What they join
    ///   on the way become tokens, too, after those of `words`. A longer word has the new token if its present tokens begin with
    ///   those of the word.
    /// - Unigram gets a piece whose score is slightly higher than that of the word's present pieces together. A longer word has the
    ///   new token if its present pieces begin with those of the word.
    ///
    /// Added tokens become part of the model's vocabulary and are still matched before words are encoded. (There is one
    /// exception: an added token that is a word and is matched more strictly than words are, by case or as a complete word,
    /// may now also match as the beginning of another word.)
    ///
    /// # Errors
    /// [`TextError::NotExtensible`], [`TextError::NewWord`] for the first word that cannot be added.
    pub fn with_words(&self, words: &[String]) -> Result<Tokenizer, TextError> {
        self.check_extensible()?;
        let mut seen = AHashSet::new();
        for word in words {
            let checked = if seen.insert(word) { self.check_new_word(word) } else { Err(WordProblem::Repeated) };
            checked.map_err(|problem| TextError::NewWord { word: word.clone(), problem })?;
        }
        let (vocabulary, hf) = match self.hf().get_model() {
            ModelWrapper::WordPiece(model) => {
                let vocabulary = Vocabulary::new([self.tokens(), words].concat(), Path::new("vocabulary"))?;
                let (unk, prefix) = (model.unk_token.clone(), model.continuing_subword_prefix.clone());
                let model = vocabulary.word_piece(&unk, &prefix, model.max_input_chars_per_word)?;
                let mut hf = self.hf().clone();
                hf.with_model(model);
                (vocabulary, hf)
            }
            model => {
                let engine = |e: String| TextError::Engine { action: "add words", reason: e };
                let marked: Vec<String> = words.iter().flat_map(|word| self.spaced_words(word)).collect();
                let mut json = serde_json::to_value(self.hf()).map_err(|e| engine(e.to_string()))?;
                let added = &self.tokens()[self.model_size()..];
                let new = match model {
                    ModelWrapper::BPE(_) => {
                        let words = marked.into_iter().map(|word| (self.pieces(&word), word)).collect();
                        add_merges(&mut json["model"], added, words)
                    }
                    _ => add_scores(&mut json["model"], added, marked),
                };
                let new = new.ok_or_else(|| engine("its vocabulary has another form".to_owned()))?;
                let hf = tokenizers::Tokenizer::deserialize(&json).map_err(|e| engine(e.to_string()))?;
                (Vocabulary::unchecked([self.tokens(), &new].concat()), hf)
            }
        };
        let source = Source { json: None, ..self.source().clone() };
        let new = Tokenizer::assemble(vocabulary, self.special(), self.template().clone(), hf, source)?;
        Ok(new.with_special_tokens(self.special_tokens()))
    }
}

/// Adds `words`, each after its present tokens, to a BPE `model` in the form of a tokenizer.json, after the tokens `added`.
/// Returns the new tokens: the words, and what is merged on the way. `None` for a model in another form.
fn add_merges(model: &mut Value, added: &[String], words: Vec<(Vec<String>, String)>) -> Option<Vec<String>> {
    let (ids, merges) = merges_of(model)?;
    let mut ranks: AHashMap<(String, String), usize> = merges.into_iter().zip(0..).collect();
    let mut new: Vec<String> = words.iter().map(|(_, word)| word.clone()).collect();
    let mut known: AHashSet<String> = ids.into_keys().chain(added.iter().chain(&new).cloned()).collect();
    for (mut pieces, _) in words {
        while pieces.len() > 1 {
            // Merges of the words before this one, and those that a token made by them takes part in.
            let rank = |at: usize| ranks.get(&(pieces[at].clone(), pieces[at + 1].clone())).map(|rank| (*rank, at));
            let at = (0..pieces.len() - 1).filter_map(rank).min().map(|(_, at)| at);
            let second = pieces.remove(at.unwrap_or(0) + 1);
            let first = &mut pieces[at.unwrap_or(0)];
            if at.is_none() {
                ranks.insert((first.clone(), second.clone()), ranks.len());
                model["merges"].as_array_mut()?.push(json!([first, second]));
            }
            first.push_str(&second);
            if known.insert(first.clone()) {
                new.push(first.clone());
            }
        }
    }
    let vocabulary = model["vocab"].as_object_mut()?;
    for token in added.iter().chain(&new) {
        vocabulary.insert(token.clone(), vocabulary.len().into());
    }
    Some(new)
}

/// By how much a new piece is better than the pieces that it replaces. It exceeds the rounding of SentencePiece's `f32`, and is
/// far less than usual differences between segmentations.
const MARGIN: f64 = 1e-3;
/// The score of added tokens as pieces: no text is spelled with them.
const NEVER: f64 = -1000.0;
/// The `tokenizers` crate's (and SentencePiece's) penalty of a character without a piece, below the lowest score.
const UNKNOWN_PENALTY: f64 = 10.0;

/// Adds `words` to a Unigram `model` in the form of a tokenizer.json, after the tokens `added`. Returns the new tokens. `None`
/// for a model in another form.
fn add_scores(model: &mut Value, added: &[String], words: Vec<String>) -> Option<Vec<String>> {
    let mut scores: AHashMap<String, f64> = pieces_of(model)?.into_iter().collect();
    scores.extend(added.iter().map(|token| (token.clone(), NEVER)));
    let mut lowest = scores.values().copied().fold(f64::INFINITY, f64::min);
    // A piece is part of longer words only, so their scores come later.
    let mut by_length: Vec<&String> = words.iter().collect();
    by_length.sort_by_key(|word| word.len());
    for word in by_length {
        let score = best_score(word, &scores, lowest - UNKNOWN_PENALTY) + MARGIN;
        lowest = lowest.min(score);
        scores.insert(word.clone(), score);
    }
    let pieces = model["vocab"].as_array_mut()?;
    pieces.extend(added.iter().chain(&words).map(|token| json!([token, scores[token]])));
    Some(words)
}

/// The score of the best segmentation of a word; `unknown` is that of a character without a piece.
fn best_score(word: &str, scores: &AHashMap<String, f64>, unknown: f64) -> f64 {
    let ends: Vec<usize> = word.char_indices().map(|(start, c)| start + c.len_utf8()).collect();
    let mut best = vec![0.0];
    for (last, &end) in ends.iter().enumerate() {
        let starts = std::iter::once(0).chain(ends[..last].iter().copied()).enumerate();
        let score = |(number, start): (usize, usize)| {
            let piece = scores.get(&word[start..end]).copied();
            piece.or((number == last).then_some(unknown)).map(|score| best[number] + score)
        };
        let score = starts.filter_map(score).fold(f64::NEG_INFINITY, f64::max);
        best.push(score);
    }
    best[ends.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SPECIAL_TOKENS, TokenOrigin, VocabularyKind, VocabularyOptions, learn};

    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

    /// Special tokens, letters in both forms, punctuation, a few words.
    fn small(cased: bool) -> Tokenizer {
        let mut tokens: Vec<String> = SPECIAL_TOKENS.iter().map(|token| token.to_string()).collect();
        tokens.extend(LETTERS.chars().flat_map(|c| [c.to_string(), format!("##{c}")]));
        if cased {
            tokens.extend(LETTERS.to_uppercase().chars().map(|c| c.to_string()));
        }
        tokens
            .extend([".", "-", ",", "the", "gl", "##io", "##blast", "##oma", "##s", "ing", "##ing"].map(String::from));
        tokens.sort();
        tokens.dedup();
        Tokenizer::from_tokens(tokens, cased).unwrap()
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    fn read(tokenizer: &Tokenizer, text: &str) -> String {
        let ids = tokenizer.encode(text);
        ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn new_words_are_one_token_at_the_end_and_old_ids_stay() {
        let old = small(false);
        let new = old.with_words(&list(&["glioblastoma", "blast"])).unwrap();
        assert_eq!(new.vocab_size(), old.vocab_size() + 2);
        for id in 0..old.vocab_size() as u32 {
            assert_eq!(new.token(id), old.token(id));
        }
        assert_eq!(new.encode("Glioblastoma"), [old.vocab_size() as u32]);
        assert_eq!(new.id("blast"), Some(old.vocab_size() as u32 + 1));
        assert_eq!(new.special(), old.special());
        assert!(new.is_fast() && !new.is_cased());
        assert_eq!(read(&old, "glioblastomas"), "gl ##io ##blast ##oma ##s");
        // Greedy longest match: the new word also begins other words, but does not continue words.
        assert_eq!(read(&new, "glioblastomas, blasting"), "glioblastoma ##s , blast ##ing");
        assert_eq!(read(&new, "glioblast"), "gl ##io ##blast");
    }

    #[test]
    fn words_that_do_not_begin_with_a_new_word_keep_their_ids() {
        for cased in [false, true] {
            let old = small(cased);
            let added = list(&["glio", "abca", "zz", "thes"]);
            let new = old.with_words(&added).unwrap();
            let (mut state, mut changed) = (5u64, 0);
            for _ in 0..20_000 {
                let mut word = String::new();
                for _ in 0..1 + (state >> 61) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    word.push_str(
                        ["gl", "io", "a", "b", "ca", "z", "the", "s", "GL", "-"][(state >> 33) as usize % 10],
                    );
                }
                let (before, after) = (old.encode(&word), new.encode(&word));
                let mut by_reference = Vec::new();
                new.encode_reference(&word, &mut by_reference);
                assert_eq!(after, by_reference, "{word}");
                let begins = new.words(&word).iter().any(|part| added.iter().any(|new| part.starts_with(new.as_str())));
                // A word that neither vocabulary can spell stays [UNK], even if it begins with a new word.
                assert!(before == after || begins, "{word}");
                assert!(before != after || !begins || after.contains(&new.special().unk), "{word}");
                changed += usize::from(before != after);
            }
            assert!((500..19_000).contains(&changed), "{changed}");
        }
    }

    #[test]
    fn words_that_no_text_can_contain_are_rejected_with_the_reason() {
        let (uncased, cased) = (small(false), small(true));
        let split = |into: &[&str]| WordProblem::Split { into: list(into) };
        let normal = |to: &str| WordProblem::Normalised { to: to.into() };
        let cases = [
            ("", WordProblem::Empty),
            ("two words", WordProblem::WhiteSpace),
            ("a\u{a0}b", WordProblem::WhiteSpace),
            ("the", WordProblem::Present),
            ("[MASK]", WordProblem::Present),
            ("U.S.", split(&["u", ".", "s", "."])),
            ("co-op", split(&["co", "-", "op"])),
            ("##xy", split(&["#", "#", "xy"])),
            ("中文", split(&["中", "文"])),
            ("Glioma", normal("glioma")),
            ("née", normal("nee")),
            ("\u{301}", normal("")),
            ("soft\u{ad}hyphen", normal("softhyphen")),
        ];
        for (word, problem) in cases {
            assert_eq!(uncased.check_new_word(word), Err(problem), "{word:?}");
        }
        assert_eq!(uncased.check_new_word(&"x".repeat(101)), Err(WordProblem::TooLong { chars: 101, max: 100 }));
        for word in ["glioma", "covid19", "中", "☃"] {
            assert_eq!(uncased.check_new_word(word), Ok(()), "{word:?}");
        }
        for word in ["Glioma", "née"] {
            assert_eq!(cased.check_new_word(word), Ok(()), "{word:?}");
        }
        let error = uncased.with_words(&list(&["glioma", "U.S."])).unwrap_err().to_string();
        assert!(error.contains("\"U.S.\"") && error.contains("split into u . s ."), "{error}");
        let error = uncased.with_words(&list(&["glioma", "glioma"])).unwrap_err().to_string();
        assert!(error.contains("twice"), "{error}");
    }

    #[test]
    fn extended_tokenizer_opens_from_each_of_its_files() {
        for cased in [false, true] {
            let new = small(cased).with_words(&list(&["glioblastoma", "\u{2603}"])).unwrap();
            let dir = tempfile::tempdir().unwrap();
            new.save(dir.path()).unwrap();
            for name in ["", "vocab.txt", "tokenizer.json"] {
                assert_eq!(Tokenizer::open(&dir.path().join(name)).unwrap().fingerprint(), new.fingerprint(), "{name}");
            }
        }
    }

    #[test]
    fn settings_are_kept_and_other_normalisers_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let old = small(false);
        old.save(dir.path()).unwrap();
        let config = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let path = dir.path().join("tokenizer.json");
        let original: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let open = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut json = original.clone();
            change(&mut json);
            std::fs::write(&path, json.to_string()).unwrap();
            Tokenizer::open(dir.path()).unwrap()
        };
        let odd = open(&|json| {
            json["normalizer"]["strip_accents"] = false.into();
            json["model"]["max_input_chars_per_word"] = 12.into();
        });
        let new = odd.with_words(&list(&["née"])).unwrap();
        assert_eq!(new.encode("NÉE"), [odd.vocab_size() as u32]);
        assert_eq!(new.encode("abcabcabcabcabc"), [new.special().unk]);
        let foreign = open(&|json| json["normalizer"] = serde_json::json!({"type": "Lowercase"}));
        assert!(matches!(foreign.with_words(&list(&["glioma"])), Err(TextError::NotExtensible { .. })));
    }

    #[test]
    fn r3_words_come_after_added_tokens_which_keep_their_ids() {
        let dir = tempfile::tempdir().unwrap();
        let old = small(false);
        old.save(dir.path()).unwrap();
        let config = r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": true, "model_max_length": 77, "added_tokens_decoder": {
            "900": {"content": "[E1]", "special": true}, "901": {"content": "<Ver>", "special": false}}}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let size = old.vocab_size() as u32;
        let old = Tokenizer::open(dir.path()).unwrap();
        assert_eq!(old.encode("[E1]the<ver>"), [size, old.id("the").unwrap(), size + 1]);
        let new = old.with_words(&list(&["glioma"])).unwrap();
        assert_eq!(new.encode("[E1]glioma<vER> [e1]").first_chunk(), Some(&[size, size + 2, size + 1]));
        assert_eq!(new.check_new_word("x<ver>y"), Err(WordProblem::Split { into: list(&["x", "<", "ver", ">", "y"]) }));
        let out = dir.path().join("out");
        new.save(&out).unwrap();
        for name in ["", "vocab.txt", "tokenizer.json"] {
            let again = Tokenizer::open(&out.join(name)).unwrap();
            assert_eq!((again.fingerprint(), again.model_max_length()), (new.fingerprint(), Some(77)), "{name}");
        }
    }

    #[test]
    fn words_that_contain_an_added_token_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        small(false).save(dir.path()).unwrap();
        std::fs::write(dir.path().join("added_tokens.json"), r#"{"covid": 900}"#).unwrap();
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        assert_eq!(tokenizer.check_new_word("xcovidy"), Err(WordProblem::Split { into: list(&["x", "covid", "y"]) }));
        assert_eq!(tokenizer.check_new_word("covid"), Err(WordProblem::Present));
    }

    /// A byte-level BPE and a Unigram vocabulary.
    fn learned() -> [Tokenizer; 2] {
        [VocabularyKind::Bpe, VocabularyKind::Unigram].map(|kind| {
            let mut options = VocabularyOptions::default();
            (options.kind, options.size, options.character_coverage) = (kind, 330, 1.0);
            let text = "walk walking talk talking walks talks king kingdom ink é seat heat the cat sat a 3 . "
                .repeat(20)
                + &LETTERS.chars().flat_map(|c| [c, ' ', c, c]).collect::<String>();
            learn(&options, std::iter::once(Ok::<_, std::convert::Infallible>(text)), &|_| {}).unwrap()
        })
    }

    #[test]
    fn words_of_byte_pairs_and_unigrams_are_one_token_and_other_words_keep_their_ids() {
        let added = list(&["walkathon", "seaté", "walk3", "kingwalk", "kingwal", "zzzz", "\u{2603}man", "thecat"]);
        for old in learned() {
            // Letters of Unigram that are not in its vocabulary are unknown; accents are stripped.
            let added: Vec<String> = added.iter().filter(|word| old.check_new_word(word).is_ok()).cloned().collect();
            assert!(added.len() >= 5, "{added:?}");
            let new = old.with_words(&added).unwrap();
            let size = old.vocab_size();
            for (word, id) in added.iter().zip(size as u32..) {
                assert_eq!(new.encode_word(word), [id], "{}: {word}", old.model());
                assert_eq!(new.encode(&format!("the {word}")).last(), Some(&id), "{word}");
                assert_eq!(new.check_new_word(word), Err(WordProblem::Present));
            }
            assert!((0..size as u32).all(|id| new.token(id) == old.token(id)) && new.special() == old.special());
            let origins = new.origins(&old);
            for (id, origin) in origins.iter().enumerate() {
                let pieces = old.encode_word(&new.piece_text(id as u32));
                match origin {
                    TokenOrigin::Kept(same) => assert_eq!(*same as usize, id),
                    // A token that ends inside a character is spelled by its bytes.
                    TokenOrigin::Pieces(found) if !new.piece_text(id as u32).contains('\u{fffd}') => {
                        assert_eq!(
                            *found,
                            pieces.into_iter().filter(|&id| id != old.special().unk).collect::<Vec<_>>()
                        );
                    }
                    TokenOrigin::Pieces(found) => assert!(found.len() > 1),
                    TokenOrigin::Unknown => panic!("{id}"),
                }
            }
            let (mut state, mut changed) = (5u64, 0);
            for _ in 0..5_000 {
                let mut word = String::new();
                for _ in 0..1 + (state >> 61) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let parts = ["walk", "king", "the", "cat", "s", "a", "zz", "thon", "3", "sea", "té", "\u{2603}"];
                    word.push_str(parts[(state >> 33) as usize % parts.len()]);
                }
                let (before, after) = (old.encode_word(&word), new.encode_word(&word));
                let begins = new.spaced_words(&word).iter().filter_map(|word| new.text_of_word(word)).any(|word| {
                    added.iter().any(|added| {
                        word.starts_with(added.as_str()) || (old.model() == "BPE" && added.starts_with(&word))
                    }) || added.iter().any(|added| old.model() == "BPE" && word.starts_with(&added[..2]))
                });
                assert!(before == after || begins, "{}: {word}", old.model());
                assert_eq!(new.decode(&after), old.decode(&before), "{word}");
                changed += usize::from(before != after);
            }
            assert!((50..4_000).contains(&changed), "{changed}");
            let dir = tempfile::tempdir().unwrap();
            new.save(dir.path()).unwrap();
            assert_eq!(Tokenizer::open(dir.path()).unwrap().fingerprint(), new.fingerprint());
        }
    }

    #[test]
    fn words_of_byte_pairs_and_unigrams_come_after_added_tokens() {
        for old in learned() {
            let dir = tempfile::tempdir().unwrap();
            old.save(dir.path()).unwrap();
            let path = dir.path().join("tokenizer_config.json");
            let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            config["additional_special_tokens"] = serde_json::json!(["[E1]"]);
            std::fs::write(&path, config.to_string()).unwrap();
            let old = Tokenizer::open(dir.path()).unwrap();
            let size = old.vocab_size() as u32;
            assert_eq!(old.id("[E1]"), Some(size - 1));
            let new = old.with_words(&list(&["kingwalk"])).unwrap();
            let ids = new.encode("[E1] kingwalk");
            assert_eq!([ids[0], ids[ids.len() - 1]], [size - 1, size]);
            new.save(&dir.path().join("new")).unwrap();
            assert_eq!(Tokenizer::open(&dir.path().join("new")).unwrap().fingerprint(), new.fingerprint());
        }
    }

    #[test]
    fn words_that_byte_pairs_and_unigrams_cannot_take_are_rejected() {
        let [bpe, unigram] = learned();
        let normal = |to: &str| Err(WordProblem::Normalised { to: to.into() });
        assert_eq!(bpe.check_new_word("U.S."), Err(WordProblem::Split { into: list(&["U", ".", "S", "."]) }));
        assert_eq!((bpe.check_new_word("Glioma"), unigram.check_new_word("Glioma")), (Ok(()), normal("glioma")));
        assert_eq!((bpe.check_new_word("née"), unigram.check_new_word("née")), (Ok(()), normal("nee")));
        assert_eq!(unigram.check_new_word("u.s."), Ok(()));
        for tokenizer in [&bpe, &unigram] {
            assert_eq!(tokenizer.check_new_word(tokenizer.mask_token()), Err(WordProblem::Present));
            assert_eq!(tokenizer.check_new_word("a b"), Err(WordProblem::WhiteSpace));
        }
    }
}
