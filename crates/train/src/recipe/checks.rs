//! Validation of a recipe's values.

use std::fmt;

use super::every::Every;
use super::sections::{MaskingKind, ObjectiveKind, ObjectiveSection, OptimizerKind, Recipe};
use cloze_model::losses::{KL, RELATION};
use cloze_model::{FAMILIES, Family};

use crate::TrainError;
use crate::schedule::ScheduleKind;

/// Maximum number of micro-batches per step; they are in memory at the same time.
const MAX_ACCUMULATE: u32 = 1 << 16;
/// Maximum number of words of an n-gram.
const MAX_NGRAM: usize = 16;
/// Maximum number of tokens of a batch; no machine has memory for the activations of more.
const MAX_TOKENS: usize = 1 << 24;

/// An invalid value: its key, and why it is invalid.
#[derive(Debug)]
pub(super) struct InvalidValue {
    /// Dotted key.
    pub key: String,
    /// What was found and what is expected.
    pub reason: String,
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.reason)
    }
}

/// Fails with an [`InvalidValue`] unless the condition is true.
fn require(condition: bool, key: &str, reason: impl FnOnce() -> String) -> Result<(), InvalidValue> {
    if condition {
        return Ok(());
    }
    Err(InvalidValue { key: key.to_owned(), reason: reason() })
}

fn require_within(value: f64, low: f64, high: f64, key: &str) -> Result<(), InvalidValue> {
    require((low..=high).contains(&value), key, || format!("is {value}; expected a number from {low} to {high}"))
}

fn require_positive(value: f64, key: &str) -> Result<(), InvalidValue> {
    require(value > 0.0 && value.is_finite(), key, || format!("is {value}; expected a number above 0"))
}

impl Recipe {
    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        require(!self.data.as_os_str().is_empty(), "data", || {
            "is missing; expected a folder of prepared shards (`data = \"FOLDER\"` or `set data=FOLDER`)".into()
        })?;
        if let Some(minutes) = self.minutes {
            require_positive(minutes, "minutes")?;
        }
        require(self.threads.is_none_or(|n| (1..=1024).contains(&n)), "threads", || {
            format!("is {}; expected 1 to 1024, or omit the key to use all", self.threads.unwrap_or_default())
        })?;
        // TOML integers are signed: a larger seed could not be stored in the run's folder.
        require(self.seed <= i64::MAX as u64, "seed", || format!("is {}; expected at most {}", self.seed, i64::MAX))?;
        self.check_model()?;
        self.check_objective()?;
        self.check_phases()?;
        self.check_optimizer()?;
        self.check_ranks()?;
        self.check_schedule()?;
        require(self.eval.every.is_never() || self.eval.batches > 0, "eval.batches", || {
            "is 0; expected at least 1 (or eval.every = 0 to disable evaluation)".into()
        })?;
        require(self.checkpoint.keep > 0, "checkpoint.keep", || "is 0; expected at least 1".into())?;
        require(!self.log.every.is_never(), "log.every", || "is 0; expected at least 1".into())?;
        let intervals = [
            ("eval.every", self.eval.every),
            ("checkpoint.every", self.checkpoint.every),
            ("log.every", self.log.every),
        ];
        intervals.iter().try_for_each(|(key, every)| match *every {
            Every::Steps(_) => Ok(()),
            Every::Percent(percent) => require(percent > 0.0 && percent <= 100.0, key, || {
                format!("is {percent} %; expected more than 0 % and at most 100 %")
            }),
            Every::Minutes(minutes) => require(minutes > 0.0 && minutes.is_finite(), key, || {
                format!("is {minutes} min; expected a number above 0")
            }),
        })
    }

    fn check_model(&self) -> Result<(), InvalidValue> {
        let m = &self.model;
        for (key, p) in [
            ("model.hidden_dropout_prob", m.hidden_dropout_prob),
            ("model.attention_probs_dropout_prob", m.attention_probs_dropout_prob),
        ] {
            require(p.is_none_or(|p| (0.0..1.0).contains(&(p as f32))), key, || {
                format!("is {}; expected a number from 0 up to, not including, 1", p.unwrap_or_default())
            })?;
        }
        let sizes = [
            ("model.hidden_size", m.hidden_size),
            ("model.num_hidden_layers", m.num_hidden_layers),
            ("model.num_attention_heads", m.num_attention_heads),
            ("model.intermediate_size", m.intermediate_size),
            ("model.max_position_embeddings", m.max_position_embeddings),
            ("model.type_vocab_size", m.type_vocab_size),
            ("model.embedding_size", m.embedding_size),
            ("model.num_hidden_groups", m.num_hidden_groups),
            ("model.inner_group_num", m.inner_group_num),
            ("model.global_attn_every_n_layers", m.global_attn_every_n_layers),
            ("model.local_attention", m.local_attention),
        ];
        for (key, size) in sizes {
            require(size != Some(0), key, || "is 0; expected at least 1".into())?;
        }
        if let Some(init) = &m.init {
            for (key, size) in sizes {
                require(size.is_none(), key, || {
                    format!("cannot be combined with model.init: sizes come from {}", init.display())
                })?;
            }
            let fixed = [
                ("model.family", m.family.is_some()),
                ("model.shared_parts", !m.shared_parts.is_none()),
                ("model.hidden_act", m.hidden_act.is_some()),
                ("model.layer_norm_eps", m.layer_norm_eps.is_some()),
                ("model.initializer_range", m.initializer_range.is_some()),
            ];
            for (key, given) in fixed {
                require(!given, key, || {
                    format!("cannot be combined with model.init: it comes from {}", init.display())
                })?;
            }
            return Ok(());
        }
        if let Some(name) = &m.family {
            require(Family::of(name).is_some(), "model.family", || {
                let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
                format!("is {name:?}; expected one of {}", known.join(", "))
            })?;
        }
        let family = m.family();
        let given = [
            ("embedding_size", m.embedding_size.is_some()),
            ("num_hidden_groups", m.num_hidden_groups.is_some()),
            ("inner_group_num", m.inner_group_num.is_some()),
            ("type_vocab_size", m.type_vocab_size.is_some()),
            ("layer_norm_eps", m.layer_norm_eps.is_some()),
        ];
        for (key, given) in [
            ("global_attn_every_n_layers", m.global_attn_every_n_layers.is_some()),
            ("local_attention", m.local_attention.is_some()),
        ] {
            require(!given || family.is_modern(), &format!("model.{key}"), || {
                format!("does not exist in the family {}, only in modernbert", family.model_type)
            })?;
        }
        if let Some(tokens) = m.local_attention {
            require(tokens.is_multiple_of(2), "model.local_attention", || {
                format!("is {tokens}; expected an even number of tokens, of which one half is on each side")
            })?;
            let positions = m.positions().unwrap_or_default();
            require(tokens <= positions, "model.local_attention", || {
                format!("is {tokens}, longer than the model's {positions} positions (model.max_position_embeddings)")
            })?;
        }
        for (key, given) in given {
            require(!given || family.has_key(key), &format!("model.{key}"), || {
                let has: Vec<&str> =
                    FAMILIES.iter().filter(|known| known.has_key(key)).map(|known| known.model_type).collect();
                format!("does not exist in the family {}, only in {}", family.model_type, has.join(", "))
            })?;
        }
        for (key, size) in &sizes[..3] {
            require(size.is_some(), key, || {
                "is missing; expected a size, or model.init to start from a checkpoint".into()
            })?;
        }
        let (hidden, heads) = (m.hidden_size.unwrap_or(1), m.num_attention_heads.unwrap_or(1));
        require(hidden.is_multiple_of(heads), "model.hidden_size", || {
            format!("is {hidden}, not divisible by model.num_attention_heads = {heads}")
        })?;
        require(!family.is_modern() || (hidden / heads).is_multiple_of(2), "model.hidden_size", || {
            format!(
                "is {hidden}, which gives {heads} heads of {}; expected an even width, because positions rotate pairs of numbers",
                hidden / heads
            )
        })?;
        for (key, x) in [("model.initializer_range", m.initializer_range), ("model.layer_norm_eps", m.layer_norm_eps)] {
            x.map_or(Ok(()), |x| require_positive(x, key))?;
        }
        check_fit(self, m.positions().unwrap_or_default(), m.segments())
    }

    fn check_objective(&self) -> Result<(), InvalidValue> {
        let o = &self.objective;
        let is_causal = o.kind == ObjectiveKind::CausalLm;
        if is_causal || !o.predicts_tokens() {
            let default = ObjectiveSection::default();
            let given = [
                ("objective.rate", o.rate != default.rate),
                ("objective.final_rate", o.final_rate.is_some()),
                ("objective.mask", o.mask != default.mask),
                ("objective.random", o.random != default.random),
                ("objective.masking", o.masking != default.masking),
                ("objective.sop", o.sop),
                ("objective.max_predictions", o.max_predictions.is_some()),
                ("objective.duplicates", o.duplicates.is_some()),
                // 0 is also allowed: there are no short sequences.
                (
                    "objective.short_seq_prob",
                    is_causal && o.short_seq_prob != default.short_seq_prob && o.short_seq_prob != 0.0,
                ),
            ];
            for (key, given) in given {
                require(!given, key, || match is_causal {
                    true => "has no effect with objective.kind = \"causal-lm\"".into(),
                    false => "has no effect: objective.mlm_weight and objective.kl_weight are 0".into(),
                })?;
            }
        }
        self.check_distillation()?;
        let is_rtd = o.kind == ObjectiveKind::Rtd;
        if is_rtd {
            require(!o.nsp && !o.sop, "objective.nsp", || {
                "= true has no effect with objective.kind = \"rtd\"; expected nsp = false".into()
            })?;
            require(self.model.init.is_some() || self.model.family().model_type == "electra", "model.family", || {
                format!("is \"{}\"; objective.kind = \"rtd\" needs \"electra\"", self.model.family().model_type)
            })?;
        }
        let size = o.generator_size.unwrap_or(1.0);
        require(is_rtd || o.generator_size.is_none(), "objective.generator_size", || {
            "only has an effect with objective.kind = \"rtd\"".into()
        })?;
        require_positive(size, "objective.generator_size")?;
        require_within(size, 0.0, 1.0, "objective.generator_size")?;
        require_positive(o.rate, "objective.rate")?;
        require_within(o.rate, 0.0, 1.0, "objective.rate")?;
        if let Some(rate) = o.final_rate {
            require_positive(rate, "objective.final_rate")?;
            require_within(rate, 0.0, 1.0, "objective.final_rate")?;
        }
        require(!o.whole_word, "objective.whole_word", || {
            "= true is combined with objective.masking; expected only objective.masking (\"whole-word\" has the same meaning)".into()
        })?;
        require(o.ngram.is_none() || o.masking == MaskingKind::Ngram, "objective.ngram", || {
            "only has an effect with objective.masking = \"ngram\"".into()
        })?;
        require(o.ngram.is_none_or(|words| (1..=MAX_NGRAM).contains(&words)), "objective.ngram", || {
            format!("is {}; expected 1 to {MAX_NGRAM} words", o.ngram.unwrap_or_default())
        })?;
        require(!(o.sop && o.nsp), "objective.sop", || {
            "and objective.nsp are both true; expected at most one of the two (set objective.nsp = false)".into()
        })?;
        require_within(o.mask, 0.0, 1.0, "objective.mask")?;
        require_within(o.random, 0.0, 1.0, "objective.random")?;
        require(o.mask + o.random <= 1.0 + 1e-9, "objective.mask", || {
            format!("+ objective.random is {}; expected at most 1 (the rest are unchanged)", o.mask + o.random)
        })?;
        require_within(o.short_seq_prob, 0.0, 1.0, "objective.short_seq_prob")?;
        require(o.max_predictions != Some(0), "objective.max_predictions", || {
            "is 0; expected at least 1, or omit the key for no limit".into()
        })?;
        require(o.duplicates != Some(0), "objective.duplicates", || {
            "is 0; expected at least 1, or omit the key for new random masks in each epoch".into()
        })
    }

    fn check_distillation(&self) -> Result<(), InvalidValue> {
        let o = &self.objective;
        let weights = [
            ("objective.mlm_weight", o.mlm_weight),
            ("objective.kl_weight", o.kl_weight),
            ("objective.cosine_weight", o.cosine_weight),
            ("objective.relation_weight", o.relation_weight),
        ];
        if o.kind != ObjectiveKind::Distill {
            let others = [
                ("objective.teacher", o.teacher.is_some()),
                ("objective.init_from_teacher", o.init_from_teacher),
                ("objective.temperature", o.temperature.is_some()),
                ("objective.relation_heads", o.relation_heads.is_some()),
                ("objective.relation_layer", o.relation_layer.is_some()),
            ];
            let weights = weights.map(|(key, weight)| (key, weight.is_some()));
            return weights.into_iter().chain(others).try_for_each(|(key, given)| {
                require(!given, key, || "only has an effect with objective.kind = \"distill\"".into())
            });
        }
        require(
            o.teacher.as_ref().is_some_and(|teacher| !teacher.as_os_str().is_empty()),
            "objective.teacher",
            || "is missing; objective.kind = \"distill\" needs the folder of a teacher".into(),
        )?;
        require(!o.nsp && !o.sop, "objective.nsp", || {
            "= true has no effect with objective.kind = \"distill\"; expected nsp = false and sop = false".into()
        })?;
        for (key, weight) in weights {
            require(weight.is_none_or(|weight| weight >= 0.0 && weight.is_finite()), key, || {
                format!("is {}; expected a number above 0, or 0 to disable the loss", weight.unwrap_or_default())
            })?;
        }
        require(o.distillation_weights().iter().any(|(_, weight)| *weight > 0.0), "objective.kind", || {
            "= \"distill\" has no loss: every weight is 0; expected at least one above 0".into()
        })?;
        require(!o.init_from_teacher || self.model.init.is_none(), "objective.init_from_teacher", || {
            "is combined with model.init; expected one of the two".into()
        })?;
        require(o.temperature.is_none() || o.distils(KL), "objective.temperature", || {
            "has no effect with objective.kl_weight = 0".into()
        })?;
        require_positive(f64::from(o.temperature.unwrap_or(1.0) as f32), "objective.temperature")?;
        for (key, value) in
            [("objective.relation_heads", o.relation_heads), ("objective.relation_layer", o.relation_layer)]
        {
            require(value.is_none() || o.distils(RELATION), key, || {
                "only has an effect with objective.relation_weight above 0".into()
            })?;
            require(value != Some(0), key, || "is 0; expected at least 1".into())?;
        }
        Ok(())
    }

    fn check_phases(&self) -> Result<(), InvalidValue> {
        let phases = &self.phase;
        require(!phases.is_empty(), "phase", || {
            "is missing; expected at least one [[phase]] with seq_len and batch_sequences or batch_tokens".into()
        })?;
        for (i, p) in phases.iter().enumerate() {
            let key = |name: &str| format!("phase.{i}.{name}");
            require(p.seq_len >= 8, &key("seq_len"), || format!("is {}; expected at least 8", p.seq_len))?;
            let given = p.batch_sequences.is_some() as u8 + p.batch_tokens.is_some() as u8;
            require(given == 1, &key("batch_sequences"), || {
                format!(
                    "and batch_tokens are {} given; expected one of the two",
                    if given == 0 { "not" } else { "both" }
                )
            })?;
            require(p.batch_sequences != Some(0), &key("batch_sequences"), || "is 0; expected at least 1".into())?;
            require(p.batch_tokens.is_none_or(|t| t >= p.seq_len), &key("batch_tokens"), || {
                format!("is less than one sequence of seq_len = {}", p.seq_len)
            })?;
            require((1..=MAX_ACCUMULATE).contains(&p.accumulate), &key("accumulate"), || {
                format!("is {}; expected 1 to {MAX_ACCUMULATE}", p.accumulate)
            })?;
            let tokens = p.batch_tokens.or(p.batch_sequences.map(|count| count.saturating_mul(p.seq_len)));
            require(tokens.is_none_or(|tokens| tokens <= MAX_TOKENS), &key("batch_sequences"), || {
                format!(
                    "and seq_len give batches of {} tokens; expected at most {MAX_TOKENS}",
                    tokens.unwrap_or_default()
                )
            })?;
            require(p.steps.is_none() || p.share.is_none(), &key("share"), || {
                "is combined with steps; expected one of the two".into()
            })?;
            if let Some(share) = p.share {
                require_within(share, 0.0, 1.0, &key("share"))?;
            }
        }
        self.check_phase_objectives()?;
        let with_steps = phases.iter().filter(|p| p.steps.is_some()).count();
        let with_share = phases.iter().filter(|p| p.share.is_some()).count();
        let is_single = phases.len() == 1 && with_steps == 0 && with_share == 0;
        require(is_single || with_steps == phases.len() || with_share == phases.len(), "phase", || {
            "lists some phases without a length; expected share in every phase, or steps in every phase".into()
        })?;
        if with_share > 0 {
            let sum: f64 = phases.iter().filter_map(|p| p.share).sum();
            require((sum - 1.0).abs() < 1e-6, "phase", || format!("shares sum to {sum}; expected 1"))?;
        }
        if with_steps > 0 {
            require(self.minutes.is_none(), "minutes", || {
                "is combined with phases that have steps; with a time limit, each phase needs share".into()
            })?;
            let sum = phases.iter().filter_map(|p| p.steps).fold(0, u64::saturating_add);
            // As for the seed: the plan of a run adds the phases up.
            require(sum <= i64::MAX as u64, "phase", || format!("steps sum to more than {}", i64::MAX))?;
            require(self.steps.is_none_or(|s| s == sum), "steps", || {
                format!("is {}, but the phases' steps sum to {sum}; change one, or omit steps", self.steps.unwrap_or(0))
            })?;
        } else {
            require(self.steps.is_some() || self.minutes.is_some(), "steps", || {
                "is missing; expected steps or minutes (how long to train), or steps in every phase".into()
            })?;
        }
        Ok(())
    }

    fn check_phase_objectives(&self) -> Result<(), InvalidValue> {
        let last = self.phase.len() - 1;
        for (i, objective) in self.phase.iter().enumerate().filter_map(|(i, p)| Some((i, p.objective?))) {
            if objective == self.objective.kind {
                continue;
            }
            let key = format!("phase.{i}.objective");
            require(
                (objective, self.objective.kind) == (ObjectiveKind::CausalLm, ObjectiveKind::MaskedLm),
                &key,
                || {
                    "differs from objective.kind; expected \"causal-lm\", for a run that ends with objective.kind = \"masked-lm\""
                        .into()
                },
            )?;
            require(i < last, &key, || {
                "is \"causal-lm\" in the last phase; expected an earlier phase, or objective.kind = \"causal-lm\""
                    .into()
            })?;
            require(!self.has_pairs(), &key, || {
                "is \"causal-lm\", which has no sentence pairs; set objective.nsp and objective.sop to false".into()
            })?;
        }
        Ok(())
    }

    fn check_optimizer(&self) -> Result<(), InvalidValue> {
        let o = &self.optimizer;
        require_positive(o.lr, "optimizer.lr")?;
        for (key, beta) in [("optimizer.beta1", o.beta1), ("optimizer.beta2", o.beta2)] {
            require((0.0..1.0).contains(&(beta as f32)), key, || {
                format!("is {beta}; expected a number from 0 up to, not including, 1")
            })?;
        }
        require_positive(f64::from(o.eps as f32), "optimizer.eps")?;
        require_within(o.weight_decay, 0.0, 1.0, "optimizer.weight_decay")?;
        require(o.kind == OptimizerKind::Lamb || o.bias_correction.is_none(), "optimizer.bias_correction", || {
            "only has an effect with optimizer.kind = \"lamb\"; \"adamw\" has bias correction, \"bert-adamw\" has none"
                .into()
        })?;
        require(o.clip_norm >= 0.0 && o.clip_norm.is_finite(), "optimizer.clip_norm", || {
            format!("is {}; expected a number above 0, or 0 for no clipping", o.clip_norm)
        })
    }

    fn check_ranks(&self) -> Result<(), InvalidValue> {
        let ranks = &self.ranks;
        for (key, value) in [("ranks.outer_lr", ranks.outer_lr), ("ranks.outer_momentum", ranks.outer_momentum)] {
            require(value.is_none() || ranks.local_steps.is_some(), key, || {
                "only has an effect with ranks.local_steps".into()
            })?;
        }
        require(ranks.local_steps != Some(0), "ranks.local_steps", || "is 0; expected at least 1".into())?;
        require_positive(ranks.outer_lr.unwrap_or(1.0), "ranks.outer_lr")?;
        require_within(ranks.outer_momentum.unwrap_or(0.0), 0.0, 1.0, "ranks.outer_momentum")?;
        require(ranks.local_steps.is_none() || ranks.gradients.is_default(), "ranks.gradients", || {
            "has no effect with ranks.local_steps, which exchanges weights".into()
        })?;
        require(ranks.local_steps.is_none() || self.schedule.batch_warmup_share.is_none(), "ranks.local_steps", || {
            "cannot be combined with schedule.batch_warmup_share: ranks without micro-batches would not learn".into()
        })
    }

    fn check_schedule(&self) -> Result<(), InvalidValue> {
        let s = &self.schedule;
        require(s.warmup_steps.is_none() || s.warmup_share.is_none(), "schedule.warmup_steps", || {
            "is combined with schedule.warmup_share; expected one of the two".into()
        })?;
        if let Some(steps) = s.warmup_steps {
            let total = self.plan().total_steps();
            require(total.is_some() && self.minutes.is_none(), "schedule.warmup_steps", || {
                "needs `steps` without `minutes`; expected schedule.warmup_share with a time limit".into()
            })?;
            require(steps <= total.unwrap_or(0), "schedule.warmup_steps", || {
                format!("is {steps}, more than the run's {} steps", total.unwrap_or(0))
            })?;
        }
        for (key, share) in [
            ("schedule.warmup_share", s.warmup_share),
            ("schedule.batch_warmup_share", s.batch_warmup_share),
            ("schedule.decay_share", s.decay_share),
            ("schedule.final_share", s.final_share),
        ] {
            share.map_or(Ok(()), |x| require_within(x, 0.0, 1.0, key))?;
        }
        let grows = self.phase.iter().any(|phase| phase.accumulate > 1);
        require(grows || s.batch_warmup_share.is_none(), "schedule.batch_warmup_share", || {
            "has no effect: the batch grows by micro-batches, and every phase has accumulate = 1".into()
        })?;
        let is_trapezoid = s.kind == ScheduleKind::Trapezoid;
        require(is_trapezoid || s.decay_share.is_none(), "schedule.decay_share", || {
            "only has an effect with schedule.kind = \"trapezoid\"".into()
        })?;
        require(s.kind != ScheduleKind::Constant || s.final_share.is_none(), "schedule.final_share", || {
            "has no effect with schedule.kind = \"constant\"".into()
        })?;
        let (warmup, decay) = (self.lr_schedule().warmup(), s.decay_share.unwrap_or(0.2));
        require(!is_trapezoid || warmup + decay <= 1.0, "schedule.decay_share", || {
            format!("+ the warmup share is {}; expected at most 1", warmup + decay)
        })
    }
}

impl Recipe {
    /// Fails if the sequences or sentence pairs of a phase do not fit a model with this number of positions and
    /// segments.
    ///
    /// # Errors
    /// [`TrainError::Recipe`].
    pub fn check_fit(&self, positions: usize, segments: usize) -> Result<(), TrainError> {
        check_fit(self, positions, segments)
            .map_err(|e| TrainError::Recipe { place: String::from("recipe"), message: e.to_string() })
    }
}

/// Checks that there are two segments for sentence pairs, and that the sequences of every phase fit the positions.
fn check_fit(recipe: &Recipe, positions: usize, segments: usize) -> Result<(), InvalidValue> {
    require(!recipe.has_pairs() || segments >= 2, "model.type_vocab_size", || {
        let (task, key) = if recipe.objective.sop { ("sentence-order", "sop") } else { ("next-sentence", "nsp") };
        format!("is {segments}; {task} prediction needs 2 segments (or objective.{key} = false)")
    })?;
    for (i, p) in recipe.phase.iter().enumerate() {
        require(p.seq_len <= positions, &format!("phase.{i}.seq_len"), || {
            format!("is {}, longer than the model's {positions} positions (model.max_position_embeddings)", p.seq_len)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::recipe::Recipe;

    const GOOD: &str = "data = \"shards\"\nsteps = 10\n\n[model]\nhidden_size = 64\nnum_hidden_layers = 2\n\
                        num_attention_heads = 2\n\n[[phase]]\nseq_len = 64\nbatch_sequences = 4\n";

    fn error(overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        match Recipe::parse(GOOD, "r.toml", &overrides) {
            Ok(_) => panic!("{overrides:?} was accepted"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn invalid_values_are_rejected_with_their_key() {
        Recipe::parse(GOOD, "r.toml", &[]).unwrap();
        assert_eq!(
            error(&["model.num_attention_heads=3"]),
            "r.toml:5: `model.hidden_size` is 64, not divisible by model.num_attention_heads = 3"
        );
        assert_eq!(
            error(&["phase.0.seq_len=1024"]),
            "`set phase.0.seq_len=1024`: `phase.0.seq_len` is 1024, longer than the model's 512 positions (model.max_position_embeddings)"
        );
        assert_eq!(
            error(&["phase=[{share=0.5,batch_sequences=1},{share=0.4,batch_sequences=1}]"]),
            "`set phase=[{share=0.5,batch_sequences=1},{share=0.4,batch_sequences=1}]`: `phase` shares sum to 0.9; expected 1"
        );
        for (bad, expected) in [
            ("model.init=elsewhere", "cannot be combined with model.init"),
            ("objective.mask=0.95", "at most 1"),
            ("objective.rate=0", "above 0"),
            ("objective.final_rate=0", "above 0"),
            ("objective.final_rate=1.5", "from 0 to 1"),
            ("objective.ngram=2", "only has an effect"),
            ("objective.masking=words", "expected one of token, whole-word, ngram, span"),
            ("objective.duplicates=0", "at least 1"),
            ("phase.0.batch_tokens=512", "both given"),
            ("phase.0.accumulate=0", "expected 1 to 65536"),
            ("phase.0.steps=4", "sum to 4"),
            ("phase.0.share=0.5", "sum to 0.5"),
            ("optimizer.lr=-1", "above 0"),
            ("optimizer.lr=nan", "above 0"),
            ("optimizer.beta2=1", "not including, 1"),
            ("schedule.warmup_steps=11", "more than the run's 10 steps"),
            ("schedule.warmup_share=1.5", "from 0 to 1"),
            ("schedule.decay_share=0.5", "only has an effect"),
            ("schedule.batch_warmup_share=0.1", "every phase has accumulate = 1"),
            ("schedule.batch_warmup_share=2", "from 0 to 1"),
            ("ranks.local_steps=0", "expected at least 1"),
            ("ranks.outer_lr=0.5", "only has an effect with ranks.local_steps"),
            ("ranks.gradients=f16", "bf16"),
            ("optimizer.beta2=0.99999999", "not including, 1"),
            ("optimizer.eps=1e-46", "above 0"),
            ("optimizer.bias_correction=true", "only has an effect with optimizer.kind = \"lamb\""),
            ("model.hidden_dropout_prob=0.99999999", "not including, 1"),
            ("checkpoint.keep=0", "at least 1"),
            ("log.every=0", "at least 1"),
            ("log.every=0 %", "more than 0 %"),
            ("eval.every=101 %", "at most 100 %"),
            ("eval.every=nan %", "more than 0 %"),
            ("checkpoint.every=-1 min", "above 0"),
            ("checkpoint.every=inf min", "above 0"),
            ("minutes=0", "above 0"),
            ("threads=0", "expected 1 to 1024"),
            ("data=", "is missing"),
            ("model.hidden_dropout_prob=1", "not including, 1"),
            ("phase=[]", "at least one [[phase]]"),
            ("model.local_attention=64", "does not exist in the family bert, only in modernbert"),
        ] {
            let line = error(&[bad]);
            assert!(line.contains(expected), "{bad}: {line}");
        }
        for (bad, expected) in [
            ("model.local_attention=7", "`model.local_attention` is 7; expected an even number"),
            ("model.local_attention=0", "`model.local_attention` is 0; expected at least 1"),
            ("model.local_attention=8194", "is 8194, longer than the model's 8192 positions"),
            ("model.global_attn_every_n_layers=0", "`model.global_attn_every_n_layers` is 0"),
            ("model.hidden_size=62", "gives 2 heads of 31; expected an even width"),
            ("model.type_vocab_size=2", "does not exist in the family modernbert"),
        ] {
            let line = error(&["model.family=modernbert", "objective.nsp=false", bad]);
            assert!(line.contains(expected), "{bad}: {line}");
        }
        let trapezoid = ["schedule.kind=trapezoid", "schedule.warmup_steps=6", "schedule.decay_share=0.6"];
        assert!(error(&trapezoid).contains("expected at most 1"));
        assert!(error(&["schedule.kind=constant", "schedule.final_share=0.5"]).contains("no effect"));
        for (key, value) in [("masking", "span"), ("final_rate", "0.1"), ("sop", "true")] {
            let causal = error(&["objective.kind=causal-lm", &format!("objective.{key}={value}")]);
            assert!(causal.contains(&format!("`objective.{key}` has no effect with objective.kind")), "{causal}");
        }
        assert!(error(&["objective.masking=span", "objective.whole_word=true"]).contains("only objective.masking"));
        assert!(error(&["objective.sop=true", "objective.nsp=true"]).contains("expected at most one of the two"));
        let phases = "phase=[{share=0.5,objective=causal-lm,batch_sequences=1},{share=0.5,batch_sequences=1}]"
            .replace("causal-lm", "\"causal-lm\"");
        assert!(error(&[&phases]).contains("`phase.0.objective` is \"causal-lm\", which has no sentence pairs"));
        let last = ["objective.nsp=false", &phases, "phase.1.objective=causal-lm"];
        assert!(error(&last).contains("`phase.1.objective` is \"causal-lm\" in the last phase"));
        let reverse = ["objective.kind=causal-lm", "phase.0.objective=masked-lm"];
        assert!(error(&reverse).contains("`phase.0.objective` differs from objective.kind"));
        assert!(error(&["objective.kind=causal-lm", "objective.short_seq_prob=0.3"]).contains("short_seq_prob"));
        assert!(error(&["objective.teacher=x"]).contains("only has an effect with objective.kind = \"distill\""));
        assert!(error(&["objective.kind=distill"]).contains("`objective.teacher` is missing"));
        let minilm = ["mlm_weight=0", "kl_weight=0", "cosine_weight=0"].map(|key| format!("objective.{key}"));
        for (key, expected) in [
            ("nsp=true", "expected nsp = false"),
            ("temperature=0", "above 0"),
            ("kl_weight=-1", "above 0, or 0 to disable"),
            ("relation_layer=2", "only has an effect with objective.relation_weight above 0"),
            ("relation_weight=0", "every weight is 0"),
            ("temperature=3", "no effect with objective.kl_weight = 0"),
            ("masking=span", "no effect: objective.mlm_weight and objective.kl_weight are 0"),
        ] {
            let mut all = vec!["objective.kind=distill", "objective.teacher=x"];
            let is_minilm = expected.contains("every weight") || expected.contains("no effect");
            all.extend(minilm.iter().map(String::as_str).filter(|_| is_minilm));
            let key = format!("objective.{key}");
            all.push(&key);
            all.extend((is_minilm && !key.contains("relation")).then_some("objective.relation_weight=1"));
            let line = error(&all);
            assert!(line.contains(expected), "{key}: {line}");
        }
        assert!(error(&["minutes=1", "schedule.warmup_steps=1"]).contains("time limit"));
        assert!(
            error(&["minutes=1", "schedule.warmup_steps=1", "phase=[{steps=10,batch_sequences=1}]"])
                .contains("time limit")
        );
    }

    /// Regression: the sum of the phases' steps overflowed.
    #[test]
    fn phases_with_too_many_steps_are_rejected() {
        let phase = "{steps=9223372036854775807,batch_sequences=1}";
        let line = error(&[&format!("phase=[{phase},{phase},{phase}]")]);
        assert!(line.contains("`phase` steps sum to more than 9223372036854775807"), "{line}");
    }

    #[test]
    fn a_run_needs_an_end() {
        let e = Recipe::parse(&GOOD.replace("steps = 10\n", ""), "r.toml", &[]).unwrap_err();
        assert!(e.to_string().contains("steps or minutes"), "{e}");
    }
}
