//! `cloze quickstart`: a complete small example, from a generated corpus to fine-tuned models.

mod fine_tuning;
mod sample_corpus;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cloze_comm::Communicator;
use cloze_data::TokenTable;
use cloze_data::batch::{BatchOptions, BatchSize, PairTask};
use cloze_data::corpus::CorpusOptions;
use cloze_data::prepare::PrepareOptions;
use cloze_data::shards::{Documents, Shards, Split};
use cloze_engine::DType;
use cloze_tasks::{Filler, Pretrained};
use cloze_text::{Tokenizer, VocabularyOptions};
use cloze_train::Recipe;
use cloze_train::evaluate::{EvaluateOptions, Evaluation, evaluate_folder, held_out};
use serde_json::json;

use self::fine_tuning::{Comparison, INTERRUPTED, Stage};
use super::{evaluate, fill, prepare, pretrain, vocab};
use crate::terminal::Terminal;
use crate::{format, program, run_page};

/// `cloze quickstart`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze quickstart --out first-bert",
    after_long_help = "Needs no data and no network. Generates a corpus of short English stories, learns a vocabulary, makes \
        shards, pre-trains a small ModernBERT, evaluates it on held-out stories against a unigram baseline, and fills some masks. Then \
        fine-tunes the model with few labelled rows for classify, tag and answer, and for comparison the same model without \
        pre-training. Takes about 3 minutes on 2 idle cores. On slow or busy machines pre-training stops after 6 minutes, with \
        a warning. Fails if the model is not better than the baseline.\n\nExamples:\n  cloze quickstart\n  \
        cloze quickstart --out first-bert\n  cloze quickstart --short --json"
)]
pub struct Arguments {
    /// Output folder; the folder of an earlier quickstart is overwritten
    #[arg(long, default_value = "cloze-quickstart", value_name = "DIR")]
    out: PathBuf,

    /// Train less, in less than a minute, for automatic tests
    #[arg(long)]
    short: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// File that marks a quickstart's folder, which may be overwritten.
const MARKER: &str = ".cloze-quickstart";
/// What a quickstart writes in its folder, and removes from an earlier one's. Other files are kept.
const PARTS: [&str; 7] = ["corpus", "vocab", "tokenizer", "shards", "run", "recipe.toml", "report.html"];
const SEED: u64 = 1;
const VALID_FRACTION: f64 = 0.04;
const SEQ_LEN: usize = 64;

/// The sizes of a quickstart. The steps take at most two minutes on two idle cores; `minutes` limits the time on slow
/// or busy machines.
struct Plan {
    documents: usize,
    vocabulary: usize,
    steps: u64,
    minutes: f64,
    layers: usize,
    hidden: usize,
    heads: usize,
    batch: usize,
    rate: f64,
    fine_tuning: fine_tuning::Plan,
}

const FULL: Plan = Plan {
    documents: 4000,
    vocabulary: 3000,
    steps: 2600,
    minutes: 6.0,
    layers: 3,
    hidden: 128,
    heads: 4,
    batch: 24,
    rate: 2e-3,
    fine_tuning: fine_tuning::Plan { train: 200, dev: 300, epochs: 10, batch: 16, rate: 1e-3 },
};

const SHORT: Plan = Plan {
    documents: 1500,
    vocabulary: 2000,
    steps: 900,
    minutes: 5.0,
    layers: 2,
    hidden: 64,
    heads: 2,
    batch: 32,
    rate: 4e-3,
    fine_tuning: fine_tuning::Plan { train: 96, dev: 96, epochs: 4, batch: 8, rate: 4e-3 },
};

/// Stories similar to the corpus. The masked word follows from the grammar, the profession or the earlier sentences.
const TEXTS: [&str; 4] = [
    "Martin Webb is a potter in Oakham. Oakham lies in the lake country, and people [MASK] from far away to see the castle.",
    "Peter keeps four dogs behind his house in Whitby. The dog sleeps in the kennel. When he came home, the [MASK] always barked.",
    "On Monday the hockey team of Dunmore played against Oakham. The rink was full, and more than twenty people [MASK] at the gate.",
    "Anna Holt is a baker in Foxley. Everybody in Foxley knows Anna by [MASK] red hat. Every morning she opens the bakery.",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    let start = Instant::now();
    let plan = if arguments.short { &SHORT } else { &FULL };
    let dir = arguments.out.as_path();
    create_run_dir(dir)?;
    let stop = crate::interrupt::stop();

    let corpus = dir.join("corpus").join("stories.txt");
    let bytes = write_corpus(&corpus, plan)?;
    terminal.note(&format!(
        "1/6 corpus      {} stories, {}: {}",
        format::count(plan.documents as u64),
        format::bytes(bytes),
        corpus.display()
    ));

    let tokenizer_dir = dir.join("vocab");
    let mut options = VocabularyOptions::default();
    options.size = plan.vocabulary;
    options.threads = terminal.threads.unwrap_or(0);
    let learned = vocab::learn_from(std::slice::from_ref(&corpus), &CorpusOptions::default(), &options, terminal)?;
    learned.tokenizer.save(&tokenizer_dir)?;
    terminal.note(&format!(
        "2/6 vocabulary  {} tokens in {}: {}",
        format::count(learned.tokenizer.vocab_size() as u64),
        format::duration(learned.seconds),
        tokenizer_dir.display()
    ));

    let shards_dir = dir.join("shards");
    let mut options = PrepareOptions::new(vec![corpus], Tokenizer::open(&tokenizer_dir)?, shards_dir.clone());
    options.valid_fraction = VALID_FRACTION;
    options.workers = terminal.threads;
    let (corpus_report, seconds) = prepare::prepare_with_bar(&options, terminal)?;
    terminal.note(&format!(
        "3/6 shards      {} tokens, {} of {} stories held out, in {}: {}",
        format::count(corpus_report.tokens),
        format::count(corpus_report.valid_documents),
        format::count(corpus_report.documents),
        format::duration(seconds),
        shards_dir.display()
    ));
    for warning in &corpus_report.warnings {
        terminal.warn(warning);
    }

    let run_dir = dir.join("run");
    let (model_dir, steps) = train(dir, &shards_dir, &run_dir, plan, stop, terminal)?;

    let (evaluation, baseline) = evaluate_model(&model_dir, &shards_dir, terminal)?;
    let page = dir.join("report.html");
    let runs = run_page::open_all(std::slice::from_ref(&run_dir))?;
    fs::write(&page, run_page::html(&runs)).with_context(|| format!("cannot write {}", page.display()))?;
    let device = terminal.open_device()?;
    let filler = Filler::new(Arc::new(Pretrained::open(&model_dir, device, DType::F32)?))?;
    let filled: Vec<_> = TEXTS.iter().map(|text| filler.fill(text, 3)).collect::<Result<_, _>>()?;
    let comparisons = fine_tune(dir, &model_dir, &plan.fine_tuning, stop, terminal)?;
    let [loss, accuracy] = [evaluation.losses.loss("mlm"), evaluation.losses.accuracy("mlm")];
    let loss = loss.unwrap_or(f64::INFINITY);
    let beats_baseline = loss < baseline.loss && accuracy.unwrap_or(0.0) > baseline.accuracy;

    let mut out = crate::output::stdout();
    let seconds = start.elapsed().as_secs_f64();
    if arguments.json {
        let fills: Vec<_> =
            TEXTS.iter().zip(&filled).map(|(text, masks)| json!({"text": text, "masks": masks})).collect();
        let line = json!({
            "out": format::path(dir),
            "seconds": seconds,
            "model": format::path(&model_dir),
            "steps": steps,
            "planned_steps": plan.steps,
            "evaluation": evaluation,
            "unigram_baseline": {"mlm_loss": baseline.loss, "mlm_accuracy": baseline.accuracy},
            "better_than_baseline": beats_baseline,
            "fills": fills,
            "fine_tuned": comparisons,
            "peak_rss_bytes": cloze_files::machine::peak_memory(),
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "\nheld-out stories, never trained on:")?;
        // Without the losses of heads that the model does not have.
        let mut shown = evaluation.clone();
        shown.losses = evaluation.losses.iter().filter(|figure| figure.loss.is_some()).cloned().collect();
        evaluate::write_evaluation(&mut out, &shown)?;
        writeln!(out, "unigram baseline: MLM loss {:.4}, accuracy {:.2} %", baseline.loss, 100.0 * baseline.accuracy)?;
        for (text, masks) in TEXTS.iter().zip(&filled) {
            writeln!(out)?;
            fill::write_masks(&mut out, text, masks, terminal)?;
        }
        fine_tuning::write_table(&mut out, &comparisons)?;
        if arguments.short {
            writeln!(out, "  (with --short, pre-training is too short to help the tasks)")?;
        }
        write_next_steps(&mut out, dir, &model_dir, &page, plan, seconds)?;
    }
    if !beats_baseline {
        bail!(
            "the model is not better than token frequencies (held-out MLM loss {:.3}, baseline {:.3}){}",
            loss,
            baseline.loss,
            if arguments.short { "; --short trains little, and less on a slow machine" } else { "" }
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates and marks the folder, or removes an earlier quickstart's output from it.
fn create_run_dir(dir: &Path) -> Result<()> {
    let marker = dir.join(MARKER);
    if dir.exists() && !dir.is_dir() {
        bail!("{} is a file; choose another folder with --out", dir.display());
    }
    if !cloze_files::is_unused(dir)? && !marker.is_file() {
        bail!(
            "{} is not empty and not from a quickstart; choose another folder with --out, or empty this one",
            dir.display()
        );
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::write(&marker, "This folder was made by `cloze quickstart`, which may overwrite it.\n")
        .with_context(|| format!("cannot write in {}", dir.display()))?;
    for part in PARTS.into_iter().chain(fine_tuning::PARTS) {
        let path = dir.join(part);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove the earlier {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn write_corpus(path: &Path, plan: &Plan) -> Result<u64> {
    let write = || -> std::io::Result<u64> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = BufWriter::new(File::create(path)?);
        let bytes = sample_corpus::write_text(SEED, plan.documents, &mut file)?;
        file.flush()?;
        Ok(bytes)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the recipe and pre-trains. Returns the model's folder and the number of steps.
fn train(
    dir: &Path,
    shards: &Path,
    run: &Path,
    plan: &Plan,
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<(PathBuf, u64)> {
    let path = dir.join("recipe.toml");
    fs::write(&path, recipe(plan)).with_context(|| format!("cannot write {}", path.display()))?;
    let mut recipe = Recipe::open(&path, &[])?;
    // The path in the file is relative to its folder, which is not the current folder.
    recipe.data = shards.to_path_buf();
    pretrain::apply_global_options(&mut recipe, terminal)?;
    let start = Instant::now();
    let outcome = pretrain::pretrain_with_bar(&recipe, run, false, &Communicator::single(), stop, terminal)?;
    let Some(model) = outcome.model.clone() else {
        return Err(INTERRUPTED.into());
    };
    terminal.note(&format!(
        "4/6 training    {} in {}: {}",
        pretrain::describe_end(&outcome, &recipe),
        format::duration(start.elapsed().as_secs_f64()),
        model.display()
    ));
    if outcome.step < plan.steps {
        terminal.warn(&format!(
            "this machine is slow or was busy: only {} of {} planned steps were done in {} minutes, so the results below are \
             worse than usual; run the quickstart again when the machine is idle",
            format::count(outcome.step),
            format::count(plan.steps),
            plan.minutes
        ));
    }
    Ok((model, outcome.step))
}

fn recipe(plan: &Plan) -> String {
    let Plan { steps, minutes, layers, hidden, heads, batch, rate, .. } = plan;
    format!(
        "# A small ModernBERT that learns short stories in two minutes; `cloze recipe modern` explains the keys.\n\
         #   cloze pretrain recipe.toml --out another-run\n\
         seed = {SEED}\n\
         data = \"shards\"\n\
         steps = {steps}\n\
         minutes = {minutes}          # time limit for slow machines\n\
         precision = \"auto\"\n\n\
         [model]\n\
         family = \"modernbert\"\n\
         hidden_size = {hidden}\n\
         num_hidden_layers = {layers}\n\
         num_attention_heads = {heads}\n\
         global_attn_every_n_layers = 2\n\
         local_attention = 8          # tokens of the window of the other layers\n\n\
         [objective]\n\
         rate = 0.2                   # more predictions per story than the paper's 0.15\n\
         nsp = false\n\
         short_seq_prob = 0.0\n\n\
         [[phase]]\n\
         seq_len = {SEQ_LEN}\n\
         batch_sequences = {batch}\n\n\
         [optimizer]\n\
         kind = \"adamw\"\n\
         lr = {rate}\n\n\
         [schedule]\n\
         warmup_share = 0.08\n\n\
         [eval]\n\
         every = {}\n\
         batches = 6\n\n\
         [checkpoint]\n\
         every = 0\n",
        (steps / 4).max(1)
    )
}

/// Evaluates the model and the baseline on the same masks of the held-out stories.
fn evaluate_model(model: &Path, shards: &Path, terminal: &Terminal) -> Result<(Evaluation, Baseline)> {
    let mut options = EvaluateOptions::default();
    options.seq_len = SEQ_LEN;
    let device = terminal.open_device()?;
    let bar = terminal.progress_fraction("evaluating");
    let evaluation =
        evaluate_folder(model, shards, &device, &options, |fraction| bar.set_fraction(fraction, "held-out stories"))?;
    let baseline = Baseline::measure(shards, &options)?;
    terminal.note(&format!("5/6 evaluation  in {}", format::duration(bar.seconds())));
    bar.finish();
    Ok((evaluation, baseline))
}

fn fine_tune(
    dir: &Path,
    pretrained: &Path,
    plan: &fine_tuning::Plan,
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<Vec<Comparison>> {
    let start = Instant::now();
    let comparisons = Stage { dir, pretrained, plan, seed: SEED, stop, terminal }.run()?;
    terminal.note(&format!(
        "6/6 fine-tuning {} tasks, each with and without pre-training, in {}: {}",
        comparisons.len(),
        format::duration(start.elapsed().as_secs_f64()),
        dir.join("finetuned").display()
    ));
    Ok(comparisons)
}

/// The scores of predictions from token frequencies.
struct Baseline {
    /// Mean of −ln p(token), where p is the token's fraction of the training tokens, with add-one smoothing.
    loss: f64,
    /// Fraction of the predicted tokens that are the most frequent token.
    accuracy: f64,
}

impl Baseline {
    fn measure(shards: &Path, options: &EvaluateOptions) -> Result<Baseline> {
        let shards = Shards::open(shards)?;
        let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
        let counts = frequencies(shards.split(Split::Train), tokenizer.vocab_size());
        let mut batches = BatchOptions::default();
        batches.seq_len = options.seq_len;
        batches.size = BatchSize::Sequences(options.batch_sequences);
        batches.masking = Some(options.masking.clone());
        batches.pairs = PairTask::None;
        let source = held_out(&shards, TokenTable::from(&tokenizer), batches)?.source;
        let labels: Vec<i32> = source.epoch_batches(0).flat_map(|batch| batch.mlm_labels).collect();
        Ok(Baseline::of(&counts, &labels))
    }

    fn of(counts: &[u64], labels: &[i32]) -> Baseline {
        let total: u64 = counts.iter().sum::<u64>() + counts.len() as u64;
        let most = (0..counts.len()).max_by_key(|&id| counts[id]).unwrap_or(0);
        let count = labels.len().max(1) as f64;
        let loss = |&label: &i32| (total as f64 / (counts[label as usize] + 1) as f64).ln();
        Baseline {
            loss: labels.iter().map(loss).sum::<f64>() / count,
            accuracy: labels.iter().filter(|&&label| label as usize == most).count() as f64 / count,
        }
    }
}

fn frequencies(documents: &Documents, vocab_size: usize) -> Vec<u64> {
    let mut counts = vec![0; vocab_size];
    let mut ids = Vec::new();
    for document in 0..documents.len() {
        ids.clear();
        documents.read(document, 0..documents.sentences(document), &mut ids);
        for &id in &ids {
            counts[id as usize] += 1;
        }
    }
    counts
}

fn write_next_steps(
    out: &mut dyn Write,
    dir: &Path,
    model: &Path,
    page: &Path,
    plan: &Plan,
    seconds: f64,
) -> Result<()> {
    let tasks = fine_tuning::next_commands(dir, model, &plan.fine_tuning);
    let cloze = program::name();
    let [dir, model, page] = [dir, model, page].map(|path| program::quoted(path.display()));
    writeln!(out, "\ndone in {}. Output:", format::duration(seconds))?;
    writeln!(out, "  {model}   the model, which Hugging Face Transformers opens too")?;
    writeln!(out, "  {page}   report with the training curves")?;
    writeln!(out, "  {dir}/recipe.toml, {dir}/shards, {dir}/vocab, {dir}/corpus   recipe and training data")?;
    writeln!(out, "  {dir}/labelled, {dir}/finetuned   labelled rows and fine-tuned models")?;
    writeln!(out, "\nNext commands:")?;
    writeln!(out, "  {cloze} fill --model {model} \"Ruth is a nurse. She works in the [MASK].\"")?;
    for command in tasks {
        writeln!(out, "  {command}")?;
    }
    writeln!(out, "  {cloze} inspect {dir}/shards")?;
    writeln!(out, "  {cloze} inspect {model}")?;
    writeln!(out, "and with your own text in a folder TEXTS, half an hour:")?;
    writeln!(out, "  {cloze} pretrain --text TEXTS --minutes 30 --out runs/first")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baseline_loss_is_the_cross_entropy_of_the_frequencies() {
        // p = 3/6, 2/6, 1/6 with one added to each count.
        let baseline = Baseline::of(&[2, 1, 0], &[0, 0, 1, 2]);
        let expected = (2.0 * 2f64.ln() + 3f64.ln() + 6f64.ln()) / 4.0;
        assert!((baseline.loss - expected).abs() < 1e-12, "{}", baseline.loss);
        assert_eq!(baseline.accuracy, 0.5);
    }

    #[test]
    fn quickstart_recipes_are_valid() {
        for plan in [&FULL, &SHORT] {
            let recipe = Recipe::parse(&recipe(plan), "recipe.toml", &[]).unwrap();
            assert_eq!(recipe.plan().total_steps(), Some(plan.steps));
        }
    }

    #[test]
    fn foreign_folders_and_files_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("theirs");
        fs::create_dir_all(foreign.join("corpus")).unwrap();
        assert!(create_run_dir(&foreign).unwrap_err().to_string().contains("--out"));
        assert!(foreign.join("corpus").is_dir());
        fs::write(dir.path().join("file"), "x").unwrap();
        assert!(create_run_dir(&dir.path().join("file")).is_err());

        let own = dir.path().join("ours");
        create_run_dir(&own).unwrap();
        fs::create_dir_all(own.join("run/model")).unwrap();
        fs::write(own.join("notes.txt"), "mine").unwrap();
        create_run_dir(&own).unwrap();
        assert!(!own.join("run").exists() && own.join("notes.txt").is_file());
    }
}
