//! `cloze sweep`: fine-tunes over a grid of settings and seeds.

use std::process::ExitCode;

use anyhow::Result;
use cloze_tasks::kinds::Kind;
use cloze_tasks::{Reading, Settings};

use super::fine_tuned::NOT_IN_TRAINING;
use super::finetune::{self, run_planned};
use super::per_kind::{PerKind, TaskArguments, refuse_ineffective};
use super::recipe::with_recipe;
use super::runs::PlannedRun;
use crate::failure::usage;
use crate::help;
use crate::terminal::Terminal;

/// `cloze sweep [KIND]`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "The options of `cloze finetune` apply to every run, except for --batch, --lr and --epochs, which are lists here. They are \
         in the help of each kind: cloze sweep classify --help. With --task or --recipe they are also accepted without a kind.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    /// Batch sizes
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_values_t = [16, 32])]
    pub batches: Vec<usize>,

    /// Learning rates
    #[arg(long, value_name = "RATE,RATE,…", value_delimiter = ',', default_values_t = [5e-5, 4e-5, 3e-5, 2e-5])]
    pub lrs: Vec<f64>,

    /// Numbers of epochs
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_values_t = [2, 3, 4])]
    pub epochs_list: Vec<u32>,

    #[command(flatten)]
    pub base: finetune::Arguments,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 2] = [
    "cloze sweep --task mrpc --data glue/MRPC --model runs/mini",
    "cloze sweep tag --train a.conllu --dev b.conllu --model runs/mini --out runs/grid --lrs 1e-4,5e-5 --batches 32 --epochs-list 3 --seeds 3",
];

impl TaskArguments for Arguments {
    const NAME: &'static str = "sweep";
    const OVERVIEW: &'static [&'static str] = &[
        "batches",
        "lrs",
        "epochs_list",
        "model",
        "revision",
        "offline",
        "train",
        "dev",
        "data",
        "out",
        "recipe",
        "seeds",
        "resume",
        "dry_run",
        "json",
        "task",
    ];

    fn about(kind: &Kind) -> String {
        format!("Fine-tune over a grid to predict {}", kind.description.about)
    }

    fn details(_: &Kind) -> String {
        "Runs every combination of batch size, learning rate, number of epochs and seed. The default is the grid of the paper \
         (Devlin et al. 2019, section 4.1 and appendix A.3). Runs that fail or collapse are marked. The best model is kept in \
         model/, all scores in results.json. --resume continues an interrupted sweep."
            .to_owned()
    }

    fn examples(kind: &Kind) -> &'static [&'static str] {
        kind.description.examples.sweep
    }

    fn ineffective_options(kind: &Kind) -> Vec<(&'static str, &'static str)> {
        [&[NOT_IN_TRAINING][..], &LISTS[..], kind.description.rejected_options.finetune].concat()
    }
}

/// The options of a single fine-tuning that are lists here.
const LISTS: [(&str, &str); 3] = [
    ("lr", "sweep takes a list of values; give --lrs"),
    ("batch", "sweep takes a list of values; give --batches"),
    ("epochs", "sweep takes a list of values; give --epochs-list"),
];

pub fn run(parsed: PerKind<Arguments>, terminal: &Terminal) -> Result<ExitCode> {
    let given = parsed.given.clone();
    let (kind, arguments) = with_recipe(parsed, |arguments| arguments.base.recipe.as_deref())?;
    let training = &arguments.base.training;
    // Also refuse them in a recipe.
    let singles = [training.lr.is_some(), training.batch.is_some(), training.epochs.is_some()];
    if let Some((_, (option, reason))) = singles.into_iter().zip(LISTS).find(|(given, _)| *given) {
        return Err(usage(format!("--{option}: {reason}")));
    }
    let kind = arguments.base.read.kind(kind)?;
    kind.map_or(Ok(()), |kind| refuse_ineffective::<Arguments>(&given, kind))?;
    let plan = |reading: &Reading, base: &finetune::Arguments| grid(&arguments, &base.training.settings(reading));
    run_planned(kind, &arguments.base, "-grid", &plan, terminal)
}

fn grid(arguments: &Arguments, base: &Settings) -> Vec<PlannedRun> {
    let mut planned = Vec::new();
    for &batch in &arguments.batches {
        for &lr in &arguments.lrs {
            for &epochs in &arguments.epochs_list {
                for seed in (0..arguments.base.seeds as u64).map(|number| base.seed.saturating_add(number)) {
                    let name = format!("batch{batch}-lr{lr:e}-epochs{epochs}-seed{seed}");
                    let mut settings = base.clone();
                    settings.batch = batch;
                    settings.lr = lr;
                    settings.epochs = epochs;
                    settings.seed = seed;
                    planned.push(PlannedRun { name, settings });
                }
            }
        }
    }
    planned
}
