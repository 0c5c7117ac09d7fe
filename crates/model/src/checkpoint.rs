//! Hugging Face model folders: `config.json` and `model.safetensors`, read and written under Transformers' names.
//!
//! Reading accepts what old and new exporters write: the `bert.` prefix or none (`BertModel`), `gamma`/`beta` for
//! LayerNorm's weight and bias, f32, f16, bf16 or f64 elements, shards, a copy of the tied decoder, position ids.
//! Whatever does not fit is named, all of it at once. Writing streams tensor by tensor into a file beside the final one,
//! which then takes its place: a reader never sees half a checkpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cloze_engine::Device;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;

use crate::bert::Start;
use crate::config::Config;
use crate::error::ModelError;
use crate::heads::Heads;
use crate::model::Model;
use crate::weights::{WEIGHTS_FILE, Weights};

/// The name of the configuration file that is read and written.
pub const CONFIG_FILE: &str = "config.json";

pub(crate) const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";
const DECODER_BIAS: &str = "cls.predictions.decoder.bias";
pub(crate) const MLM_BIAS: &str = "cls.predictions.bias";

impl Model {
    /// Opens a Hugging Face folder. The heads are those of `architectures` in its config and those whose tensors are there.
    ///
    /// # Errors
    /// [`ModelError::Read`], [`ModelError::Json`] and [`ModelError::Config`] for `config.json`; [`ModelError::Folder`]
    /// without weights; [`ModelError::Weights`] for a damaged file; [`ModelError::Tensors`] naming every missing, surplus,
    /// mis-shaped or unreadable tensor with the shapes expected and found.
    pub fn load(dir: &Path, device: &Device) -> Result<Model, ModelError> {
        let folder = Folder::open(dir)?;
        let heads = folder.heads();
        folder.read(heads, &BTreeSet::new(), &BTreeSet::new(), device, 0)
    }

    /// Opens a Hugging Face folder for other heads than those it was saved with: its encoder, and those of its heads that are
    /// asked for. Heads that it lacks, or that have other shapes there, are drawn by `seed`; its other heads are left aside.
    ///
    /// # Errors
    /// As [`load`](Self::load); the encoder must be complete.
    pub fn load_with(dir: &Path, heads: Heads, device: &Device, seed: u64) -> Result<(Model, Adopted), ModelError> {
        let folder = Folder::open(dir)?;
        heads.validate(&folder.config)?;
        let (declared, _) = Model::declare(&folder.config, heads, Start::Drawn)?;
        let fits = |(name, shape): &&(String, Vec<usize>)| {
            folder.stored.get(name).is_some_and(|from| folder.weights.shape(from) == Some(shape))
        };
        let drawn = declared.listed.iter().filter(|tensor| is_of_head(&tensor.0) && !fits(tensor));
        let drawn: BTreeSet<String> = drawn.map(|(name, _)| name.clone()).collect();
        // The copy of the tied decoder that some files hold belongs to the head.
        let copy = |name: &str| heads.mlm && [DECODER, DECODER_BIAS].contains(&name);
        let listed = |name: &String| declared.listed.iter().any(|(listed, _)| listed == name);
        let kept = |name: &String| copy(name) || listed(name) && !drawn.contains(name);
        let dropped: BTreeSet<String> =
            folder.stored.keys().filter(|name| is_of_head(name) && !kept(name)).cloned().collect();
        let model = folder.read(heads, &drawn, &dropped, device, seed)?;
        Ok((model, Adopted { drawn: drawn.into_iter().collect(), dropped: dropped.into_iter().collect() }))
    }

    /// Writes `config.json` and `model.safetensors` (f32) into `dir`, made if need be, as Transformers' `save_pretrained`
    /// does for [`Heads::architecture`]. Both are fsynced before they replace what was there.
    ///
    /// # Errors
    /// [`ModelError::Write`]; what was in the folder before is then still whole.
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        fs::create_dir_all(dir).map_err(|source| ModelError::Write { path: dir.to_owned(), source })?;
        let mut config = self.config.clone();
        config.architectures = Some(vec![self.heads.architecture().to_owned()]);
        let dtype = if config.extra.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        config.extra.insert(dtype.to_owned(), Value::from("float32"));
        // Weights first: a folder with a config is a folder with its weights.
        cloze_files::write_with(&dir.join(WEIGHTS_FILE), |file| self.write_weights(file))?;
        Ok(cloze_files::write(&dir.join(CONFIG_FILE), config.to_json().as_bytes())?)
    }

    /// The safetensors form: length of the header, header, every tensor's f32 bytes in order of name.
    fn write_weights(&self, file: &mut impl Write) -> io::Result<()> {
        let encoder_alone = self.heads.architecture() == "BertModel";
        let stored_name = |name: &str| match name.strip_prefix("bert.") {
            Some(rest) if encoder_alone => rest.to_owned(),
            _ => name.to_owned(),
        };
        let mut named: Vec<_> = self.params.ids().map(|id| (stored_name(self.params.name(id)), id)).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let mut offset = 0;
        let infos = named.iter().map(|(name, id)| {
            let start = offset;
            offset += 4 * self.params.size(*id);
            let shape = self.params.shape(*id).to_vec();
            (name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, offset) })
        });
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let metadata = Metadata::new(Some(format), infos.collect()).map_err(io::Error::other)?;
        let mut header = serde_json::to_vec(&metadata)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::with_capacity(4 * CHUNK);
        for (_, id) in named {
            for chunk in self.params.read(id).chunks(CHUNK) {
                bytes.clear();
                bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
                file.write_all(&bytes)?;
            }
        }
        Ok(())
    }
}

/// What became of the heads of a folder that was opened for other heads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adopted {
    /// Tensors that the folder lacks, or has in another shape: drawn at random.
    pub drawn: Vec<String>,
    /// Tensors of the folder that the model has no place for: left aside.
    pub dropped: Vec<String>,
}

impl Adopted {
    /// Lines that say which heads were left aside and which are new; none if the folder had just those asked for.
    pub fn notes(&self) -> Vec<String> {
        let said = [("left aside from the checkpoint", &self.dropped), ("new, drawn at random", &self.drawn)];
        let line = |(what, tensors): (&str, &Vec<String>)| {
            let mut heads: Vec<&str> = tensors.iter().map(|name| head_of(name)).collect();
            heads.dedup();
            format!("{what}: {}", heads.join(", "))
        };
        said.into_iter().filter(|(_, tensors)| !tensors.is_empty()).map(line).collect()
    }
}

/// The head that a tensor belongs to.
fn head_of(name: &str) -> &'static str {
    if name.starts_with("bert.pooler") {
        "pooler"
    } else if name.starts_with("cls.predictions") {
        "masked-language-model head"
    } else if name.starts_with("cls.") {
        "next-sentence head"
    } else {
        "task's head"
    }
}

/// Whether a tensor belongs to a head and not to the embeddings or the encoder.
fn is_of_head(name: &str) -> bool {
    ["bert.pooler.", "cls.", "classifier.", "qa_outputs."].iter().any(|head| name.starts_with(head))
}

/// A model folder, opened: nothing but headers is read yet.
struct Folder {
    dir: PathBuf,
    config: Config,
    weights: Weights,
    /// Stored names by the names that this crate declares.
    stored: BTreeMap<String, String>,
    report: Report,
}

impl Folder {
    fn open(dir: &Path) -> Result<Folder, ModelError> {
        if !dir.is_dir() {
            let problem = "expected a folder with config.json and model.safetensors".to_owned();
            return Err(ModelError::Folder { path: dir.to_owned(), problem });
        }
        let config = Config::read(&dir.join(CONFIG_FILE))?;
        let weights = Weights::open(dir)?;
        let mut report = Report::default();
        let stored = canonical_names(&weights, &mut report);
        Ok(Folder { dir: dir.to_owned(), config, weights, stored, report })
    }

    fn heads(&self) -> Heads {
        let shape_of = |name: &str| Some(self.weights.shape(self.stored.get(name)?)?.to_vec());
        let names: Vec<&str> = self.stored.keys().map(String::as_str).collect();
        Heads::found_in(&self.config, shape_of, &names)
    }

    /// The model with these heads; those of its tensors in `drawn` are not taken from the folder, and those of the folder's in
    /// `dropped` have no place in it.
    fn read(
        self,
        heads: Heads,
        drawn: &BTreeSet<String>,
        dropped: &BTreeSet<String>,
        device: &Device,
        seed: u64,
    ) -> Result<Model, ModelError> {
        let Folder { dir, config, weights, stored, mut report } = self;
        // The weights come from the file: no use in drawing random ones first.
        let (declared, bert) = Model::declare(&config, heads, Start::Copied { but: drawn.clone() })?;

        // Everything is compared before anything is allocated: a config of absurd sizes costs nothing.
        for (name, expected) in declared.listed.iter().filter(|(name, _)| !drawn.contains(name)) {
            match stored.get(name) {
                None => report.missing(name, expected),
                Some(from) => report.compare(from, expected, &weights),
            }
        }
        let known: BTreeSet<&str> = declared.listed.iter().map(|(name, _)| name.as_str()).collect();
        for (name, from) in stored.iter().filter(|(name, _)| !dropped.contains(*name)) {
            if !known.contains(name.as_str()) && !is_tied_copy(name, &stored, &weights, &mut report) {
                report.surplus(from, &weights);
            }
        }
        report.finish(&dir)?;

        let mut params = declared.builder.build(device, seed);
        for id in params.ids() {
            if let Some(from) = stored.get(params.name(id)).filter(|_| !drawn.contains(params.name(id))) {
                params.edit(id, |values| weights.read_f32(from, values));
            }
        }
        Ok(Model::assemble(config, heads, params, bert))
    }
}

/// Floats converted to bytes at a time.
const CHUNK: usize = 1 << 16;

/// The stored names by the names that this crate declares. Tensors that hold no weights are left out.
fn canonical_names(weights: &Weights, report: &mut Report) -> BTreeMap<String, String> {
    let mut stored: BTreeMap<String, String> = BTreeMap::new();
    for from in weights.names() {
        if from.ends_with("embeddings.position_ids") || from.ends_with("embeddings.token_type_ids") {
            continue; // buffers of old exporters: 0, 1, 2, … and zeros
        }
        let name = canonical_name(from);
        if let Some(other) = stored.insert(name, from.to_owned()) {
            report.twice(from, &other);
        }
    }
    // Some exporters write the decoder's bias under its other name alone.
    if !stored.contains_key(MLM_BIAS)
        && let Some(from) = stored.remove(DECODER_BIAS)
    {
        stored.insert(MLM_BIAS.to_owned(), from);
    }
    stored
}

/// A tensor's present name in Transformers' models with a head, whichever of its names an exporter wrote: the `bert.` before an
/// encoder's tensors, `weight` and `bias` for `gamma` and `beta`.
pub fn canonical_name(from: &str) -> String {
    let prefixed = ["embeddings.", "encoder.", "pooler."].iter().any(|part| from.starts_with(part));
    let name = if prefixed { format!("bert.{from}") } else { from.to_owned() };
    if let Some(norm) = name.strip_suffix(".gamma") {
        format!("{norm}.weight")
    } else if let Some(norm) = name.strip_suffix(".beta") {
        format!("{norm}.bias")
    } else {
        name
    }
}

/// Whether `name` is the decoder's copy of a tied tensor; a copy that differs is reported, for it would be lost.
fn is_tied_copy(name: &str, stored: &BTreeMap<String, String>, weights: &Weights, report: &mut Report) -> bool {
    let original = match name {
        DECODER => WORDS,
        DECODER_BIAS => MLM_BIAS,
        _ => return false,
    };
    if let (Some(copy), Some(from)) = (stored.get(name), stored.get(original))
        && !weights.same(copy, from)
    {
        report.untied(copy, from);
    }
    true
}

/// What does not fit, a line each.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
}

impl Report {
    fn missing(&mut self, name: &str, expected: &[usize]) {
        self.lines.push(format!("missing: {name}, expected {expected:?}"));
    }

    fn surplus(&mut self, from: &str, weights: &Weights) {
        let found = weights.shape(from).unwrap_or_default();
        self.lines.push(format!("surplus: {from} {found:?} has no place in this model"));
    }

    fn compare(&mut self, from: &str, expected: &[usize], weights: &Weights) {
        let found = weights.shape(from).unwrap_or_default();
        if found != expected {
            self.lines.push(format!("wrong shape: {from}, expected {expected:?}, found {found:?}"));
        } else if let Some(dtype) = weights.unreadable_dtype(from) {
            self.lines.push(format!("wrong type: {from}, expected F32, BF16, F16 or F64, found {dtype}"));
        }
    }

    fn twice(&mut self, a: &str, b: &str) {
        self.lines.push(format!("twice: {a} and {b} are the same tensor"));
    }

    fn untied(&mut self, copy: &str, original: &str) {
        self.lines.push(format!("untied: {copy} differs from {original}; only a tied decoder can be built"));
    }

    fn finish(self, dir: &Path) -> Result<(), ModelError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let report = self.lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
        Err(ModelError::Tensors { path: dir.to_owned(), report })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::TaskHead;
    use safetensors::tensor::{TensorView, serialize};
    use std::path::PathBuf;
    use tempfile::{TempDir, tempdir};

    fn small() -> Config {
        Config {
            vocab_size: 20,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 10,
            ..Config::default()
        }
    }

    fn device() -> Device {
        Device::cpu(Some(1)).unwrap()
    }

    fn saved(heads: Heads) -> (TempDir, Model) {
        let model = Model::new(small(), heads, &device(), 5).unwrap();
        let dir = tempdir().unwrap();
        model.save(dir.path()).unwrap();
        (dir, model)
    }

    /// A tensor taken from a file: name, type, shape, bytes.
    type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

    fn read_stored(dir: &Path) -> Vec<Stored> {
        let bytes = fs::read(dir.join(WEIGHTS_FILE)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let stored = tensors
            .iter()
            .map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        stored.collect()
    }

    fn write_stored(path: PathBuf, stored: &[Stored]) {
        let views = stored
            .iter()
            .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        fs::write(path, serialize(views, None).unwrap()).unwrap();
    }

    fn rewrite(dir: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
        let mut stored = read_stored(dir);
        change(&mut stored);
        write_stored(dir.join(WEIGHTS_FILE), &stored);
    }

    fn load_error(dir: &Path) -> String {
        Model::load(dir, &device()).err().expect("a folder that cannot be loaded").to_string()
    }

    #[test]
    fn every_kind_of_head_survives_saving_and_loading() {
        let tasks = [
            TaskHead::Classify { labels: 1 },
            TaskHead::Classify { labels: 5 },
            TaskHead::Tag { labels: 3, layers: 1 },
            TaskHead::Tag { labels: 3, layers: 2 },
            TaskHead::Answer,
            TaskHead::Choose,
        ];
        let all = [Heads::PRETRAINING, Heads::MLM, Heads::NSP, Heads::ENCODER, Heads::NONE];
        for heads in all.into_iter().chain(tasks.map(Heads::of)) {
            let (dir, model) = saved(heads);
            let loaded = Model::load(dir.path(), &device()).unwrap();
            assert_eq!(loaded.heads, heads);
            assert_eq!(loaded.params.read_all(), model.params.read_all());
            let architecture = loaded.config.architectures.clone().unwrap();
            assert_eq!(architecture, [heads.architecture()]);
            let prefixed = stored_names(dir.path()).iter().any(|name| name.starts_with("bert."));
            assert_eq!(prefixed, heads.architecture() != "BertModel");
            let files: BTreeSet<String> = fs::read_dir(dir.path())
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(files, BTreeSet::from([CONFIG_FILE.to_owned(), WEIGHTS_FILE.to_owned()]));
        }
    }

    fn stored_names(dir: &Path) -> Vec<String> {
        crate::stored_tensors(dir).unwrap().into_iter().map(|tensor| tensor.name).collect()
    }

    #[test]
    fn old_names_and_copies_are_understood() {
        let (dir, model) = saved(Heads::PRETRAINING);
        rewrite(dir.path(), |stored| {
            let find =
                |stored: &[Stored], wanted: &str| stored.iter().find(|(name, ..)| name == wanted).unwrap().clone();
            let (words, bias) = (find(stored, WORDS), find(stored, MLM_BIAS));
            stored.push((DECODER.to_owned(), words.1, words.2, words.3));
            stored.push((DECODER_BIAS.to_owned(), bias.1, bias.2, bias.3));
            let positions: Vec<u8> = (0..10i64).flat_map(i64::to_le_bytes).collect();
            stored.push(("bert.embeddings.position_ids".to_owned(), Dtype::I64, vec![1, 10], positions));
            for (name, ..) in stored {
                *name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
            }
        });
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), model.params.read_all());

        // The decoder's bias under its other name alone.
        rewrite(dir.path(), |stored| stored.retain(|(name, ..)| name != MLM_BIAS));
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), model.params.read_all());
    }

    #[test]
    fn untied_decoder_is_refused() {
        let (dir, _) = saved(Heads::MLM);
        rewrite(dir.path(), |stored| stored.push((DECODER.to_owned(), Dtype::F32, vec![20, 8], vec![1; 640])));
        assert!(load_error(dir.path()).contains("untied: cls.predictions.decoder.weight differs"));
    }

    #[test]
    fn half_precision_widens() {
        let (dir, model) = saved(Heads::ENCODER);
        let rounded: Vec<f32> =
            model.params.read_all().iter().map(|&value| half::bf16::from_f32(value).to_f32()).collect();
        rewrite(dir.path(), |stored| {
            for (_, dtype, _, bytes) in stored {
                let values = bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
                *bytes = values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes()).collect();
                *dtype = Dtype::BF16;
            }
        });
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), rounded);
    }

    #[test]
    fn shards_are_joined_and_a_missing_one_is_named() {
        let (dir, model) = saved(Heads::PRETRAINING);
        let stored = read_stored(dir.path());
        fs::remove_file(dir.path().join(WEIGHTS_FILE)).unwrap();
        let half = stored.len() / 2;
        let mut map = serde_json::Map::new();
        for (file, part) in [("a.safetensors", &stored[..half]), ("b.safetensors", &stored[half..])] {
            write_stored(dir.path().join(file), part);
            map.extend(part.iter().map(|(name, ..)| (name.clone(), Value::from(file))));
        }
        let index = dir.path().join("model.safetensors.index.json");
        let write_index = |map: &serde_json::Map<String, Value>| {
            fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
        };
        write_index(&map);
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), model.params.read_all());

        map.insert("phantom".to_owned(), Value::from("a.safetensors"));
        write_index(&map);
        assert!(load_error(dir.path()).contains("no shard holds phantom"));
        map.insert("phantom".to_owned(), Value::from("../a.safetensors"));
        write_index(&map);
        assert!(load_error(dir.path()).contains("no plain file name"));
        fs::remove_file(dir.path().join("b.safetensors")).unwrap();
        map.remove("phantom");
        write_index(&map);
        assert!(load_error(dir.path()).contains("b.safetensors"));
    }

    #[test]
    fn every_tensor_that_does_not_fit_is_named_at_once() {
        let (dir, _) = saved(Heads::PRETRAINING);
        rewrite(dir.path(), |stored| {
            stored.retain(|(name, ..)| name != "bert.encoder.layer.1.attention.self.key.bias");
            for (name, dtype, shape, bytes) in stored.iter_mut() {
                match name.as_str() {
                    "bert.pooler.dense.weight" => (*shape, *bytes) = (vec![4, 8], vec![0; 128]),
                    "cls.seq_relationship.bias" => *dtype = Dtype::I32,
                    _ => {}
                }
            }
            stored.push(("adapter.weight".to_owned(), Dtype::F32, vec![3, 8], vec![0; 96]));
        });
        let error = load_error(dir.path());
        for line in [
            "missing: bert.encoder.layer.1.attention.self.key.bias, expected [8]",
            "wrong shape: bert.pooler.dense.weight, expected [8, 8], found [4, 8]",
            "wrong type: cls.seq_relationship.bias, expected F32, BF16, F16 or F64, found I32",
            "surplus: adapter.weight [3, 8]",
        ] {
            assert!(error.contains(line), "{line} not in {error}");
        }
        assert_eq!(error.lines().count(), 5, "{error}");
    }

    #[test]
    fn promised_head_without_tensors_is_missing() {
        let (dir, _) = saved(Heads::MLM);
        let config = fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap();
        fs::write(dir.path().join(CONFIG_FILE), config.replace("BertForMaskedLM", "BertForPreTraining")).unwrap();
        assert!(load_error(dir.path()).contains("missing: cls.seq_relationship.weight, expected [2, 8]"));
    }

    #[test]
    fn damaged_weights_say_so() {
        let (dir, _) = saved(Heads::MLM);
        let path = dir.path().join(WEIGHTS_FILE);
        let whole = fs::read(&path).unwrap();
        let cases: [(&[u8], &str); 5] = [
            (&whole[..whole.len() - 5], "truncated"),
            (&whole[..100], "is announced in a file of 100"),
            (&[], "0 bytes"),
            (b"this is no safetensors file at all", "is announced"),
            (b"\x05\0\0\0\0\0\0\0{\"a\":", "damaged"),
        ];
        for (bytes, expected) in cases {
            fs::write(&path, bytes).unwrap();
            let error = load_error(dir.path());
            assert!(error.contains(expected) && error.contains(WEIGHTS_FILE), "{expected}: {error}");
        }
        fs::remove_file(&path).unwrap();
        fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
        let error = load_error(dir.path());
        assert!(error.contains("neither model.safetensors") && error.contains("pytorch_model.bin"), "{error}");
        assert!(load_error(&dir.path().join("absent")).contains("is no model folder"));
    }

    #[test]
    fn unwritable_folder_is_an_error() {
        let (dir, model) = saved(Heads::MLM);
        let error = model.save(&dir.path().join(CONFIG_FILE)).unwrap_err().to_string();
        assert!(error.contains("cannot write"), "{error}");
    }
}
