//! The time that an ablation will take, measured before it starts with a few steps of each row and task. This also finds
//! recipes, data and combinations of them that do not work.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use cloze_model::{Heads, Model};
use cloze_text::Tokenizer;
use cloze_train::pretrain::dry_run;
use cloze_train::recipe::ObjectiveKind;

use super::plan::{Plan, Run};
use super::records::Records;
use super::run::{Context, Missing, fine_tuning};
use super::study::Row;
use crate::commands::tasks::finetune::Executing;

/// The cost of the runs of a row that have no record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cost {
    pub row: String,
    /// Runs, one for each seed, that have something to do.
    pub runs: usize,
    /// Seconds of pre-training.
    pub pretraining: f64,
    /// Tokens of pre-training.
    pub tokens: f64,
    /// Seconds of fine-tuning.
    pub finetuning: f64,
}

/// The cost of what has no record, for each row with runs. `None` if interrupted.
pub fn estimate(context: &Context<'_>, records: &Records) -> Result<Option<Vec<Cost>>> {
    let Plan { runs, study, .. } = context.plan;
    let runs_of = |row: &Row| -> Vec<&Run> { runs.iter().filter(|run| run.row.name == row.name).collect() };
    let rows: Vec<Vec<&Run>> = study.rows.iter().map(runs_of).filter(|runs| !runs.is_empty()).collect();
    let bar = context.terminal.progress("estimating", Some(rows.len() as u64));
    let (mut costs, mut counted) = (Vec::new(), HashSet::new());
    for runs in rows {
        let Some(cost) = cost_of_row(context, records, &runs, &mut counted)? else { return Ok(None) };
        bar.set(costs.len() as u64 + 1, &cost.row);
        costs.push(cost);
    }
    bar.finish();
    Ok(Some(costs))
}

/// The cost of the runs of a row, which differ only in the seed and take the same time. `counted`: the folders of the
/// pre-trainings of earlier rows, which count once. `None` if interrupted.
fn cost_of_row<'a>(
    context: &Context<'_>,
    records: &Records,
    runs: &[&'a Run],
    counted: &mut HashSet<&'a str>,
) -> Result<Option<Cost>> {
    let mut cost = Cost { row: runs[0].row.name.clone(), ..Cost::default() };
    let folder = tempfile::tempdir()?;
    let (mut pretraining, mut finetuning) = (None, HashMap::new());
    let mut model: Option<PathBuf> = None;
    for run in runs {
        let missing = context.missing(run, records)?;
        cost.runs += usize::from(!missing.is_empty());
        for what in missing {
            match what {
                Missing::Pretraining if counted.insert(&run.folder) => {
                    if pretraining.is_none() {
                        pretraining = pretraining_cost(context, run)?;
                    }
                    let Some((seconds, tokens)) = pretraining else { return Ok(None) };
                    cost.pretraining += seconds;
                    cost.tokens += tokens;
                }
                Missing::Task { column, task } => {
                    if !finetuning.contains_key(&column.name) {
                        let model = match &model {
                            Some(model) => model,
                            None => model.insert(untrained(run, context, folder.path())?),
                        };
                        let (options, out) = (run.finetune_options(column, task, context.finetune), context.dry_run());
                        let found = fine_tuning(context, column, options, model, &out, true)?;
                        let Executing::DryRun(found) = found else { return Ok(None) };
                        finetuning.insert(&column.name, found.seconds);
                    }
                    cost.finetuning += finetuning[&column.name];
                }
                Missing::Pretraining | Missing::HeldOut | Missing::Pairs(_) => {}
            }
        }
    }
    Ok(Some(cost))
}

/// Seconds and tokens of a pre-training; `None` if interrupted.
fn pretraining_cost(context: &Context<'_>, run: &Run) -> Result<Option<(f64, f64)>> {
    let found = dry_run(&run.recipe, context.device, &context.dry_run(), false, context.stop)?;
    Ok(found.map(|found| (found.estimate.seconds, run.tokens.unwrap_or_else(|| found.estimate.tokens()))))
}

/// A model as the pre-training makes it, with random weights; or the one from which it starts.
fn untrained(run: &Run, context: &Context<'_>, folder: &Path) -> Result<PathBuf> {
    if let Some(init) = &run.recipe.model.init {
        return Ok(init.clone());
    }
    let shards = cloze_data::shards::Shards::open(&run.recipe.data)?;
    let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
    let config = run.recipe.model.config(tokenizer.vocab_size(), tokenizer.special())?;
    let is_causal = run.recipe.phase_objective(run.recipe.phase.len() - 1) == ObjectiveKind::CausalLm;
    let config = if is_causal { config.causal() } else { config };
    Model::new(config, Heads::MLM, context.device, run.seed())?.save(folder)?;
    tokenizer.save(folder)?;
    Ok(folder.to_owned())
}
