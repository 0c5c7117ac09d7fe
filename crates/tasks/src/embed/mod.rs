//! Texts → vectors, and the nearest of them.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`texts`] | a file of lines or of JSON objects → a stream of texts |
//! | `folder` | a folder → what it says of prompts, lengths, pooling, modules and similarity |
//! | [`prompts`] | what a text is embedded as → what is put before it |
//! | [`pooling`] | hidden states of a text's tokens → one vector |
//! | [`modules`] | that vector → the one that the folder's modules make of it |
//! | [`vectors`] | vectors in memory, as `.npy`, `.safetensors` and `.jsonl` |
//! | [`search`] | vectors → the nearest to a query |
//! | `arithmetic` | vectors → sums of products, lengths |
//!
//! A text is a sequence of its own (`[CLS] tokens [SEP]`), as in sentence-transformers (Reimers and Gurevych 2019). Vectors are those of
//! sentence-transformers 6.2 for every folder: see `fixtures/embed`.

mod arithmetic;
mod folder;
pub mod modules;
pub mod pooling;
pub mod prompts;
pub mod search;
pub mod texts;
pub mod vectors;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_engine::{DType, Device, Var, ops};
use cloze_model::Inputs;
use cloze_text::{Sequence, SpecialTokens};

use crate::forward::batches_of_like_lengths;
use crate::inference::pretrained::Pretrained;
use crate::{TaskError, parallel};
use arithmetic::normalize;
use folder::{Chain, FolderSettings};
use modules::Module;
use pooling::{Pool, Pooling, pool};
use prompts::{Prompt, Purpose};
use search::Similarity;
use vectors::Vectors;

/// Texts that are looked at together, so that batches are of like lengths.
const CHUNK_TEXTS: usize = 4096;
/// Bytes of text that are looked at together, so that long texts do not fill the memory.
const CHUNK_BYTES: usize = 8 << 20;

/// Which pooling a caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolChoice {
    /// What a sentence-transformers folder says, with its modules; else [`Pool::Mean`].
    #[default]
    Auto,
    /// This, of the last layer or of [`Options::layers`].
    Of(Pool),
    /// [`Pool::Mean`] of the last four hidden states side by side, as in Devlin et al. 2019, table 7.
    Last4,
}

impl PoolChoice {
    /// All of them, with the name and what it means.
    pub const ALL: [(PoolChoice, &'static str, &'static str); 9] = [
        (PoolChoice::Auto, "auto", "What a sentence-transformers folder says, with its modules, else the mean"),
        (PoolChoice::Of(Pool::Cls), Pool::Cls.name(), "The first token, [CLS]"),
        (PoolChoice::Of(Pool::Mean), Pool::Mean.name(), "The mean of all tokens, [CLS] and [SEP] included"),
        (
            PoolChoice::Of(Pool::MeanSqrtLen),
            Pool::MeanSqrtLen.name(),
            "The sum of all tokens over the square root of their number",
        ),
        (
            PoolChoice::Of(Pool::WeightedMean),
            Pool::WeightedMean.name(),
            "The mean of all tokens, the n-th with weight n",
        ),
        (PoolChoice::Of(Pool::Max), Pool::Max.name(), "The largest of each number over all tokens"),
        (PoolChoice::Of(Pool::LastToken), Pool::LastToken.name(), "The last token, [SEP]"),
        (PoolChoice::Last4, "last4", "The mean of the last four hidden states side by side: four times as wide"),
        (PoolChoice::Of(Pool::Pooler), Pool::Pooler.name(), "The pooler's output"),
    ];
}

/// How texts become vectors, as a caller asks for it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// How a text's tokens become one vector.
    pub pool: PoolChoice,
    /// The hidden states to take, set side by side in this order: 0 is the embeddings', 1 … L a layer's, −1 the last. Empty: the last.
    pub layers: Vec<i64>,
    /// Divide each vector by its length, after everything else. A folder's modules may do so without.
    pub normalize: bool,
    /// Tokens of a text at most, prompt, `[CLS]` and `[SEP]` included. None: what the folder says, else as many as there are positions.
    pub max_len: Option<usize>,
    /// What is put before a text, a query and a document.
    pub prompts: Prompts,
    /// How vectors are compared. None: as the folder says, else by their cosine.
    pub similarity: Option<Similarity>,
    /// How names of special tokens in texts are read, if not as the model's folder says.
    pub special_tokens: Option<SpecialTokens>,
}

/// What a caller wants to be put before texts, by their [`Purpose`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prompts {
    /// Before a text that is neither of these.
    pub text: Prompt,
    /// Before a query.
    pub query: Prompt,
    /// Before a document.
    pub document: Prompt,
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
    /// What then changes the vector, in order.
    pub modules: Vec<Module>,
    /// How vectors are compared.
    pub similarity: Similarity,
    /// Who says how texts become vectors where the caller leaves it open.
    pub source: Source,
    /// What a folder asks for that is done in another way: for people.
    pub notes: Vec<String>,
    /// Numbers of a vector that are kept after the modules.
    truncate: Option<usize>,
    /// Whether each vector is at last divided by its length.
    normalize: bool,
    /// How a text, a query and a document are read.
    inputs: [Input; 3],
    /// Whether texts are put in lower case first: a sentence-transformers folder may ask for it.
    lowercase: bool,
    dir: PathBuf,
}

/// How texts of one purpose are read.
struct Input {
    /// What is put before each.
    prompt: String,
    /// What a user must know of it, where the caller left it to the folder.
    note: Option<String>,
    /// Tokens of the prompt that are left out of the pooling, `[CLS]` among them.
    left_out: usize,
    /// Tokens at most; what is longer is cut.
    max_len: usize,
}

/// What [`Embedder::embed`] made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Embedded {
    /// One vector a text, in order.
    pub vectors: Vectors,
    /// Texts that were longer than [`Embedder::max_len`] and were cut.
    pub cut: usize,
}

/// What [`Embedder::embed_stream`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Texts.
    pub texts: usize,
    /// Those that were longer than [`Embedder::max_len`] and were cut.
    pub cut: usize,
    /// Those without a character other than space: their vectors say nothing.
    pub blank: usize,
}

impl Embedder {
    /// Opens a model folder, whatever its heads, or a sentence-transformers folder with all that it says.
    ///
    /// # Errors
    /// Those of [`Pretrained::open_encoder`] and of [`new`](Self::new).
    pub fn open(dir: &Path, device: Device, precision: DType, options: &Options) -> Result<Embedder, TaskError> {
        let said = folder::read(dir)?;
        // A folder that cannot be followed says so before its weights are read.
        let chain = chain(&said, options)?;
        let (mut model, note) = Pretrained::open_encoder(&said.layout.model, device, precision)?;
        if let Some(how) = options.special_tokens {
            model.tokenizer = model.tokenizer.with_special_tokens(how);
        }
        let mut embedder = Embedder::assemble(Arc::new(model), said, chain, options)?;
        embedder.notes.extend(note);
        Ok(embedder)
    }

    /// As [`open`](Self::open), of a model that is open already; `dir` is its folder, or the sentence-transformers folder that it lies
    /// in.
    ///
    /// # Errors
    /// A layer or a pooler that the model lacks; a length that does not fit its positions; a prompt's name that the folder lacks; with
    /// [`PoolChoice::Auto`], a sentence-transformers folder that asks for what is not known here.
    pub fn new(pretrained: Arc<Pretrained>, dir: &Path, options: &Options) -> Result<Embedder, TaskError> {
        let said = folder::read(dir)?;
        let chain = chain(&said, options)?;
        Embedder::assemble(pretrained, said, chain, options)
    }

    fn assemble(
        pretrained: Arc<Pretrained>,
        said: FolderSettings,
        chain: Option<Chain>,
        options: &Options,
    ) -> Result<Embedder, TaskError> {
        let model = &pretrained.model;
        let dir = said.layout.root.clone();
        let folder = |problem: String| TaskError::Folder { path: dir.clone(), problem };
        let chosen = match options.pool {
            PoolChoice::Of(pool) => vec![pool],
            PoolChoice::Auto | PoolChoice::Last4 => vec![Pool::Mean],
        };
        // Someone who pools in another way has other vectors to begin with.
        let truncate = said.truncate.filter(|_| chain.is_some());
        let Chain { pools, include_prompt, modules, notes } =
            chain.unwrap_or(Chain { pools: chosen, include_prompt: true, modules: Vec::new(), notes: Vec::new() });
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
            return Err(folder("the model has no pooler; choose another --pool".to_owned()));
        }
        let pooling = Pooling { pools, layers, include_prompt };
        let before = pooling.width(model.architecture().hidden_size);
        modules.iter().try_fold(before, |width, module| module.width(width)).map_err(folder)?;

        let input = |purpose: Purpose| -> Result<Input, TaskError> {
            let prompt = options.prompts.of(purpose);
            let note = (*prompt == Prompt::Auto).then(|| said.prompts.note(purpose)).flatten();
            let prompt = said.prompts.resolve(prompt, purpose)?.to_owned();
            Ok(Input { prompt, note, left_out: 0, max_len: longest(&pretrained, &said, options, purpose)? })
        };
        let inputs = [input(Purpose::Text)?, input(Purpose::Query)?, input(Purpose::Document)?];
        let mut embedder = Embedder {
            modules,
            similarity: options.similarity.unwrap_or(said.similarity),
            source: if said.is_of_sentences() { Source::Folder } else { Source::Usual },
            notes: said.notes.into_iter().chain(notes).collect(),
            truncate,
            normalize: options.normalize,
            inputs,
            // The same letters if the tokenizer does it, too.
            lowercase: said.lowercase && pretrained.tokenizer.is_cased(),
            pooling,
            dir,
            model: pretrained,
        };
        if !embedder.pooling.include_prompt {
            for purpose in Purpose::ALL {
                embedder.inputs[purpose as usize].left_out = embedder.prompt_tokens(purpose);
            }
        }
        Ok(embedder)
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        let pooled = self.pooling.width(self.model.model.architecture().hidden_size);
        let width = self.modules.iter().fold(pooled, |width, module| module.width(width).unwrap_or(width));
        self.truncate.map_or(width, |kept| kept.min(width))
    }

    /// Tokens of a text at most, prompt and special tokens included; what is longer is cut.
    pub fn max_len(&self, purpose: Purpose) -> usize {
        self.input(purpose).max_len
    }

    /// What is put before each text.
    pub fn prompt(&self, purpose: Purpose) -> &str {
        &self.input(purpose).prompt
    }

    /// What a user must know of the folder's prompts, where the caller left them to it.
    pub fn prompt_note(&self, purpose: Purpose) -> Option<&str> {
        self.input(purpose).note.as_deref()
    }

    /// How a text's tokens become a vector, in words: `mean of layer 12, Dense 768 → 256 (Tanh), normalised`.
    pub fn describe(&self) -> String {
        let mut parts = vec![self.pooling.to_string()];
        let mut modules = &self.modules[..];
        let mut normalised = self.normalize;
        if let ([before @ .., Module::Normalize], None) = (modules, self.truncate) {
            (modules, normalised) = (before, true);
        }
        parts.extend(modules.iter().map(Module::to_string));
        parts.extend(self.truncate.map(|kept| format!("the first {kept} numbers")));
        parts.push(if normalised { "normalised" } else { "not normalised" }.to_owned());
        parts.join(", ")
    }

    fn input(&self, purpose: Purpose) -> &Input {
        &self.inputs[purpose as usize]
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
        purpose: Purpose,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Embedded, TaskError> {
        // On all threads.
        let threads = self.model.device.threads();
        let encoded = parallel::map(texts, threads, |text| self.encode_one(text.as_ref(), purpose));
        let lengths: Vec<usize> = encoded.iter().map(|text| text.sequence.ids.len()).collect();
        let left_out = self.input(purpose).left_out;
        if self.pooling.pools.contains(&Pool::Max) && lengths.iter().any(|&length| length <= left_out) {
            let problem =
                "a text's tokens are all of its prompt's, which the folder leaves out, and it has no largest number";
            return Err(TaskError::Folder { path: self.dir.clone(), problem: problem.to_owned() });
        }
        let width = self.pooling.width(self.model.model.architecture().hidden_size);
        let (mut values, mut done) = (vec![0.0; texts.len() * width], 0);
        for now in batches_of_like_lengths(&lengths) {
            let rows = self.forward(now.iter().map(|&i| &encoded[i].sequence), left_out);
            for (&i, row) in now.iter().zip(rows.chunks_exact(width)) {
                values[i * width..(i + 1) * width].copy_from_slice(row);
            }
            done += now.len();
            progress(done);
        }
        if !self.modules.is_empty() || self.truncate.is_some() || self.normalize {
            let pooled: Vec<&[f32]> = values.chunks_exact(width).collect();
            values = parallel::map(&pooled, threads, |pooled| self.finish(pooled)).concat();
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(TaskError::Folder {
                path: self.dir.clone(),
                problem: "its vectors are not finite numbers: its weights are damaged; train or download it again"
                    .into(),
            });
        }
        let cut = encoded.iter().filter(|text| text.cut).count();
        Ok(Embedded { vectors: Vectors::new(self.width(), values), cut })
    }

    /// The vectors of a stream of texts, some thousand at a time, in order: `sink` is given the texts and their vectors. Memory does
    /// not grow with the stream. `progress` is told how many texts are done.
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
            let Embedded { vectors, cut } = self.embed(&chunk, purpose, &mut |done| progress(before + done))?;
            summary.texts += chunk.len();
            summary.cut += cut;
            sink(chunk, vectors)?;
        }
    }

    fn encode_one(&self, text: &str, purpose: Purpose) -> Encoded {
        let Input { prompt, max_len, .. } = self.input(purpose);
        let (template, room) = (self.model.tokenizer.template(), self.model.tokenizer.template().room(*max_len, false));
        let tokens =
            self.tokens(if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) });
        let kept = match tokens.len().checked_sub(room) {
            Some(beyond) if self.model.tokenizer.truncates_left() => &tokens[beyond..],
            Some(_) => &tokens[..room],
            None => &tokens[..],
        };
        Encoded { sequence: template.sequence(kept, None), cut: tokens.len() > room }
    }

    fn tokens(&self, text: Cow<'_, str>) -> Vec<u32> {
        match self.lowercase {
            // Letter by letter: a sigma is the same at a word's end.
            true => self.model.tokenizer.encode(&text.chars().flat_map(char::to_lowercase).collect::<String>()),
            false => self.model.tokenizer.encode(&text),
        }
    }

    /// Tokens of a prompt that stands alone, the special ones before it included; 0 without a prompt.
    fn prompt_tokens(&self, purpose: Purpose) -> usize {
        if self.prompt(purpose).is_empty() {
            return 0;
        }
        let Encoded { sequence: Sequence { ids, .. }, .. } = self.encode_one("", purpose);
        let special = self.model.tokenizer.special().all();
        ids.len() - usize::from(ids.last().is_some_and(|last| special.contains(last)))
    }

    /// What the modules make of a pooled vector.
    fn finish(&self, pooled: &[f32]) -> Vec<f32> {
        let mut vector = self.modules.iter().fold(pooled.to_vec(), |vector, module| module.apply(vector));
        vector.truncate(self.truncate.unwrap_or(vector.len()));
        if self.normalize {
            normalize(&mut vector);
        }
        vector
    }

    /// The pooled vectors of one batch, end to end; the first `left_out` tokens of each sequence do not count.
    fn forward<'a>(&self, sequences: impl Iterator<Item = &'a Sequence>, left_out: usize) -> Vec<f32> {
        let mut inputs = Inputs::default();
        for Sequence { ids, segments } in sequences {
            inputs.push(ids, segments);
        }
        self.model.forward(|model, pass| {
            let (last, pools) = (model.architecture().layers, self.pooling.pools.contains(&Pool::Pooler));
            if left_out == 0 && self.pooling.reads_firsts_alone(last) {
                let cls = model.cls_states(pass, &inputs);
                let pooled = if pools { model.pooler_output(pass, &cls) } else { None };
                let alone: Vec<i32> = (0..=inputs.sequences() as i32).collect();
                return pool(&self.pooling, &[&cls], pooled.as_ref(), &alone, 0);
            }
            let mut numbers = self.pooling.layers.clone();
            numbers.extend(pools.then_some(last));
            let states = model.hidden_states(pass, &inputs, &numbers);
            let states: Vec<&Var> = states.iter().collect();
            let pooled = pools.then(|| {
                let cls = pass.device().tensor_i32(inputs.cls_tokens(), &[inputs.sequences()]);
                let cls = ops::index_select(pass, states[states.len() - 1], &cls);
                model.pooler_output(pass, &cls)
            });
            let states = &states[..self.pooling.layers.len()];
            pool(&self.pooling, states, pooled.flatten().as_ref(), &inputs.cu_seqlens, left_out)
        })
    }
}

/// A text as the network reads it, and whether it was cut for that.
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

/// Pooling and modules as the folder says, if the caller wants that.
fn chain(said: &FolderSettings, options: &Options) -> Result<Option<Chain>, TaskError> {
    (options.pool == PoolChoice::Auto).then(|| said.chain()).transpose()
}

/// Tokens of a text at most.
fn longest(model: &Pretrained, said: &FolderSettings, options: &Options, purpose: Purpose) -> Result<usize, TaskError> {
    let positions = model.model.architecture().max_sequence_length();
    let special = model.tokenizer.template().added(false);
    // The tokenizer's own limit is read where nothing else sets one.
    match (options.max_len, said.longest(purpose).or(model.tokenizer.model_max_length())) {
        (Some(found), _) if !(special + 1..=positions).contains(&found) => {
            let problem = format!("found {found}, expected {} to {positions}, the model's positions", special + 1);
            Err(TaskError::setting("--max-len", problem))
        }
        (Some(found), _) => Ok(found),
        (None, Some(found)) if found < special => {
            let problem = format!(
                "its texts have {found} tokens at most, expected {special}, the special ones alone; see --max-len"
            );
            Err(TaskError::Folder { path: said.layout.model.clone(), problem })
        }
        (None, found) => Ok(found.unwrap_or(positions).min(positions)),
    }
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
