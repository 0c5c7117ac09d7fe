//! Shows a recipe: model, phases, examples from its shards. Also exports its batches.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use cloze_data::TokenTable;
use cloze_data::batch::{BatchSource, PairTask};
use cloze_data::export::write_batches;
use cloze_data::manifest::Manifest;
use cloze_data::shards::{Shards, Split};
use cloze_text::Tokenizer;
use cloze_train::Recipe;
use cloze_train::recipe::{Every, MaskingKind, ObjectiveKind, ObjectiveSection};
use serde_json::json;

use super::arguments::Arguments;
use super::examples;
use crate::format;
use crate::terminal::Terminal;

pub(super) fn show(path: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    // Built-in recipes are incomplete (they have no data). Without --set they are shown unchecked; with --set the
    // recipe must be complete.
    let recipe = match arguments.overrides.as_slice() {
        [] => Recipe::open_unchecked(path)?,
        overrides => Recipe::open(path, overrides)?,
    };
    let has_shards = !recipe.data.as_os_str().is_empty() && recipe.data.join("manifest.json").is_file();
    if let (Some(file), Some(steps)) = (&arguments.write_batches, &arguments.steps) {
        if !has_shards {
            bail!(
                "{}: no shards for the batches; give a folder from `cloze prepare` with --set data=DIR",
                recipe.data.display()
            );
        }
        return write(&recipe, file, steps.clone(), arguments.json);
    }
    let mut out = crate::output::stdout();
    let parameters = parameters(&recipe);
    if arguments.json {
        let line = json!({"kind": "recipe", "path": format::path(path), "recipe": recipe, "parameters": parameters});
        writeln!(out, "{line}")?;
    } else {
        write_summary(&mut out, path, &recipe, parameters, terminal)?;
    }
    if has_shards && !recipe.phase.is_empty() {
        let shards = Shards::open(&recipe.data)?;
        let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
        let options = recipe.batch_options(0);
        let documents = shards.split(Split::Train);
        examples::show(&mut out, documents, &tokenizer, &options, arguments.examples, arguments.json, terminal)?;
    } else if !arguments.json && arguments.examples > 0 {
        writeln!(out, "\nno examples: no shards at {:?} (--set data=DIR)", recipe.data.display().to_string())?;
    }
    Ok(())
}

fn write_summary(
    out: &mut dyn Write,
    path: &Path,
    recipe: &Recipe,
    parameters: Option<usize>,
    terminal: &Terminal,
) -> Result<()> {
    writeln!(out, "{} {}", terminal.bold("recipe"), path.display())?;
    let model = &recipe.model;
    match &model.init {
        Some(init) => writeln!(out, "  model          from {}", init.display())?,
        None => writeln!(
            out,
            "  model          {}, {} layers, hidden {}, {} heads{}",
            model.family().title,
            model.num_hidden_layers.unwrap_or(0),
            model.hidden_size.unwrap_or(0),
            model.num_attention_heads.unwrap_or(0),
            parameters.map_or_else(String::new, |count| format!(": {} parameters", format::count(count as u64))),
        )?,
    }
    let objective = &recipe.objective;
    match objective.kind {
        ObjectiveKind::Distill if !objective.predicts_tokens() => {
            writeln!(out, "  objective      {} full sentences", distillation(objective))?;
        }
        ObjectiveKind::MaskedLm | ObjectiveKind::Rtd | ObjectiveKind::Distill => writeln!(
            out,
            "  objective      {} on {:.0} %{} of the tokens{}{}",
            match objective.kind {
                ObjectiveKind::Rtd => "RTD, with a generator".to_owned(),
                ObjectiveKind::Distill => distillation(objective),
                _ => "MLM".to_owned(),
            },
            100.0 * objective.rate,
            objective.final_rate.map_or_else(String::new, |rate| format!(" (at the end {:.0} %)", 100.0 * rate)),
            match objective.masking {
                MaskingKind::WholeWord => ", whole words",
                MaskingKind::Ngram => ", n-grams of words",
                MaskingKind::Span => ", spans of words",
                _ => "",
            },
            match recipe.pairs() {
                PairTask::Nsp => ", next sentence",
                PairTask::Sop => ", sentence order",
                PairTask::None => ", full sentences without next-sentence prediction",
            },
        )?,
        ObjectiveKind::CausalLm => writeln!(out, "  objective      CLM: predict every token from the previous ones")?,
    }
    let length = match (recipe.plan().total_steps(), recipe.minutes) {
        (Some(steps), Some(minutes)) => format!("{} steps or {minutes} minutes", format::count(steps)),
        (Some(steps), None) => format!("{} steps", format::count(steps)),
        (None, Some(minutes)) => format!("{minutes} minutes"),
        (None, None) => "not set".into(),
    };
    writeln!(out, "  length         {length}")?;
    for (number, phase) in recipe.phase.iter().enumerate() {
        let batch = match (phase.batch_tokens, phase.batch_sequences) {
            (Some(tokens), _) => format!("{} tokens", format::count(tokens as u64)),
            (None, sequences) => format!("{} sequences", sequences.unwrap_or(32)),
        };
        let objective = match phase.objective.filter(|kind| *kind != recipe.objective.kind) {
            Some(ObjectiveKind::CausalLm) => ", CLM",
            _ => "",
        };
        let share = phase.share.map_or_else(String::new, |share| format!(", {:.0} % of the run", share * 100.0));
        writeln!(
            out,
            "  phase {:<8} up to {} tokens, batches of {batch} × {}{share}{objective}",
            number + 1,
            phase.seq_len,
            phase.accumulate
        )?;
    }
    let optimizer = &recipe.optimizer;
    let correction = if optimizer.bias_correction == Some(true) { " with bias correction" } else { "" };
    writeln!(
        out,
        "  optimizer      {}{correction}, rate {}, β {} {}, ε {}, decay {}, clip {}",
        optimizer.kind.name(),
        optimizer.lr,
        optimizer.beta1,
        optimizer.beta2,
        optimizer.eps,
        optimizer.weight_decay,
        optimizer.clip_norm
    )?;
    let schedule = &recipe.schedule;
    let warmup = match (schedule.warmup_steps, schedule.warmup_share) {
        (Some(steps), _) => format!("{} steps", format::count(steps)),
        (None, share) => format!("{} % of the run", 100.0 * share.unwrap_or(0.01)),
    };
    writeln!(out, "  schedule       {}, warmup over {warmup}", schedule.kind.name())?;
    if let Some(share) = schedule.batch_warmup_share {
        writeln!(out, "  batch          one micro-batch per step at first, all after {} % of the run", 100.0 * share)?;
    }
    let often = |every: Every| match every {
        Every::Steps(0) => "never".to_owned(),
        Every::Steps(steps) => format!("every {} steps", format::count(steps)),
        Every::Percent(_) => format!("every {every} of the run"),
        Every::Minutes(_) => format!("every {every}"),
    };
    writeln!(out, "  evaluation     {}", often(recipe.eval.every))?;
    writeln!(out, "  checkpoints    {}", often(recipe.checkpoint.every))?;
    writeln!(out, "  precision      {}", recipe.precision.name())?;
    if recipe.recompute {
        writeln!(out, "  recompute      activations in the backward pass (activation checkpointing)")?;
    }
    Ok(())
}

/// The losses of a distillation with their weights, and the teacher.
fn distillation(objective: &ObjectiveSection) -> String {
    let weights = objective.distillation_weights().into_iter().filter(|(_, weight)| *weight > 0.0);
    let losses: Vec<String> = weights.map(|(name, weight)| format!("{weight} {name}")).collect();
    let teacher = objective.teacher.as_deref().unwrap_or(Path::new(""));
    format!("{} from the teacher {},", losses.join(" + "), teacher.display())
}

/// The number of parameters of the recipe's network, with the vocabulary size of its shards (without shards BERT's
/// 30522). `None` if it starts from a checkpoint.
fn parameters(recipe: &Recipe) -> Option<usize> {
    let vocabulary = Manifest::read(&recipe.data).map_or(30522, |manifest| manifest.tokenizer.vocab_size);
    recipe.parameters(vocabulary)
}

/// Number of batches of the first phase that are used before a step. `None` if it is too large.
fn batches_before(recipe: &Recipe, step: u64) -> Result<Option<u64>> {
    const MOST: u64 = 100_000_000;
    let accumulate = recipe.phase.first().map_or(1, |phase| phase.accumulate);
    if recipe.schedule.batch_warmup_share.is_none() {
        return Ok(step.checked_mul(accumulate.into()));
    }
    anyhow::ensure!(
        recipe.minutes.is_none(),
        "--steps: with `minutes` and `schedule.batch_warmup_share`, the batches of a step depend on the elapsed time; \
         expected a recipe without one of them"
    );
    let plan = recipe.plan();
    let count = |step| u64::from(recipe.micro_batches(0, plan.progress(step, 0.0)));
    Ok((step < MOST).then(|| (0..step).map(count).sum()))
}

fn write(recipe: &Recipe, file: &Path, steps: std::ops::Range<u64>, json: bool) -> Result<()> {
    anyhow::ensure!(!recipe.phase.is_empty(), "the recipe has no phase");
    let shards = Shards::open(&recipe.data)?;
    let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
    let documents = shards.split(Split::Train).clone();
    let source = BatchSource::new(documents, TokenTable::from(&tokenizer), recipe.batch_options(0))?;
    // A step with A micro-batches uses A consecutive batches.
    if recipe.objective.final_rate.is_some() && recipe.minutes.is_some() {
        bail!(
            "objective.final_rate with minutes: the masking rate of a batch follows the elapsed time; give steps instead of minutes"
        );
    }
    let [start, end] = [steps.start, steps.end].map(|step| batches_before(recipe, step));
    let no_batches = || format!("--steps {}..{}: no such batches", steps.start, steps.end);
    let range = start?.with_context(no_batches)?..end?.filter(|&end| end > 0).with_context(no_batches)?;
    let plan = recipe.plan();
    // The step of a batch, whose progress determines the masking rate, and the end of the step's batches.
    let count = |step| u64::from(recipe.micro_batches(0, plan.progress(step, 0.0)));
    let (mut step, mut step_end) = (steps.start, range.start + count(steps.start));
    let progress = |batch| {
        while batch >= step_end {
            step += 1;
            step_end += count(step);
        }
        plan.progress(step, 0.0)
    };
    write_batches(&source, range.clone(), progress, file)?;
    let mut out = crate::output::stdout();
    let batches = range.end - range.start;
    if json {
        let line = json!({"kind": "batches", "file": format::path(file), "steps": steps.end - steps.start, "batches": batches});
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{}: {batches} batches of steps {}..{}", file.display(), steps.start, steps.end)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_recipe_has_the_parameters_of_bert_base() {
        let text = "data = \"none\"\nsteps = 1\n[model]\nhidden_size = 768\nnum_hidden_layers = 12\n\
                    num_attention_heads = 12\n[[phase]]\nseq_len = 128\nbatch_sequences = 1\n";
        let recipe = Recipe::parse(text, "base", &[]).unwrap();
        // Transformers' BertForPreTraining(BertConfig()), with tied decoder weights.
        assert_eq!(parameters(&recipe), Some(110_106_428));
    }

    #[test]
    fn the_batches_of_a_step_follow_from_those_before() {
        let text = "data = \"none\"\nsteps = 20\n[model]\nhidden_size = 8\nnum_hidden_layers = 1\nnum_attention_heads = 1\n\
                    [[phase]]\nbatch_sequences = 1\naccumulate = 4\n[schedule]\nbatch_warmup_share = 0.4\n";
        let before = |overrides: &[&str], step| {
            let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
            batches_before(&Recipe::parse(text, "growing", &overrides).unwrap(), step)
        };
        // Two steps each with one, two and three micro-batches, then all four.
        assert_eq!([0, 3, 6, 8].map(|step| before(&[], step).unwrap()), [0, 4, 12, 20].map(Some));
        assert_eq!(before(&["schedule.batch_warmup_share="], 8).unwrap(), Some(32));
        assert_eq!(before(&["schedule.batch_warmup_share="], u64::MAX).unwrap(), None);
        assert!(before(&["minutes=1"], 1).unwrap_err().to_string().contains("elapsed time"));
    }
}
