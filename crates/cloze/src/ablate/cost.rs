//! The time that an ablation will take, measured before it starts with a few steps of each row and task. This also finds
//! recipes, data and combinations of them that do not work.

use std::path::Path;

use anyhow::Result;
use cloze_model::{Heads, Model};
use cloze_text::Tokenizer;
use cloze_train::pretrain::dry_run;
use cloze_train::recipe::ObjectiveKind;

use super::plan::{Plan, Run};
use super::records::Records;
use super::run::{Context, Missing, fine_tuning};
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

/// The cost of what has no record, for each row. `None` if interrupted.
pub fn estimate(context: &Context<'_>, records: &Records) -> Result<Option<Vec<Cost>>> {
    let Plan { runs, study, .. } = context.plan;
    let bar = context.terminal.progress("estimating", Some(study.rows.len() as u64));
    let (mut costs, mut counted) = (Vec::new(), Vec::new());
    for row in &study.rows {
        let mut cost = Cost { row: row.name.clone(), ..Cost::default() };
        // Runs that differ only in the seed take the same time.
        let (mut pretraining, mut finetuning) = (None, Vec::new());
        for run in runs.iter().filter(|run| run.row.name == row.name) {
            let missing = context.missing(run, records)?;
            cost.runs += usize::from(!missing.is_empty());
            for what in missing {
                match what {
                    Missing::Pretraining if !counted.contains(&&run.folder) => {
                        counted.push(&run.folder);
                        if pretraining.is_none() {
                            let Some(found) = pretraining_cost(context, run)? else { return Ok(None) };
                            pretraining = Some(found);
                        }
                        let (seconds, tokens) = pretraining.unwrap_or_default();
                        (cost.pretraining, cost.tokens) = (cost.pretraining + seconds, cost.tokens + tokens);
                    }
                    Missing::Task { column, task } => {
                        let known = finetuning.iter().find(|(name, _)| *name == &column.name).map(|(_, known)| *known);
                        let seconds = match known {
                            Some(seconds) => seconds,
                            None => {
                                let options = run.finetune_options(column, task, context.finetune);
                                let folder = tempfile::tempdir()?;
                                let model = untrained(run, context, folder.path())?;
                                let out = context.out.join("dry-run");
                                match fine_tuning(context, column, options, &model, &out, true)? {
                                    Executing::DryRun(found) => found.seconds,
                                    _ => return Ok(None),
                                }
                            }
                        };
                        finetuning.push((&column.name, seconds));
                        cost.finetuning += seconds;
                    }
                    Missing::Pretraining | Missing::HeldOut | Missing::Pairs => {}
                }
            }
        }
        costs.push(cost);
        bar.set(costs.len() as u64, &row.name);
    }
    bar.finish();
    Ok(Some(costs))
}

/// Seconds and tokens of a pre-training; `None` if interrupted.
fn pretraining_cost(context: &Context<'_>, run: &Run) -> Result<Option<(f64, f64)>> {
    let folder = tempfile::tempdir()?;
    let Some(found) = dry_run(&run.recipe, context.device, &folder.path().join("run"), false, context.stop)? else {
        return Ok(None);
    };
    Ok(Some((found.estimate.seconds, run.tokens.unwrap_or_else(|| found.estimate.tokens()))))
}

/// A model as the pre-training makes it, with random weights; or the one from which it starts.
fn untrained(run: &Run, context: &Context<'_>, folder: &Path) -> Result<std::path::PathBuf> {
    if let Some(init) = &run.recipe.model.init {
        return Ok(init.clone());
    }
    let shards = cloze_data::shards::Shards::open(&run.recipe.data)?;
    let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
    let config = run.recipe.model.config(tokenizer.vocab_size(), tokenizer.special())?;
    let is_causal = run.recipe.phase_objective(run.recipe.phase.len() - 1) == ObjectiveKind::CausalLm;
    let config = if is_causal { config.causal() } else { config };
    Model::new(config, Heads::MLM, context.device, run.seed)?.save(folder)?;
    tokenizer.save(folder)?;
    Ok(folder.to_owned())
}
