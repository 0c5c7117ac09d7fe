//! Reads a tokenizer from its files.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Model, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

use crate::family::{self, Parts};
use crate::settings::{
    AddedTokens, BPE_VOCABULARY, CONFIG, Class, ExtraTokens, Family, JSON, LIST, MERGES, Settings, added_token,
};
use crate::source::Source;
use crate::special::{KEYS, OTHER_NAMES};
use crate::vocabulary::{CONTINUATION, MAX_WORD_CHARS, Vocabulary};
use crate::{SPECIAL_TOKENS, Template, TextError, Tokenizer, files, validate};

fn engine(action: &'static str) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> TextError {
    move |e| TextError::Engine { action, reason: e.to_string() }
}

impl Tokenizer {
    /// Opens a folder or one of its files, as `AutoTokenizer` of Transformers 5 does. The files are `tokenizer.json`, which is
    /// preferred, or those of the tokenizer's class: `vocab.txt` (BERT, DistilBERT, ELECTRA, MPNet), `vocab.json` with `merges.txt`
    /// (RoBERTa), `sentencepiece.bpe.model` (XLM-RoBERTa, CamemBERT) or `spiece.model` (ALBERT).
    ///
    /// The class is named by tokenizer_config.json; without a name, it follows from config.json. The classes above take only the
    /// vocabulary, the merges, the added tokens and SentencePiece's normaliser from a tokenizer.json, and all else from
    /// tokenizer_config.json: `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` for BERT and MPNet, `add_prefix_space` for
    /// the others, `trim_offsets` for RoBERTa, `do_lower_case` and `keep_accents` for ALBERT. For any other class, tokenizer.json is
    /// used unchanged; its model may be WordPiece, BPE, Unigram or WordLevel.
    ///
    /// There are two differences, and [`notes`](Self::notes) reports them. If BERT's `do_lower_case` is not set, Transformers
    /// lower-cases; here a vocabulary with capitals is treated as cased. If RoBERTa's tokenizer is read from vocab.json and the
    /// flags of its mask are not given, the mask takes the space before it, as in the published tokenizer.json. A third
    /// difference is only in the [template](Self::template): ALBERT's second texts have segment 1, as in the paper, whereas
    /// Transformers 5 gives no segments unless `model_input_names` lists them.
    ///
    /// # Errors
    /// A missing, empty, malformed or non-UTF-8 file, a repeated token (with its line), a merge without a token (with its line),
    /// a missing special token, a model of another kind than the class has, a sequence template that [`Template`] cannot
    /// represent.
    pub fn open(path: &Path) -> Result<Tokenizer, TextError> {
        if path.is_dir() {
            return open_folder(path);
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let dir = path.parent().unwrap_or(Path::new(""));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") if name != BPE_VOCABULARY => open_json(path),
            Some("json" | "model") => {
                let settings = Settings::read(dir)?;
                match settings.class() {
                    Class::Family(family) if family.files().contains(&name) => open_files(family, dir, settings),
                    _ => Err(no_tokenizer(dir, &settings)),
                }
            }
            _ => open_list(path),
        }
    }

    /// Whether a folder has files of a tokenizer. They may be incomplete.
    pub fn is_in(dir: &Path) -> bool {
        [JSON].iter().chain(&VOCABULARY_FILES).any(|name| dir.join(name).is_file())
    }

    /// A plain BERT tokenizer over `tokens`, whose ids are their positions. Accents are stripped unless `cased`.
    ///
    /// # Errors
    /// An empty list, a repeated token, a missing special token.
    pub fn from_tokens(tokens: Vec<String>, cased: bool) -> Result<Tokenizer, TextError> {
        Tokenizer::from_tokens_normalized(tokens, BertNormalizer::new(true, true, None, !cased))
    }

    /// As [`from_tokens`](Self::from_tokens), with any configuration of BERT's normaliser.
    pub(crate) fn from_tokens_normalized(
        tokens: Vec<String>,
        normalizer: BertNormalizer,
    ) -> Result<Tokenizer, TextError> {
        let path = Path::new("vocabulary");
        let vocabulary = Vocabulary::new(tokens, path)?;
        bert(vocabulary, false, AddedTokens::default(), normalizer, Source::plain(), path)
    }

    /// This tokenizer with a normaliser that keeps accents and all other marks. Its casing does not change.
    ///
    /// # Errors
    /// [`TextError::NotPlain`] if the tokenizer does not use BERT's normaliser.
    pub fn keeping_accents(&self) -> Result<Tokenizer, TextError> {
        let BertNormalizer { clean_text, handle_chinese_chars, lowercase, .. } =
            *self.normalizer().ok_or(TextError::NotPlain)?;
        let normalizer = BertNormalizer::new(clean_text, handle_chinese_chars, Some(false), lowercase);
        self.normalized_by(normalizer.into(), Source { json: None, ..self.source().clone() })
    }

    /// This tokenizer with another normaliser, as a tokenizer.json that is used unchanged.
    pub(crate) fn with_normalizer(&self, normalizer: NormalizerWrapper) -> Result<Tokenizer, TextError> {
        self.normalized_by(normalizer, Source { class: Class::AsWritten, ..Source::plain() })
    }

    fn normalized_by(&self, normalizer: NormalizerWrapper, source: Source) -> Result<Tokenizer, TextError> {
        let mut hf = self.hf().clone();
        hf.with_normalizer(Some(normalizer)).map_err(engine("set the normaliser"))?;
        let vocabulary = Vocabulary::unchecked(self.tokens().to_vec());
        let changed = Tokenizer::assemble(vocabulary, self.special(), self.template().clone(), hf, source)?;
        Ok(changed.with_special_tokens(self.special_tokens()))
    }
}

/// Files of a vocabulary. Which of them are used depends on the class.
const VOCABULARY_FILES: [&str; 5] = [LIST, BPE_VOCABULARY, MERGES, "sentencepiece.bpe.model", "spiece.model"];

fn open_folder(dir: &Path) -> Result<Tokenizer, TextError> {
    let exists = |name: &&str| dir.join(name).is_file();
    if exists(&JSON) {
        return open_json(&dir.join(JSON));
    }
    let settings = Settings::read(dir)?;
    match settings.class() {
        Class::Family(family) if family.files().iter().all(exists) => open_files(family, dir, settings),
        Class::Family(_) => Err(no_tokenizer(dir, &settings)),
        _ if exists(&LIST) => open_list(&dir.join(LIST)),
        _ => Err(no_tokenizer(dir, &settings)),
    }
}

/// The error for a folder without the files that its class needs: [`TextError::NoTokenizer`] if it has none.
fn no_tokenizer(dir: &Path, settings: &Settings) -> TextError {
    let found: Vec<&str> = VOCABULARY_FILES.into_iter().filter(|name| dir.join(name).is_file()).collect();
    let is_empty = found.is_empty();
    let found = if is_empty { String::new() } else { format!(", found {}", found.join(" and ")) };
    let expected = match (settings.class(), settings.class_origin()) {
        (Class::Family(family), Some(origin)) => {
            format!("{origin}, which needs {JSON} or {}{found}", family.files().join(" and "))
        }
        (_, Some(origin)) => format!("{origin}; expected {JSON} or, for a BERT class, {LIST}{found}"),
        (_, None) if is_empty => format!("expected {JSON} or {LIST} in it"),
        (_, None) => format!(
            "expected {JSON} or {LIST}{found}; to use these files, name the tokenizer's class in {CONFIG}, such as \
             \"tokenizer_class\": {:?}",
            if dir.join(BPE_VOCABULARY).is_file() { Family::Roberta } else { Family::XlmRoberta }.class_name()
        ),
    };
    match (is_empty, dir.to_owned()) {
        (true, path) => TextError::NoTokenizer { path, expected },
        (false, path) => TextError::BadFile { path, reason: format!("incomplete tokenizer: {expected}") },
    }
}

/// A tokenizer of this family in its own files.
fn open_files(family: Family, dir: &Path, settings: Settings) -> Result<Tokenizer, TextError> {
    let mut parts = Parts::of_files(family, dir)?;
    let path = dir.join(family.files()[0]);
    let added = settings.added_tokens(&path, &[], family.extra_tokens(parts.extra.take()))?;
    family::build(family, parts, added, Source { class: Class::Family(family), settings, ..Source::plain() }, &path)
}

fn open_json(path: &Path) -> Result<Tokenizer, TextError> {
    let bytes = files::read(path)?;
    let bad = |reason: String| TextError::BadFile { path: path.to_owned(), reason };
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(format!("not JSON: {e}")))?;
    match value["model"]["type"].as_str() {
        Some("WordPiece" | "BPE" | "Unigram" | "WordLevel") => {}
        Some(other) => {
            return Err(TextError::Unsupported { path: path.to_owned(), found: format!("its model is {other}") });
        }
        None if value["model"].is_object() => {}
        None => return Err(bad("not a tokenizer.json: expected an object \"model\", found none".into())),
    }
    validate::check(&value).map_err(&bad)?;
    let settings = Settings::read(path.parent().unwrap_or(Path::new("")))?;
    let mut in_json = Vec::new();
    for token in value["added_tokens"].as_array().into_iter().flatten() {
        let id =
            token["id"].as_u64().ok_or_else(|| bad(format!("expected an added token with an id, found {token}")))?;
        let token = added_token(token).ok_or_else(|| bad(format!("expected an added token, found {token}")))?;
        if let Some((_, other)) =
            in_json.iter().find(|(known, other): &&(u64, AddedToken)| *known == id && other.content != token.content)
        {
            let (first, second) = (&other.content, &token.content);
            return Err(bad(format!(
                "the added tokens {first:?} and {second:?} have the same id, {id}; expected different ids"
            )));
        }
        in_json.push((id, token));
    }
    let class = settings.class();
    let family = if let Class::Family(family) = class { Some(family) } else { None };
    let extra = family.map(|family| family.extra_tokens(None)).unwrap_or_default();
    let added = settings.added_tokens(path, &in_json, extra)?;
    let limits = |key: &str| format!("not a tokenizer.json: {key}");
    let truncation = Deserialize::deserialize(&value["truncation"]);
    let padding = Deserialize::deserialize(&value["padding"]);
    let source = Source {
        class,
        settings,
        truncation: truncation.map_err(|e: serde_json::Error| bad(format!("{}: {e}", limits("truncation"))))?,
        padding: padding.map_err(|e: serde_json::Error| bad(format!("{}: {e}", limits("padding"))))?,
        ..Source::plain()
    };
    if let Some(family) = family.filter(|family| family.reads(&value["model"])) {
        let parts = Parts::of_json(family, &value).map_err(bad)?;
        return family::build(family, parts, added, source, path);
    }
    // Parses the checked value instead of the file: with duplicate keys, the two could differ.
    let written = tokenizers::Tokenizer::deserialize(&value).map_err(|e| bad(format!("not a tokenizer.json: {e}")))?;
    if let ModelWrapper::BPE(model) = written.get_model()
        && let Some(dropout) = model.dropout
    {
        return Err(bad(format!("its model has \"dropout\": {dropout}, which would make ids random; set it to null")));
    }
    let template = Template::of_post_processor(&value["post_processor"]).map_err(|e| bad(e.to_string()))?;
    let normalizer = match written.get_normalizer() {
        Some(NormalizerWrapper::BertNormalizer(normalizer)) => Some(*normalizer),
        _ => None,
    };
    if let ModelWrapper::WordPiece(model) = written.get_model() {
        let normalizer = match (source.class, normalizer) {
            (Class::Bert, normalizer) => Some((None, normalizer.map(|normalizer| normalizer.lowercase))),
            (Class::Unnamed, Some(normalizer)) if is_bert(&written, model, template.as_ref(), &normalizer) => {
                Some((Some(normalizer), None))
            }
            _ => None,
        };
        if let Some((normalizer, written_lowercase)) = normalizer {
            let vocabulary = Vocabulary::new(Vocabulary::in_order(model.get_vocab(), path)?, path)?;
            let source = Source { class: Class::Bert, ..source };
            let (normalizer, source) = match normalizer {
                Some(normalizer) => (normalizer, source),
                None => normalizer_of(&vocabulary, &added, written_lowercase, source),
            };
            return bert(vocabulary, false, added, normalizer, source, path);
        }
    }
    from_json_unchanged(bytes, written, added, template, source, path)
}

/// Whether a tokenizer.json describes the same tokenizer that `BertTokenizer` would build from it.
fn is_bert(
    written: &tokenizers::Tokenizer,
    model: &WordPiece,
    template: Option<&Template>,
    normalizer: &BertNormalizer,
) -> bool {
    let id = |token: &str| written.token_to_id(token);
    let [_, unk, cls, sep, _] = SPECIAL_TOKENS;
    normalizer.clean_text
        && matches!(written.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
        && (model.unk_token == unk && model.continuing_subword_prefix == CONTINUATION)
        && model.max_input_chars_per_word == MAX_WORD_CHARS
        && id(cls).zip(id(sep)).map(|(cls, sep)| Template::bert(cls, sep)).as_ref() == template
}

/// A tokenizer.json that is used unchanged, with the tokens that other files add.
fn from_json_unchanged(
    bytes: Vec<u8>,
    mut written: tokenizers::Tokenizer,
    added: AddedTokens,
    template: Option<Template>,
    mut source: Source,
    path: &Path,
) -> Result<Tokenizer, TextError> {
    let bad = |reason: String| TextError::BadFile { path: path.to_owned(), reason };
    let present = written.get_added_tokens_decoder().into_values().map(|token| token.content);
    written.add_tokens(added.in_order(present)).map_err(engine("add the added tokens"))?;
    let tokens = Vocabulary::in_order(written.get_vocab(true), path)?;
    let vocabulary = match written.get_model() {
        ModelWrapper::WordPiece(_) => Vocabulary::new(tokens, path)?,
        _ => Vocabulary::unchecked(tokens),
    };
    let special = vocabulary.find_special(|key| added.named(key), template.as_ref(), path)?;
    let template = template.unwrap_or_else(|| {
        source.notes.push(format!(
            "{} has no post_processor: BERT's template is used ([CLS] and [SEP] are added), whereas Transformers adds no special tokens",
            path.display()
        ));
        Template::bert(special.cls, special.sep)
    });
    let (largest, size) = (template.largest_id(), vocabulary.tokens.len());
    if largest as usize >= size {
        let reason =
            format!("the sequence template adds token {largest}; expected ids below the vocabulary's size, {size}");
        return Err(bad(reason));
    }
    let expected = match source.class {
        Class::Bert => Some("WordPiece"),
        Class::Family(family) => Some(family.model()),
        Class::AsWritten | Class::Unnamed => None,
    };
    if let Some(model) = expected {
        source.class = Class::AsWritten;
        source.notes.push(format!(
            "{} is used unchanged. Transformers would read its vocabulary as {model}, because tokenizer_config.json names no \
             other class; set \"tokenizer_class\": \"PreTrainedTokenizerFast\" there",
            path.display()
        ));
    }
    source.json = Some(bytes);
    Tokenizer::assemble(vocabulary, special, template, written, source)
}

fn open_list(path: &Path) -> Result<Tokenizer, TextError> {
    let (vocabulary, has_blank_end) = Vocabulary::parse(&files::read(path)?, path)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let settings = Settings::read(dir)?;
    if let Class::Family(family) = settings.class()
        && family.files() == [LIST]
        && path.file_name().is_some_and(|name| name == LIST)
    {
        return open_files(family, dir, settings);
    }
    if let (Class::AsWritten | Class::Family(_), Some(origin)) = (settings.class(), settings.class_origin()) {
        let reason = format!(
            "{origin}, for which a vocab.txt is not enough; expected a BERT class such as BertTokenizer, or a {JSON}"
        );
        return Err(TextError::BadFile { path: path.with_file_name(CONFIG), reason });
    }
    let added = settings.added_tokens(path, &[], ExtraTokens::default())?;
    let (normalizer, source) = normalizer_of(&vocabulary, &added, None, Source { settings, ..Source::plain() });
    bert(vocabulary, has_blank_end, added, normalizer, source, path)
}

/// The normaliser of a `BertTokenizer`; `written` is the lower-casing flag of tokenizer.json, if it has one.
fn normalizer_of(
    vocabulary: &Vocabulary,
    added: &AddedTokens,
    written: Option<bool>,
    mut source: Source,
) -> (BertNormalizer, Source) {
    let flag = |key: &str| source.settings.get(key).as_bool();
    let lowercase = flag("do_lower_case").unwrap_or_else(|| {
        let cased = written != Some(true) && vocabulary.has_capitals(|token| added.has(token));
        if cased {
            source.notes.push(
                "the vocabulary has capitals and do_lower_case is not set: texts keep their case, whereas \
                 Transformers would lower-case them; set \"do_lower_case\": false in tokenizer_config.json to make both agree"
                    .to_owned(),
            );
        }
        !cased
    });
    let chinese = source.settings.get("tokenize_chinese_chars").as_bool().unwrap_or(true);
    let accents = source.settings.get("strip_accents").as_bool();
    (BertNormalizer::new(true, chinese, accents, lowercase), source)
}

/// Transformers' `BertTokenizer` with this vocabulary; `has_blank_end` is whether its file ends in blank lines.
fn bert(
    mut vocabulary: Vocabulary,
    has_blank_end: bool,
    mut added: AddedTokens,
    normalizer: BertNormalizer,
    source: Source,
    path: &Path,
) -> Result<Tokenizer, TextError> {
    let mut missing = Vec::new();
    for ((key, usual), other) in KEYS.into_iter().zip(SPECIAL_TOKENS).zip(OTHER_NAMES) {
        let exists = |name: &&str| vocabulary.ids.contains_key(*name) || added.has(name);
        match added.named(key).map(str::to_owned).or([usual, other].into_iter().find(exists).map(str::to_owned)) {
            Some(name) => added.set_named(key, AddedToken::from(name, true)),
            None => missing.push(usual),
        }
    }
    if !missing.is_empty() {
        return Err(TextError::MissingSpecial {
            path: path.to_owned(),
            count: vocabulary.tokens.len(),
            missing: missing.join(" "),
        });
    }
    let tokens = added.in_order(std::iter::empty());
    if has_blank_end && tokens.iter().any(|token| !vocabulary.ids.contains_key(&token.content)) {
        // Transformers reads blank lines at the end as an empty token, which shifts the ids of added tokens.
        vocabulary.ids.insert(String::new(), vocabulary.tokens.len() as u32);
    }
    let name = |role: usize| added.named(KEYS[role]).unwrap_or_default();
    let [unk, cls, sep] = [1, 2, 3].map(name);
    let mut hf = tokenizers::Tokenizer::new(vocabulary.word_piece(unk, CONTINUATION, MAX_WORD_CHARS)?);
    hf.with_normalizer(Some(normalizer))
        .map_err(engine("set the normaliser"))?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_decoder(Some(WordPieceDecoder::new(CONTINUATION.into(), true)))
        .add_tokens(tokens)
        .map_err(engine("add the special tokens"))?;
    let vocabulary = Vocabulary::new(Vocabulary::in_order(hf.get_vocab(true), path)?, path)?;
    let special = vocabulary.find_special(|key| added.named(key), None, path)?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{cls}:0 $A:0 {sep}:0"))
        .and_then(|b| b.try_pair(format!("{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")))
        .map_err(|e| engine("build the template")(e.into()))?
        .special_tokens(vec![(cls, special.cls), (sep, special.sep)])
        .build()
        .map_err(|e| engine("build the template")(e.into()))?;
    hf.with_post_processor(Some(template));
    Tokenizer::assemble(vocabulary, special, Template::bert(special.cls, special.sep), hf, source)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// The seed inputs of a fuzz target, which include the failures that it has found.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let Ok(entries) = fs::read_dir(folder) else {
            println!("skipped: found no seeds for the fuzz target {target}");
            return Vec::new();
        };
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    const SEPARATOR: &[u8] = b"\n-----\n";

    /// The files of an input of the target `tokenizer_folder`. Both kinds of SentencePiece models are the last one.
    const FOLDER: [&str; 8] = [
        LIST,
        CONFIG,
        "special_tokens_map.json",
        "added_tokens.json",
        "text",
        BPE_VOCABULARY,
        MERGES,
        "sentencepiece.bpe.model",
    ];

    /// Found by fuzzing: such a file was saved as another tokenizer.
    #[test]
    fn added_tokens_with_the_same_id_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        Tokenizer::from_tokens(crate::SPECIAL_TOKENS.map(str::to_owned).to_vec(), false)
            .unwrap()
            .save(dir.path())
            .unwrap();
        let path = dir.path().join(JSON);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json["added_tokens"][1]["id"] = 0.into();
        fs::write(&path, json.to_string()).unwrap();
        let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("the added tokens \"[PAD]\" and \"[UNK]\" have the same id, 0"), "{error}");
    }

    /// Found by fuzzing: saved without a configuration, `[SEP]` became special, and `[MASK]` a special token.
    #[test]
    fn special_tokens_that_are_listed_otherwise_or_not_at_all_keep_their_flags() {
        let dir = tempfile::tempdir().unwrap();
        Tokenizer::from_tokens(crate::SPECIAL_TOKENS.map(str::to_owned).to_vec(), false)
            .unwrap()
            .save(dir.path())
            .unwrap();
        let original: Value = serde_json::from_slice(&fs::read(dir.path().join(JSON)).unwrap()).unwrap();
        let names = json!({"sep_token": "[SEP]", "mask_token": {"content": "[MASK]", "lstrip": true}});
        let class = json!({"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[MASK]"});
        let text = "[MASK] a[SEP]b [CLS]";
        for (number, token) in (0..5).flat_map(|token| (0..8).map(move |number| (number, token))) {
            let mut json = original.clone();
            // Not the template of BertTokenizer, so that the file is used unchanged.
            json["post_processor"]["single"][0]["SpecialToken"]["type_id"] = (number % 2).into();
            let listed = json["added_tokens"].as_array_mut().unwrap();
            if number < 4 {
                listed.remove(token);
            } else {
                for flag in ["special", "single_word", "lstrip", "normalized"] {
                    listed[token][flag] = (flag != "special").into();
                }
            }
            let files: &[(&str, &Value)] = match number / 2 % 2 {
                _ if number == 1 => &[(CONFIG, &class)],
                0 => &[],
                _ => &[("special_tokens_map.json", &names)],
            };
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(JSON), json.to_string()).unwrap();
            files.iter().for_each(|(name, file)| fs::write(folder.path().join(name), file.to_string()).unwrap());
            let old = Tokenizer::open(folder.path()).unwrap();
            old.save(&folder.path().join("saved")).unwrap();
            let new = Tokenizer::open(&folder.path().join("saved")).unwrap();
            assert_eq!(new.fingerprint(), old.fingerprint(), "{number}, {token}");
            let [old, new] = [old, new].map(|tokenizer| tokenizer.with_special_tokens(crate::SpecialTokens::Parse));
            assert_eq!(new.encode(text), old.encode(text), "{number}, {token}");
            assert!(old.encode_masked(text).contains(&old.special().mask), "{number}, {token}");
        }
    }

    /// Each seed must give a tokenizer or an error, without a panic; a tokenizer is equal when it was saved.
    #[test]
    fn seeds_of_the_fuzz_targets_are_read() {
        for (target, names) in [
            ("tokenizer_json", &["tokenizer.json", "text", "tokenizer_config.json"][..]),
            ("tokenizer_folder", &FOLDER),
        ] {
            for seed in seeds(target) {
                let dir = tempfile::tempdir().unwrap();
                let mut rest = seed.as_slice();
                for (number, name) in names.iter().enumerate() {
                    let end = rest.windows(SEPARATOR.len()).position(|bytes| bytes == SEPARATOR);
                    let end = end.filter(|_| number + 1 < names.len());
                    fs::write(dir.path().join(name), &rest[..end.unwrap_or(rest.len())]).unwrap();
                    let Some(end) = end else { break };
                    rest = &rest[end + SEPARATOR.len()..];
                }
                if dir.path().join(FOLDER[7]).exists() {
                    fs::copy(dir.path().join(FOLDER[7]), dir.path().join("spiece.model")).unwrap();
                }
                let seed = String::from_utf8_lossy(&seed);
                let Ok(tokenizer) = Tokenizer::open(dir.path()) else { continue };
                let mut reference = Vec::new();
                tokenizer.encode_reference(&seed, &mut reference);
                assert_eq!(tokenizer.encode(&seed), reference);
                tokenizer.decode(&reference);
                let saved = dir.path().join("saved");
                if tokenizer.save(&saved).is_ok() {
                    let again = Tokenizer::open(&saved).unwrap();
                    assert_eq!(again.fingerprint(), tokenizer.fingerprint(), "{target}: {seed}");
                }
            }
        }
    }
}
