//! `cloze sweep`: a grid of settings over seeds → a table, and the best model.

use std::process::ExitCode;

use anyhow::Result;
use cloze_tasks::Settings;
use cloze_tasks::files::Options;

use super::Kind;
use super::finetune::{self, learn};
use super::per_kind::{OfTask, PerKind};
use super::recipe::with_recipe;
use super::runs::Planned;
use crate::commands::usage;
use crate::help;
use crate::terminal::Terminal;

/// `cloze sweep [KIND]`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "The options of `cloze finetune` apply to every run, but for --batch, --lr and --epochs, which are lists here; they are in \
         the help of each kind: cloze sweep classify --help. They may be given without a kind too, with --task or --recipe.",
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

/// Examples of the command, a line each.
const EXAMPLES: [&str; 2] = [
    "cloze sweep --task mrpc --data glue/MRPC --model runs/mini",
    "cloze sweep tag --train a.conllu --dev b.conllu --model runs/mini --out runs/grid --lrs 1e-4,5e-5 --batches 32 --epochs-list 3 --seeds 3",
];

impl OfTask for Arguments {
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
        "json",
        "task",
    ];

    fn about(kind: Kind) -> String {
        format!("Learn to predict {}, with every setting of a grid", kind.about())
    }

    fn details(_: Kind) -> &'static str {
        "Every batch size with every learning rate and number of epochs, for every seed: the paper's grid by default (Devlin et al. \
         2019, section 4.1 and appendix A.3). Runs that fail or collapse are marked; the best model is kept in model/, all scores in \
         results.json. --resume goes on where it was stopped."
    }

    fn examples(kind: Kind) -> &'static [&'static str] {
        match kind {
            Kind::Classify => {
                &["cloze sweep classify --train a.tsv --dev b.tsv --model runs/mini --out runs/grid --seeds 3"]
            }
            Kind::Regress => &["cloze sweep regress --task stsb --data glue/STS-B --model runs/mini"],
            Kind::Tag => &[EXAMPLES[1]],
            Kind::Answer => {
                &["cloze sweep answer --task squad1 --data squad --model runs/mini --epochs-list 2 --batches 32"]
            }
            Kind::Choose => &["cloze sweep choose --task swag --data swag --model runs/mini --batches 16"],
        }
    }

    fn without_effect(kind: Kind) -> &'static [&'static str] {
        if kind == Kind::Tag {
            &["n_best", "lr", "batch", "epochs", "text"]
        } else {
            &["n_best", "lr", "batch", "epochs"]
        }
    }
}

pub fn run(asked: PerKind<Arguments>, terminal: &Terminal) -> Result<ExitCode> {
    let (kind, arguments) = with_recipe(asked, |arguments| arguments.base.recipe.as_deref())?;
    let learn_with = &arguments.base.learn;
    for (given, option, list) in [
        (learn_with.lr.is_some(), "--lr", "--lrs"),
        (learn_with.batch.is_some(), "--batch", "--batches"),
        (learn_with.epochs.is_some(), "--epochs", "--epochs-list"),
    ] {
        if given {
            return Err(usage(format!("{option}: a sweep takes a list of values; give {list}")));
        }
    }
    let plan = |options: &Options, base: &finetune::Arguments| grid(&arguments, &base.learn.settings(options));
    learn(kind, &arguments.base, "-grid", &plan, terminal)
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
