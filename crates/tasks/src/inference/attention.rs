//! What the heads of a model attend to: the tokens of a text or a pair, and the attention probabilities of each head.

use std::ops::Range;

use cloze_model::{AttentionScores, Inputs};
use cloze_text::{Piece, Sequence, SpecialTokens, Tokenizer};
use serde::Serialize;

use crate::TaskError;
use crate::inference::pretrained::Pretrained;

/// The default of [`AttentionOptions::max_tokens`]. A head of 512 tokens has 262,144 probabilities.
pub const MAX_TOKENS: usize = 512;

/// Settings of [`attend`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// The layers whose probabilities are returned, from 0; empty for all. Layers above the highest do not run.
    pub layers: Vec<usize>,
    /// The maximum number of tokens, special tokens included. A model with fewer positions allows only these.
    pub max_tokens: usize,
}

impl Default for AttentionOptions {
    fn default() -> AttentionOptions {
        AttentionOptions { layers: Vec::new(), max_tokens: MAX_TOKENS }
    }
}

/// The tokens of a text or a pair, and what the heads attend to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attention {
    /// The tokens, T, special tokens included.
    pub tokens: Vec<AttentionToken>,
    /// Number of layers of the model.
    pub layers: usize,
    /// Number of heads of each layer, N.
    pub heads: usize,
    /// The heads of the requested layers: all N of one layer, then those of the next.
    pub maps: Vec<AttentionMap>,
}

/// A token and its place in its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AttentionToken {
    /// The id.
    pub id: u32,
    /// The token as in the vocabulary: `##ing`, `Ġthe`.
    pub text: String,
    /// Whether it is a special token, such as \[CLS\].
    pub special: bool,
    /// The bytes of its text; `None` for tokens that the template adds, and if the tokenizer does not tell.
    pub range: Option<Range<usize>>,
    /// 0 for tokens of the text or the first text of a pair, 1 for the second; `None` for tokens that the template adds.
    pub sequence: Option<usize>,
}

/// What a head attends to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttentionMap {
    /// The layer, from 0.
    pub layer: usize,
    /// The head, from 0.
    pub head: usize,
    /// Row i has the weights with which token i attends to each token, `[T, T]`; its sum is 1.
    pub probabilities: Vec<f32>,
    /// The mean entropy of the rows in nats: 0 if each token attends to one token, ln T if it attends equally to all.
    pub entropy: f64,
    /// The mean distance |i − j| in tokens, weighted by the probabilities.
    pub distance: f64,
}

impl AttentionMap {
    fn new(scores: &AttentionScores, layer: usize, head: usize) -> AttentionMap {
        let probabilities = scores.probabilities(head);
        let tokens = probabilities.len().isqrt();
        let (mut entropy, mut distance) = (0.0, 0.0);
        for (query, row) in probabilities.chunks(tokens).enumerate() {
            for (key, &p) in row.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                let p = f64::from(p);
                entropy -= p * p.ln();
                distance += p * query.abs_diff(key) as f64;
            }
        }
        // −0 would be printed as such.
        let mean = |sum: f64| (sum / tokens as f64).max(0.0);
        AttentionMap { layer, head, entropy: mean(entropy), distance: mean(distance), probabilities }
    }
}

/// The attention probabilities of a model for a text, or for a pair. They equal `attentions` of Transformers with
/// `output_attentions=True`. The mask token in a text is the mask, as in [`Filler`](super::Filler).
///
/// # Errors
/// [`TaskError::Setting`] for a layer that the model does not have; [`TaskError::Input`] if there are more than `max_tokens`
/// tokens, and for a pair if the model has one segment; [`TaskError::TooLong`]; [`TaskError::Logits`] if probabilities are
/// not finite.
pub fn attend(
    pretrained: &Pretrained,
    text: &str,
    pair: Option<&str>,
    options: &AttentionOptions,
) -> Result<Attention, TaskError> {
    let Pretrained { model, tokenizer, .. } = pretrained;
    let architecture = *model.architecture();
    let mut numbers: Vec<usize> =
        if options.layers.is_empty() { (0..architecture.layers).collect() } else { options.layers.clone() };
    numbers.sort_unstable();
    numbers.dedup();
    if let Some(layer) = numbers.iter().find(|layer| **layer >= architecture.layers) {
        let last = architecture.layers - 1;
        return Err(TaskError::setting("layers", format!("expected layers from 0 to {last}, found {layer}")));
    }
    let first = pieces(tokenizer, text);
    let second = pair.map(|pair| pieces(tokenizer, pair));
    let ids = |pieces: &[Placed]| pieces.iter().map(|piece| piece.id).collect::<Vec<u32>>();
    let Sequence { ids, segments } = tokenizer.template().sequence(&ids(&first), second.as_deref().map(ids).as_deref());
    let (found, positions) = (ids.len(), architecture.max_sequence_length());
    if found > positions {
        return Err(TaskError::TooLong { found, positions });
    }
    if found > options.max_tokens {
        let problem =
            format!("expected at most {} tokens with special tokens, found {found}; shorten it", options.max_tokens);
        return Err(TaskError::input("text", problem));
    }
    let segments_of_pair = usize::from(segments.iter().copied().max().unwrap_or(0)) + 1;
    if architecture.segments > 0 && segments_of_pair > architecture.segments {
        let problem = format!("expected one text, found a pair: the model has {} segment", architecture.segments);
        return Err(TaskError::input("text", problem));
    }
    let mut inputs = Inputs::default();
    inputs.push(&ids, &segments);
    let scores = pretrained.forward(|model, pass| model.attention_scores(pass, &inputs, &numbers));
    let mut maps = Vec::with_capacity(scores.len() * architecture.attention_heads);
    for (&layer, scores) in numbers.iter().zip(&scores) {
        maps.extend((0..scores.heads()).map(|head| AttentionMap::new(scores, layer, head)));
    }
    if !maps.iter().all(|map| {
        map.entropy.is_finite() && map.distance.is_finite() && map.probabilities.iter().all(|p| p.is_finite())
    }) {
        return Err(TaskError::Logits(format!("the attention to {text:?}")));
    }
    let tokens = tokens(tokenizer, &ids, &first, second.as_deref());
    Ok(Attention { tokens, layers: architecture.layers, heads: architecture.attention_heads, maps })
}

/// A token of a text, before the template.
struct Placed {
    id: u32,
    range: Option<Range<usize>>,
}

/// The tokens of a text, of which the mask token is one, and their bytes.
fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<Placed> {
    let placed = |pieces: Vec<Piece>| {
        pieces.into_iter().map(|Piece { id, start, end, .. }| Placed { id, range: Some(start..end) }).collect()
    };
    if !text.contains(tokenizer.mask_token()) {
        return placed(tokenizer.encode_with_offsets(text));
    }
    let ids = tokenizer.encode_masked(text);
    let parsed = tokenizer.with_special_tokens(SpecialTokens::Parse).encode_with_offsets(text);
    // They differ if the text has other special tokens, which are then text.
    if parsed.iter().map(|piece| piece.id).eq(ids.iter().copied()) {
        return placed(parsed);
    }
    ids.into_iter().map(|id| Placed { id, range: None }).collect()
}

/// The tokens of the complete sequence.
fn tokens(tokenizer: &Tokenizer, ids: &[u32], first: &[Placed], second: Option<&[Placed]>) -> Vec<AttentionToken> {
    let template = tokenizer.template();
    let token = |&id: &u32| AttentionToken {
        id,
        text: tokenizer.token(id).unwrap_or_default().to_owned(),
        special: tokenizer.is_special(id),
        range: None,
        sequence: None,
    };
    let mut tokens: Vec<AttentionToken> = ids.iter().map(token).collect();
    let starts = [template.start_of_first(second.is_some()), template.start_of_second(first.len())];
    for (sequence, (start, pieces)) in starts.into_iter().zip([Some(first), second]).enumerate() {
        for (token, piece) in tokens.iter_mut().skip(start).zip(pieces.unwrap_or_default()) {
            token.range.clone_from(&piece.range);
            token.sequence = Some(sequence);
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cloze_engine::{DType, Device};
    use cloze_model::{Config, Heads, Model};

    use super::*;

    fn pretrained(change: impl FnOnce(&mut Config)) -> Pretrained {
        let device = Device::cpu(Some(1)).unwrap();
        let mut config = cloze_testing::config();
        change(&mut config);
        let model = Model::new(config, Heads::PRETRAINING, &device, 7).unwrap();
        Pretrained::new(model, cloze_testing::tokenizer(&[]), device, DType::F32, Path::new("here")).unwrap()
    }

    #[test]
    fn tokens_have_their_places_in_a_pair() {
        let model = pretrained(|_| ());
        let found = attend(&model, "The [MASK] é sees", Some("old owl"), &AttentionOptions::default()).unwrap();
        let shown: Vec<_> = found.tokens.iter().map(|token| (&token.text[..], token.special, token.sequence)).collect();
        let expected = [
            ("[CLS]", true, None),
            ("the", false, Some(0)),
            ("[MASK]", true, Some(0)),
            ("[UNK]", true, Some(0)),
            ("sees", false, Some(0)),
            ("[SEP]", true, None),
            ("old", false, Some(1)),
            ("owl", false, Some(1)),
            ("[SEP]", true, None),
        ];
        assert_eq!(shown, expected);
        let ranges: Vec<_> = found.tokens.iter().filter_map(|token| token.range.clone()).collect();
        assert_eq!(ranges, [0..3, 4..10, 11..13, 14..18, 0..3, 4..7]);
        assert_eq!((found.layers, found.heads, found.maps.len()), (2, 2, 4));
        assert!(found.maps.iter().all(|map| map.probabilities.len() == 81));
        let places: Vec<_> = found.maps.iter().map(|map| (map.layer, map.head)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (1, 0), (1, 1)]);

        // Other special tokens are text, so the places are not known.
        let found = attend(&model, "[MASK] [SEP]", None, &AttentionOptions::default()).unwrap();
        assert_eq!((found.tokens[1].text.as_str(), found.tokens[1].range.clone()), ("[MASK]", None));
        assert!(found.tokens.len() > 4);
    }

    #[test]
    fn entropy_and_distance_are_those_of_the_probabilities() {
        let model = pretrained(|_| ());
        let all = attend(&model, "the fox sees", None, &AttentionOptions::default()).unwrap();
        for map in &all.maps {
            let rows = map.probabilities.chunks(5);
            let entropy = rows.clone().map(|row| row.iter().map(|p| -p * p.ln()).sum::<f32>()).sum::<f32>() / 5.0;
            let distance =
                (0..25).map(|at| map.probabilities[at] * ((at / 5) as f32 - (at % 5) as f32).abs()).sum::<f32>() / 5.0;
            assert!((f64::from(entropy) - map.entropy).abs() < 1e-5, "{entropy} {}", map.entropy);
            assert!((f64::from(distance) - map.distance).abs() < 1e-5, "{distance} {}", map.distance);
            assert!(map.entropy > 0.1 && map.entropy <= 5f64.ln() && map.distance > 0.1 && map.distance < 4.0);
        }
        // One layer alone has the same probabilities.
        let options = AttentionOptions { layers: vec![1, 1], ..AttentionOptions::default() };
        let last = attend(&model, "the fox sees", None, &options).unwrap();
        assert_eq!(last.maps.len(), 2);
        assert_eq!(last.maps[1].probabilities, all.maps[3].probabilities);
        // One token, of a model whose template adds nothing else.
        let empty = attend(&model, "", None, &AttentionOptions::default()).unwrap();
        assert_eq!(empty.tokens.len(), 2);
    }

    #[test]
    fn unusable_requests_are_errors() {
        let model = pretrained(|_| ());
        let error =
            |text: &str, options: &AttentionOptions| attend(&model, text, None, options).unwrap_err().to_string();
        let found = error("fox", &AttentionOptions { layers: vec![0, 2], ..AttentionOptions::default() });
        assert_eq!(found, "`layers`: expected layers from 0 to 1, found 2");
        let found = error("the old fox", &AttentionOptions { max_tokens: 4, ..AttentionOptions::default() });
        assert_eq!(found, "text: expected at most 4 tokens with special tokens, found 5; shorten it");
        let found = error(&"fox ".repeat(60), &AttentionOptions::default());
        assert!(found.contains("62 tokens") && found.contains("40 positions"), "{found}");
    }
}
