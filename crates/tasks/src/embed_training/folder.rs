//! The files of a sentence-transformers folder, beside the model: modules.json, the folders of the modules, and settings.

use std::fs;
use std::path::Path;

use cloze_model::layout::MODULES_FILE;
use cloze_model::write_tensors;
use cloze_train::TrainError;
use serde_json::{Map, Value, json};

use crate::TaskError;
use crate::embed::Embedder;
use crate::embed::folder::{MODES, SENTENCES, SETTINGS, json as read_json, read as read_settings};
use crate::embed::modules::Module;
use crate::embed::pooling::{Pool, Pooling};
use crate::embed::prompts::Purpose;
use crate::embed::search::Similarity;

/// The key of the logarithm of a learned factor of the similarities, in the settings file and in checkpoints.
pub(super) const LOG_SCALE: &str = "cloze_log_scale";
/// The name of the model card.
const CARD: &str = "README.md";

/// The settings in a folder's files.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FolderFiles {
    /// config_sentence_transformers.json.
    sentences: Map<String, Value>,
    /// sentence_bert_config.json.
    transformer: Map<String, Value>,
    /// The model card.
    card: String,
}

/// What the files of a folder describe.
pub(super) struct Written {
    pub(super) pooling: Pooling,
    pub(super) modules: Vec<Module>,
    pub(super) log_scale: Option<f32>,
    pub(super) files: FolderFiles,
}

fn object(path: &Path) -> Result<Map<String, Value>, TaskError> {
    match read_json(path)? {
        Some(Value::Object(object)) => Ok(object),
        _ => Ok(Map::new()),
    }
}

impl FolderFiles {
    /// The settings for a model that is trained from an embedder's folder `start`: those of the folder, with the
    /// embedder's prompts and lengths, and the similarity that the loss compares by.
    ///
    /// # Errors
    /// A file that is not JSON.
    pub(super) fn new(
        embedder: &Embedder,
        start: &Path,
        similarity: Similarity,
        is_of_equals: bool,
        card: String,
    ) -> Result<FolderFiles, TaskError> {
        let mut sentences = object(&start.join(SENTENCES))?;
        sentences.remove("truncate_dim");
        sentences.remove(LOG_SCALE);
        sentences.insert("model_type".to_owned(), "SentenceTransformer".into());
        sentences.insert("__version__".to_owned(), json!({ "cloze": env!("CARGO_PKG_VERSION") }));
        sentences.insert("similarity_fn_name".to_owned(), similarity.name().into());
        let mut prompts = sentences.get("prompts").and_then(Value::as_object).cloned().unwrap_or_default();
        for (name, purpose) in [("query", Purpose::Query), ("document", Purpose::Document)] {
            prompts.insert(name.to_owned(), embedder.prompt(purpose).into());
        }
        sentences.insert("prompts".to_owned(), prompts.into());
        sentences.entry("default_prompt_name").or_insert(Value::Null);
        let mut transformer = Map::new();
        for name in SETTINGS {
            transformer = object(&embedder.model.dir().join(name))?;
            if !transformer.is_empty() {
                break;
            }
        }
        let purpose = if is_of_equals { Purpose::Text } else { Purpose::Document };
        transformer.insert("max_seq_length".to_owned(), embedder.max_len(purpose).into());
        transformer.insert("do_lower_case".to_owned(), embedder.lowercases().into());
        Ok(FolderFiles { sentences, transformer, card })
    }
}

/// Whether a folder can store these modes: as flags, whose order is fixed. Others would be read as a different pooling.
pub(super) fn can_store(pools: &[Pool]) -> bool {
    MODES.iter().map(|(.., pool)| *pool).filter(|pool| pools.contains(pool)).eq(pools.iter().copied())
}

/// Writes all files except for those of the model and the tokenizer. `hidden` is the width of a token's state.
pub(super) fn write(dir: &Path, written: &Written, hidden: usize) -> Result<(), TrainError> {
    let Written { pooling, modules, log_scale, files } = written;
    let mut list = vec![entry(0, "", "Transformer"), entry(1, "1_Pooling", "Pooling")];
    let mut config = Map::new();
    config.insert("word_embedding_dimension".to_owned(), hidden.into());
    for (flag, _, pool) in MODES {
        config.insert(flag.to_owned(), pooling.pools.contains(&pool).into());
    }
    config.insert("include_prompt".to_owned(), pooling.include_prompt.into());
    write_json(&dir.join("1_Pooling"), "config.json", &config.into())?;
    for (number, module) in (2..).zip(modules) {
        match module {
            Module::Normalize => list.push(entry(number, &format!("{number}_Normalize"), "Normalize")),
            Module::Dense(dense) => {
                let name = format!("{number}_Dense");
                let config = json!({
                    "in_features": dense.inputs,
                    "out_features": dense.outputs,
                    "bias": dense.bias.is_some(),
                    "activation_function": dense.activation.path(),
                });
                let folder = dir.join(&name);
                write_json(&folder, "config.json", &config)?;
                let (shape, bias_shape) = ([dense.outputs, dense.inputs], [dense.outputs]);
                let mut tensors: Vec<(&str, &[usize], &[f32])> = vec![("linear.weight", &shape, &dense.weight)];
                if let Some(bias) = &dense.bias {
                    tensors.push(("linear.bias", &bias_shape, bias));
                }
                write_tensors(&folder, &tensors)?;
                list.push(entry(number, &name, "Dense"));
            }
            // Refused before training.
            Module::LayerNorm(_) => {}
        }
        if matches!(module, Module::Normalize) {
            let folder = dir.join(format!("{number}_Normalize"));
            fs::create_dir_all(&folder).map_err(|e| TrainError::io("create", &folder, e))?;
        }
    }
    write_json(dir, MODULES_FILE, &list.into())?;
    let mut sentences = files.sentences.clone();
    if let Some(value) = log_scale {
        sentences.insert(LOG_SCALE.to_owned(), f64::from(*value).into());
    }
    write_json(dir, SENTENCES, &sentences.into())?;
    write_json(dir, SETTINGS[0], &files.transformer.clone().into())?;
    Ok(cloze_files::write(&dir.join(CARD), files.card.as_bytes())?)
}

/// An entry of modules.json. The packages are those of all versions up to 5, which later versions read, too.
fn entry(number: usize, path: &str, class: &str) -> Value {
    json!({ "idx": number, "name": number.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}") })
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), TrainError> {
    fs::create_dir_all(folder).map_err(|e| TrainError::io("create", folder, e))?;
    Ok(cloze_files::write(&folder.join(name), format!("{value:#}\n").as_bytes())?)
}

/// Reads a folder that [`write`] wrote.
pub(super) fn read(dir: &Path, layers: usize) -> Result<Written, TaskError> {
    let chain = read_settings(dir)?.chain()?;
    let pooling = Pooling { pools: chain.pools, layers: vec![layers], include_prompt: chain.include_prompt };
    let mut sentences = object(&dir.join(SENTENCES))?;
    let log_scale = sentences.remove(LOG_SCALE).and_then(|value| value.as_f64()).map(|value| value as f32);
    let transformer = object(&dir.join(SETTINGS[0]))?;
    let card = dir.join(CARD);
    let card = fs::read_to_string(&card).map_err(|e| TaskError::io("read", &card, e))?;
    Ok(Written { pooling, modules: chain.modules, log_scale, files: FolderFiles { sentences, transformer, card } })
}
