//! Initialization of the task head: copied from the checkpoint with its outputs in the order of the labels, or random.
//! The output of a new regression head starts at the mean of its targets.

use cloze_model::checkpoint::CONFIG_FILE;
use cloze_model::{BiLstmSize, Config, Head, Heads, LoadReport, Model, SequenceToken, TaskHead, TaskInput};

use super::config::FineTuneConfig;
use crate::TaskError;
use crate::example::{Example, Target};
use crate::settings::Settings;
use crate::task::HeadInit;

/// A model with the task head, before its first step.
pub(super) struct InitialModel {
    pub(super) model: Model,
    pub(super) load_report: LoadReport,
    /// Notes for the user about its heads.
    pub(super) notes: Vec<String>,
}

/// Loads the model to fine-tune, with the task head.
pub(super) fn load_initial_model(
    config: &FineTuneConfig<'_>,
    examples: &[Example],
    seed: u64,
) -> Result<InitialModel, TaskError> {
    let (task, heads) = (config.task, Heads::of(config.task.head()));
    let start = Config::read(&config.model.join(CONFIG_FILE))?;
    let class = heads.class(false);
    let head_init = match &start.architectures {
        Some(names) if !start.is_of_class(class) => {
            HeadInit::Random { reason: format!("the checkpoint is a {}", names.join(", ")) }
        }
        _ => task.head_init(&start, config.task_settings.task.is_some()),
    };
    let random_heads =
        if matches!(head_init, HeadInit::Random { .. }) { &[Head::Classifier, Head::Features][..] } else { &[] };
    let input = task_input(config.settings, &start, task.head());
    let (mut model, load_report) =
        Model::load_for_task(config.model, task.head(), input, random_heads, config.device, seed)?;
    let of_task = |head: Head| matches!(head, Head::Classifier | Head::Span);
    let is_new = load_report.newly_initialized.iter().any(|tensor| of_task(tensor.head));
    let checkpoint_had_head = !is_new || load_report.unused.iter().any(|tensor| of_task(tensor.head));
    let mut notes = load_report.notes();
    match head_init {
        HeadInit::Copied { rows, note } if !is_new => {
            notes.push(format!("task head kept from the checkpoint{note}"));
            if let Some(rows) = rows {
                model.reorder_outputs(&rows);
            }
        }
        HeadInit::Random { reason } if checkpoint_had_head => {
            notes.push(format!("task head not kept from the checkpoint: {reason}"))
        }
        _ => {}
    }
    if is_new && task.head() == (TaskHead::Classify { labels: 1 }) {
        notes.extend(start_at_targets(&mut model, examples));
    }
    Ok(InitialModel { model, load_report, notes })
}

/// What the head reads. Section 5.1 does not say which token represents a sequence in the left-to-right model: its first
/// token attends to no other, so it is the last one, as in GPT (Radford et al. 2018). With a BiLSTM, it is the same token.
fn task_input(settings: &Settings, start: &Config, head: TaskHead) -> TaskInput {
    let size = settings.bilstm_size.unwrap_or(start.hidden_size);
    let of_sequences = matches!(head, TaskHead::Classify { .. } | TaskHead::Choose);
    TaskInput {
        features: settings.features.unwrap_or_default(),
        bilstm: (settings.bilstm > 0).then_some(BiLstmSize { layers: settings.bilstm, size }),
        token: if start.is_decoder && of_sequences { SequenceToken::Last } else { SequenceToken::First },
    }
}

/// Scales and shifts a new regression head so that its outputs start with the mean and the standard deviation of the
/// targets: then no training steps are needed to reach them. Returns a note; none if there are no targets.
fn start_at_targets(model: &mut Model, examples: &[Example]) -> Option<String> {
    let values = |example: &Example| match &example.target {
        Target::Values(values) => values.first().copied().filter(|value| value.is_finite()).map(f64::from),
        _ => None,
    };
    let targets: Vec<f64> = examples.iter().filter_map(values).collect();
    if targets.is_empty() {
        return None;
    }
    let count = targets.len() as f64;
    let mean = targets.iter().sum::<f64>() / count;
    let deviation = (targets.iter().map(|target| (target - mean).powi(2)).sum::<f64>() / count).sqrt();
    let classifier = model.classifier()?;
    let bias = model.find(classifier.bias())?;
    model.params.write(bias, &[mean as f32]);
    if deviation > 0.0 {
        let weight = model.find(classifier.weight())?;
        model.params.edit(weight, |values| values.iter_mut().for_each(|value| *value *= deviation as f32));
    }
    Some(format!("task head starts at the mean {mean:.4} and standard deviation {deviation:.4} of its targets"))
}
