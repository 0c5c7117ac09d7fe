//! What follows from a recipe: the plan of its run, its learning-rate schedule, the batches of its phases.

use cloze_data::batch::{BatchOptions, BatchSize, PairTask};
use cloze_data::masking::Masking;
use cloze_engine::UpdateRule;
use cloze_model::losses::{COSINE, KL, MLM, RELATION};
use cloze_model::{Config, Distillation, Heads, Model, ModelError, Relations, RtdPair};
use cloze_text::Special;

use super::sections::{ObjectiveKind, ObjectiveSection, Optimizer, OptimizerKind, Recipe};
use crate::plan::Plan;
use crate::schedule::LrSchedule;

/// `generator_hidden_size` of ELECTRA small (Clark et al. 2020, appendix A).
const GENERATOR_SIZE: f64 = 0.25;
/// The temperature of DistilBERT's reference code.
const TEMPERATURE: f64 = 2.0;
/// The relation heads for teachers of BERT-base's size (Wang et al. 2021, section 4.1).
const RELATION_HEADS: usize = 48;

/// A part of a run in which all steps have the same size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    /// The phase, from 0.
    pub phase: usize,
    /// Micro-batches per step.
    pub micro_batches: u32,
    /// The end, as a fraction of the run.
    pub end: f64,
    /// The end in steps, if the run has a number of steps.
    pub end_step: Option<u64>,
}

impl Recipe {
    /// The plan of the run.
    pub fn plan(&self) -> Plan {
        let phase_steps: Option<u64> = self.phase.iter().map(|p| p.steps).sum();
        let steps = self.steps.or(phase_steps.filter(|_| !self.phase.is_empty()));
        let mut done = 0.0;
        let mut ends = Vec::new();
        for p in &self.phase {
            done += match (p.share, p.steps, steps) {
                (Some(share), ..) => share,
                (None, Some(phase_steps), Some(all)) => phase_steps as f64 / all.max(1) as f64,
                _ => 1.0,
            };
            ends.push((done, steps.map(|all| (done * all as f64).round() as u64)));
        }
        Plan::new(steps, self.minutes.map(|m| m * 60.0), ends)
    }

    /// The learning-rate schedule of the run.
    pub fn lr_schedule(&self) -> LrSchedule {
        let s = &self.schedule;
        let warmup = match (s.warmup_steps, self.plan().total_steps()) {
            (Some(steps), Some(all)) if all > 0 => steps as f64 / all as f64,
            (Some(_), _) => 0.0,
            (None, _) => s.warmup_share.unwrap_or(0.01),
        };
        LrSchedule::new(s.kind, warmup, s.decay_share.unwrap_or(0.2), s.final_share.unwrap_or(0.0))
    }

    /// The task of the sentence pairs.
    pub fn pairs(&self) -> PairTask {
        match &self.objective {
            objective if objective.kind != ObjectiveKind::MaskedLm => PairTask::None,
            objective if objective.sop => PairTask::Sop,
            objective if objective.nsp => PairTask::Nsp,
            _ => PairTask::None,
        }
    }

    /// The number of weights of a new network with this vocabulary size; `None` if it starts from a checkpoint, or if its
    /// sizes do not fit.
    pub fn parameters(&self, vocab_size: usize) -> Option<usize> {
        if self.model.init.is_some() {
            return None;
        }
        // The ids of BERT's special tokens: only that of padding matters, in RoBERTa's family.
        let special = Special { pad: 1, unk: 100, cls: 101, sep: 102, mask: 103 };
        if self.objective.kind == ObjectiveKind::Rtd {
            let [generator, discriminator] = self.rtd_configs(vocab_size, special).ok()?;
            return RtdPair::count_parameters(&generator, &discriminator).ok();
        }
        let heads = match self.has_pairs() {
            true => Heads::PRETRAINING,
            false if self.objective.predicts_tokens() => Heads::MLM,
            false => Heads::NONE,
        };
        Model::count_parameters(&self.model.config(vocab_size, special).ok()?, heads).ok()
    }

    /// The configurations of a new generator and a new discriminator, for a vocabulary.
    ///
    /// # Errors
    /// As [`ModelSection::config`](super::ModelSection::config).
    pub fn rtd_configs(&self, vocab_size: usize, special: Special) -> Result<[Config; 2], ModelError> {
        let discriminator = self.model.config(vocab_size, special)?;
        // `get_generator_config` of google-research/electra: narrower, with heads of 64, as deep as the discriminator.
        let width = self.objective.generator_size.unwrap_or(GENERATOR_SIZE);
        let hidden = ((discriminator.hidden_size as f64 * width) as usize).max(1);
        let mut generator = discriminator.clone();
        generator.num_attention_heads = (hidden / 64).max(1);
        generator.hidden_size = hidden.next_multiple_of(generator.num_attention_heads);
        generator.intermediate_size = 4 * generator.hidden_size;
        Ok([generator, discriminator])
    }

    /// The number of micro-batches of a step of a phase, counted from 0, at a fraction of the run that was done before.
    pub fn micro_batches(&self, phase: usize, progress: f64) -> u32 {
        let all = self.phase[phase].accumulate;
        let Some(share) = self.schedule.batch_warmup_share.filter(|share| *share > 0.0) else { return all };
        // Rounding must not move a boundary that is a whole step to the next step.
        let grown = f64::from(all) * progress / share + 1e-9;
        all.min((grown as u32).saturating_add(1))
    }

    /// The parts of the run in which all steps have the same phase and number of micro-batches, in order. Their ends in
    /// steps are rounded.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let plan = self.plan();
        let share = self.schedule.batch_warmup_share.unwrap_or(0.0);
        let (mut parts, mut start) = (Vec::new(), 0.0);
        for (phase, &(phase_end, phase_end_step)) in plan.ends().iter().enumerate() {
            let all = self.phase[phase].accumulate;
            for micro_batches in self.micro_batches(phase, start)..=all {
                let grows = share * f64::from(micro_batches) / f64::from(all);
                if micro_batches == all || grows >= phase_end {
                    parts.push(Part { phase, micro_batches, end: phase_end, end_step: phase_end_step });
                    break;
                }
                let end_step = plan.total_steps().map(|steps| (grows * steps as f64).round() as u64);
                parts.push(Part { phase, micro_batches, end: grows, end_step });
            }
            start = phase_end;
        }
        parts
    }

    /// Whether sequences are sentence pairs.
    pub fn has_pairs(&self) -> bool {
        self.pairs().has_pairs()
    }

    /// The objective of a phase, counted from 0.
    pub fn phase_objective(&self, phase: usize) -> ObjectiveKind {
        self.phase[phase].objective.unwrap_or(self.objective.kind)
    }

    /// The options for sampling the batches of a phase, counted from 0.
    ///
    /// Each phase has its own sampling seed, so that the second does not repeat the pairs of the first.
    pub fn batch_options(&self, phase: usize) -> BatchOptions {
        let p = &self.phase[phase];
        let o = &self.objective;
        let mut masking = Masking::default();
        masking.rate = o.rate;
        masking.final_rate = o.final_rate;
        masking.mask = o.mask;
        masking.random = o.random;
        masking.unit = o.masking.unit(o.ngram);
        masking.max_predictions = o.max_predictions;
        let mut options = BatchOptions::default();
        options.seq_len = p.seq_len;
        options.size = match (p.batch_sequences, p.batch_tokens) {
            (_, Some(tokens)) => BatchSize::Tokens(tokens),
            (sequences, None) => BatchSize::Sequences(sequences.unwrap_or(32)),
        };
        options.pairs = self.pairs();
        options.short_seq_prob = o.short_seq_prob;
        let is_masked = self.phase_objective(phase) != ObjectiveKind::CausalLm && o.predicts_tokens();
        options.masking = is_masked.then_some(masking);
        options.duplicates = o.duplicates;
        options.seed = self.seed.wrapping_add((phase as u64) << 32);
        options
    }
}

impl ObjectiveSection {
    /// The weights of the losses of a distillation, by their names. The defaults are those of DistilBERT's reference
    /// code, huggingface/transformers-research-projects.
    pub fn distillation_weights(&self) -> [(&'static str, f64); 4] {
        [
            (MLM, self.mlm_weight.unwrap_or(2.0)),
            (KL, self.kl_weight.unwrap_or(5.0)),
            (COSINE, self.cosine_weight.unwrap_or(1.0)),
            (RELATION, self.relation_weight.unwrap_or(0.0)),
        ]
    }

    /// Whether a loss has a weight above 0 in a distillation.
    pub(super) fn distils(&self, loss: &str) -> bool {
        self.distillation_weights().iter().any(|(name, weight)| *name == loss && *weight > 0.0)
    }

    /// What a student learns from a teacher with this number of layers.
    pub fn distillation(&self, layers: usize) -> Distillation {
        let relations = || Relations {
            heads: self.relation_heads.unwrap_or(RELATION_HEADS),
            layer: self.relation_layer.unwrap_or(layers),
        };
        Distillation {
            mlm: self.distils(MLM),
            temperature: self.distils(KL).then(|| self.temperature.unwrap_or(TEMPERATURE) as f32),
            cosine: self.distils(COSINE),
            relations: self.distils(RELATION).then(relations),
        }
    }

    /// Whether the model has a head that predicts tokens, which a distillation may not have.
    pub fn predicts_tokens(&self) -> bool {
        self.kind != ObjectiveKind::Distill || self.distils(MLM) || self.distils(KL)
    }
}

impl Optimizer {
    /// The engine's optimizer.
    pub fn to_engine(&self) -> cloze_engine::Optimizer {
        let (rule, bias_correction) = match self.kind {
            OptimizerKind::BertAdamw => (UpdateRule::AdamW, false),
            OptimizerKind::Adamw => (UpdateRule::AdamW, true),
            OptimizerKind::Lamb => (UpdateRule::Lamb, self.bias_correction.unwrap_or(false)),
        };
        cloze_engine::Optimizer {
            rule,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            eps: self.eps as f32,
            weight_decay: self.weight_decay as f32,
            bias_correction,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::End;
    use crate::recipe::{Phase, Recipe};

    fn two(first: Phase, second: Phase) -> Recipe {
        Recipe { phase: vec![first, second], ..Recipe::default() }
    }

    fn share(share: f64) -> Phase {
        Phase { share: Some(share), ..Phase::default() }
    }

    #[test]
    fn phases_by_share_of_steps() {
        let mut r = two(share(0.9), share(0.1));
        r.steps = Some(10);
        let plan = r.plan();
        let phases: Vec<usize> = (0..10).map(|s| plan.phase_at(s, 1e9)).collect();
        assert_eq!(phases, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(plan.is_over(10, 0.0) && !plan.is_over(9, 1e9));
    }

    #[test]
    fn steps_of_phases_are_summed() {
        let steps = |n| Phase { steps: Some(n), ..Phase::default() };
        let plan = two(steps(3), steps(4)).plan();
        assert_eq!(plan.total_steps(), Some(7));
        assert_eq!((plan.phase_at(2, 0.0), plan.phase_at(3, 0.0)), (0, 1));
    }

    #[test]
    fn a_time_limit_with_and_without_steps() {
        let mut r = two(share(0.5), share(0.5));
        r.minutes = Some(1.0);
        let plan = r.plan();
        assert_eq!(plan.phase_at(5000, 29.9), 0);
        assert_eq!(plan.phase_at(5000, 30.0), 1);
        assert!(plan.is_over(1, 60.0) && !plan.is_over(1_000_000, 59.0));
        r.steps = Some(100);
        let both = r.plan();
        assert!(both.is_over(100, 0.0) && both.is_over(0, 60.0));
        assert_eq!(both.progress(50, 6.0), 0.5);
        assert_eq!(both.progress(5, 30.0), 0.5);
        assert_eq!(both.seconds_left(0.0, 0.5, 30.0), Some(30.0));
    }

    #[test]
    fn the_end_is_the_limit_with_the_larger_progress() {
        let mut r = two(share(0.9), share(0.1));
        r.steps = Some(100);
        assert_eq!(r.plan().end(0, 0.0), End::Steps(100));
        r.minutes = Some(1.0);
        assert_eq!(r.plan().end(20, 30.0), End::Seconds(60.0));
        assert_eq!(r.plan().end(80, 30.0), End::Steps(100));
        r.steps = None;
        assert_eq!(r.plan().end(80, 0.0), End::Seconds(60.0));
    }

    #[test]
    fn the_rest_is_estimated_from_step_times() {
        let mut r = two(share(0.9), share(0.1));
        r.steps = Some(1000);
        assert_eq!(r.plan().remaining(0, 0.0, &[0.1, 0.5]), [(900.0, 90.0), (100.0, 50.0)]);
        assert_eq!(r.plan().remaining(950, 7.0, &[0.1, 0.5]), [(0.0, 0.0), (50.0, 25.0)]);
        r.minutes = Some(1.0);
        assert_eq!(r.plan().remaining(0, 0.0, &[0.1, 0.5]), [(540.0, 54.0), (12.0, 6.0)]);
        r.steps = None;
        assert_eq!(r.plan().remaining(0, 30.0, &[0.1, 0.5]), [(240.0, 24.0), (12.0, 6.0)]);
        // A phase that is shorter than one of its steps has a fraction of a step.
        assert_eq!(r.plan().remaining(0, 0.0, &[0.1, 12.0])[1].0, 0.5);
    }

    #[test]
    fn the_batch_grows_by_micro_batches() {
        let mut r = two(Phase { accumulate: 4, ..share(0.3) }, Phase { accumulate: 8, ..share(0.7) });
        r.steps = Some(20);
        r.schedule.batch_warmup_share = Some(0.4);
        let counts = |r: &Recipe, at: &dyn Fn(u64) -> (u64, f64)| -> Vec<u32> {
            let plan = r.plan();
            let count = |(step, seconds)| r.micro_batches(plan.phase_at(step, seconds), plan.progress(step, seconds));
            (0..20).map(|number| count(at(number))).collect()
        };
        let expected = [1, 1, 2, 2, 3, 3, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8];
        assert_eq!(counts(&r, &|step| (step, 0.0)), expected);
        let parts = |r: &Recipe| -> Vec<(u32, Option<u64>)> {
            r.parts().iter().map(|part| (part.micro_batches, part.end_step)).collect()
        };
        let expected_parts = [(1, 2), (2, 4), (3, 6), (7, 7), (8, 20)].map(|(count, end)| (count, Some(end)));
        assert_eq!(parts(&r), expected_parts);
        // With a time limit, it follows the elapsed time.
        (r.steps, r.minutes) = (None, Some(1.0));
        assert_eq!(counts(&r, &|number| (0, 3.0 * number as f64)), expected);
        assert_eq!(parts(&r), expected_parts.map(|(count, _)| (count, None)));
        r.schedule.batch_warmup_share = None;
        assert_eq!(parts(&r), [(4, None), (8, None)]);
    }

    #[test]
    fn a_run_of_zero_steps_is_over() {
        let mut r = two(share(0.5), share(0.5));
        r.steps = Some(0);
        assert!(r.plan().is_over(0, 0.0));
        assert_eq!(r.plan().progress(0, 0.0), 1.0);
    }
}
