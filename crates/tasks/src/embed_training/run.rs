//! A run that trains embeddings, and a dry run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cloze_comm::Communicator;
use cloze_data::{TokenTable, example_order};
use cloze_engine::Device;
use cloze_model::LoadReport;
use cloze_text::Tokenizer;
use cloze_train::checkpoint;
use cloze_train::step::{Trainer, share};
use cloze_train::train_loop::LoopState;
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use super::card::{CardFacts, card};
use super::denoising::Damage;
use super::encoded::EncodedTexts;
use super::folder::FolderFiles;
use super::learner::{EmbedLearner, Objective};
use super::losses::{Candidates, Compare, Distance};
use super::mined::Miner;
use super::network::{EmbeddingNetwork, NewParts};
use super::rows::TextRow;
use super::settings::{EmbedSettings, LossKind};
use crate::TaskError;
use crate::embed::prompts::Purpose;
use crate::embed::search::Similarity;
use crate::embed::{Embedder, Options};
use crate::finetune::job::{FineTuningJob, State};
use crate::finetune::opening::{
    Opened, Opening, RunData, StartFacts, completed_steps, machine, nothing_left, start_line,
};
use crate::finetune::rows::pretty;
use crate::finetune::run::{estimate, run_to_end};
use crate::finetune::task_learner::{set_up, trainer};
use crate::finetune::{Estimate, FineTuneEvent, Outcome, Start};

/// A run: the model to start from, the rows, the settings and the run folder.
#[derive(Clone, Copy)]
pub struct EmbedRun<'a> {
    /// The training rows.
    pub train: &'a [TextRow],
    /// The dev rows, which select the best model. Empty: the last model is kept.
    pub dev: &'a [TextRow],
    /// The files that they come from, for the log.
    pub files: [&'a [PathBuf]; 2],
    /// The folder of the model to start from.
    pub model: &'a Path,
    /// How its texts are embedded: pooling, maximum length, prompts.
    pub options: &'a Options,
    /// The settings.
    pub settings: &'a EmbedSettings,
    /// The run folder, which is created.
    pub out: &'a Path,
    /// Whether to resume the run in `out`.
    pub resume: bool,
    /// The device. To resume a run, use [`device_of_run`](crate::finetune::device_of_run).
    pub device: &'a Device,
    /// The processes that train together; rank 0 writes the run folder.
    pub ranks: &'a Communicator,
}

/// The rows and the start of a run.
struct Prepared {
    train: EncodedTexts,
    dev: EncodedTexts,
    embedder: Embedder,
    data: Data,
    similarity: Similarity,
    settings: EmbedSettings,
}

/// data.json: what identifies the rows and how they are encoded.
struct Data(Value);

impl Data {
    fn new(embedder: &Embedder, train: &EncodedTexts, dev: &EncodedTexts) -> Data {
        let mut hash = Xxh3::new();
        train.add_to(&mut hash);
        hash.update(&[1]);
        dev.add_to(&mut hash);
        let prompt =
            |purpose: Purpose| json!({ "prompt": embedder.prompt(purpose), "max_len": embedder.max_len(purpose) });
        Data(json!({
            "vectors": embedder.describe(),
            "text": prompt(Purpose::Text),
            "query": prompt(Purpose::Query),
            "document": prompt(Purpose::Document),
            "train_rows": train.len(),
            "dev_rows": dev.len(),
            "rows": format!("{:032x}", hash.digest128()),
        }))
    }

    fn path(run: &Path) -> PathBuf {
        run.join("data.json")
    }
}

impl RunData for Data {
    fn write(&self, run: &Path) -> Result<(), TaskError> {
        let path = Data::path(run);
        Ok(cloze_files::write(&path, &pretty(&path, &self.0)?)?)
    }

    fn identity(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    fn check(&self, run: &Path) -> Result<(), TaskError> {
        let path = Data::path(run);
        let text = fs::read(&path).map_err(|source| TaskError::io("read", &path, source))?;
        let started: Value =
            serde_json::from_slice(&text).map_err(|e| TaskError::file(&path, format!("is damaged: {e}")))?;
        let keys = self.0.as_object().into_iter().flatten();
        let differ: Vec<String> = keys
            .filter(|(key, now)| started[key.as_str()] != **now && *key != "rows")
            .map(|(key, now)| format!("{key} = {}, now {now}", started[key.as_str()]))
            .collect();
        if started == self.0 {
            return Ok(());
        }
        Err(TaskError::DifferentRows { run: run.to_owned(), differ: differ.join("; ") })
    }
}

impl Prepared {
    fn new(run: &EmbedRun<'_>) -> Result<Prepared, TaskError> {
        let settings = run.settings;
        settings.validate()?;
        if run.train.is_empty() {
            return Err(TaskError::NoRows("training"));
        }
        let precision = settings.training.precision.resolved(run.device).dtype(run.device);
        let embedder = Embedder::open(run.model, run.device.clone(), precision, run.options)?;
        let equals = settings.loss.is_of_equals() || run.train.iter().all(|row| row.positives == [row.anchor.clone()]);
        let purposes = if equals { [Purpose::Text; 2] } else { [Purpose::Query, Purpose::Document] };
        let [train, dev] = [run.train, run.dev].map(|rows| EncodedTexts::new(&embedder, rows, purposes));
        let width = settings.dense.unwrap_or(embedder.width());
        let loss = settings.loss(width)?;
        for (rows, encoded, is_train) in [(run.train, &train, true), (run.dev, &dev, false)] {
            for (number, row) in rows.iter().enumerate() {
                let checked = match &loss {
                    Some(loss) => loss.loss.check(&encoded.row(number), width),
                    // Dev rows may have scores.
                    None if !is_train || encoded.is_single(number) => Ok(()),
                    None => Err("expected one text".to_owned()),
                };
                checked.map_err(|problem| {
                    TaskError::line(&row.path, row.line, format!("{problem}, for the loss {}", settings.loss.name()))
                })?;
            }
        }
        let data = Data::new(&embedder, &train, &dev);
        let similarity = match (settings.loss, settings.compare, settings.distance) {
            (LossKind::Triplet, _, Distance::Euclidean) => Similarity::Euclidean,
            (LossKind::InfoNce, Some(Compare::Dot), _) => Similarity::Dot,
            (LossKind::MarginMse | LossKind::Kl, None | Some(Compare::Dot), _) => Similarity::Dot,
            _ => Similarity::Cosine,
        };
        Ok(Prepared { train, dev, embedder, data, similarity, settings: settings.clone() })
    }

    /// The network at a checkpoint, or at the start.
    fn network(
        &self,
        run: &EmbedRun<'_>,
        newest: Option<&Path>,
    ) -> Result<(Trainer<EmbeddingNetwork>, State, LoadReport), TaskError> {
        let training = &self.settings.training;
        let (mut network, moments, state, report) = match newest {
            Some(path) => {
                let loaded = checkpoint::load::<EmbeddingNetwork, State>(path, run.device, share(run.ranks))?;
                (loaded.network, Some(loaded.moments), loaded.state, LoadReport::default())
            }
            None => {
                let start = run
                    .model
                    .file_name()
                    .map_or_else(|| run.model.display().to_string(), |name| name.to_string_lossy().into_owned());
                let facts = CardFacts {
                    start: &start,
                    settings: &self.settings,
                    train_rows: run.train.len(),
                    width: self.settings.dense.unwrap_or(self.embedder.width()),
                    similarity: self.similarity.name(),
                };
                let card = card(&self.embedder, &facts);
                let equals = self.settings.loss.is_of_equals();
                let files = FolderFiles::new(&self.embedder, run.model, self.similarity, equals, card)?;
                let new = NewParts {
                    dense: self.settings.dense,
                    scale: self.settings.learn_temperature.then(|| 1.0 / self.settings.temperature()),
                    decodes: self.settings.loss == LossKind::Denoising,
                    seed: training.seed,
                };
                let (network, report) = EmbeddingNetwork::new(&self.embedder, files, new)?;
                (network, None, State::default(), report)
            }
        };
        set_up(network.model_mut(), training)?;
        let updates = state.updates();
        Ok((trainer(network, run.device, training, updates, moments, run.ranks)?, state, report))
    }

    fn learner(&self, network: &EmbeddingNetwork) -> Result<EmbedLearner<'_>, TaskError> {
        Ok(EmbedLearner {
            train: &self.train,
            dev: &self.dev,
            objective: match self.settings.loss(network.width())? {
                Some(loss) => Objective::Vectors(loss),
                None => Objective::Denoising(Damage {
                    deletion_ratio: self.settings.deletion_ratio,
                    seed: self.settings.training.seed,
                    tokens: TokenTable::from(self.tokenizer()),
                }),
            },
            miner: self.settings.mine_every.map(|every| {
                let options = crate::mining::Options {
                    num_negatives: self.settings.mine_negatives,
                    relative_margin: Some(self.settings.mine_margin),
                    ..crate::mining::Options::default()
                };
                Miner::new(&self.train, every, options, self.similarity)
            }),
            micro_tokens: self.settings.micro_tokens,
            batch: self.settings.training.batch,
            similarity: self.similarity,
        })
    }

    /// How many negatives an anchor has, for InfoNCE with those of the batch.
    fn negatives_note(&self) -> Option<String> {
        let settings = &self.settings;
        if settings.loss != LossKind::InfoNce || settings.candidates != Candidates::InBatch {
            return None;
        }
        let order = example_order(self.train.len(), settings.training.seed, 0);
        let first: Vec<usize> = order.into_iter().take(settings.training.batch).collect();
        let mean = self.train.negatives_in_batch(&first);
        Some(format!(
            "an anchor of the first step has {mean:.1} negatives on average; texts equal to it or its positives are left out"
        ))
    }

    /// What is mined in the run.
    fn mining_note(&self) -> Option<String> {
        let EmbedSettings { mine_every, mine_negatives, mine_margin, .. } = self.settings;
        Some(format!(
            "before the first step and after every {} steps, up to {mine_negatives} more negatives of each row are mined, of at most {:.0} % \
             of its positives' similarity",
            mine_every?,
            100.0 * (1.0 - mine_margin)
        ))
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.embedder.model.tokenizer
    }
}

/// Trains embeddings. When `stop` is set, the current step is completed and a checkpoint is saved. `on_event` receives the
/// events of the run.
///
/// # Errors
/// Settings, rows or a checkpoint that cannot be used; a loss that is not finite; a full disk. Files that were saved before an
/// error remain valid.
pub fn train(
    run: &EmbedRun<'_>,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&FineTuneEvent),
) -> Result<Outcome, TaskError> {
    let mut prepared = Prepared::new(run)?;
    let (device, tokenizer) = (run.device, prepared.tokenizer().clone());
    let new = (run.out, run.resume, run.ranks);
    let opened = Opening::of_run(new, &mut prepared.settings, &prepared.data, device, &tokenizer)?;
    let opening = match opened {
        Opened::Finished(outcome) => return Ok(outcome),
        Opened::Unfinished(opening) => opening,
    };
    let (trainer, state, load_report) = prepared.network(run, opening.newest())?;
    let created = opening.create(&prepared.settings, &prepared.data)?;
    let learner = prepared.learner(&trainer.network)?;
    let (job, at): (_, LoopState) = FineTuningJob::new(learner, &prepared.settings.training, state);
    let precision = trainer.precision();
    let mut notes = prepared.embedder.notes.clone();
    notes.push(format!("vectors: {}, compared by {}", prepared.embedder.describe(), prepared.similarity));
    notes.extend(prepared.negatives_note());
    notes.extend(prepared.mining_note());
    let start = Start {
        machine: machine(device, precision),
        step: at.step,
        steps: job.steps(),
        examples: prepared.train.len(),
        tokens: prepared.train.tokens(),
        cut_rows: prepared.train.cut + prepared.dev.cut,
        load_report,
        notes,
    };
    let facts = StartFacts {
        rows: [run.train.len(), run.dev.len()],
        files: run.files,
        model: run.model,
        parameters: trainer.network.model().parameter_count(),
    };
    let line = start_line(&start, &facts, device, precision);
    run_to_end(job, trainer, &tokenizer, created, at, (&line, start), stop, on_event)
}

/// Makes the same checks as [`train`], runs a few steps and estimates the duration of the run, or of the rest of a resumed
/// run. Nothing is written. None if `stop` was set before the estimate was complete.
///
/// # Errors
/// Those of `train` before its first evaluation.
pub fn dry_run(run: &EmbedRun<'_>, stop: &AtomicBool) -> Result<Option<Estimate>, TaskError> {
    let mut prepared = Prepared::new(run)?;
    let Some(done) = completed_steps(run.out, run.resume, &mut prepared.settings, &prepared.data)? else {
        return Ok(Some(nothing_left()));
    };
    let (mut trainer, ..) = prepared.network(run, None)?;
    let learner = prepared.learner(&trainer.network)?;
    let (job, _) = FineTuningJob::new(learner, &prepared.settings.training, State::default());
    estimate(&job, &mut trainer, prepared.settings.training.batch, done, stop)
}

/// The gradient of a step of all rows.
#[cfg(test)]
pub(super) fn first_gradient(run: &EmbedRun<'_>) -> Vec<f32> {
    use crate::finetune::job::Learner;
    let prepared = Prepared::new(run).unwrap();
    let (mut trainer, ..) = prepared.network(run, None).unwrap();
    let learner = prepared.learner(&trainer.network).unwrap();
    let all: Vec<usize> = (0..run.train.len()).collect();
    learner.learn(&mut trainer, &all, 0, 0.0);
    trainer.gradients().read_all().to_vec()
}
