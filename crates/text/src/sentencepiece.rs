//! Reads SentencePiece models (`.model`): a protobuf message `ModelProto` of
//! <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>.

use std::path::Path;

use prost::Message;
use tokenizers::AddedToken;

use crate::validate::check_charsmap;
use crate::{TextError, files};

/// The fields of `ModelProto` that are used.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerProto>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerProto>,
}

#[derive(Clone, PartialEq, Message)]
struct PieceProto {
    #[prost(string, tag = "1")]
    piece: String,
    #[prost(float, tag = "2")]
    score: f32,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerProto {
    #[prost(int32, optional, tag = "3", default = "1")]
    model_type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerProto {
    #[prost(bytes = "vec", tag = "2")]
    precompiled_charsmap: Vec<u8>,
}

/// Values of a piece's type. The others are ordinary, unused and byte pieces.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// A Unigram model of SentencePiece.
pub(crate) struct SentencePiece {
    /// The pieces with their scores, by their ids in this model.
    pub(crate) pieces: Vec<(String, f64)>,
    /// The id of the unknown piece.
    pub(crate) unknown: usize,
    /// The control pieces, which are special tokens, and the pieces that the user defined.
    pub(crate) added: Vec<AddedToken>,
    /// The normaliser, if it has one.
    pub(crate) charsmap: Option<Vec<u8>>,
}

impl SentencePiece {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<SentencePiece, TextError> {
        let bytes = files::read(path)?;
        SentencePiece::parse(&bytes).map_err(|reason| TextError::BadFile { path: path.to_owned(), reason })
    }

    fn parse(bytes: &[u8]) -> Result<SentencePiece, String> {
        let model = ModelProto::decode(bytes).map_err(|e| format!("not a SentencePiece model: {e}"))?;
        if model.pieces.is_empty() {
            return Err("not a SentencePiece model: it has no pieces".to_owned());
        }
        match model.trainer.unwrap_or_default().model_type() {
            1 => {}
            other => {
                let kind = ["BPE", "WORD", "CHAR"].get((other as usize).wrapping_sub(2)).copied().unwrap_or("unknown");
                return Err(format!("its model_type is {kind} ({other}); expected UNIGRAM (1)"));
            }
        }
        for (id, piece) in model.pieces.iter().enumerate() {
            if piece.piece.is_empty() || !piece.score.is_finite() {
                return Err(format!(
                    "piece {id} is {:?} with score {}; expected a text and a finite score",
                    piece.piece, piece.score
                ));
            }
        }
        let unknown = model.pieces.iter().position(|piece| piece.kind() == UNKNOWN);
        let charsmap = model.normalizer.unwrap_or_default().precompiled_charsmap;
        if !charsmap.is_empty() {
            check_charsmap(&charsmap).map_err(|problem| format!("its precompiled_charsmap {problem}"))?;
        }
        let added = model.pieces.iter().filter(|piece| [CONTROL, USER_DEFINED].contains(&piece.kind()));
        let added =
            added.map(|piece| AddedToken::from(piece.piece.as_str(), piece.kind() == CONTROL).normalized(false));
        Ok(SentencePiece {
            added: added.collect(),
            unknown: unknown.ok_or("it has no piece of type UNKNOWN")?,
            charsmap: Some(charsmap).filter(|map| !map.is_empty()),
            pieces: model.pieces.into_iter().map(|piece| (piece.piece, f64::from(piece.score))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(pieces: &[(&str, f32, i32)], model_type: i32) -> ModelProto {
        let piece =
            |&(piece, score, kind): &(&str, f32, i32)| PieceProto { piece: piece.into(), score, kind: Some(kind) };
        ModelProto {
            pieces: pieces.iter().map(piece).collect(),
            trainer: Some(TrainerProto { model_type: Some(model_type) }),
            normalizer: None,
        }
    }

    #[test]
    fn pieces_scores_and_types_are_read() {
        let model = model(&[("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("(", 0.5, 4), ("▁a", -1.5, 1)], 1);
        let read = SentencePiece::parse(&model.encode_to_vec()).unwrap();
        let scores = [0.0, 0.0, 0.5, -1.5];
        let expected: Vec<(String, f64)> =
            ["<unk>", "<s>", "(", "▁a"].map(str::to_owned).into_iter().zip(scores).collect();
        assert_eq!((read.pieces, read.unknown, read.charsmap), (expected, 0, None));
        let added: Vec<(&str, bool, bool)> =
            read.added.iter().map(|token| (token.content.as_str(), token.special, token.normalized)).collect();
        assert_eq!(added, [("<s>", true, false), ("(", false, false)]);
    }

    #[test]
    fn damaged_models_are_rejected() {
        let problem = |bytes: &[u8]| SentencePiece::parse(bytes).err().unwrap();
        let good = model(&[("<unk>", 0.0, 2), ("▁a", -1.5, 1)], 1);
        let bytes = good.encode_to_vec();
        assert!(problem(&bytes[..bytes.len() - 1]).contains("not a SentencePiece model"));
        assert!(problem(b"").contains("no pieces"));
        assert!(problem(b"#version: 0.2\n").contains("not a SentencePiece model"));
        let problem = |model: &ModelProto| problem(&model.encode_to_vec());
        assert!(problem(&model(&[("a", 0.0, 2)], 2)).contains("its model_type is BPE (2); expected UNIGRAM (1)"));
        assert!(problem(&model(&[("a", 0.0, 1)], 1)).contains("no piece of type UNKNOWN"));
        assert!(problem(&model(&[("a", 0.0, 2), ("", 0.0, 1)], 1)).contains("piece 1 is \"\""));
        assert!(problem(&model(&[("a", f32::NAN, 2)], 1)).contains("score NaN"));
        let charsmap = NormalizerProto { precompiled_charsmap: vec![4, 0, 0, 0, 1] };
        let damaged = ModelProto { normalizer: Some(charsmap), ..good };
        assert!(problem(&damaged).contains("its precompiled_charsmap is truncated"));
    }
}
