//! Builds the tokenizers of RoBERTa, XLM-RoBERTa, CamemBERT, ALBERT and MPNet as the classes of Transformers 5 do: from the vocabulary
//! and tokenizer_config.json. From tokenizer.json, they take the vocabulary, the merges, the added tokens and SentencePiece's
//! normaliser (ALBERT's also the sequence template); all else in it is built again.

use std::path::Path;

use ahash::AHashMap;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::normalizers::precompiled::Precompiled;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::unicode::NFKD;
use tokenizers::normalizers::{Lowercase, Sequence, StripAccents};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper};

use crate::sentencepiece::SentencePiece;
use crate::settings::{AddedTokens, ExtraTokens, Family};
use crate::source::Source;
use crate::special::{ALBERT_NAMES, MPNET_NAMES, OTHER_NAMES};
use crate::vocabulary::{CONTINUATION, MAX_WORD_CHARS, Vocabulary};
use crate::{Template, TextError, Tokenizer, files, merges, validate};

/// What the files of a tokenizer give.
pub(crate) struct Parts {
    model: Model,
    /// SentencePiece's normaliser.
    charsmap: Option<Vec<u8>>,
    /// The sequence template of tokenizer.json.
    post_processor: Option<PostProcessorWrapper>,
    /// The special tokens of the SentencePiece model.
    pub(crate) extra: Option<Vec<AddedToken>>,
}

enum Model {
    /// Of tokenizer.json.
    Bpe(merges::VocabularyAndMerges),
    /// Of vocab.json and merges.txt.
    BpeFiles(merges::VocabularyAndMerges),
    /// Of tokenizer.json.
    Unigram(Pieces),
    /// Of a SentencePiece model, with the id of its unknown piece.
    SentencePiece(Pieces, usize),
    /// Of vocab.txt or tokenizer.json.
    WordPiece(Vocabulary),
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The pieces of a Unigram model, with their scores.
type Pieces = Vec<(String, f64)>;

/// Makes an error of the `tokenizers` crate.
fn engine(action: &'static str) -> impl Fn(Failure) -> TextError {
    move |e| TextError::Engine { action, reason: e.to_string() }
}

impl Family {
    /// The kind of its model in tokenizer.json.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Family::Roberta => "BPE",
            Family::XlmRoberta | Family::Camembert | Family::Albert => "Unigram",
            Family::MpNet => "WordPiece",
        }
    }

    /// Whether the model of a tokenizer.json is of this family's kind.
    pub(crate) fn reads(self, model: &Value) -> bool {
        let kind = match model["type"].as_str() {
            Some(kind) => kind,
            // Old files do not name it.
            None if model["merges"].is_array() => "BPE",
            None if model["vocab"].is_array() => "Unigram",
            None => "WordPiece",
        };
        kind == self.model()
    }

    /// The special tokens that the class adds if tokenizer_config.json does not list such tokens.
    pub(crate) fn extra_tokens(self, of_model: Option<Vec<AddedToken>>) -> ExtraTokens {
        let of_class = match self {
            Family::Camembert => {
                ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"].map(|name| AddedToken::from(name, true)).into()
            }
            _ => Vec::new(),
        };
        ExtraTokens { of_model, of_class }
    }

    /// The usual token of a role (a key of tokenizer_config.json).
    fn usual(self, key: &str) -> Option<AddedToken> {
        // In the order of `special::KEYS`.
        let [pad, unk, cls, sep, mask] = match self {
            Family::Albert => ALBERT_NAMES,
            Family::MpNet => MPNET_NAMES,
            Family::Roberta | Family::XlmRoberta | Family::Camembert => OTHER_NAMES,
        };
        let name = match key {
            "pad_token" => pad,
            "unk_token" => unk,
            "cls_token" | "bos_token" => cls,
            "sep_token" | "eos_token" => sep,
            "mask_token" => {
                return Some(AddedToken::from(mask, true).lstrip(matches!(self, Family::Camembert | Family::MpNet)));
            }
            _ => return None,
        };
        Some(AddedToken::from(name, true))
    }
}

/// The scores of a tokenizer.json.
pub(crate) fn pieces_of(model: &Value) -> Option<Pieces> {
    let piece = |entry: &Value| Some((entry[0].as_str()?.to_owned(), entry[1].as_f64()?));
    model["vocab"].as_array()?.iter().map(piece).collect()
}

/// The vocabulary and the merges of a tokenizer.json.
pub(crate) fn merges_of(model: &Value) -> Option<merges::VocabularyAndMerges> {
    let ids = model["vocab"].as_object()?.iter();
    let ids = ids.map(|(token, id)| Some((token.clone(), u32::try_from(id.as_u64()?).ok()?)));
    let merge = |merge: &Value| {
        // A list of two tokens or, in older files, both separated by a space.
        let (first, second) =
            merge.as_str().map_or_else(|| merge[0].as_str().zip(merge[1].as_str()), |text| text.split_once(' '))?;
        Some((first.to_owned(), second.to_owned()))
    };
    let merges = model["merges"]
        .as_array()?
        .iter()
        .filter(|merge| !merge.as_str().is_some_and(|text| text.starts_with("#version")));
    Some((ids.collect::<Option<AHashMap<String, u32>>>()?, merges.map(merge).collect::<Option<Vec<_>>>()?))
}

/// The normaliser of SentencePiece in a tokenizer.json: the first of a sequence.
fn charsmap_of(normalizer: &Value) -> Option<Vec<u8>> {
    let list = normalizer["normalizers"].as_array().filter(|_| normalizer["type"] == "Sequence");
    let parts = list.map_or_else(|| std::slice::from_ref(normalizer), Vec::as_slice);
    let found = parts.iter().find(|part| part["type"] == "Precompiled")?;
    base64::decode(found["precompiled_charsmap"].as_str()?).ok()
}

impl Parts {
    /// The parts of a tokenizer.json that [`validate::check`](crate::validate::check) has accepted.
    pub(crate) fn of_json(family: Family, json: &Value) -> Result<Parts, String> {
        let model = &json["model"];
        let malformed =
            || format!("not a tokenizer.json: its {} model has a vocabulary of another form", family.model());
        // The class ignores the continuing_subword_prefix of the file.
        validate::check_merges(model, "")?;
        let model = match family {
            Family::Roberta => merges_of(model).map(Model::Bpe),
            Family::XlmRoberta | Family::Camembert | Family::Albert => pieces_of(model).map(Model::Unigram),
            Family::MpNet => {
                let ids = model["vocab"].as_object().map(|ids| {
                    ids.iter().map(|(token, id)| Some((token.clone(), u32::try_from(id.as_u64()?).ok()?))).collect()
                });
                let ids: Option<AHashMap<String, u32>> = ids.flatten();
                ids.map(|ids| Model::WordPiece(Vocabulary { tokens: Vec::new(), ids }))
            }
        };
        let processor = Some(&json["post_processor"]).filter(|processor| !processor.is_null());
        let processor = processor.map(PostProcessorWrapper::deserialize).transpose();
        Ok(Parts {
            model: model.ok_or_else(malformed)?,
            charsmap: charsmap_of(&json["normalizer"]),
            post_processor: processor.map_err(|e| format!("not a tokenizer.json: post_processor: {e}"))?,
            extra: None,
        })
    }

    /// The parts in the family's own [files](Family::files).
    pub(crate) fn of_files(family: Family, dir: &Path) -> Result<Parts, TextError> {
        let paths: Vec<_> = family.files().iter().map(|name| dir.join(name)).collect();
        let (model, charsmap, extra) = match paths.as_slice() {
            [list] if family == Family::MpNet => {
                (Model::WordPiece(Vocabulary::parse(&files::read(list)?, list)?.0), None, None)
            }
            [vocabulary, merges] => (Model::BpeFiles(merges::read(vocabulary, merges)?), None, None),
            _ => {
                let SentencePiece { pieces, unknown, added, charsmap } = SentencePiece::read(&paths[0])?;
                (Model::SentencePiece(pieces, unknown), charsmap, Some(added))
            }
        };
        Ok(Parts { model, charsmap, post_processor: None, extra })
    }
}

impl Model {
    /// The model with the ids of the family. `name` gives the text of a special token by its key.
    fn build(self, family: Family, name: impl Fn(&str) -> String) -> Result<ModelWrapper, Failure> {
        let pieces = match self {
            Model::Bpe((vocabulary, merges)) | Model::BpeFiles((vocabulary, merges)) => {
                let builder = BPE::builder().vocab_and_merges(vocabulary, merges);
                let model =
                    builder.continuing_subword_prefix(String::new()).end_of_word_suffix(String::new()).build()?;
                return Ok(model.into());
            }
            Model::WordPiece(vocabulary) => {
                return Ok(vocabulary.word_piece(&name("unk_token"), CONTINUATION, MAX_WORD_CHARS)?.into());
            }
            Model::Unigram(pieces) => pieces,
            Model::SentencePiece(pieces, unknown) => fairseq_ids(family, pieces, unknown, &name)?,
        };
        let unknown = match family {
            Family::Albert => 1,
            Family::Camembert => {
                let unknown = name("unk_token");
                pieces.iter().position(|(piece, _)| *piece == unknown).unwrap_or(0)
            }
            Family::Roberta | Family::XlmRoberta | Family::MpNet => 3,
        };
        if pieces.len() <= unknown {
            let size = pieces.len();
            return Err(format!("its vocabulary has {size} tokens; expected the unknown token at id {unknown}").into());
        }
        Ok(Unigram::from(pieces, Some(unknown), false)?.into())
    }
}

/// The pieces of a SentencePiece model, with the ids of the family. fairseq puts its own special tokens first.
fn fairseq_ids(
    family: Family,
    pieces: Pieces,
    unknown: usize,
    name: impl Fn(&str) -> String,
) -> Result<Pieces, Failure> {
    let [bos, eos, pad, unk, mask] = ["bos_token", "eos_token", "pad_token", "unk_token", "mask_token"].map(name);
    // Where the unknown piece is expected, the first pieces, and how many pieces of the model they replace.
    let (expected, first, replaced) = match family {
        Family::Albert => (1, Vec::new(), 0),
        Family::Camembert => (0, vec!["<s>NOTUSED".to_owned(), pad, "</s>NOTUSED".to_owned(), unk], 1),
        Family::Roberta | Family::XlmRoberta | Family::MpNet => (0, vec![bos, pad, eos, unk], 3),
    };
    if unknown != expected || pieces.len() < replaced {
        let (size, class) = (pieces.len(), family.class_name());
        return Err(format!("its unknown piece has id {unknown} of {size}; {class} expects it at id {expected}").into());
    }
    if first.is_empty() {
        return Ok(pieces);
    }
    let first = first.into_iter().map(|piece| (piece, 0.0));
    let unused = (family == Family::Camembert).then(|| ("<unk>NOTUSED".to_owned(), -100.0));
    Ok(first.chain(unused).chain(pieces.into_iter().skip(replaced)).chain([(mask, 0.0)]).collect())
}

/// The tokenizer of `family` with this model.
pub(crate) fn build(
    family: Family,
    parts: Parts,
    mut added: AddedTokens,
    mut source: Source,
    path: &Path,
) -> Result<Tokenizer, TextError> {
    let settings = &source.settings;
    for key in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
        if let Some(token) = family.usual(key) {
            added.set_named(key, token);
        }
    }
    if matches!(parts.model, Model::BpeFiles(_)) && !added.is_listed("mask_token") && !settings.describes("mask_token")
    {
        added.strip_before("mask_token");
        source.notes.push(format!(
            "{} takes the space before it, as in the published tokenizer.json of RoBERTa. Transformers 5 reads {} without that \
             property and makes a token of the space; save the tokenizer again to make both agree",
            added.named("mask_token").unwrap_or_default(),
            family.files().join(" and ")
        ));
    }
    let settings = &source.settings;
    let name = |key: &str| added.named(key).unwrap_or_default().to_owned();
    let bad = |reason: String| TextError::BadFile { path: path.to_owned(), reason };
    let model = parts.model.build(family, name).map_err(|e| bad(e.to_string()))?;
    let mut hf = tokenizers::Tokenizer::new(model);
    let normalizers = normalizers(family, parts.charsmap, settings)?;
    hf.with_normalizer(normalizers).map_err(engine("set the normaliser"))?;
    let spaced = settings.flag("add_prefix_space");
    let trims = settings.flag("trim_offsets").unwrap_or(true);
    if family == Family::Roberta {
        hf.with_pre_tokenizer(Some(ByteLevel::new(spaced.unwrap_or_default(), true, true)));
        hf.with_decoder(Some(ByteLevel::default()));
    } else if family == Family::MpNet {
        hf.with_pre_tokenizer(Some(BertPreTokenizer));
        hf.with_decoder(Some(WordPieceDecoder::new(CONTINUATION.into(), true)));
    } else {
        let scheme = if spaced.unwrap_or(true) { PrependScheme::Always } else { PrependScheme::Never };
        let metaspace = Metaspace::new('▁', scheme, true);
        hf.with_pre_tokenizer(Some(PreTokenizers::new(vec![WhitespaceSplit.into(), metaspace.clone().into()])));
        hf.with_decoder(Some(DecoderWrapper::from(metaspace)));
    }
    hf.add_tokens(added.in_order(std::iter::empty())).map_err(engine("add the special tokens"))?;
    let vocabulary = Vocabulary::unchecked(Vocabulary::in_order(hf.get_vocab(true), path)?);
    let special = vocabulary.find_special(|key| added.named(key), None, path)?;
    let processor: PostProcessorWrapper = match (family, parts.post_processor) {
        (Family::Roberta | Family::MpNet, _) => {
            let ends = RobertaProcessing::new((name("sep_token"), special.sep), (name("cls_token"), special.cls));
            ends.trim_offsets(trims).add_prefix_space(spaced.unwrap_or_default()).into()
        }
        (Family::Albert, Some(written)) => written,
        (Family::Albert, None) => {
            // These are names within the template, whatever the tokens are called.
            let [cls, sep] = ["[CLS]", "[SEP]"].map(str::to_owned);
            template([&cls, &sep], [special.cls, special.sep], |a, b| {
                [format!("{a}:0 $A:0 {b}:0"), format!("{a}:0 $A:0 {b}:0 $B:1 {b}:1")]
            })?
        }
        (Family::XlmRoberta | Family::Camembert, _) => {
            let [bos, eos] = ["bos_token", "eos_token"].map(name);
            let id = |token: &String| vocabulary.ids.get(token).copied().unwrap_or(special.unk);
            template([&bos, &eos], [id(&bos), id(&eos)], |a, b| {
                [format!("{a} $A {b}"), format!("{a} $A {b} {b} $B {b}")]
            })?
        }
    };
    let written = serde_json::to_value(&processor).unwrap_or_default();
    let layout = Template::of_post_processor(&written).map_err(|e| bad(e.to_string()))?;
    let Some(layout) = layout.filter(|layout| (layout.largest_id() as usize) < vocabulary.tokens.len()) else {
        return Err(bad(
            "its post_processor adds no special tokens, or tokens that are not in the vocabulary".to_owned()
        ));
    };
    hf.with_post_processor(Some(processor));
    Tokenizer::assemble(vocabulary, special, layout, hf, source)
}

fn template(
    [first, last]: [&str; 2],
    ids: [u32; 2],
    layouts: impl Fn(&str, &str) -> [String; 2],
) -> Result<PostProcessorWrapper, TextError> {
    let [single, pair] = layouts(first, last);
    let built = TemplateProcessing::builder().try_single(single).and_then(|builder| builder.try_pair(pair)).and_then(
        |builder| {
            let special = vec![(first.to_owned(), ids[0]), (last.to_owned(), ids[1])];
            builder.special_tokens(special).build().map_err(|e| e.to_string())
        },
    );
    Ok(built.map_err(|e| engine("build the template")(e.into()))?.into())
}

fn normalizers(
    family: Family,
    charsmap: Option<Vec<u8>>,
    settings: &crate::settings::Settings,
) -> Result<Option<NormalizerWrapper>, TextError> {
    let failed = engine("set the normaliser");
    if family == Family::MpNet {
        let [chinese, lowercase] =
            ["tokenize_chinese_chars", "do_lower_case"].map(|key| settings.flag(key).unwrap_or(true));
        let normalizer = BertNormalizer::new(true, chinese, settings.flag("strip_accents"), lowercase);
        return Ok(Some(normalizer.into()));
    }
    let charsmap = charsmap.map(|map| Precompiled::from(&map)).transpose().map_err(|e| failed(e.into()))?;
    let charsmap = charsmap.map(NormalizerWrapper::from);
    if family != Family::Albert {
        return Ok(charsmap);
    }
    let quotes = ["``", "''"].map(|quote| Replace::new(quote, "\"").map(NormalizerWrapper::from));
    let mut all = quotes.into_iter().collect::<Result<Vec<_>, Failure>>().map_err(failed)?;
    if !settings.flag("keep_accents").unwrap_or_default() {
        all.extend([NFKD.into(), StripAccents.into()]);
    }
    if settings.flag("do_lower_case").unwrap_or(true) {
        all.push(Lowercase.into());
    }
    all.extend(charsmap);
    Ok(Some(Sequence::new(all).into()))
}
