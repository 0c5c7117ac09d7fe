//! Text embeddings, and search for the nearest vectors.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`texts`] | a file of lines or of JSON objects → a stream of texts |
//! | `folder` | a folder → its settings of prompts, lengths, pooling, modules and similarity |
//! | [`prompts`] | the purpose of a text → its prompt |
//! | [`pooling`] | hidden states of a text's tokens → one vector |
//! | [`modules`] | that vector → the vector after the folder's modules |
//! | [`vectors`] | vectors in memory, and in `.npy`, `.safetensors` and `.jsonl` files |
//! | [`search`] | vectors → the nearest to a query |
//! | `arithmetic` | dot products and normalization |
//!
//! Each text is one sequence (`[CLS] tokens [SEP]`), as in sentence-transformers (Reimers and Gurevych 2019). The
//! vectors equal those of sentence-transformers 6.2 for every supported folder: see `fixtures/embed`.
//!
//! A text that is longer than the model's maximum length is truncated, or read in windows ([`Long`]). Each window is a sequence of its
//! own, with the prompt. The *pooled* vectors of the windows are pooled, before the folder's modules, so that these see one vector
//! of the text: then the mean of the windows of mean pooling is the mean over the tokens of the text (and of the special
//! tokens and prompts of the windows), and a dense layer and a normalization are applied once.

mod arithmetic;
pub(crate) mod folder;
pub mod modules;
pub mod pooling;
pub mod prompts;
pub mod search;
pub mod texts;
pub mod vectors;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_engine::Device;
use cloze_text::{Sequence, SpecialTokens};

use crate::example::{Example, Target};
use crate::inference::executor::{Executor, Output, run_all};
use crate::inference::precision::Precision;
use crate::inference::pretrained::Pretrained;
use crate::long::{Long, PooledWindows};
use crate::sequence::spans;
use crate::{TaskError, parallel};
pub(crate) use arithmetic::normalize;
use folder::{Chain, FolderSettings};
use modules::Module;
use pooling::{Pool, Pooling};
use prompts::{Prompt, Purpose};
use search::Similarity;
use vectors::Vectors;

/// The maximum number of texts in a chunk of a stream; within a chunk, texts of similar length are batched.
const CHUNK_TEXTS: usize = 4096;
/// The maximum number of bytes of text in a chunk, which limits the memory for long texts.
const CHUNK_BYTES: usize = 8 << 20;

/// The number of bytes of a text, after its prompt, that show which tokens belong to the prompt.
const BYTES_AFTER_PROMPT: usize = 1024;

/// The pooling that a caller selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolChoice {
    /// The pooling and the modules of a sentence-transformers folder; [`Pool::Mean`] for other folders.
    #[default]
    Auto,
    /// This pooling, of the last layer or of [`Options::layers`].
    Of(Pool),
    /// [`Pool::Mean`] of the last four hidden states, concatenated, as in Devlin et al. 2019, table 7.
    Last4,
}

impl PoolChoice {
    /// All choices, with names and descriptions.
    pub const ALL: [(PoolChoice, &'static str, &'static str); 9] = [
        (PoolChoice::Auto, "auto", "The pooling and the modules of a sentence-transformers folder, else the mean"),
        (PoolChoice::Of(Pool::Cls), Pool::Cls.name(), "The first token, [CLS]"),
        (PoolChoice::Of(Pool::Mean), Pool::Mean.name(), "The mean of all tokens, including [CLS] and [SEP]"),
        (
            PoolChoice::Of(Pool::MeanSqrtLen),
            Pool::MeanSqrtLen.name(),
            "The sum of all tokens divided by the square root of their number",
        ),
        (
            PoolChoice::Of(Pool::WeightedMean),
            Pool::WeightedMean.name(),
            "The mean of all tokens, the n-th with weight n",
        ),
        (PoolChoice::Of(Pool::Max), Pool::Max.name(), "The maximum of each dimension over all tokens"),
        (PoolChoice::Of(Pool::LastToken), Pool::LastToken.name(), "The last token, [SEP]"),
        (
            PoolChoice::Last4,
            "last4",
            "The mean of the last four hidden states, concatenated: four times as many dimensions",
        ),
        (PoolChoice::Of(Pool::Pooler), Pool::Pooler.name(), "The pooler's output"),
    ];
}

/// Options of how texts are embedded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The pooling of a text's tokens to one vector.
    pub pool: PoolChoice,
    /// The hidden states to pool, concatenated in this order: 0 is the output of the embeddings, 1 … L that of a layer,
    /// −1 the last. Empty: the last.
    pub layers: Vec<i64>,
    /// The number of leading dimensions that are kept, as sentence-transformers' `truncate_dim`, for models trained with a Matryoshka
    /// loss. [`normalize`](Self::normalize) applies to what is kept. None: all.
    pub dimensions: Option<usize>,
    /// Whether to divide each vector by its norm at the end. The modules of a folder may do this too.
    pub normalize: bool,
    /// Maximum number of tokens of a text, including prompt, `[CLS]` and `[SEP]`. None: the folder's setting, else the
    /// number of the model's positions.
    pub max_len: Option<usize>,
    /// How texts that are longer than the maximum length are read.
    pub long: Long,
    /// The step between the starts of consecutive windows, in tokens of the text (not their overlap: see
    /// [`answer`](crate::answer)). None: the length of a window, so that windows do not overlap; more is reduced to it.
    pub stride: Option<usize>,
    /// The prompts before texts, queries and documents.
    pub prompts: Prompts,
    /// The similarity function. None: the folder's, else cosine.
    pub similarity: Option<Similarity>,
    /// How the names of special tokens in texts are tokenized. None: as the model folder says.
    pub special_tokens: Option<SpecialTokens>,
    /// Whether long texts are truncated at the beginning instead of at the end. None: as the tokenizer's folder says.
    pub truncate_left: Option<bool>,
}

/// The prompts that a caller selects, by [`Purpose`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prompts {
    /// The prompt before a text with no particular purpose.
    pub text: Prompt,
    /// The prompt before a query.
    pub query: Prompt,
    /// The prompt before a document.
    pub document: Prompt,
}

/// Where the settings come from that the caller does not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From a sentence-transformers folder.
    Folder,
    /// The model folder has no settings; the default is mean pooling of the last layer.
    Default,
}

/// A model that embeds texts as vectors.
pub struct Embedder {
    /// The model.
    pub model: Arc<Pretrained>,
    /// The pooling of a text's tokens to one vector.
    pub pooling: Pooling,
    /// The modules that are applied to the pooled vector, in order.
    pub modules: Vec<Module>,
    /// The similarity function.
    pub similarity: Similarity,
    /// Where the settings come from that the caller does not set.
    pub source: Source,
    /// Notes for the user about settings of the folder that are handled in a different way.
    pub notes: Vec<String>,
    /// The numbers of leading dimensions that the folder and the caller keep.
    kept: [Option<usize>; 2],
    /// The number of leading dimensions that are kept after the modules.
    truncate: Option<usize>,
    /// Whether each vector is divided by its norm at the end.
    normalize: bool,
    /// How long texts are read.
    long: Long,
    /// The step between windows; none: their length.
    stride: Option<usize>,
    /// Whether long texts are truncated at the beginning.
    truncate_left: bool,
    /// How texts, queries and documents are encoded.
    inputs: [Input; 3],
    /// Whether texts are converted to lower case first, which is a setting of sentence-transformers folders.
    lowercase: bool,
    dir: PathBuf,
}

/// How texts with one purpose are encoded.
struct Input {
    /// The prompt before each text.
    prompt: String,
    /// A note for the user about the prompt, if it is the folder's.
    note: Option<String>,
    /// The number of leading tokens that are excluded from the pooling: `[CLS]` and the prompt.
    excluded: usize,
    /// Maximum number of tokens of a sequence.
    max_len: usize,
}

/// The result of [`Embedder::embed`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Embedded {
    /// One vector for each text, in order.
    pub vectors: Vectors,
    /// The number of texts that were longer than [`Embedder::max_len`] and were truncated.
    pub cut: usize,
    /// The number of texts that were longer than [`Embedder::max_len`] and were read in windows.
    pub windowed: usize,
    /// The number of windows of these texts.
    pub windows: usize,
}

/// The counts of [`Embedder::embed_stream`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The number of texts.
    pub texts: usize,
    /// The number of texts that were longer than [`Embedder::max_len`] and were truncated.
    pub cut: usize,
    /// The number of texts that were longer than [`Embedder::max_len`] and were read in windows.
    pub windowed: usize,
    /// The number of windows of these texts.
    pub windows: usize,
    /// The number of texts with only white space, whose vectors are meaningless.
    pub blank: usize,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        let Summary { texts, cut, windowed, windows, blank } = other;
        self.texts += texts;
        self.cut += cut;
        self.windowed += windowed;
        self.windows += windows;
        self.blank += blank;
    }
}

impl Embedder {
    /// Opens a model folder with any heads, or a sentence-transformers folder with all its settings.
    ///
    /// # Errors
    /// Those of [`Pretrained::open_encoder`] and of [`new`](Self::new).
    pub fn open(
        dir: &Path,
        device: Device,
        precision: impl Into<Precision>,
        options: &Options,
    ) -> Result<Embedder, TaskError> {
        let settings = folder::read(dir)?;
        // Unsupported settings are reported before the weights are read.
        let chain = chain(&settings, options)?;
        let (mut model, note) = Pretrained::open_encoder(&settings.layout.model, device, precision)?;
        if let Some(how) = options.special_tokens {
            model.tokenizer = model.tokenizer.with_special_tokens(how);
        }
        let mut embedder = Embedder::assemble(Arc::new(model), settings, chain, options)?;
        embedder.notes.extend(note);
        Ok(embedder)
    }

    /// As [`open`](Self::open), for a model that is already open. `dir` is its folder, or the sentence-transformers
    /// folder that contains it.
    ///
    /// # Errors
    /// A layer or a pooler that the model does not have; more dimensions than it has; a length that does not fit its positions; a stride
    /// without windows; the name of a prompt that the folder does not have; with [`PoolChoice::Auto`], unsupported settings of a
    /// sentence-transformers
    /// folder.
    pub fn new(pretrained: Arc<Pretrained>, dir: &Path, options: &Options) -> Result<Embedder, TaskError> {
        let settings = folder::read(dir)?;
        let chain = chain(&settings, options)?;
        Embedder::assemble(pretrained, settings, chain, options)
    }

    fn assemble(
        pretrained: Arc<Pretrained>,
        settings: FolderSettings,
        chain: Option<Chain>,
        options: &Options,
    ) -> Result<Embedder, TaskError> {
        let model = &pretrained.model;
        let dir = settings.layout.root.clone();
        let folder = |problem: String| TaskError::Folder { path: dir.clone(), problem };
        options.long.check_stride(options.stride)?;
        let chosen = match options.pool {
            PoolChoice::Of(pool) => vec![pool],
            PoolChoice::Auto | PoolChoice::Last4 => vec![Pool::Mean],
        };
        // The folder's truncation applies only to the folder's own pooling.
        let truncate = settings.truncate.filter(|_| chain.is_some());
        let Chain { pools, include_prompt, modules, notes } =
            chain.unwrap_or(Chain { pools: chosen, include_prompt: true, modules: Vec::new(), notes: Vec::new() });
        let last = model.architecture().layers;
        let layers = match (options.pool, &options.layers[..]) {
            (PoolChoice::Last4, []) if last >= 3 => (last - 3..=last).collect(),
            (PoolChoice::Last4, []) => {
                let problem = format!("last4 needs four hidden states, the model has {}", last + 1);
                return Err(TaskError::setting("pool", problem));
            }
            (PoolChoice::Last4, _) => {
                return Err(TaskError::setting(
                    "layers",
                    "last4 determines the layers; omit `layers`, or set `pool` to mean",
                ));
            }
            (PoolChoice::Of(Pool::Pooler), [_, ..]) => {
                return Err(TaskError::setting("layers", "the pooler uses the last layer; omit `layers`"));
            }
            (_, []) => vec![last],
            (_, layers) => layers.iter().map(|&layer| layer_index(layer, last)).collect::<Result<_, _>>()?,
        };
        if pools.contains(&Pool::Pooler) && !model.heads.pooler {
            return Err(folder("the model has no pooler; set `pool` to a different value".to_owned()));
        }
        let pooling = Pooling { pools, layers, include_prompt };
        let before = pooling.width(model.architecture().hidden_size);
        modules.iter().try_fold(before, |width, module| module.width(width)).map_err(folder)?;

        let input = |purpose: Purpose| -> Result<Input, TaskError> {
            let prompt = options.prompts.of(purpose);
            let note = (*prompt == Prompt::Auto).then(|| settings.prompts.note(purpose)).flatten();
            let prompt = settings.prompts.resolve(prompt, purpose)?.to_owned();
            Ok(Input { prompt, note, excluded: 0, max_len: max_len(&pretrained, &settings, options, purpose)? })
        };
        let inputs = [input(Purpose::Text)?, input(Purpose::Query)?, input(Purpose::Document)?];
        let mut embedder = Embedder {
            modules,
            similarity: options.similarity.unwrap_or(settings.similarity),
            source: if settings.is_sentence_transformers() { Source::Folder } else { Source::Default },
            notes: settings.notes.into_iter().chain(notes).collect(),
            kept: [truncate, options.dimensions],
            truncate,
            normalize: options.normalize,
            long: options.long,
            stride: options.stride,
            truncate_left: options.truncate_left.unwrap_or(pretrained.tokenizer.truncates_left()),
            inputs,
            // No change if the tokenizer converts to lower case anyway.
            lowercase: settings.lowercase && pretrained.tokenizer.is_cased(),
            pooling,
            dir,
            model: pretrained,
        };
        if let Some(kept) = options.dimensions {
            embedder.keep(kept)?;
        }
        if !embedder.pooling.include_prompt {
            for purpose in Purpose::ALL {
                embedder.inputs[purpose as usize].excluded = embedder.prompt_tokens(purpose);
            }
        }
        Ok(embedder)
    }

    /// Keeps the first dimensions of each vector.
    fn keep(&mut self, kept: usize) -> Result<(), TaskError> {
        let width = self.width();
        if !(1..=width).contains(&kept) {
            let problem = format!("expected 1 to {width}, the dimensions of the model's vectors, found {kept}");
            return Err(TaskError::setting("dimensions", problem));
        }
        if kept < width && !self.normalize && matches!(self.modules.last(), Some(Module::Normalize)) {
            let note = "the shortened vectors are not normalized again, as with sentence-transformers' truncate_dim; use `normalize` for that";
            self.notes.push(note.to_owned());
        }
        self.truncate = Some(kept);
        Ok(())
    }

    /// The number of dimensions of a vector.
    pub fn width(&self) -> usize {
        let pooled = self.pooling.width(self.model.model.architecture().hidden_size);
        let width = self.modules.iter().fold(pooled, |width, module| module.width(width).unwrap_or(width));
        self.truncate.map_or(width, |kept| kept.min(width))
    }

    /// The number of leading dimensions of the last module's vectors that are kept, by the folder or by [`Options::dimensions`], at most as many
    /// as there are. None: all.
    pub fn truncation(&self) -> Option<usize> {
        self.truncate
    }

    /// Whether each vector is divided by its norm at the end, because of [`Options::normalize`].
    pub fn normalizes(&self) -> bool {
        self.normalize
    }

    /// Maximum number of tokens of a text, including prompt and special tokens. [`long`](method@Self::long) says how longer texts are read.
    pub fn max_len(&self, purpose: Purpose) -> usize {
        self.input(purpose).max_len
    }

    /// How texts with more than [`max_len`](Self::max_len) tokens are read.
    pub fn long(&self) -> Long {
        self.long
    }

    /// The prompt before each text.
    pub fn prompt(&self, purpose: Purpose) -> &str {
        &self.input(purpose).prompt
    }

    /// A note for the user about the folder's prompt, if the caller did not select one.
    pub fn prompt_note(&self, purpose: Purpose) -> Option<&str> {
        self.input(purpose).note.as_deref()
    }

    /// A description of pooling and modules for users: `mean of layer 12, Dense 768 → 256 (Tanh), normalised`.
    pub fn describe(&self) -> String {
        let [of_folder, of_caller] = self.kept;
        let mut parts = vec![self.pooling.to_string()];
        let mut modules = &self.modules[..];
        let mut normalised = self.normalize && of_caller.is_none();
        if let ([before @ .., Module::Normalize], None) = (modules, of_folder) {
            (modules, normalised) = (before, true);
        }
        parts.extend(modules.iter().map(Module::to_string));
        parts.extend(of_folder.map(|kept| format!("the first {kept} numbers")));
        parts.push(if normalised { "normalised" } else { "not normalised" }.to_owned());
        parts.extend(of_caller.map(|kept| format!("then the first {kept} numbers")));
        parts.extend((self.normalize && of_caller.is_some()).then(|| "normalised".to_owned()));
        parts.join(", ")
    }

    fn input(&self, purpose: Purpose) -> &Input {
        &self.inputs[purpose as usize]
    }

    /// The vectors of texts, in order. `progress` receives the number of completed texts.
    ///
    /// The vector of a text does not depend on the other texts, except for rounding.
    ///
    /// # Errors
    /// [`TaskError::Folder`] if the model's vectors are not finite; [`TaskError::Setting`] for a maximum length that leaves no room for
    /// a long text next to its prompt, if it is to be read in windows.
    pub fn embed<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        purpose: Purpose,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Embedded, TaskError> {
        self.embed_on(&*self.model, texts, purpose, progress)
    }

    /// As [`embed`](Self::embed); `executor` runs the model's forward passes.
    ///
    /// # Errors
    /// Those of [`embed`](Self::embed) and of the executor.
    pub fn embed_on<S: AsRef<str> + Sync>(
        &self,
        executor: &dyn Executor,
        texts: &[S],
        purpose: Purpose,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Embedded, TaskError> {
        let threads = self.model.device.threads();
        let encoded = parallel::map(texts, threads, |text| self.encode_windows(text.as_ref(), purpose));
        let encoded: Vec<Windows> = encoded.into_iter().collect::<Result<_, _>>()?;
        self.embed_windows(executor, &encoded, purpose, progress)
    }

    /// The vectors of token ids instead of texts, in order; `executor` runs the forward passes. The ids are those of the tokenizer, with or
    /// without the special tokens of a sequence. They get no prompt; longer ones are truncated.
    ///
    /// # Errors
    /// [`TaskError::Input`] for ids that are not in the vocabulary, and the errors of [`embed`](Self::embed) and of the executor.
    pub fn embed_ids_on(&self, executor: &dyn Executor, texts: &[Vec<u32>]) -> Result<Embedded, TaskError> {
        let tokenizer = &self.model.tokenizer;
        let (special, words) = (tokenizer.special(), tokenizer.vocab_size());
        let encode = |ids: &Vec<u32>| {
            if let Some(id) = ids.iter().find(|id| **id as usize >= words) {
                let problem = format!("expected 0 to {}, the ids of the model's vocabulary, found {id}", words - 1);
                return Err(TaskError::input("token ids", problem));
            }
            // `[CLS] … [SEP]` as returned by a tokenizer.
            let begin = usize::from(ids.first() == Some(&special.cls));
            let end = ids.len() - usize::from(ids.len() > begin && ids.last() == Some(&special.sep));
            let (own, room) = (&ids[begin..end], self.room(Purpose::Text));
            let Encoded { sequence, cut } = self.truncated(own, room);
            Ok(Windows { windows: vec![Window::new(sequence, own.len().min(room))], cut })
        };
        let encoded: Vec<Windows> = texts.iter().map(encode).collect::<Result<_, _>>()?;
        self.embed_windows(executor, &encoded, Purpose::Text, &mut |_| ())
    }

    /// The number of tokens of a text with its prompt and special tokens, before it is truncated.
    pub fn token_count(&self, text: &str, purpose: Purpose) -> usize {
        self.tokens(self.prompted(text, purpose)).len() + self.model.tokenizer.template().added(false)
    }

    /// The vectors of encoded texts, in order.
    fn embed_windows(
        &self,
        executor: &dyn Executor,
        encoded: &[Windows],
        purpose: Purpose,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Embedded, TaskError> {
        let threads = self.model.device.threads();
        let windows: Vec<(usize, &Window)> = encoded
            .iter()
            .enumerate()
            .flat_map(|(i, text)| text.windows.iter().map(move |window| (i, window)))
            .collect();
        let excluded = self.input(purpose).excluded;
        let has_all_excluded = |(_, window): &(usize, &Window)| window.example.length() <= excluded;
        if self.pooling.pools.contains(&Pool::Max) && windows.iter().any(has_all_excluded) {
            let problem = "max pooling of a text failed: all its tokens belong to the prompt, which the folder's settings exclude";
            return Err(TaskError::Folder { path: self.dir.clone(), problem: problem.to_owned() });
        }
        let width = self.pooling.width(self.model.model.architecture().hidden_size);
        let (mut values, mut completed) = (vec![0.0; encoded.len() * width], 0);
        // The windows of long texts that are not complete, and their number.
        let mut incomplete: HashMap<usize, (PooledWindows, usize)> = HashMap::new();
        let examples: Vec<&Example> = windows.iter().map(|(_, window)| &window.example).collect();
        let output = Output::Pooled { pooling: self.pooling.clone(), excluded };
        // All windows of a text but the last have the same length, and the last is not longer: they come in their order.
        executor.run(&output, &examples, &mut |i, row| {
            let (text, window) = windows[i];
            let place = text * width..(text + 1) * width;
            let all = encoded[text].windows.len();
            if all == 1 {
                values[place].copy_from_slice(&row);
            } else {
                let (pooled, added) = incomplete.entry(text).or_insert_with(|| (PooledWindows::new(self.long), 0));
                pooled.add(&row, window.tokens);
                *added += 1;
                if *added < all {
                    return;
                }
                let Some((pooled, _)) = incomplete.remove(&text) else { return };
                values[place].copy_from_slice(&pooled.finish());
            }
            completed += 1;
            progress(completed);
        })?;
        if !self.modules.is_empty() || self.truncate.is_some() || self.normalize {
            let pooled: Vec<&[f32]> = values.chunks_exact(width).collect();
            values = parallel::map(&pooled, threads, |pooled| self.finish(pooled)).concat();
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(self.not_finite());
        }
        let cut = encoded.iter().filter(|text| text.cut).count();
        let windowed = encoded.iter().map(|text| text.windows.len()).filter(|&windows| windows > 1);
        let (windowed, windows) = windowed.fold((0, 0), |(texts, all), windows| (texts + 1, all + windows));
        Ok(Embedded { vectors: Vectors::new(self.width(), values), cut, windowed, windows })
    }

    /// The hidden states of each text's tokens before pooling, special tokens included: `[T, H]` for each text, row by row, of the last of
    /// [`Options::layers`]. Modules of the folder are not applied. Longer texts are truncated.
    ///
    /// # Errors
    /// Those of the executor; [`TaskError::Folder`] if the states are not finite.
    pub fn token_embeddings_on<S: AsRef<str> + Sync>(
        &self,
        executor: &dyn Executor,
        texts: &[S],
        purpose: Purpose,
    ) -> Result<Vec<Vectors>, TaskError> {
        let encode = |text: &S| Window::new(self.encode_one(text.as_ref(), purpose).sequence, 0).example;
        let encoded = parallel::map(texts, self.model.device.threads(), encode);
        let architecture = self.model.model.architecture();
        let layer = self.pooling.layers.last().copied().unwrap_or(architecture.layers);
        let examples: Vec<&Example> = encoded.iter().collect();
        let states = run_all(executor, &Output::HiddenStates { layer }, &examples)?;
        if states.iter().flatten().any(|value| !value.is_finite()) {
            return Err(self.not_finite());
        }
        Ok(states.into_iter().map(|rows| Vectors::new(architecture.hidden_size, rows)).collect())
    }

    fn not_finite(&self) -> TaskError {
        let problem = "its vectors are not finite; its weights are damaged: train or download it again";
        TaskError::Folder { path: self.dir.clone(), problem: problem.to_owned() }
    }

    /// Embeds a stream of texts in chunks, in order. `sink` receives the texts and vectors of each chunk. The memory
    /// does not grow with the stream. `progress` receives the number of completed texts.
    ///
    /// # Errors
    /// Those of the stream, of [`embed`](Self::embed) and of `sink`.
    pub fn embed_stream<S: AsRef<str> + Sync>(
        &self,
        texts: impl IntoIterator<Item = Result<S, TaskError>>,
        purpose: Purpose,
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
            let Embedded { vectors, cut, windowed, windows } =
                self.embed(&chunk, purpose, &mut |done| progress(before + done))?;
            summary += Summary { texts: chunk.len(), cut, windowed, windows, blank: 0 };
            sink(chunk, vectors)?;
        }
    }

    /// The tokens of a text with its prompt, and whether it was truncated.
    pub(crate) fn encode(&self, text: &str, purpose: Purpose) -> (Sequence, bool) {
        let Encoded { sequence, cut } = self.encode_one(text, purpose);
        (sequence, cut)
    }

    /// The number of leading tokens that are excluded from the pooling.
    pub(crate) fn excluded(&self, purpose: Purpose) -> usize {
        self.input(purpose).excluded
    }

    /// Whether texts are converted to lower case first.
    pub(crate) fn lowercases(&self) -> bool {
        self.lowercase
    }

    /// A text as one sequence, truncated if it is too long.
    fn encode_one(&self, text: &str, purpose: Purpose) -> Encoded {
        self.truncated(&self.tokens(self.prompted(text, purpose)), self.room(purpose))
    }

    fn truncated(&self, tokens: &[u32], room: usize) -> Encoded {
        let kept = match tokens.len().checked_sub(room) {
            Some(beyond) if self.truncate_left => &tokens[beyond..],
            Some(_) => &tokens[..room],
            None => tokens,
        };
        Encoded { sequence: self.model.tokenizer.template().sequence(kept, None), cut: tokens.len() > room }
    }

    /// The windows of a text; only one if it is not longer than the maximum length, or truncated.
    fn encode_windows(&self, text: &str, purpose: Purpose) -> Result<Windows, TaskError> {
        let (template, room) = (self.model.tokenizer.template(), self.room(purpose));
        let tokens = self.tokens(self.prompted(text, purpose));
        if self.long == Long::First && tokens.len() > room {
            let window = Window::new(template.sequence(&tokens[..room], None), room);
            return Ok(Windows { windows: vec![window], cut: true });
        }
        if !self.long.reads_windows() || tokens.len() <= room {
            let Encoded { sequence, cut } = self.truncated(&tokens, room);
            return Ok(Windows { windows: vec![Window::new(sequence, tokens.len().min(room))], cut });
        }
        let (prompt, own) = tokens.split_at(self.leading_prompt_tokens(text, purpose, &tokens).min(tokens.len()));
        let Some(room) = room.checked_sub(prompt.len()).filter(|room| *room > 0) else {
            let special = template.added(false);
            let problem = format!(
                "expected at least {}, found {}: {special} special tokens and the prompt's {} tokens leave no room for the windows of a \
                 long text",
                special + prompt.len() + 1,
                self.max_len(purpose),
                prompt.len()
            );
            return Err(TaskError::setting("max_len", problem));
        };
        let window = |span: std::ops::Range<usize>| {
            let tokens = span.len();
            Window::new(template.sequence(&[prompt, &own[span]].concat(), None), tokens)
        };
        let spans = spans(own.len(), room, self.stride.unwrap_or(room));
        Ok(Windows { windows: spans.into_iter().map(window).collect(), cut: false })
    }

    /// The number of leading tokens of a text with its prompt that belong only to the prompt. A token that contains characters of both
    /// (as ` the` after a prompt that ends with a space) belongs to the text. `tokens` are all tokens.
    fn leading_prompt_tokens(&self, text: &str, purpose: Purpose, tokens: &[u32]) -> usize {
        let prompt = self.prompt(purpose);
        if prompt.is_empty() {
            return 0;
        }
        let end = self.cased(Cow::Borrowed(prompt)).len();
        let all = self.cased(self.prompted(text, purpose));
        // Offsets need much more memory than tokens, and the beginning of the text nearly always has the same first tokens.
        let beginning = all.char_indices().map(|(at, _)| at).find(|at| *at >= end + BYTES_AFTER_PROMPT);
        let beginning = beginning.map_or(&*all, |at| &all[..at]);
        for part in [beginning, &all] {
            let pieces = self.model.tokenizer.encode_with_offsets(part);
            let count = pieces.iter().take_while(|piece| piece.end <= end).count();
            // The first token of the text, too: only then is it known that the prompt ends there.
            let known = pieces.iter().take(count + 1).map(|piece| &piece.id);
            if part.len() == all.len() || count < pieces.len() && known.eq(tokens.iter().take(count + 1)) {
                return count;
            }
        }
        0
    }

    /// The maximum number of tokens of a sequence without special tokens.
    fn room(&self, purpose: Purpose) -> usize {
        self.model.tokenizer.template().room(self.max_len(purpose), false)
    }

    /// A text with its prompt.
    fn prompted<'t>(&self, text: &'t str, purpose: Purpose) -> Cow<'t, str> {
        match self.prompt(purpose) {
            "" => Cow::Borrowed(text),
            prompt => Cow::Owned(format!("{prompt}{text}")),
        }
    }

    /// A text as it is tokenized: in lower case, if the folder says so.
    fn cased<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        match self.lowercase {
            // Character by character: a final sigma is not treated differently.
            true => Cow::Owned(text.chars().flat_map(char::to_lowercase).collect()),
            false => text,
        }
    }

    fn tokens(&self, text: Cow<'_, str>) -> Vec<u32> {
        self.model.tokenizer.encode(&self.cased(text))
    }

    /// The number of tokens of the prompt, including the special tokens before it; 0 without a prompt.
    pub(crate) fn prompt_tokens(&self, purpose: Purpose) -> usize {
        if self.prompt(purpose).is_empty() {
            return 0;
        }
        let Encoded { sequence: Sequence { ids, .. }, .. } = self.encode_one("", purpose);
        let special = self.model.tokenizer.special().all();
        ids.len() - usize::from(ids.last().is_some_and(|last| special.contains(last)))
    }

    /// Applies modules, truncation and normalization to a pooled vector.
    fn finish(&self, pooled: &[f32]) -> Vec<f32> {
        let mut vector = self.modules.iter().fold(pooled.to_vec(), |vector, module| module.apply(vector));
        vector.truncate(self.truncate.unwrap_or(vector.len()));
        if self.normalize {
            normalize(&mut vector);
        }
        vector
    }
}

/// The sequences of a text.
struct Windows {
    /// One, or the windows of a long text.
    windows: Vec<Window>,
    /// Whether the text was truncated.
    cut: bool,
}

/// A window of a text, or a text that fits into one.
struct Window {
    example: Example,
    /// The number of its tokens that belong to the text, which is its weight among the windows.
    tokens: usize,
}

impl Window {
    fn new(sequence: Sequence, tokens: usize) -> Window {
        Window { example: Example::new(vec![sequence], Target::value(None)), tokens }
    }
}

/// An encoded text, and whether it was truncated.
struct Encoded {
    sequence: Sequence,
    cut: bool,
}

impl Prompts {
    fn of(&self, purpose: Purpose) -> &Prompt {
        match purpose {
            Purpose::Text => &self.text,
            Purpose::Query => &self.query,
            Purpose::Document => &self.document,
        }
    }
}

/// The folder's pooling and modules, if the caller selects them.
fn chain(settings: &FolderSettings, options: &Options) -> Result<Option<Chain>, TaskError> {
    (options.pool == PoolChoice::Auto).then(|| settings.chain()).transpose()
}

/// Maximum number of tokens of a text.
fn max_len(
    model: &Pretrained,
    settings: &FolderSettings,
    options: &Options,
    purpose: Purpose,
) -> Result<usize, TaskError> {
    let positions = model.model.architecture().max_sequence_length();
    let special = model.tokenizer.template().added(false);
    // The tokenizer's limit applies if nothing else sets one.
    match (options.max_len, settings.max_len(purpose).or(model.tokenizer.model_max_length())) {
        (Some(found), _) if !(special + 1..=positions).contains(&found) => {
            let problem =
                format!("expected {} to {positions}, the model's number of positions, found {found}", special + 1);
            Err(TaskError::setting("max_len", problem))
        }
        (Some(found), _) => Ok(found),
        (None, Some(found)) if found < special => {
            let problem = format!(
                "expected a maximum length of at least {special}, the number of special tokens, found {found}; set `max_len`"
            );
            Err(TaskError::Folder { path: settings.layout.model.clone(), problem })
        }
        (None, found) => Ok(found.unwrap_or(positions).min(positions)),
    }
}

/// Converts the index of a hidden state, which counts from the end if it is negative, to an index from 0.
fn layer_index(layer: i64, last: usize) -> Result<usize, TaskError> {
    let states = last as i64 + 1;
    let number = if layer < 0 { layer.saturating_add(states) } else { layer };
    if (0..states).contains(&number) {
        return Ok(number as usize);
    }
    let problem =
        format!("expected 0 (embeddings) to {last} (the last layer), or -1 (the last) to -{states}, found {layer}");
    Err(TaskError::setting("layers", problem))
}

#[cfg(test)]
mod tests;
