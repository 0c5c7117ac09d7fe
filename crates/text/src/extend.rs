//! Adds words to a vocabulary.

use std::path::Path;

use ahash::AHashSet;
use tokenizers::ModelWrapper;

use crate::folder::word_piece;
use crate::source::Source;
use crate::vocabulary::Vocabulary;
use crate::{TextError, Tokenizer, WordProblem};

impl Tokenizer {
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
        if self.id(word).is_some() {
            return Err(WordProblem::Present);
        }
        if let ModelWrapper::WordPiece(model) = self.hf().get_model() {
            let (chars, max) = (word.chars().count(), model.max_input_chars_per_word);
            if chars > max {
                return Err(WordProblem::TooLong { chars, max });
            }
        }
        match self.words(word).as_slice() {
            [normalized] if normalized == word => match self.split_at_added(word).as_slice() {
                [_] => Ok(()),
                parts => Err(WordProblem::Split { into: parts.to_vec() }),
            },
            [other] => Err(WordProblem::Normalised { to: other.clone() }),
            [] => Err(WordProblem::Normalised { to: String::new() }),
            parts => Err(WordProblem::Split { into: parts.to_vec() }),
        }
    }

    /// This tokenizer with `words` appended to the vocabulary, one token each, in their order. Existing tokens keep their ids;
    /// normaliser, pre-tokeniser and settings do not change.
    ///
    /// WordPiece takes the longest token that is a prefix of a word, so a new token is used in every word that *begins* with
    /// it: `glioblastoma` also makes `glioblastomas` into `glioblastoma ##s`. All other words keep their ids. (A word that
    /// begins with a new token and whose rest cannot be spelled with `##` tokens becomes \[UNK\]. Vocabularies that contain
    /// each character in its `##` form, as BERT's and those of [`learn`](crate::learn) do, can spell any rest made of the same
    /// characters.)
    ///
    /// Added tokens become part of the model's vocabulary and are still matched before words are encoded. (There is one
    /// exception: an added token that is a word and is matched more strictly than words are, by case or as a complete word,
    /// may now also match as the beginning of another word.)
    ///
    /// # Errors
    /// [`TextError::NotPlain`] if the tokenizer is not [fast](Self::is_fast), [`TextError::NewWord`] for the first word that
    /// cannot be added.
    pub fn with_words(&self, words: &[String]) -> Result<Tokenizer, TextError> {
        let mut hf = self.hf().clone();
        let (true, ModelWrapper::WordPiece(model)) = (self.is_fast(), hf.get_model()) else {
            return Err(TextError::NotPlain);
        };
        let mut seen = AHashSet::new();
        for word in words {
            let checked = if seen.insert(word) { self.check_new_word(word) } else { Err(WordProblem::Repeated) };
            checked.map_err(|problem| TextError::NewWord { word: word.clone(), problem })?;
        }
        let vocabulary = Vocabulary::new([self.tokens(), words].concat(), Path::new("vocabulary"))?;
        let (unk, prefix) = (model.unk_token.clone(), model.continuing_subword_prefix.clone());
        let model = word_piece(&vocabulary, &unk, &prefix, model.max_input_chars_per_word)?;
        hf.with_model(model);
        let source = Source { json: None, ..self.source().clone() };
        let new = Tokenizer::assemble(vocabulary, self.special(), self.template().clone(), hf, source)?;
        Ok(new.with_special_tokens(self.special_tokens()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SPECIAL_TOKENS;

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
        assert!(matches!(foreign.with_words(&list(&["glioma"])), Err(TextError::NotPlain)));
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
}
