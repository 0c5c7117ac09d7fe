//! Hugging Face model folders: `config.json` and `model.safetensors`, read and written under Transformers' names.
//!
//! Reading accepts the names that old and new exporters write (see [`schema`](crate::schema)), f32, f16, bf16 or f64 elements, and
//! shards.
//! Whatever does not fit is named, all of it at once. Writing streams tensor by tensor into a file beside the final one,
//! which then takes its place: a reader never sees half a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cloze_engine::{Device, ParamId};
use cloze_files::digest::Digesting;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;
use serde_json::Value;

use crate::bert::InitFrom;
use crate::config::Config;
use crate::error::ModelError;
use crate::heads::Heads;
use crate::model::{Blueprint, Model};
use crate::role::{Head, Role};
use crate::schema::{Inventory, TiedCopy};
use crate::weights::{CHECKSUM, WEIGHTS_FILE, Weights};

/// The name of the configuration file that is read and written.
pub const CONFIG_FILE: &str = "config.json";

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
        folder.read(heads, BTreeSet::new(), &BTreeSet::new(), device, 0)
    }

    /// Opens a Hugging Face folder for other heads than those it was saved with: its encoder, and those of its heads that are
    /// asked for. Heads that it lacks, that have other shapes there, or that are among `anew` are drawn by `seed`; its other heads are
    /// left aside.
    ///
    /// # Errors
    /// As [`load`](Self::load); the encoder must be complete.
    pub fn load_with(
        dir: &Path,
        heads: Heads,
        anew: &[Head],
        device: &Device,
        seed: u64,
    ) -> Result<(Model, LoadReport), ModelError> {
        let folder = Folder::open(dir)?;
        let schema = folder.config.schema();
        let blueprint = Blueprint::new(folder.config.clone(), heads, InitFrom::Random)?;
        let of_heads = blueprint.listed().iter().filter(|declared| declared.role.module.head().is_some());
        let fits = |role: Role, shape: &[usize]| {
            folder.shape(role) == Some(shape) && role.module.head().is_none_or(|head| !anew.contains(&head))
        };
        let (kept, missing): (Vec<_>, Vec<_>) = of_heads.partition(|declared| fits(declared.role, &declared.shape));
        let kept: BTreeSet<Role> = kept.into_iter().map(|declared| declared.role).collect();
        let missing: BTreeSet<Role> = missing.into_iter().map(|declared| declared.role).collect();

        let mut report = LoadReport::default();
        let new = missing.iter().filter_map(|role| Some((schema.name(*role), role.module.head()?)));
        report.newly_initialized.extend(new.map(|(name, head)| HeadTensor { name, head }));
        for tensor in
            folder.inventory.tensors.iter().filter(|tensor| tensor.role.is_none_or(|role| !kept.contains(&role)))
        {
            let head = schema.head(&tensor.name).into_iter();
            report.unused.extend(head.map(|head| HeadTensor { name: tensor.name.clone(), head }));
        }
        report.newly_initialized.sort();
        let unused: BTreeSet<String> = report.unused.iter().map(|tensor| tensor.name.clone()).collect();
        Ok((folder.read(heads, missing, &unused, device, seed)?, report))
    }

    /// Writes `config.json` and `model.safetensors` (f32) into `dir`, made if need be, as Transformers' `save_pretrained`
    /// does for its [class](Self::class_name). Both are fsynced before they replace what was there.
    ///
    /// # Errors
    /// [`ModelError::Write`]; what was in the folder before is then still whole.
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        fs::create_dir_all(dir).map_err(|source| ModelError::Write { path: dir.to_owned(), source })?;
        let mut config = self.config().clone();
        config.architectures = Some(vec![self.class_name().to_owned()]);
        let dtype = if config.extra.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        config.extra.insert(dtype.to_owned(), Value::from("float32"));
        // Weights first: a folder with a config is a folder with its weights.
        cloze_files::write_with(&dir.join(WEIGHTS_FILE), |file| self.write_weights(file))?;
        Ok(cloze_files::write(&dir.join(CONFIG_FILE), config.to_json().as_bytes())?)
    }

    /// The safetensors form: length of the header, header, every tensor's f32 bytes in order of name.
    fn write_weights(&self, file: &mut impl Write) -> io::Result<()> {
        let (schema, class) = (self.schema(), self.class());
        let stored_name = |name: &str| schema.name_in(class, name).to_owned();
        let mut named: Vec<_> = self.params.ids().map(|id| (stored_name(self.params.name(id)), id)).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let mut offset = 0;
        let infos = named.iter().map(|(name, id)| {
            let start = offset;
            offset += 4 * self.params.size(*id);
            let shape = self.params.shape(*id).to_vec();
            (name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, offset) })
        });
        let tensors: BTreeMap<String, TensorInfo> = infos.collect();
        let ids = || named.iter().map(|(_, id)| *id);
        let mut digest = Digesting::new(io::sink());
        self.write_values(ids(), &mut digest)?;
        let checksum = digest.finish().1.xxh3;
        let about = BTreeMap::from([("format", "pt"), (CHECKSUM, checksum.as_str())]);
        let mut header = serde_json::to_vec(&Header { about, tensors })?;
        header.resize(header.len().next_multiple_of(8), b' ');
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        self.write_values(ids(), file)
    }

    /// The f32 bytes of some parameters.
    fn write_values(&self, ids: impl Iterator<Item = ParamId>, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(4 * CHUNK);
        for id in ids {
            for chunk in self.params.read(id).chunks(CHUNK) {
                bytes.clear();
                bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
                to.write_all(&bytes)?;
            }
        }
        Ok(())
    }
}

/// A safetensors header, its keys in the order of their names: files of equal weights are equal.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    about: BTreeMap<&'static str, &'a str>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

/// What became of the heads of a folder that was opened for other heads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Tensors that the folder lacks, or has in another shape: drawn at random.
    pub newly_initialized: Vec<HeadTensor>,
    /// Tensors of the folder that the model has no place for: left aside.
    pub unused: Vec<HeadTensor>,
}

/// A tensor of a head.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeadTensor {
    /// Its name in Transformers' models with a head.
    pub name: String,
    /// The head.
    pub head: Head,
}

impl LoadReport {
    /// Lines that say which heads were left aside and which are new; none if the folder had just those asked for.
    pub fn notes(&self) -> Vec<String> {
        let lists =
            [("left aside from the checkpoint", &self.unused), ("new, drawn at random", &self.newly_initialized)];
        let line = |(what, tensors): (&str, &Vec<HeadTensor>)| {
            let mut heads: Vec<&str> = tensors.iter().map(|tensor| tensor.head.name()).collect();
            heads.dedup();
            format!("{what}: {}", heads.join(", "))
        };
        lists.into_iter().filter(|(_, tensors)| !tensors.is_empty()).map(line).collect()
    }
}

/// A model folder, opened: nothing but headers is read yet.
struct Folder {
    dir: PathBuf,
    config: Config,
    weights: Weights,
    inventory: Inventory,
}

impl Folder {
    fn open(dir: &Path) -> Result<Folder, ModelError> {
        if !dir.is_dir() {
            let problem = "expected a folder with config.json and model.safetensors".to_owned();
            return Err(ModelError::Folder { path: dir.to_owned(), problem });
        }
        let config = Config::read(&dir.join(CONFIG_FILE))?;
        let weights = Weights::open(dir)?;
        let inventory = Inventory::of(config.schema(), weights.names());
        Ok(Folder { dir: dir.to_owned(), config, weights, inventory })
    }

    /// The shape of a parameter as stored.
    fn shape(&self, role: Role) -> Option<&[usize]> {
        self.weights.shape(self.inventory.find(role)?)
    }

    fn heads(&self) -> Heads {
        let (config, schema) = (&self.config, self.config.schema());
        let stored: BTreeSet<Head> =
            self.inventory.tensors.iter().filter_map(|tensor| schema.head(&tensor.name)).collect();
        Heads::found(
            |class| config.is_of_class(class),
            |head| stored.contains(&head),
            |role| self.shape(role).map(<[usize]>::to_vec),
            config.labels().map(|labels| labels.len()),
            config.hidden_size,
        )
    }

    /// The model with these heads; those of its parameters in `missing` are not taken from the folder, and the folder's tensors in
    /// `unused` have no place in it.
    fn read(
        self,
        heads: Heads,
        missing: BTreeSet<Role>,
        unused: &BTreeSet<String>,
        device: &Device,
        seed: u64,
    ) -> Result<Model, ModelError> {
        let Folder { dir, config, weights, inventory } = self;
        // The weights come from the file: no use in drawing random ones first.
        let blueprint = Blueprint::new(config, heads, InitFrom::Checkpoint { missing: missing.clone() })?;

        // Everything is compared before anything is allocated: a config of absurd sizes costs nothing.
        let mut report = Report { lines: inventory.twice.clone() };
        let mut known = BTreeSet::new();
        for declared in blueprint.listed() {
            known.insert(declared.role);
            match inventory.find(declared.role) {
                _ if missing.contains(&declared.role) => {}
                None => report.missing(&blueprint.schema().name(declared.role), &declared.shape),
                Some(from) => report.compare(from, &declared.shape, &weights),
            }
        }
        for tensor in inventory.tensors.iter().filter(|tensor| !unused.contains(&tensor.name)) {
            if !tensor.role.is_some_and(|role| known.contains(&role)) {
                report.surplus(&tensor.stored, &weights);
            }
        }
        let differs = |copy: &&TiedCopy| heads.mlm && !weights.same(&copy.stored, &copy.original);
        report.lines.extend(inventory.copies.iter().filter(differs).map(TiedCopy::differs));
        report.finish(&dir)?;

        let mut model = blueprint.build(device, seed);
        let roles: Vec<_> = model.roles().filter(|(_, role)| !missing.contains(role)).collect();
        for (id, role) in roles {
            if let Some(from) = inventory.find(role) {
                let mut is_damaged = false;
                model.params.edit(id, |values| {
                    weights.read_f32(from, values);
                    // Not `any`, which looks at one number at a time.
                    is_damaged = values.iter().fold(false, |found, value| found | value.is_nan());
                });
                if is_damaged {
                    return Err(ModelError::NotNumbers { path: dir, tensor: from.to_owned() });
                }
            }
        }
        Ok(model)
    }
}

/// Floats converted to bytes at a time.
const CHUNK: usize = 1 << 16;

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
    use crate::testing::device;
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

    const DECODER: &str = "cls.predictions.decoder.weight";
    const DECODER_BIAS: &str = "cls.predictions.decoder.bias";
    const MLM_BIAS: &str = "cls.predictions.bias";
    const WORDS: &str = "bert.embeddings.word_embeddings.weight";

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
            let architecture = loaded.config().architectures.clone().unwrap();
            assert_eq!(architecture, [model.class_name()]);
            let prefixed = stored_names(dir.path()).iter().any(|name| name.starts_with("bert."));
            assert_eq!(prefixed, model.class_name() != "BertModel");
            let files: BTreeSet<String> = fs::read_dir(dir.path())
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(files, BTreeSet::from([CONFIG_FILE.to_owned(), WEIGHTS_FILE.to_owned()]));
        }
    }

    #[test]
    fn a_causal_model_is_saved_as_transformers_opens_it() {
        let model = Model::new(small().causal(), Heads::MLM, &device(), 5).unwrap();
        let dir = tempdir().unwrap();
        model.save(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&config["is_decoder"], &config["architectures"][0]),
            (&Value::from(true), &Value::from("BertLMHeadModel"))
        );
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!((loaded.heads, loaded.architecture().causal), (Heads::MLM, true));
        assert_eq!(loaded.params.read_all(), model.params.read_all());
        // Without is_decoder Transformers attends to both sides, and so do we.
        fs::write(dir.path().join(CONFIG_FILE), text.replace("\"is_decoder\": true", "\"is_decoder\": false")).unwrap();
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!((loaded.heads, loaded.architecture().causal), (Heads::MLM, false));
    }

    /// Some exporters write a tied tensor under the copy's name alone.
    #[test]
    fn a_copy_stands_for_an_original_that_is_not_there() {
        let (dir, model) = saved(Heads::MLM);
        rewrite(dir.path(), |stored| {
            stored.iter_mut().filter(|(name, ..)| name == WORDS).for_each(|(name, ..)| *name = DECODER.to_owned());
        });
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), model.params.read_all());
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
