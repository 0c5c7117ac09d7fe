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
use cloze_train::recipe::{Every, MaskingKind, ObjectiveKind};
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
            "  model          {} layers, hidden {}, {} heads{}",
            model.num_hidden_layers.unwrap_or(0),
            model.hidden_size.unwrap_or(0),
            model.num_attention_heads.unwrap_or(0),
            parameters.map_or_else(String::new, |count| format!(": {} parameters", format::count(count as u64))),
        )?,
    }
    let objective = &recipe.objective;
    match objective.kind {
        ObjectiveKind::MaskedLm => writeln!(
            out,
            "  objective      MLM on {:.0} %{} of the tokens{}{}",
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
    writeln!(
        out,
        "  optimizer      {}, rate {}, β {} {}, ε {}, decay {}, clip {}",
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

/// The number of parameters of the recipe's model, with the vocabulary size of its shards (without shards BERT's
/// 30522). `None` if it starts from a checkpoint.
fn parameters(recipe: &Recipe) -> Option<usize> {
    let model = &recipe.model;
    if model.init.is_some() {
        return None;
    }
    let vocabulary = Manifest::read(&recipe.data).map_or(30522, |manifest| manifest.tokenizer.vocab_size);
    let (hidden, layers) = (model.hidden_size?, model.num_hidden_layers?);
    let inner = model.intermediate_size.unwrap_or(4 * hidden);
    let rows = vocabulary + model.max_position_embeddings.unwrap_or(512) + model.type_vocab_size.unwrap_or(2);
    let square = hidden * hidden + hidden;
    let norm = 2 * hidden;
    let layer = 4 * square + norm + (2 * hidden * inner + inner + hidden) + norm;
    let mlm = square + norm + vocabulary;
    let nsp = if recipe.has_pairs() { square + 2 * hidden + 2 } else { 0 };
    Some(rows * hidden + norm + layers * layer + mlm + nsp)
}

fn write(recipe: &Recipe, file: &Path, steps: std::ops::Range<u64>, json: bool) -> Result<()> {
    let phase = recipe.phase.first().context("the recipe has no phase")?;
    let shards = Shards::open(&recipe.data)?;
    let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
    let documents = shards.split(Split::Train).clone();
    let source = BatchSource::new(documents, TokenTable::from(&tokenizer), recipe.batch_options(0))?;
    // A step with A micro-batches uses A consecutive batches.
    let accumulate = u64::from(phase.accumulate);
    let end = steps.end.checked_mul(accumulate).filter(|&end| end > 0);
    let end = end.with_context(|| format!("--steps {}..{}: no such batches", steps.start, steps.end))?;
    let range = steps.start * accumulate..end;
    let plan = recipe.plan();
    if recipe.objective.final_rate.is_some() && recipe.minutes.is_some() {
        bail!(
            "objective.final_rate with minutes: the masking rate of a batch follows the elapsed time; give steps instead of minutes"
        );
    }
    write_batches(&source, range.clone(), |batch| plan.progress(batch / accumulate, 0.0), file)?;
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
}
