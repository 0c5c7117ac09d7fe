//! The error type of this crate. Messages say what was expected, what was found, where, and what to do.

use std::path::{Path, PathBuf};

/// Errors caused by recipes, runs, checkpoints, models or text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A recipe, or an override of one of its keys, that cannot be used.
    #[error("{place}: {message}")]
    Recipe {
        /// `file:line`, or the override.
        place: String,
        /// The key, what was found, what is valid.
        message: String,
    },
    /// A recipe that is neither a file nor built in.
    #[error(
        "{}: no such file, and no built-in recipe has this name; {}",
        path.display(),
        match suggestion {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("expected a file or one of {}", names.join(", ")),
        }
    )]
    NoRecipe {
        /// The given name.
        path: PathBuf,
        /// The most similar name, if one is similar.
        suggestion: Option<String>,
        /// The names of the built-in recipes.
        names: Vec<String>,
    },
    /// Ranks of a job that were started differently.
    #[error("rank {rank} ({host}) has a different {what} than rank 0: all ranks need the same")]
    OtherRank {
        /// The rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// What differs.
        what: &'static str,
    },
    /// A step with fewer micro-batches than ranks.
    #[error(
        "phase {phase} has {found} micro-batches in a step, and there are {ranks} ranks; expected at least one for each: set `phase.{phase}.accumulate` \
         to at least {ranks}, with smaller micro-batches"
    )]
    MicroBatches {
        /// The phase, from 0.
        phase: usize,
        /// Its micro-batches.
        found: u32,
        /// The number of ranks.
        ranks: usize,
    },
    /// A file or folder that could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A checkpoint, or the final model, that could not be written. Earlier checkpoints are complete.
    #[error(
        "cannot save {}: {reason}; no partial files remain, {}",
        path.display(),
        match previous {
            Some(p) => format!("{} is intact: correct the problem and continue with `resume`", p.display()),
            None => "no earlier checkpoint exists".to_owned(),
        }
    )]
    Save {
        /// The folder that was to be written.
        path: PathBuf,
        /// Why it failed.
        reason: String,
        /// The last complete checkpoint.
        previous: Option<PathBuf>,
    },
    /// A checkpoint whose files do not match the checksums in its training state.
    #[error("{}: {reason}; the checkpoint was truncated or altered: restore it, or remove its folder to continue from the previous one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A checkpoint of another format version.
    #[error("{}: format version {found}, expected {expected}: use the version of Cloze that wrote it", path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The supported version.
        expected: u32,
        /// The version found.
        found: u32,
    },
    /// A line of metrics.jsonl that cannot be parsed.
    #[error("{}:{line}: not a line of metrics.jsonl: {reason}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's error.
        reason: String,
    },
    /// The folder of a new run that is not empty.
    #[error("{} is already in use; continue its run with `resume`, or choose another `out`", .0.display())]
    RunExists(PathBuf),
    /// A run's folder in which another process is training.
    #[error("{}: another process is training in this folder; wait for it or stop it, or choose another `out`", .0.display())]
    RunBusy(PathBuf),
    /// A folder without a run to resume.
    #[error("{}: no run to resume here (no recipe.toml); start one without `resume`", .0.display())]
    NoRun(PathBuf),
    /// A recipe that differs from that of the run to resume in keys that must not change.
    #[error("{}: the run was started with other values of {}; use the same recipe, or start a new run", path.display(), keys.join(", "))]
    RecipeChanged {
        /// The run's recipe.toml.
        path: PathBuf,
        /// The dotted keys.
        keys: Vec<String>,
    },
    /// The shards differ from those with which the run to resume was started.
    #[error("{}: these are not the shards with which the run was started (fingerprint {found}, expected {expected}); set the recipe's key data to the same shards", path.display())]
    OtherShards {
        /// The folder of shards.
        path: PathBuf,
        /// Fingerprint at the start of the run.
        expected: String,
        /// Fingerprint now.
        found: String,
    },
    /// Shards that were prepared with another tokenizer than the model's.
    #[error(
        "{}: prepared with another tokenizer ({found}) than that of {} ({expected}); prepare the shards again with the model's tokenizer",
        shards.display(), model.display()
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
    /// Several consecutive steps had a loss or gradient that is not finite.
    #[error(
        "step {step}: the loss or gradient was not finite {in_a_row} times in a row, so the run was stopped; {}lower optimizer.lr, use a longer warmup, or check the data",
        match checkpoint {
            Some(p) => format!("start a new run from the last checkpoint, {}, or from scratch; ", p.display()),
            None => "no checkpoint was saved; ".to_owned(),
        }
    )]
    NotFinite {
        /// The last of these steps.
        step: u64,
        /// Their number.
        in_a_row: u32,
        /// The last checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// A model whose loss is NaN or infinite.
    #[error("{}: its loss is NaN or infinite: its weights are damaged; copy or download the model again", .0.display())]
    LossNotFinite(PathBuf),
    /// A run that needs more memory than the machine has.
    #[error(
        "[model]: {parameters} parameters need {} to train (16 bytes each), but this machine has {}; choose smaller sizes",
        gigabytes(*needed), gigabytes(*available)
    )]
    Memory {
        /// Number of weights of the model.
        parameters: u64,
        /// Bytes needed for weights, gradients and moments.
        needed: u64,
        /// Bytes of memory available.
        available: u64,
    },
    /// A teacher that needs more memory than the machine has.
    #[error(
        "{}: the {parameters} parameters of the teacher need {}, but this machine has {}; choose a smaller teacher",
        path.display(), gigabytes(*needed), gigabytes(*available)
    )]
    TeacherMemory {
        /// The teacher's folder.
        path: PathBuf,
        /// Its number of weights.
        parameters: u64,
        /// Bytes needed for them.
        needed: u64,
        /// Bytes of memory available.
        available: u64,
    },
    /// Another teacher than that with which the run to resume was started.
    #[error(
        "{}: this is not the teacher with which the run was started: its weights or its config.json changed; restore it, or start a new run",
        .0.display()
    )]
    OtherTeacher(PathBuf),
    /// Shards with an empty held-out split.
    #[error(
        "{}: the held-out split is empty: nothing to evaluate on; prepare at least two documents with a `valid_fraction` above 0, or \
         pre-train without evaluation (`set eval.every=0`)",
        .0.display()
    )]
    NoHeldOut(PathBuf),
    /// A model without a required head.
    #[error("{}: the model has no {head} head", path.display())]
    NoHead {
        /// The model's folder.
        path: PathBuf,
        /// The head's name, such as "masked-language-model".
        head: &'static str,
    },
    /// Sequences that are longer than the model's positions.
    #[error("`seq_len` must be at most {positions}, the number of the model's positions, found {found}")]
    TooLong {
        /// The requested sequence length.
        found: usize,
        /// The number of the model's positions.
        positions: usize,
    },
    /// A setting that cannot be used.
    #[error("`{key}`: expected {expected}, found {found}")]
    Setting {
        /// Its name.
        key: &'static str,
        /// What is valid.
        expected: &'static str,
        /// Its value.
        found: f64,
    },
    /// An error of shards or batches.
    #[error(transparent)]
    Data(#[from] cloze_data::DataError),
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] cloze_engine::EngineError),
    /// An error of a model or its folder.
    #[error(transparent)]
    Model(#[from] cloze_model::ModelError),
    /// An error of a tokenizer.
    #[error(transparent)]
    Text(#[from] cloze_text::TextError),
}

/// An amount of memory in GB.
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

impl TrainError {
    /// Wraps a system error.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> TrainError {
        TrainError::Io { action, path: path.to_owned(), source }
    }
}

impl From<cloze_files::FileError> for TrainError {
    fn from(cloze_files::FileError { action, path, source, .. }: cloze_files::FileError) -> TrainError {
        TrainError::Io { action, path, source }
    }
}
