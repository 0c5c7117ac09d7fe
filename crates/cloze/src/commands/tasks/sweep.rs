//! `cloze sweep`: a grid of settings over seeds → a table, and the best model.

use std::process::ExitCode;

use anyhow::{Result, bail};
use cloze_tasks::Settings;
use cloze_tasks::files::Options;

use super::finetune::{self, learn, with_recipe};
use super::runs::Planned;
use crate::terminal::Terminal;

/// `cloze sweep`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze sweep --task mrpc --data glue/MRPC --model runs/mini/model --out runs/mrpc-grid",
    after_long_help = "Every batch size with every learning rate and number of epochs, for every seed: the paper's grid by default \
        (Devlin et al. 2019, section 4.1 and appendix A.3). Runs that fail or collapse are marked; the best model is kept in model/, all scores in \
        results.json. --resume goes on where it was stopped.\n\nExamples:\n  \
        cloze sweep --task mrpc --data glue/MRPC --model runs/mini/model --out runs/mrpc-grid\n  \
        cloze sweep tag --train a.conllu --dev b.conllu --model M --out runs/grid --lrs 1e-4,5e-5 --batches 32 --epochs-list 3 --seeds 3"
)]
pub struct Arguments {
    /// Batch sizes
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_values_t = [16, 32])]
    batches: Vec<usize>,

    /// Learning rates
    #[arg(long, value_name = "RATE,RATE,…", value_delimiter = ',', default_values_t = [5e-5, 4e-5, 3e-5, 2e-5])]
    lrs: Vec<f64>,

    /// Numbers of epochs
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_values_t = [2, 3, 4])]
    epochs_list: Vec<u32>,

    #[command(flatten)]
    base: finetune::Arguments,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    let from_recipe: Arguments;
    let arguments = match &arguments.base.recipe {
        Some(path) => {
            from_recipe = with_recipe(path, "sweep")?;
            &from_recipe
        }
        None => arguments,
    };
    let learn_with = &arguments.base.learn;
    for (given, option, list) in [
        (learn_with.lr.is_some(), "--lr", "--lrs"),
        (learn_with.batch.is_some(), "--batch", "--batches"),
        (learn_with.epochs.is_some(), "--epochs", "--epochs-list"),
    ] {
        if given {
            bail!("{option}: a sweep takes a list of values; give {list}");
        }
    }
    let plan = |options: &Options, base: &finetune::Arguments| grid(arguments, &base.learn.settings(options));
    learn(&arguments.base, &plan, terminal)
}

fn grid(arguments: &Arguments, base: &Settings) -> Vec<Planned> {
    let mut planned = Vec::new();
    for &batch in &arguments.batches {
        for &lr in &arguments.lrs {
            for &epochs in &arguments.epochs_list {
                for seed in (0..arguments.base.seeds as u64).map(|number| base.seed.saturating_add(number)) {
                    let name = format!("batch{batch}-lr{lr:e}-epochs{epochs}-seed{seed}");
                    planned.push(Planned { name, settings: Settings { batch, lr, epochs, seed, ..base.clone() } });
                }
            }
        }
    }
    planned
}
