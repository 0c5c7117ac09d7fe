//! Hugging Face model folders: reads and writes `config.json` and `model.safetensors` under Transformers' names.
//!
//! Reading accepts the names that old and new exporters write (see [`schema`](crate::schema)), f32, f16, bf16 or f64
//! elements, and shards. All problems are reported at once, with the names of a few tensors of each kind. Writing
//! streams tensor by tensor into a temporary file that then replaces the final one: readers never see an incomplete
//! checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cloze_engine::{Device, ParamId, Parameters};
use cloze_files::digest::DigestWriter;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;
use serde_json::Value;

use crate::bert::InitFrom;
use crate::config::Config;
use crate::error::ModelError;
use crate::graph::ModelGraph;
use crate::heads::{Heads, TaskHead};
use crate::model::{Blueprint, Model};
use crate::role::{Head, Module, Role};
use crate::schema::{Inventory, NamedTensor};
use crate::task_input::{Features, TaskInput};
use crate::weights::{CHECKSUM, WEIGHTS_FILE, Weights};

/// The name of the configuration file.
pub const CONFIG_FILE: &str = "config.json";
/// The file that PEFT writes next to an adapter's weights.
const ADAPTER_FILE: &str = "adapter_config.json";

impl Model {
    /// Loads a Hugging Face folder. The model has the heads that the `architectures` in its config name, and those
    /// whose tensors are stored.
    ///
    /// # Errors
    /// [`ModelError::Read`], [`ModelError::Json`] and [`ModelError::Config`] for `config.json`; [`ModelError::Folder`]
    /// without weights; [`ModelError::Weights`] for a damaged file; [`ModelError::Tensors`] for tensors that are
    /// missing, unexpected, of another shape or not readable, with expected and found shapes.
    pub fn load(dir: &Path, device: &Device) -> Result<Model, ModelError> {
        let folder = Folder::open(dir)?;
        let heads = folder.heads();
        folder.read(heads, BTreeSet::new(), &BTreeSet::new(), device, 0)
    }

    /// Loads a Hugging Face folder with the given heads: the encoder, and those of its heads that are in `heads`. A
    /// head is initialised by `seed` if it is missing, has another shape, or is in `reinitialized`. Other heads,
    /// including unknown ones, are ignored.
    ///
    /// # Errors
    /// As [`load`](Self::load); the encoder must be complete.
    pub fn load_with(
        dir: &Path,
        heads: Heads,
        reinitialized: &[Head],
        device: &Device,
        seed: u64,
    ) -> Result<(Model, LoadReport), ModelError> {
        Folder::open(dir)?.read_with(heads, reinitialized, device, seed)
    }

    /// As [`load_with`](Self::load_with), for the head of a task that reads `input`.
    ///
    /// # Errors
    /// As [`load_with`](Self::load_with).
    pub fn load_for_task(
        dir: &Path,
        task: TaskHead,
        input: TaskInput,
        reinitialized: &[Head],
        device: &Device,
        seed: u64,
    ) -> Result<(Model, LoadReport), ModelError> {
        let mut folder = Folder::open(dir)?;
        folder.config.task_input = input;
        folder.read_with(Heads::of(task), reinitialized, device, seed)
    }

    /// Loads the encoder of a Hugging Face folder, and its pooler if stored. Problems of other heads are ignored.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_encoder(dir: &Path, device: &Device) -> Result<(Model, LoadReport), ModelError> {
        Model::load_encoder_with(dir, Heads::NONE, device, 0)
    }

    /// As [`load_encoder`](Self::load_encoder), with further heads, each initialised by `seed` if it is missing or has another
    /// shape.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_encoder_with(
        dir: &Path,
        heads: Heads,
        device: &Device,
        seed: u64,
    ) -> Result<(Model, LoadReport), ModelError> {
        let folder = Folder::open(dir)?;
        let pooler = folder.heads().pooler && folder.shape(Module::Pooler.weight()).is_some();
        folder.read_with(Heads { pooler: pooler || heads.pooler, ..heads }, &[], device, seed)
    }

    /// Writes `config.json` and `model.safetensors` (f32) to `dir`, which is created if necessary, as `save_pretrained`
    /// of Transformers does for this model's [class](ModelGraph::class_name). Both files are synced before they replace
    /// existing ones.
    ///
    /// # Errors
    /// [`ModelError::Write`]; existing files are then still complete.
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        ModelGraph::save(self, &self.params, dir)
    }
}

impl ModelGraph {
    /// As [`Model::save`], with the values of the parameters in `params`.
    ///
    /// # Errors
    /// [`ModelError::Write`]; existing files are then still complete.
    pub fn save(&self, params: &Parameters, dir: &Path) -> Result<(), ModelError> {
        self.save_heads(self.heads, params, dir)
    }

    /// As [`save`](Self::save), without the heads that are not in `heads`.
    ///
    /// # Errors
    /// [`ModelError::Write`]; existing files are then still complete.
    pub fn save_heads(&self, heads: Heads, params: &Parameters, dir: &Path) -> Result<(), ModelError> {
        fs::create_dir_all(dir).map_err(|source| ModelError::Write { path: dir.to_owned(), source })?;
        let class = heads.class(self.architecture().causal);
        let mut config = self.config().clone();
        config.architectures = Some(vec![self.schema().class_name(class).unwrap_or_default().to_owned()]);
        let dtype = if config.extra.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        config.extra.insert(dtype.to_owned(), Value::from("float32"));
        // Weights first: a folder with a config always has weights.
        cloze_files::write_with(&dir.join(WEIGHTS_FILE), |file| self.write_weights(heads, params, file))?;
        Ok(cloze_files::write(&dir.join(CONFIG_FILE), config.to_json().as_bytes())?)
    }

    /// Writes the safetensors format: length of the header, header, the f32 bytes of all tensors in order of name.
    fn write_weights(&self, heads: Heads, params: &Parameters, file: &mut impl Write) -> io::Result<()> {
        let (schema, class) = (self.schema(), heads.class(self.architecture().causal));
        let stored_name = |name: &str| schema.name_in(class, name).to_owned();
        let is_stored = |role: Role| role.module.head().is_none_or(|head| heads.has(head));
        let mut named: Vec<_> = self
            .roles()
            .filter(|(_, role)| is_stored(*role))
            .map(|(id, role)| (stored_name(&schema.name(role)), id))
            .collect();
        // If the decoder is not tied, Transformers reads its bias under the decoder's name as well as under the head's.
        let names =
            [Module::MlmDecoder, Module::MlmBias].map(|module| schema.has(module).then(|| schema.name(module.bias())));
        if let [Some(decoder), Some(head)] = names
            && decoder != head
            && heads.mlm
            && self.find(Module::MlmDecoder.weight()).is_some()
            && let Some(bias) = self.find(Module::MlmBias.bias())
        {
            named.push((decoder, bias));
        }
        named.extend(self.copies_of_shared().map(|(role, id)| (stored_name(&schema.name(role)), id)));
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let mut offset = 0;
        let infos = named.iter().map(|(name, id)| {
            let start = offset;
            offset += 4 * params.size(*id);
            let shape = params.shape(*id).to_vec();
            (name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, offset) })
        });
        let tensors: BTreeMap<String, TensorInfo> = infos.collect();
        let ids = || named.iter().map(|(_, id)| *id);
        let mut digest = DigestWriter::new(io::sink());
        write_values(params, ids(), &mut digest)?;
        let checksum = digest.finish().1.xxh3;
        let metadata = BTreeMap::from([("format", "pt"), (CHECKSUM, checksum.as_str())]);
        file.write_all(&Header { metadata, tensors }.bytes()?)?;
        write_values(params, ids(), file)
    }

    /// The layers' parameters that are stored as copies of [shared](SharedParts) ones, by the role of the copy.
    fn copies_of_shared(&self) -> impl Iterator<Item = (Role, ParamId)> + '_ {
        let shares = !self.config().shared_parts.is_none();
        let layers = if shares { self.architecture().layers } else { 0 };
        (1..layers).flat_map(move |number| {
            self.roles().filter_map(move |(id, Role { module, kind })| match module {
                Module::Layer { number: 0, part } if self.config().shared_parts.contains(part) => {
                    Some((Role { module: Module::layer(number, part), kind }, id))
                }
                _ => None,
            })
        })
    }
}

/// Writes the f32 bytes of some parameters.
fn write_values(params: &Parameters, ids: impl Iterator<Item = ParamId>, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    for id in ids {
        for chunk in params.read(id).chunks(CHUNK) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            to.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// A safetensors header with sorted keys, so that files of equal weights are equal.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'static str, &'a str>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

impl Header<'_> {
    /// The length of the header, and the header, padded to a multiple of eight bytes.
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut header = serde_json::to_vec(self)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut header);
        Ok(bytes)
    }
}

/// Differences between a folder's heads and those of the model loaded from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LoadReport {
    /// Tensors that are missing in the folder or have another shape: sampled.
    pub newly_initialized: Vec<HeadTensor>,
    /// Tensors of the folder's heads that are not part of the model: ignored.
    pub unused: Vec<HeadTensor>,
    /// Names of other tensors that belong neither to the encoder nor to a known head: ignored.
    pub unknown: Vec<String>,
}

/// A tensor that belongs to a head.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct HeadTensor {
    /// Its name in Transformers' models with a head.
    pub name: String,
    /// The head.
    pub head: Head,
}

impl LoadReport {
    /// Lines about ignored and newly initialised heads; empty if the folder had exactly the requested heads.
    pub fn notes(&self) -> Vec<String> {
        let lists = [("not used from the checkpoint", &self.unused), ("newly initialized", &self.newly_initialized)];
        let line = |(label, tensors): (&str, &Vec<HeadTensor>)| {
            let mut heads: Vec<&str> = tensors.iter().map(|tensor| tensor.head.name()).collect();
            heads.dedup();
            format!("{label}: {}", heads.join(", "))
        };
        let mut lines: Vec<String> = lists.into_iter().filter(|(_, tensors)| !tensors.is_empty()).map(line).collect();
        lines.extend(self.unknown_note());
        lines
    }

    /// A line with the names of ignored tensors of unknown heads; `None` if there are none.
    pub fn unknown_note(&self) -> Option<String> {
        let names = abbreviated(&self.unknown);
        (!names.is_empty()).then(|| format!("not used from the checkpoint (unknown tensors): {names}"))
    }
}

/// Joins names for an error or a note: the first few, and the number of others.
fn abbreviated(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = names.len().saturating_sub(NAMES_SHOWN);
    if more > 0 { format!("{shown}; and {more} more") } else { shown }
}

/// Number of tensors of each kind that an error names.
const NAMES_SHOWN: usize = 4;

/// An opened model folder, of which only headers have been read.
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
        if dir.join(ADAPTER_FILE).is_file() {
            let problem = format!(
                "it contains only an adapter ({ADAPTER_FILE}), not the weights it changes; merge it into its model with PEFT's merge_and_unload() and \
                    save_pretrained() the result"
            );
            return Err(ModelError::Folder { path: dir.to_owned(), problem });
        }
        let mut config = Config::read(&dir.join(CONFIG_FILE))?;
        let weights = Weights::open(dir)?;
        let mut inventory = Inventory::of(config.schema(), weights.names());
        // As in Transformers: if the decoder is stored with values different from the word embeddings, it is not tied,
        // even if the config says so.
        let decoder = Module::MlmDecoder.weight();
        if let Some(copy) = inventory.copies.iter().find(|copy| copy.role == decoder)
            && !(config.tie_word_embeddings && weights.equal(&copy.stored, &copy.original))
        {
            inventory.untie(decoder);
            config.tie_word_embeddings = false;
        }
        drop_copies_of_shared(&mut inventory, &config, &weights, dir)?;
        let mut folder = Folder { dir: dir.to_owned(), config, weights, inventory };
        if folder.config.task_input.is_direct()
            && let Some(states) = folder.states_of_tagger()
        {
            folder.config.task_input.features = Features::ConcatLast(states);
        }
        Ok(folder)
    }

    /// The number of hidden states that the head of a tagger without `cloze_features` reads, by its width; `None` for one.
    fn states_of_tagger(&self) -> Option<usize> {
        let TaskHead::Tag { .. } = self.heads().task? else { return None };
        let &[_, width] = self.shape(Module::Classifier.weight())? else { return None };
        let hidden = self.config.hidden_size;
        (width > hidden && width.is_multiple_of(hidden)).then(|| width / hidden)
    }

    /// The stored shape of a parameter.
    fn shape(&self, role: Role) -> Option<&[usize]> {
        self.weights.shape(self.inventory.find(role)?)
    }

    fn heads(&self) -> Heads {
        let (config, schema) = (&self.config, self.config.schema());
        let stored: BTreeSet<Head> =
            self.inventory.tensors.iter().filter_map(|tensor| schema.head(&tensor.name)).collect();
        Heads::detect(
            |class| config.is_of_class(class),
            |head| stored.contains(&head),
            |role| self.shape(role).map(<[usize]>::to_vec),
            config.labels().map(|labels| labels.len()),
        )
    }

    /// The encoder with these heads: from the folder if they fit, otherwise initialised by `seed`.
    fn read_with(
        mut self,
        heads: Heads,
        reinitialized: &[Head],
        device: &Device,
        seed: u64,
    ) -> Result<(Model, LoadReport), ModelError> {
        let schema = self.config.schema();
        if heads.task.is_none() {
            self.config.task_input = TaskInput::default();
        }
        let blueprint = Blueprint::new(self.config.clone(), heads, InitFrom::Random)?;
        let of_heads = blueprint.listed().iter().filter(|declared| declared.role.module.head().is_some());
        let fits = |role: Role, shape: &[usize]| {
            self.shape(role) == Some(shape) && role.module.head().is_none_or(|head| !reinitialized.contains(&head))
        };
        let (loaded, missing): (Vec<_>, Vec<_>) = of_heads.partition(|declared| fits(declared.role, &declared.shape));
        let loaded: BTreeSet<Role> = loaded.into_iter().map(|declared| declared.role).collect();
        let missing: BTreeSet<Role> = missing.into_iter().map(|declared| declared.role).collect();

        let mut report = LoadReport::default();
        let new = missing.iter().filter_map(|role| Some((schema.name(*role), role.module.head()?)));
        report.newly_initialized.extend(new.map(|(name, head)| HeadTensor { name, head }));
        let is_loaded = |tensor: &&NamedTensor| tensor.role.is_some_and(|role| loaded.contains(&role));
        for NamedTensor { name, .. } in self.inventory.tensors.iter().filter(|tensor| !is_loaded(tensor)) {
            match schema.head(name) {
                Some(head) => report.unused.push(HeadTensor { name: name.clone(), head }),
                None if schema.is_of_encoder(name) => {}
                None => report.unknown.push(name.clone()),
            }
        }
        report.newly_initialized.sort();
        let unused = report.unused.iter().map(|tensor| &tensor.name).chain(&report.unknown).cloned().collect();
        Ok((self.read(heads, missing, &unused, device, seed)?, report))
    }

    /// The model with these heads. Its parameters in `missing` are not loaded from the folder; the folder's tensors in
    /// `unused` are ignored.
    fn read(
        self,
        heads: Heads,
        missing: BTreeSet<Role>,
        unused: &BTreeSet<String>,
        device: &Device,
        seed: u64,
    ) -> Result<Model, ModelError> {
        let Folder { dir, config, weights, inventory } = self;
        // Parameters that are loaded need not be sampled first.
        let blueprint = Blueprint::new(config, heads, InitFrom::Checkpoint { missing: missing.clone() })?;

        // Everything is compared before anything is allocated, so that a config with absurd sizes costs nothing.
        let mut report = Report { duplicates: inventory.duplicates.clone(), ..Report::default() };
        let mut known = BTreeSet::new();
        for declared in blueprint.listed() {
            known.insert(declared.role);
            match inventory.find(declared.role) {
                _ if missing.contains(&declared.role) => {}
                None => report.missing(&blueprint.graph.schema().name(declared.role), &declared.shape),
                Some(from) => report.compare(from, &declared.shape, &weights),
            }
        }
        for tensor in inventory.tensors.iter().filter(|tensor| !unused.contains(&tensor.name)) {
            if !tensor.role.is_some_and(|role| known.contains(&role)) {
                report.unexpected(&tensor.stored, &weights);
            }
        }
        if let Some(other) = inventory.other_family {
            report.summary = format!(
                "its tensors have the names of {other}, not of {}; correct the model_type in config.json",
                blueprint.graph.schema().family().title
            );
        } else if !inventory.models.is_empty() {
            report.summary = format!(
                "its tensors are those of several models, with names that start with {}; save one of these models separately",
                abbreviated(&inventory.models)
            );
        } else if !inventory.tensors.iter().any(|tensor| blueprint.graph.schema().is_of_encoder(&tensor.name)) {
            let names: Vec<String> = inventory.tensors.iter().map(|tensor| tensor.stored.clone()).collect();
            report.summary = {
                let title = blueprint.graph.schema().family().title;
                format!("none of its tensors belongs to an encoder of {title}; it contains {}", abbreviated(&names))
            };
        }
        report.finish(&dir)?;

        let mut model = blueprint.build(device, seed);
        let roles: Vec<_> = model.roles().filter(|(_, role)| !missing.contains(role)).collect();
        for (id, role) in roles {
            if let Some(from) = inventory.find(role) {
                let mut is_damaged = false;
                model.params.edit(id, |values| {
                    weights.read_f32(from, values);
                    // A fold without early exit: `any` would check one number at a time.
                    is_damaged = values.iter().fold(false, |found, value| found | value.is_nan());
                });
                if is_damaged {
                    return Err(ModelError::NanWeights { path: dir, tensor: from.to_owned() });
                }
            }
        }
        Ok(model)
    }
}

/// Removes the tensors that are copies of shared ones.
fn drop_copies_of_shared(
    inventory: &mut Inventory,
    config: &Config,
    weights: &Weights,
    dir: &Path,
) -> Result<(), ModelError> {
    let is_copy = |tensor: &NamedTensor| {
        let Some(Role { module: Module::Layer { number, part }, kind }) = tensor.role else { return None };
        let is_copy = number > 0 && config.shared_parts.contains(part);
        is_copy.then_some(Role { module: Module::layer(0, part), kind })
    };
    for tensor in &inventory.tensors {
        if let Some(shared) = is_copy(tensor).and_then(|role| inventory.find(role))
            && !weights.equal(&tensor.stored, shared)
        {
            let problem = format!(
                "cloze_shared_parts says that all layers share these weights, but {} differs from {shared}; remove the key to load them as \
                 separate weights",
                tensor.stored
            );
            return Err(ModelError::Config { path: Some(dir.join(CONFIG_FILE)), problem });
        }
    }
    inventory.tensors.retain(|tensor| is_copy(tensor).is_none());
    Ok(())
}

/// Reads the tensors of a separate module, such as sentence-transformers' `Dense`: those with the given names and
/// shapes, as f32, in this order. The model.safetensors in `dir` must contain exactly these tensors.
///
/// # Errors
/// [`ModelError::Folder`], [`ModelError::Read`], [`ModelError::Weights`]. [`ModelError::Tensors`] for tensors that are
/// missing, unexpected, or of another shape or type; nothing is allocated then.
pub fn read_tensors(dir: &Path, expected: &[(&str, &[usize])]) -> Result<Vec<Vec<f32>>, ModelError> {
    let weights = Weights::open(dir)?;
    let mut report = Report::default();
    for (name, shape) in expected {
        match weights.shape(name) {
            None => report.missing(name, shape),
            Some(_) => report.compare(name, shape, &weights),
        }
    }
    for stored in weights.names().filter(|stored| expected.iter().all(|(name, _)| name != stored)) {
        report.unexpected(stored, &weights);
    }
    report.finish(dir)?;
    let read = |(name, shape): &(&str, &[usize])| {
        let mut values = vec![0.0; shape.iter().product()];
        weights.read_f32(name, &mut values);
        values
    };
    Ok(expected.iter().map(read).collect())
}

/// Writes the tensors of a separate module to model.safetensors in the existing folder `dir`: names, shapes and values.
///
/// # Errors
/// [`ModelError::Write`].
pub fn write_tensors(dir: &Path, tensors: &[(&str, &[usize], &[f32])]) -> Result<(), ModelError> {
    let mut sorted = tensors.to_vec();
    sorted.sort_by_key(|(name, ..)| *name);
    let mut offset = 0;
    let infos = sorted.iter().map(|(name, shape, values)| {
        let start = offset;
        offset += 4 * values.len();
        ((*name).to_owned(), TensorInfo { dtype: Dtype::F32, shape: shape.to_vec(), data_offsets: (start, offset) })
    });
    let header = Header { metadata: BTreeMap::from([("format", "pt")]), tensors: infos.collect() };
    let bytes = || sorted.iter().flat_map(|(.., values)| values.iter()).flat_map(|value| value.to_le_bytes());
    Ok(cloze_files::write_with(&dir.join(WEIGHTS_FILE), |file| {
        file.write_all(&header.bytes()?)?;
        file.write_all(&bytes().collect::<Vec<u8>>())
    })?)
}

/// Number of floats that are converted to bytes at a time.
const CHUNK: usize = 1 << 16;

/// Differences between expected and stored tensors.
#[derive(Default)]
struct Report {
    missing: Vec<String>,
    shapes: Vec<String>,
    types: Vec<String>,
    unexpected: Vec<String>,
    duplicates: Vec<String>,
    /// Replaces all other lines if not empty.
    summary: String,
}

impl Report {
    fn missing(&mut self, name: &str, expected: &[usize]) {
        self.missing.push(format!("{name}, expected {expected:?}"));
    }

    fn unexpected(&mut self, from: &str, weights: &Weights) {
        let found = weights.shape(from).unwrap_or_default();
        self.unexpected.push(format!("{from} {found:?}"));
    }

    fn compare(&mut self, from: &str, expected: &[usize], weights: &Weights) {
        let found = weights.shape(from).unwrap_or_default();
        if found != expected {
            self.shapes.push(format!("{from}, expected {expected:?}, found {found:?}"));
        } else if let Some(dtype) = weights.unreadable_dtype(from) {
            self.types.push(format!("{from}, expected F32, BF16, F16 or F64, found {dtype}"));
        }
    }

    /// An error with a line for each kind of difference, which names a few tensors; `Ok` without differences.
    fn finish(self, dir: &Path) -> Result<(), ModelError> {
        let kinds = [
            ("missing", &self.missing),
            ("wrong shape", &self.shapes),
            ("wrong type", &self.types),
            ("unexpected", &self.unexpected),
            ("duplicate", &self.duplicates),
        ];
        let differences = kinds.into_iter().filter(|(_, tensors)| !tensors.is_empty());
        let mut lines: Vec<String> =
            differences.map(|(kind, tensors)| format!("  {kind}: {}", abbreviated(tensors))).collect();
        if !self.summary.is_empty() {
            lines = vec![format!("  {}", self.summary)];
        }
        if lines.is_empty() {
            return Ok(());
        }
        Err(ModelError::Tensors { path: dir.to_owned(), report: lines.join("\n") })
    }
}

#[cfg(test)]
mod tests;
