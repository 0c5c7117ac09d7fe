//! The one error type of this crate: what was expected, what was found, where, what to do.

use std::path::{Path, PathBuf};

/// Everything that the world can do wrong to a recipe, a run, a checkpoint or a text to fill.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A recipe, or a `--set` argument, that cannot be used.
    #[error("{place}: {message}")]
    Recipe {
        /// `file:line`, or the argument.
        place: String,
        /// The key, what was found, what is valid.
        message: String,
    },
    /// A recipe that is neither a file nor built in.
    #[error(
        "{}: no such file, and no recipe of this name is built in; {}",
        path.display(),
        match suggestion {
            Some(name) => format!("did you mean `{name}`? `cloze recipe` lists them"),
            None => format!("there are {}", names.join(", ")),
        }
    )]
    NoRecipe {
        /// The name given.
        path: PathBuf,
        /// The nearest of the names, if any is near.
        suggestion: Option<String>,
        /// The names that are built in.
        names: Vec<String>,
    },
    /// A file or folder that could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A checkpoint, or the final model, that could not be written. What was written before is whole.
    #[error(
        "cannot save {}: {reason}; nothing half-written was left, {}",
        path.display(),
        match previous {
            Some(p) => format!("{} is intact: go on with --resume when this is mended", p.display()),
            None => "no earlier checkpoint exists".to_owned(),
        }
    )]
    Save {
        /// The folder that was to be.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// The last whole checkpoint.
        previous: Option<PathBuf>,
    },
    /// A checkpoint whose files are not what its training state says.
    #[error("{}: {reason}; the checkpoint was cut short or altered: restore it, or remove its folder to go back to the one before", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A checkpoint of another form.
    #[error("{}: has version {found}, expected {expected}: another Cloze wrote it, and only that one can go on with it", path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version that is read.
        expected: u32,
        /// Its own.
        found: u32,
    },
    /// A line of metrics.jsonl that is none.
    #[error("{}:{line}: not a line of metrics.jsonl: {reason}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's words.
        reason: String,
    },
    /// A run's folder that is in use.
    #[error("{} is already in use; go on with --resume, or choose another --out", .0.display())]
    RunExists(PathBuf),
    /// A run's folder that another process trains in.
    #[error("{}: another process is training in this folder; wait for it or stop it, or choose another --out", .0.display())]
    RunBusy(PathBuf),
    /// Nothing to resume.
    #[error("{}: no run to resume here (no recipe.toml); start it without --resume", .0.display())]
    NoRun(PathBuf),
    /// The recipe of a run to resume differs in what must not change.
    #[error("{}: the run began with other values of {}; give the recipe it began with, or start another run", path.display(), keys.join(", "))]
    RecipeChanged {
        /// The run's recipe.toml.
        path: PathBuf,
        /// The dotted keys.
        keys: Vec<String>,
    },
    /// The shards of a run to resume are not those it began with.
    #[error("{}: these are not the shards that the run began with (fingerprint {found}, expected {expected}); give the same with --set data=…", path.display())]
    OtherShards {
        /// The folder of shards.
        path: PathBuf,
        /// Fingerprint at the start of the run.
        expected: String,
        /// Fingerprint now.
        found: String,
    },
    /// Shards made with another tokenizer than the model's.
    #[error(
        "{}: made with another tokenizer ({found}) than {} ({expected}); run `cloze prepare --tokenizer {}` to make shards that fit",
        shards.display(), model.display(), model.display()
    )]
    OtherTokenizer {
        /// The folder of shards.
        shards: PathBuf,
        /// The folder of the model.
        model: PathBuf,
        /// The model's tokenizer.
        expected: String,
        /// The shards' tokenizer.
        found: String,
    },
    /// Several steps in a row had a loss or gradient that is not finite.
    #[error(
        "step {step}: loss or gradient not finite {in_a_row} times in a row; stopped. {}lower optimizer.lr, lengthen the warmup, or look at the data",
        match checkpoint {
            Some(p) => format!("{} is the last checkpoint: start another run from it with --set model.init=…, or anew; ", p.display()),
            None => "No checkpoint had been saved yet; ".to_owned(),
        }
    )]
    NotFinite {
        /// The last of them.
        step: u64,
        /// How many.
        in_a_row: u32,
        /// What to go back to.
        checkpoint: Option<PathBuf>,
    },
    /// A model whose losses are not numbers.
    #[error("{}: its loss is not a number: its weights are damaged", .0.display())]
    NoNumbers(PathBuf),
    /// A run that needs more memory than there is.
    #[error(
        "`model`: {parameters} parameters take {} to train, 16 bytes each, and this machine has {}; choose smaller sizes",
        gigabytes(*needed), gigabytes(*available)
    )]
    Memory {
        /// Weights of the model.
        parameters: u64,
        /// Bytes for weights, gradients and moments.
        needed: u64,
        /// Bytes of memory.
        available: u64,
    },
    /// Held-out shards that hold nothing.
    #[error(
        "{}: the held-out split is empty: nothing to evaluate on; prepare at least two documents with a --valid-fraction above 0, \
         or pre-train without evaluation (--set eval.every=0)",
        .0.display()
    )]
    NoHeldOut(PathBuf),
    /// A model without the head that a command needs.
    #[error("{}: the model has no {head} head", path.display())]
    NoHead {
        /// The model's folder.
        path: PathBuf,
        /// Its name, such as "masked-language-model".
        head: &'static str,
    },
    /// A text longer than the model's positions.
    #[error("the text has {found} tokens with [CLS] and [SEP], the model {positions} positions; shorten it")]
    TooLong {
        /// Tokens of the text.
        found: usize,
        /// The model's positions.
        positions: usize,
    },
    /// Shards and batches.
    #[error(transparent)]
    Data(#[from] cloze_data::DataError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] cloze_engine::EngineError),
    /// Models and their folders.
    #[error(transparent)]
    Model(#[from] cloze_model::ModelError),
    /// Tokenizers.
    #[error(transparent)]
    Text(#[from] cloze_text::TextError),
}

/// An amount of memory for people.
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

impl TrainError {
    /// Wraps a system error.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> TrainError {
        TrainError::Io { action, path: path.to_owned(), source }
    }
}

impl From<cloze_files::FileError> for TrainError {
    fn from(cloze_files::FileError { action, path, source, .. }: cloze_files::FileError) -> TrainError {
        TrainError::Io { action, path, source }
    }
}
