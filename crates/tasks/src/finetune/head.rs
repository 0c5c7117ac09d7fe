//! How the head of a new model starts: as the checkpoint's, its outputs in the order of the labels, or new. A new regression's output
//! starts at the mean of what it is to learn.

use cloze_model::checkpoint::CONFIG_FILE;
use cloze_model::{Config, Head, Heads, LoadReport, Model, Module, TaskHead};

use super::config::FineTuneConfig;
use crate::TaskError;
use crate::example::{Example, Target};
use crate::task::HeadStart;

/// A model with the task's head before its first step.
pub(super) struct Begun {
    pub(super) model: Model,
    pub(super) adopted: LoadReport,
    /// What a user is to know of its heads.
    pub(super) notes: Vec<String>,
}

/// Opens the model to start from with the task's head.
pub(super) fn begin(asked: &FineTuneConfig<'_>, examples: &[Example], seed: u64) -> Result<Begun, TaskError> {
    let (task, heads) = (asked.task, Heads::of(asked.task.head()));
    let start = Config::read(&asked.model.join(CONFIG_FILE))?;
    let class = heads.class(false);
    let head_start = match &start.architectures {
        Some(names) if !start.is_of_class(class) => {
            HeadStart::New { why: format!("the checkpoint is a {}", names.join(", ")) }
        }
        _ => task.head_start(&start, asked.task_settings.task.is_some()),
    };
    let anew = if matches!(head_start, HeadStart::New { .. }) { &[Head::Classifier][..] } else { &[] };
    let (mut model, adopted) = Model::load_with(asked.model, heads, anew, asked.device, seed)?;
    let of_task = |head: Head| matches!(head, Head::Classifier | Head::Span);
    let is_new = adopted.newly_initialized.iter().any(|tensor| of_task(tensor.head));
    let had_one = !is_new || adopted.unused.iter().any(|tensor| of_task(tensor.head));
    let mut notes = adopted.notes();
    match head_start {
        HeadStart::Kept { rows, what } if !is_new => {
            notes.push(format!("task's head kept from the checkpoint{what}"));
            if let Some(rows) = rows {
                model.reorder_outputs(&rows);
            }
        }
        HeadStart::New { why } if had_one => notes.push(format!("task's head not kept from the checkpoint: {why}")),
        _ => {}
    }
    if is_new && task.head() == (TaskHead::Classify { labels: 1 }) {
        notes.extend(start_at_targets(&mut model, examples));
    }
    Ok(Begun { model, adopted, notes })
}

/// Lets a new regression's output start with the mean and the standard deviation of its targets, so that no steps are spent on
/// reaching them: that of zero mean and unit deviation, stretched and moved. None if there are no targets.
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
    let bias = model.find(Module::Classifier.bias())?;
    model.params.write(bias, &[mean as f32]);
    if deviation > 0.0 {
        let weight = model.find(Module::Classifier.weight())?;
        model.params.edit(weight, |values| values.iter_mut().for_each(|value| *value *= deviation as f32));
    }
    Some(format!("task's head starts at the mean {mean:.4} and standard deviation {deviation:.4} of its targets"))
}
