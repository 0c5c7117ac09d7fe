//! Texts → vectors, and the nearest of them.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`texts`] | a file of lines or of JSON objects → a stream of texts |
//! | [`pooling`] | hidden states of a text's tokens → one vector |
//! | `folder` | a sentence-transformers folder → what it says of pooling and length |
//! | [`vectors`] | vectors in memory, as `.npy`, `.safetensors` and `.jsonl` |
//! | [`search`] | vectors → the nearest to a query by cosine |
//!
//! A text is a sequence of its own (`[CLS] tokens [SEP]`), as in sentence-transformers (Reimers and Gurevych 2019), whose vectors these are where its folder
//! is opened: see `fixtures/embed/check.py`.

mod folder;
pub mod pooling;
pub mod search;
pub mod texts;
pub mod vectors;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_engine::{DType, Device, Var, ops};
use cloze_model::{Config, Inputs};
use cloze_text::Sequence;

use crate::forward::batches_of_like_lengths;
use crate::inference::pretrained::Pretrained;
use crate::task_settings::TaskSettings;
use crate::{TaskError, parallel};
use folder::Said;
use pooling::{Pool, Pooling, pool};
use vectors::Vectors;

/// Texts that are looked at together, so that batches are of like lengths.
const CHUNK_TEXTS: usize = 4096;
/// Bytes of text that are looked at together, so that long texts do not fill the memory.
const CHUNK_BYTES: usize = 8 << 20;
/// The longest text in tokens unless a folder or a caller says otherwise: as many positions as BERT has.
const DEFAULT_LEN: usize = 512;

/// Which pooling a caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolChoice {
    /// What a sentence-transformers folder says, else [`Pool::Mean`] without normalisation.
    #[default]
    Auto,
    /// This, of the last layer or of [`Options::layers`].
    Of(Pool),
    /// [`Pool::Mean`] of the last four hidden states side by side, as in Devlin et al. 2019, table 7.
    Last4,
}

/// How texts become vectors, as a caller asks for it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How a text's tokens become one vector.
    pub pool: PoolChoice,
    /// The hidden states to take, set side by side in this order: 0 is the embeddings', 1 … L a layer's, −1 the last. Empty: the last.
    pub layers: Vec<i64>,
    /// Divide each vector by its length. [`PoolChoice::Auto`] may do so without.
    pub normalize: bool,
    /// Tokens of a text at most, `[CLS]` and `[SEP]` included. None: what the folder says, else as many as the model was fine-tuned
    /// on, else 512 or as many positions as there are.
    pub max_len: Option<usize>,
}

/// Who says how texts become vectors where a caller leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A sentence-transformers folder.
    Folder,
    /// Nobody: the model's folder says nothing of it, and the mean of the last layer is taken.
    Usual,
}

/// A model that turns texts into vectors.
pub struct Embedder {
    /// The model.
    pub model: Arc<Pretrained>,
    /// How a text's tokens become one vector.
    pub pooling: Pooling,
    /// Tokens of a text at most; what is longer is cut.
    pub max_len: usize,
    /// Who says how texts become vectors where the caller leaves it open.
    pub source: Source,
    /// What a folder asks for that is not done: for people.
    pub notes: Vec<String>,
    /// Whether texts are put in lower case first: a sentence-transformers folder may ask for it.
    lowercase: bool,
    dir: PathBuf,
}

/// What [`Embedder::embed`] made.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// One vector a text, in order.
    pub vectors: Vectors,
    /// Texts that were longer than [`Embedder::max_len`].
    pub cut: usize,
}

/// What [`Embedder::embed_stream`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Texts.
    pub texts: usize,
    /// Those that were longer than [`Embedder::max_len`] and were cut.
    pub cut: usize,
    /// Those without a character other than space: their vectors say nothing.
    pub blank: usize,
}

impl Embedder {
    /// Opens a model folder, whatever its heads; of a sentence-transformers folder also what it says of pooling and length.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`]; a layer or a pooler that the model lacks; a length that does not fit its positions; with
    /// [`PoolChoice::Auto`], a sentence-transformers folder that asks for what is not known here.
    pub fn open(dir: &Path, device: Device, precision: DType, options: &Options) -> Result<Embedder, TaskError> {
        let said = folder::read(dir)?;
        let model_dir = said.as_ref().map_or(dir.to_owned(), |said| dir.join(&said.model));
        let model = Pretrained::open(&model_dir, device, precision)?;
        Embedder::new(Arc::new(model), dir, options)
    }

    /// As [`open`](Self::open), of a model that is open already; `dir` is its folder, or the sentence-transformers folder that it lies
    /// in.
    ///
    /// # Errors
    /// A layer or a pooler that the model lacks; a length that does not fit its positions; with [`PoolChoice::Auto`], a
    /// sentence-transformers folder that asks for what is not known here.
    pub fn new(pretrained: Arc<Pretrained>, dir: &Path, options: &Options) -> Result<Embedder, TaskError> {
        let said = folder::read(dir)?;
        let (model, config) = (&pretrained.model, pretrained.model.config());
        let (pools, normalize) = match (options.pool, &said) {
            (PoolChoice::Auto, Some(said)) => (said.pools(dir)?, said.normalize || options.normalize),
            (PoolChoice::Auto | PoolChoice::Last4, _) => (vec![Pool::Mean], options.normalize),
            (PoolChoice::Of(pool), _) => (vec![pool], options.normalize),
        };
        let last = model.architecture().layers;
        let layers = match (options.pool, &options.layers[..]) {
            (PoolChoice::Last4, []) if last >= 3 => (last - 3..=last).collect(),
            (PoolChoice::Last4, []) => {
                let problem = format!("last4 takes four hidden states; the model has {}", last + 1);
                return Err(TaskError::setting("--pool", problem));
            }
            (PoolChoice::Last4, _) => {
                return Err(TaskError::setting(
                    "--layers",
                    "last4 has layers of its own; choose --pool mean with them",
                ));
            }
            (PoolChoice::Of(Pool::Pooler), [_, ..]) => {
                return Err(TaskError::setting("--layers", "the pooler stands on the last layer; leave --layers out"));
            }
            (_, []) => vec![last],
            (_, layers) => layers.iter().map(|&layer| absolute(layer, last)).collect::<Result<_, _>>()?,
        };
        if pools.contains(&Pool::Pooler) && !model.heads.pooler {
            return Err(TaskError::Folder {
                path: dir.to_owned(),
                problem: format!("a {} has no pooler; choose another --pool", model.class_name()),
            });
        }
        let positions = model.architecture().longest_sequence();
        let said_len = said.as_ref().and_then(|said| said.max_len).map(|len| len.min(positions));
        let learned_len = trained_length(config, pretrained.dir())?.map(|len| len.min(positions));
        let max_len = options.max_len.or(said_len).or(learned_len).unwrap_or(DEFAULT_LEN.min(positions));
        let shortest = pretrained.tokenizer.template().added(false) + 1;
        if !(shortest..=positions).contains(&max_len) {
            let problem = format!("found {max_len}, expected {shortest} to {positions}, the model's positions");
            return Err(TaskError::setting("--max-len", problem));
        }
        let pooling = Pooling { pools, layers, normalize };
        let source = match &said {
            Some(_) => Source::Folder,
            None => Source::Usual,
        };
        let notes = said.as_ref().and_then(Said::prompts_note).into_iter().collect();
        let lowercase = said.is_some_and(|said| said.lowercase);
        Ok(Embedder { pooling, max_len, source, notes, lowercase, dir: dir.to_owned(), model: Arc::clone(&pretrained) })
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.pooling.width(self.model.model.architecture().hidden_size)
    }

    /// The vectors of some texts, in order. `progress` is told how many are done.
    ///
    /// The numbers of a text do not depend on its neighbours beyond rounding.
    ///
    /// # Errors
    /// [`TaskError::Folder`] when the model's vectors are not finite numbers.
    pub fn embed<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Embedded, TaskError> {
        // On all threads.
        let encoded = parallel::map(texts, self.model.device.threads(), |text| self.encode_one(text.as_ref()));
        let lengths: Vec<usize> = encoded.iter().map(|text| text.sequence.ids.len()).collect();
        let width = self.width();
        let (mut values, mut done) = (vec![0.0; texts.len() * width], 0);
        for now in batches_of_like_lengths(&lengths) {
            let rows = self.forward(now.iter().map(|&i| &encoded[i].sequence));
            for (&i, row) in now.iter().zip(rows.chunks_exact(width)) {
                values[i * width..(i + 1) * width].copy_from_slice(row);
            }
            done += now.len();
            progress(done);
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(TaskError::Folder {
                path: self.dir.clone(),
                problem: "its vectors are not finite numbers: its weights are damaged; train or download it again"
                    .into(),
            });
        }
        let cut = encoded.iter().filter(|text| text.cut).count();
        Ok(Embedded { vectors: Vectors::new(width, values), cut })
    }

    /// The vectors of a stream of texts, some thousand at a time, in order: `sink` is given the texts and their vectors. Memory does
    /// not grow with the stream. `progress` is told how many texts are done.
    ///
    /// # Errors
    /// Those of the stream, of [`embed`](Self::embed) and of `sink`.
    pub fn embed_stream<S: AsRef<str> + Sync>(
        &self,
        texts: impl IntoIterator<Item = Result<S, TaskError>>,
        progress: &mut dyn FnMut(usize),
        mut sink: impl FnMut(Vec<S>, Vectors) -> Result<(), TaskError>,
    ) -> Result<Summary, TaskError> {
        let (mut summary, mut texts) = (Summary::default(), texts.into_iter());
        loop {
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while chunk.len() < CHUNK_TEXTS && bytes < CHUNK_BYTES {
                let Some(text) = texts.next().transpose()? else { break };
                bytes += text.as_ref().len();
                summary.blank += usize::from(text.as_ref().trim().is_empty());
                chunk.push(text);
            }
            if chunk.is_empty() {
                return Ok(summary);
            }
            let before = summary.texts;
            let Embedded { vectors, cut } = self.embed(&chunk, &mut |done| progress(before + done))?;
            summary.texts += chunk.len();
            summary.cut += cut;
            sink(chunk, vectors)?;
        }
    }

    fn encode_one(&self, text: &str) -> Encoded {
        let tokenizer = &self.model.tokenizer;
        let (template, room) = (tokenizer.template(), tokenizer.template().room(self.max_len, false));
        let tokens = if self.lowercase { tokenizer.encode(&text.to_lowercase()) } else { tokenizer.encode(text) };
        Encoded { sequence: template.sequence(&tokens[..tokens.len().min(room)], None), cut: tokens.len() > room }
    }

    /// The vectors of one batch, end to end.
    fn forward<'a>(&self, sequences: impl Iterator<Item = &'a Sequence>) -> Vec<f32> {
        let mut inputs = Inputs::default();
        for Sequence { ids, segments } in sequences {
            inputs.push(ids, segments);
        }
        self.model.forward(|model, pass| {
            let (last, pools) = (model.architecture().layers, self.pooling.pools.contains(&Pool::Pooler));
            if self.pooling.reads_firsts_alone(last) {
                let cls = model.cls_states(pass, &inputs);
                let pooled = if pools { model.pooler_output(pass, &cls) } else { None };
                let alone: Vec<i32> = (0..=inputs.sequences() as i32).collect();
                return pool(&self.pooling, &[&cls], pooled.as_ref(), &alone);
            }
            let mut numbers = self.pooling.layers.clone();
            numbers.extend(pools.then_some(last));
            let states = model.hidden_states(pass, &inputs, &numbers);
            let states: Vec<&Var> = states.iter().collect();
            let pooled = pools.then(|| {
                let cls = pass.device().tensor_i32(inputs.cls_tokens(), &[inputs.sequences()]);
                let cls = ops::take_rows(pass, states[states.len() - 1], &cls);
                model.pooler_output(pass, &cls)
            });
            let states = &states[..self.pooling.layers.len()];
            pool(&self.pooling, states, pooled.flatten().as_ref(), &inputs.cu_seqlens)
        })
    }
}

/// A text as the network reads it, and whether it was cut for that.
struct Encoded {
    sequence: Sequence,
    cut: bool,
}

/// Tokens of a sequence at most when the model was fine-tuned, if it was and its settings have that.
fn trained_length(config: &Config, dir: &Path) -> Result<Option<usize>, TaskError> {
    Ok(TaskSettings::of_model(config, dir)?.and_then(|settings| settings.max_len))
}

/// The number of a hidden state from 0, given from 0 or, negative, from the end.
fn absolute(layer: i64, last: usize) -> Result<usize, TaskError> {
    let states = last as i64 + 1;
    let number = if layer < 0 { layer.saturating_add(states) } else { layer };
    if (0..states).contains(&number) {
        return Ok(number as usize);
    }
    let problem =
        format!("found {layer}, expected 0 (embeddings) to {last} (the last layer), or -1 (the last) to -{states}");
    Err(TaskError::setting("--layers", problem))
}

#[cfg(test)]
mod tests;
