//! `cloze ablate`: pre-trains, fine-tunes and compares the rows of a table.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use cloze_hub::Contents;
use serde_json::json;

use super::model::HubArguments;
use crate::ablate::{
    BUILT_IN, Budget, Context, Cost, Ended, Options, Pairs, Plan, Records, Results, Study, TaskSource, chart, estimate,
    run as run_plan,
};
use crate::failure::{INTERRUPTED, usage};
use crate::terminal::Terminal;
use crate::{format, help, program, ranks};

/// `cloze ablate STUDY`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "Each row of the table is pre-trained with the same budget and fine-tuned on the same tasks. STUDY is a built-in table or a \
         TOML file. Built in are:\n\n  \
         paper-table-5   Devlin et al. 2019: next sentences, left-to-right, BiLSTM\n  \
         paper-table-6   the same: sizes of the model\n  \
         paper-table-7   the same: fine-tuning and features for named entities\n  \
         paper-masking   the same, table 8: what becomes of the chosen tokens\n  \
         rate            masking rates of 10 to 50 %\n  \
         objective       masked LM, with pairs, replaced tokens, causal, then masked\n  \
         optimizer       AdamW, BERT's AdamW, LAMB\n  \
         family          BERT, RoBERTa, DistilBERT, ALBERT, ELECTRA, left-to-right\n\n\
         `cloze ablate STUDY --print` prints a built-in table, to change it. A file has [[row]] entries with recipe keys in `set` \
         and options of `cloze finetune` in `finetune`; or a [grid] of recipe keys with lists of values, all of whose combinations \
         are rows.\n\n\
         The total time is printed before the first row starts. The folder gets records.csv (one measured value per line), \
         results.md and results.svg, after each run. With --resume, interrupted runs continue and finished ones are not repeated: \
         what is in records.csv is never measured again. More seeds, rows and tasks can be added in this way. An ablation whose \
         recipe, text or task has changed is refused.\n\n\
         The published figures in the built-in tables are for base models and much more text. What can be compared is their order.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    /// A built-in table, or a TOML file
    #[arg(value_name = "STUDY")]
    study: PathBuf,

    /// Shards made by `cloze prepare`; more folders for rows that prefer another kind of tokenizer
    #[arg(long, value_name = "SHARDS", num_args = 1.., required_unless_present = "print")]
    data: Vec<PathBuf>,

    /// Tasks to fine-tune on: NAME=DIR of a known task (as in --task of `cloze finetune`), or a recipe of `cloze finetune`
    #[arg(long, value_name = "NAME=DIR|FILE.toml", value_delimiter = ',')]
    tasks: Vec<String>,

    /// Minutes of pre-training of each row [default: the recipe's]
    #[arg(long, value_name = "N", value_parser = crate::values::above_zero, conflicts_with = "tokens")]
    minutes: Option<f64>,

    /// Tokens of pre-training of each row, instead of --minutes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens: Option<u64>,

    /// Number of runs of each row with consecutive seeds, from the recipe's up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = crate::values::seeds)]
    seeds: usize,

    /// Size of the models that has the paper's base model's place: tiny, mini, small, medium, base, large
    #[arg(long, value_name = "SIZE", default_value = "mini")]
    scale: String,

    /// Run only these rows
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    rows: Vec<String>,

    /// Minimal pairs for a column of accuracies, such as BLiMP
    #[arg(long, value_name = "FILE")]
    blimp: Option<PathBuf>,

    /// Use only the first N pairs of each paradigm
    #[arg(long, hide_short_help = true, value_name = "N", requires = "blimp", value_parser = crate::values::positive)]
    blimp_pairs: Option<usize>,

    /// Override a key of every recipe, such as optimizer.lr=1e-3; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// Learning rates of fine-tuning; the best on the dev rows is kept [default: the task's; 3e-4 for models narrower than
    /// base]
    #[arg(long, value_name = "RATE,RATE,…", value_delimiter = ',')]
    lrs: Vec<f64>,

    /// An option of every fine-tuning, such as epochs=2 or limit=10000; can be repeated
    #[arg(long = "finetune", hide_short_help = true, value_name = "OPTION=VALUE")]
    finetune: Vec<String>,

    /// Folder of the ablation [default: runs/ and the study's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    // For a recipe's model.init and objective.teacher, which may be run folders or names on the Hub.
    #[command(flatten)]
    hub: HubArguments,

    /// Continue the ablation in the folder
    #[arg(long)]
    resume: bool,

    /// Check everything, estimate the total time, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the study's file
    #[arg(long)]
    print: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 5] = [
    "cloze ablate objective --data shards --tasks sst2=glue/SST-2,cola=glue/CoLA --minutes 25",
    "cloze ablate paper-table-5 --data shards --tasks mrpc=glue/MRPC --tokens 20000000 --seeds 3",
    "cloze ablate objective --data shards --minutes 25 --resume --seeds 3 --rows mlm,rtd",
    "cloze ablate rate --print > my.toml",
    "cloze ablate my.toml --data shards --blimp blimp.jsonl.gz --dry-run",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    if arguments.print {
        return print(&arguments.study);
    }
    let study = Study::open(&arguments.study, &arguments.scale)?;
    let out = &arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(&study.name));
    if !arguments.resume && !cloze_files::is_unused(out)? {
        bail!("{} exists and is not empty; give --resume to continue it, or another --out", out.display());
    }
    let tasks = arguments.tasks.iter().map(|task| TaskSource::parse(task)).collect::<Result<Vec<_>>>()?;
    let finetune = finetune_options(&arguments.finetune)?;
    let options = Options {
        shards: arguments.data.clone(),
        tasks,
        budget: match (arguments.minutes, arguments.tokens) {
            (Some(minutes), _) => Budget::Minutes(minutes),
            (None, Some(tokens)) => Budget::Tokens(tokens),
            (None, None) => Budget::Recipe,
        },
        seeds: arguments.seeds as u64,
        rows: arguments.rows.clone(),
        set: arguments.overrides.clone(),
        threads: terminal.threads,
        device: terminal.device.unwrap_or_default(),
        find_model: &|init| arguments.hub.find(init, Contents::Model, terminal),
    };
    let plan = Plan::new(study, &options)?;
    plan.notes.iter().for_each(|note| terminal.note(note));
    let pairs = arguments.blimp.as_deref().map(|file| Pairs::read(file, arguments.blimp_pairs)).transpose()?;
    let device = &terminal.open_device()?;
    let ranks = ranks::current();
    if !ranks.is_single() && arguments.dry_run {
        return Err(usage("--dry-run runs in one process"));
    }
    if ranks.is_root() && out.is_dir() {
        Records::merge(out)?;
    }
    ranks.barrier();
    let mut records = Records::open(out, ranks.rank())?;
    let context = Context {
        plan: &plan,
        out,
        pairs: pairs.as_ref(),
        lrs: &arguments.lrs,
        finetune: &finetune,
        device,
        ranks,
        stop: crate::interrupt::stop(),
        terminal,
    };
    let estimated = ranks.at_root(|| estimate(&context, &records))?.flatten();
    if ranks.any(ranks.is_root() && estimated.is_none()) {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let costs = estimated.unwrap_or_default();
    if arguments.dry_run {
        write_dry_run(&costs, out, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.note(&describe(&costs, ranks.size()));
    std::fs::create_dir_all(out)?;
    let write_so_far = &mut |records: &Records| match ranks.is_root() {
        true => write_results(out, &plan.study, records).map(drop),
        false => Ok(()),
    };
    let mut ended = ranks.each(|| run_plan(&context, &mut records, write_so_far))?;
    if ranks.any(ended == Ended::Interrupted) {
        ended = Ended::Interrupted;
    }
    if !ranks.is_root() {
        return Ok(if ended == Ended::Finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) });
    }
    let results = write_results(out, &plan.study, &Records::merge(out)?)?;
    let mut stdout = crate::output::stdout();
    if arguments.json {
        let line = json!({
            "out": format::path(out), "finished": ended == Ended::Finished, "rows": results.to_json(),
            "peak_rss_bytes": cloze_files::machine::peak_memory(),
        });
        writeln!(stdout, "{line}")?;
    } else if ended == Ended::Finished {
        writeln!(stdout, "{}", results.markdown())?;
        writeln!(stdout, "in {}: records.csv, results.md, results.svg", out.display())?;
    } else {
        writeln!(stdout, "interrupted and saved; continue with the same command and --resume")?;
    }
    Ok(if ended == Ended::Finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// Prints a built-in study.
fn print(named: &Path) -> Result<ExitCode> {
    let Some((_, text)) = BUILT_IN.iter().find(|(name, _)| Path::new(name) == named) else {
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        return Err(usage(format!("no built-in study {}; built in are {}", named.display(), names.join(", "))));
    };
    write!(crate::output::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// `OPTION=VALUE` as in a recipe of `cloze finetune`.
fn finetune_options(given: &[String]) -> Result<toml::Table> {
    let mut options = toml::Table::new();
    for text in given {
        let Some((key, value)) = text.split_once('=') else {
            return Err(usage(format!("--finetune {text}: expected OPTION=VALUE, such as epochs=2")));
        };
        // A bare word is a string.
        let parsed =
            toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut table| table.remove("v"));
        options.insert(key.trim().to_owned(), parsed.unwrap_or_else(|| value.to_owned().into()));
    }
    Ok(options)
}

/// Writes results.md and results.svg.
fn write_results(out: &Path, study: &Study, records: &Records) -> Result<Results> {
    let results = Results::new(study, records);
    cloze_files::write(&out.join("results.md"), results.markdown().as_bytes())?;
    if let Some(svg) = chart(&results) {
        cloze_files::write(&out.join("results.svg"), svg.as_bytes())?;
    }
    Ok(results)
}

/// The total cost in one line.
fn describe(costs: &[Cost], ranks: usize) -> String {
    let sum = |part: fn(&Cost) -> f64| costs.iter().map(part).sum::<f64>();
    let runs: usize = costs.iter().map(|cost| cost.runs).sum();
    let (pretraining, finetuning) = (sum(|cost| cost.pretraining), sum(|cost| cost.finetuning));
    format!(
        "{runs} runs: about {}{}, of which {} of pre-training ({} tokens) and {} of fine-tuning",
        format::duration(pretraining + finetuning),
        if ranks > 1 { format!(", shared by {ranks} ranks") } else { String::new() },
        format::duration(pretraining),
        format::short(sum(|cost| cost.tokens)),
        format::duration(finetuning),
    )
}

fn write_dry_run(costs: &[Cost], out: &Path, as_json: bool) -> Result<()> {
    let mut stdout = crate::output::stdout();
    if as_json {
        let row = |cost: &Cost| {
            json!({
                "row": cost.row, "runs": cost.runs, "pretraining_seconds": cost.pretraining, "tokens": cost.tokens,
                "finetuning_seconds": cost.finetuning,
            })
        };
        let rows: Vec<_> = costs.iter().map(row).collect();
        let seconds: f64 = costs.iter().map(|cost| cost.pretraining + cost.finetuning).sum();
        writeln!(stdout, "{}", json!({"dry_run": true, "out": format::path(out), "rows": rows, "seconds": seconds}))?;
        return Ok(());
    }
    let width = costs.iter().map(|cost| cost.row.chars().count()).max().unwrap_or_default().max(3);
    writeln!(
        stdout,
        "{:<width$}  {:>4}  {:>12}  {:>10}  {:>11}",
        "row", "runs", "pre-training", "tokens", "fine-tuning"
    )?;
    for Cost { row, runs, pretraining, tokens, finetuning } in costs {
        writeln!(
            stdout,
            "{row:<width$}  {runs:>4}  {:>12}  {:>10}  {:>11}",
            format::duration(*pretraining),
            format::short(*tokens),
            format::duration(*finetuning),
        )?;
    }
    writeln!(stdout, "{}", describe(costs, 1))?;
    let cloze = program::name();
    writeln!(stdout, "nothing was written; the same {cloze} command without --dry-run writes to {}", out.display())?;
    Ok(())
}
