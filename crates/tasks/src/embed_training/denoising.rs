//! Damaged copies of texts, for denoising (Wang et al. 2021, "TSDAE", section 3).

use cloze_data::{Purpose, Random, TokenTable};
use cloze_text::Sequence;

/// The stream of random numbers of deleted words.
const DELETIONS: Purpose = Purpose::Other(12);

/// How texts are damaged: each word is deleted with a probability. Words are those of whole-word masking: a token and those
/// that continue it. (sentence-transformers deletes NLTK's words of the text, and tokenizes what is left.)
pub(super) struct Damage {
    pub(super) deletion_ratio: f64,
    pub(super) seed: u64,
    pub(super) tokens: TokenTable,
}

impl Damage {
    /// The text without its deleted words, as a pure function of the key. The first `prompt` tokens, special
    /// tokens and at least one word are kept.
    pub(super) fn of(&self, text: &Sequence, prompt: usize, key: [u64; 2]) -> Sequence {
        let Sequence { ids, segments } = text;
        let is_kept = |place: usize| place < prompt || self.tokens.is_special(ids[place]);
        let mut words: Vec<std::ops::Range<usize>> = Vec::new();
        for place in (0..ids.len()).filter(|&place| !is_kept(place)) {
            match words.last_mut() {
                Some(word) if word.end == place && self.tokens.is_continuation(ids[place]) => word.end += 1,
                _ => words.push(place..place + 1),
            }
        }
        let mut random = Random::keyed(self.seed, DELETIONS, &key);
        let mut deleted = vec![false; ids.len()];
        let survivors = words.iter().filter(|word| {
            let is_deleted = random.unit() < self.deletion_ratio;
            deleted[(*word).clone()].fill(is_deleted);
            !is_deleted
        });
        if survivors.count() == 0 && !words.is_empty() {
            deleted[words[random.below(words.len())].clone()].fill(false);
        }
        let left = || (0..ids.len()).filter(|&place| !deleted[place]);
        Sequence {
            ids: left().map(|place| ids[place]).collect(),
            segments: left().map(|place| segments[place]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_deleted_and_the_rest_is_kept() {
        let tokenizer = cloze_testing::tokenizer(&["##es"]);
        let id = |token: &str| tokenizer.id(token).unwrap();
        let [cls, sep, es] = ["[CLS]", "[SEP]", "##es"].map(id);
        let words = ["the", "fox", "sees"].map(id);
        // [CLS] the : fox ##es sees ##es [SEP], with a prompt of two tokens.
        let ids = vec![cls, words[0], words[1], es, words[2], es, sep];
        let text = Sequence { segments: vec![0; ids.len()], ids };
        let damage = |deletion_ratio: f64| Damage { deletion_ratio, seed: 1, tokens: TokenTable::from(&tokenizer) };
        assert_eq!(damage(0.0).of(&text, 0, [3, 4]), text);
        let (mut lengths, mut kept_prompt) = (vec![0; 8], 0);
        for step in 0..2000 {
            let copy = damage(0.6).of(&text, 2, [step, 4]);
            assert_eq!(copy, damage(0.6).of(&text, 2, [step, 4]), "a pure function of the key");
            assert_eq!((copy.ids[0], copy.ids[copy.ids.len() - 1], copy.segments.len()), (cls, sep, copy.ids.len()));
            // A continuation is deleted with its word.
            assert_eq!(copy.ids.iter().filter(|&&id| id == es).count(), (copy.ids.len() - 3) / 2);
            kept_prompt += usize::from(copy.ids[1] == words[0]);
            lengths[copy.ids.len()] += 1;
        }
        // Both words, with probability 0.16, or one.
        assert_eq!((kept_prompt, lengths[5] + lengths[7]), (2000, 2000));
        assert!((250..400).contains(&lengths[7]), "{lengths:?}");
        let empty = Sequence { ids: vec![cls, sep], segments: vec![0; 2] };
        assert_eq!(damage(0.6).of(&empty, 0, [0, 0]), empty);
    }
}
