//! Fine-tuning on the rows of a task.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use cloze_comm::Communicator;
use cloze_engine::{Device, Moments};
use cloze_model::{LoadReport, Losses, Model};
use cloze_train::agreement::require_same_weights;
use cloze_train::checkpoint;
use cloze_train::micro_batch::MicroBatch;
use cloze_train::network::Network;
use cloze_train::recipe::Optimizer;
use cloze_train::step::{StepOutcome, Trainer, share};
use cloze_train::train_loop::LoopState;

use super::class_weights::class_weights;
use super::config::FineTuneConfig;
use super::head::{InitialModel, load_initial_model};
use super::job::{FineTuningJob, Learner, State, TERMS};
use super::rows::EncodedRows;
use crate::TaskError;
use crate::batch::TaskBatch;
use crate::example::Example;
use crate::forward::{check_fit, run_model};
use crate::settings::Settings;
use crate::task::Scores;

/// A fine-tuning run before its first step.
pub(super) struct Prepared<'a, 'r> {
    pub(super) job: FineTuningJob<'r, TaskLearner<'a, 'r>>,
    pub(super) trainer: Trainer<Model>,
    pub(super) at: LoopState,
    pub(super) load_report: LoadReport,
    pub(super) notes: Vec<String>,
}

/// Loads the checkpoint `newest`, or else the model to fine-tune, and prepares its training.
pub(super) fn prepare<'a, 'r>(
    config: &'r FineTuneConfig<'a>,
    rows: &'r EncodedRows<'a>,
    settings: &Settings,
    newest: Option<&Path>,
) -> Result<Prepared<'a, 'r>, TaskError> {
    let (task, device) = (config.task, config.device);
    let (mut load_report, mut notes) = (LoadReport::default(), Vec::new());
    let (mut model, moments, state) = match newest {
        Some(path) => {
            let loaded = checkpoint::load::<Model, State>(path, device, share(config.ranks))?;
            (loaded.network, Some(loaded.moments), loaded.state)
        }
        None => {
            let InitialModel { mut model, load_report: found, notes: head_notes } =
                load_initial_model(config, &rows.examples, settings.seed)?;
            let segments = rows.tokenizer.template().segments(false);
            model.check_tokenizer(config.model, rows.tokenizer.vocab_size(), segments)?;
            let mut model_config = model.config().clone();
            task.describe(&mut model_config);
            config.task_settings.write_to(&mut model_config);
            model.set_config(model_config)?;
            (load_report, notes) = (found, head_notes);
            (model, None, State::default())
        }
    };
    check_fit(&model, rows.examples.iter().chain(rows.dev.examples()))?;
    set_up(&mut model, settings)?;
    let class_weights = class_weights(&settings.class_weights, &rows.examples, &model)?;
    let trainer = trainer(model, device, settings, state.updates(), moments, config.ranks)?;
    let (job, at) = FineTuningJob::new(TaskLearner { config, rows, class_weights }, config.settings, state);
    Ok(Prepared { job, trainer, at, load_report, notes })
}

/// Freezes layers, and sets the rates and dropouts of a model.
pub(crate) fn set_up(model: &mut Model, settings: &Settings) -> Result<(), TaskError> {
    let most = model.architecture().layers;
    if let Some(layers) = settings.freeze
        && layers > most
    {
        return Err(TaskError::setting(
            "freeze",
            format!("expected at most {most}, the model's number of layers, found {layers}"),
        ));
    }
    model.freeze(settings.features.map(|_| most).or(settings.freeze));
    model.decay_rates(settings.layer_decay as f32);
    if let Some(dropout) = settings.dropout {
        model.set_dropout(dropout, dropout)?;
    }
    Ok(())
}

/// A network in training, after a number of updates, with the moments of a checkpoint.
pub(crate) fn trainer<N: Network>(
    network: N,
    device: &Device,
    settings: &Settings,
    updates: u64,
    moments: Option<Moments>,
    ranks: &Communicator,
) -> Result<Trainer<N>, TaskError> {
    require_same_weights(ranks, network.params())?;
    let mut optimizer = Optimizer::default();
    optimizer.kind = settings.optimizer;
    optimizer.lr = settings.lr;
    optimizer.eps = settings.eps;
    optimizer.weight_decay = settings.weight_decay;
    optimizer.clip_norm = settings.clip_norm;
    let precision = settings.precision.dtype(device);
    let mut trainer = Trainer::new(network, device, precision, &optimizer, settings.seed, ranks);
    trainer.recompute = settings.recompute;
    trainer.updates = updates;
    if let Some(moments) = moments {
        trainer.moments = moments;
    }
    Ok(trainer)
}

/// The rows of a task, and how they are learned.
pub(super) struct TaskLearner<'a, 'r> {
    config: &'r FineTuneConfig<'a>,
    rows: &'r EncodedRows<'a>,
    class_weights: Option<Vec<f32>>,
}

impl Learner for TaskLearner<'_, '_> {
    type Network = Model;

    fn examples(&self) -> usize {
        self.rows.examples.len()
    }

    fn tokens(&self) -> [usize; 2] {
        let train = self.rows.examples.iter().map(Example::length).sum();
        [train, self.rows.dev.examples().into_iter().map(Example::length).sum()]
    }

    fn has_dev(&self) -> bool {
        !self.config.dev.is_empty()
    }

    fn learn(&self, trainer: &mut Trainer<Model>, chosen: &[usize], number: u64, lr: f64) -> StepOutcome {
        let micro = chosen.len().div_ceil(self.config.settings.accumulate).max(1);
        let (head, examples) = (self.config.task.head(), &self.rows.examples);
        let batches: Vec<TaskBatch> = chosen
            .chunks(micro)
            .map(|part| TaskBatch::pack(head, &part.iter().map(|&i| &examples[i]).collect::<Vec<_>>()))
            .collect();
        let weights = self.class_weights.as_deref();
        let weight: f64 = batches.iter().map(|batch| batch.weight(weights)).sum();
        let scale = if weight > 0.0 { (1.0 / weight) as f32 } else { 0.0 };
        trainer.step(batches.len(), number, lr, |model, pass, key| {
            let batch = &batches[key.micro as usize];
            let logits = batch.logits(model, pass);
            let mut losses = Losses::default();
            losses.add(TERMS[0].name, batch.loss(pass, &logits, weights, scale));
            MicroBatch { losses, tokens: batch.inputs().tokens() as u64, flops: 0.0 }
        })
    }

    fn evaluate(&self, trainer: &Trainer<Model>, stop: &AtomicBool) -> Result<Option<(f64, Scores)>, TaskError> {
        let examples = self.rows.dev.examples();
        let outputs = run_model(trainer, self.config.task.head(), &examples, stop);
        let Some((logits, loss)) = outputs else { return Ok(None) };
        Ok(Some((loss.mean(), self.rows.dev.predict(&logits)?.scores())))
    }
}
