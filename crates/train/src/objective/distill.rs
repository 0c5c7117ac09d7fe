//! Distillation: a student learns masked tokens and from a teacher, whose weights do not change (Sanh et al. 2019, "DistilBERT";
//! Wang et al. 2021, "MiniLMv2").

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use cloze_data::batch::{Batch, BatchOptions, PairTask};
use cloze_data::shards::Shards;
use cloze_engine::{Device, DropoutKey, Pass};
use cloze_files::digest::DigestWriter;
use cloze_files::machine;
use cloze_model::checkpoint::CONFIG_FILE;
use cloze_model::distillation::start_from_teacher;
use cloze_model::losses::{KL, MLM};
use cloze_model::{Config, Distillation, FlopsOf, Heads, Inputs, LoadReport, Losses, Model};
use cloze_text::Tokenizer;

use super::start::{Start, initial_model};
use super::term::{Metrics, Term};
use super::train_step::Objective;
use crate::TrainError;
use crate::batch::PretrainBatch;
use crate::recipe::Recipe;
use crate::vocabulary::require_tokenizer;

/// The losses of a student, and its teacher.
#[derive(Clone)]
pub struct Distill {
    teacher: Arc<Model>,
    fingerprint: String,
    compared: Distillation,
    terms: Vec<Term>,
}

impl Distill {
    /// Reads the teacher of a recipe.
    ///
    /// # Errors
    /// A folder that cannot be read; a teacher without the MLM head, with another tokenizer than the shards or another
    /// vocabulary size, with too few positions or layers, a causal one, or one that exceeds the memory.
    pub fn open(recipe: &Recipe, device: &Device) -> Result<Distill, TrainError> {
        let dir = recipe.objective.teacher.as_deref().unwrap_or(Path::new(""));
        let config = Config::read(&dir.join(CONFIG_FILE))?;
        let compared = recipe.objective.distillation(config.architecture().layers);
        let heads = if compared.temperature.is_some() { Heads::MLM } else { Heads::NONE };
        check_memory(dir, Model::count_parameters(&config, heads)? as u64, machine::memory())?;
        let tokenizer = Tokenizer::open(dir)?;
        require_tokenizer(&Shards::open(&recipe.data)?, dir, &tokenizer)?;
        let (mut teacher, report) = Model::load_with(dir, heads, &[], device, 0)?;
        if !report.newly_initialized.is_empty() {
            return Err(TrainError::NoHead { path: dir.to_owned(), head: "masked-language-model" });
        }
        check_teacher(recipe, &teacher, tokenizer.vocab_size(), &compared)?;
        teacher.check_tokenizer(dir, tokenizer.vocab_size(), tokenizer.template().segments(false))?;
        let fingerprint = fingerprint(&teacher).map_err(|e| TrainError::io("compute the fingerprint of", dir, e))?;
        teacher.params.cache_packed_weights();
        let metrics = |name| match name {
            MLM => Metrics::Tokens,
            KL => Metrics::Classes,
            _ => Metrics::Distance,
        };
        let weights = recipe.objective.distillation_weights().into_iter().filter(|(_, weight)| *weight > 0.0);
        let terms = weights.map(|(name, weight)| Term { name, weight, metrics: metrics(name) }).collect();
        Ok(Distill { teacher: Arc::new(teacher), fingerprint, compared, terms })
    }

    fn useful_flops(&self, student: &Model, batch: &PretrainBatch, of: FlopsOf) -> f64 {
        self.compared.useful_flops(student, &self.teacher, &batch.inputs, &batch.labels, of)
    }

    /// The heads that are trained.
    fn heads(&self) -> Heads {
        if self.compared.predicts_tokens() { Heads::MLM } else { Heads::NONE }
    }

    /// Checks that the losses can compare a student with the teacher.
    fn check_student(&self, student: &Model) -> Result<(), TrainError> {
        let [width, of_teacher] = [student, &*self.teacher].map(|model| model.architecture().hidden_size);
        if self.compared.cosine && width != of_teacher {
            return Err(mismatch(
                "objective.cosine_weight",
                format!(
                    "compares hidden states of equal widths: that of the teacher is {of_teacher}, that of the student {width}; expected an equal width, or \
                     objective.cosine_weight = 0"
                ),
            ));
        }
        let [size, of_teacher] = [student, &*self.teacher].map(|model| model.architecture().vocab_size);
        if self.compared.temperature.is_some() && size != of_teacher {
            return Err(mismatch(
                "objective.kl_weight",
                format!(
                    "compares vocabularies of equal sizes: the teacher has {of_teacher} embeddings, the student {size}"
                ),
            ));
        }
        check_relation_heads(&self.compared, student, "student")
    }
}

impl Objective for Distill {
    type Network = Model;
    type Batch = PretrainBatch;

    fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Full sentences of one document; masked, if masked tokens are predicted.
    fn batch_options(&self, mut options: BatchOptions) -> BatchOptions {
        options.pairs = PairTask::None;
        options
    }

    fn batch(&self, sampled: Batch) -> PretrainBatch {
        sampled.into()
    }

    fn inputs<'b>(&self, batch: &'b PretrainBatch) -> &'b Inputs {
        &batch.inputs
    }

    /// The student. Heads that are needed but missing in a checkpoint are new.
    fn initial_network(&self, start: &Start<'_>) -> Result<(Model, LoadReport), TrainError> {
        let needs_mlm = self.compared.predicts_tokens();
        let heads = |stored: Heads| (needs_mlm && !stored.mlm).then_some(Heads::MLM);
        let (mut student, report) = initial_model(start, false, self.heads(), heads)?;
        self.check_student(&student)?;
        if start.recipe.objective.init_from_teacher {
            start_from_teacher(&mut student, &self.teacher)?;
        }
        Ok((student, report))
    }

    fn prepare(&self, student: &mut Model) {
        student.freeze_unused_heads(self.heads());
        if !self.compared.reads_last_states() {
            student.freeze_last_output();
        }
    }

    fn counts(&self, batch: &PretrainBatch) -> Vec<f64> {
        let (predicted, tokens) = (batch.labels.mlm_rows.len(), batch.inputs.tokens());
        let count = |term: &Term| if [MLM, KL].contains(&term.name) { predicted } else { tokens };
        self.terms.iter().map(|term| count(term) as f64).collect()
    }

    fn loss(
        &self,
        student: &Model,
        pass: &mut Pass<'_>,
        batch: &PretrainBatch,
        scales: &[f32],
        _: DropoutKey,
    ) -> Losses {
        let scale = |name: &str| {
            let index = self.terms.iter().position(|term| term.name == name);
            index.map_or(0.0, |index| scales[index])
        };
        self.compared.loss(student, &self.teacher, pass, &batch.inputs, &batch.labels, scale)
    }

    fn flops(&self, student: &Model, batch: &PretrainBatch) -> f64 {
        self.useful_flops(student, batch, FlopsOf::ForwardBackward)
    }

    /// The teacher only runs forward.
    fn forward_share(&self, student: &Model, batch: &PretrainBatch) -> f64 {
        self.useful_flops(student, batch, FlopsOf::Forward) / self.flops(student, batch).max(1.0)
    }

    fn teacher(&self) -> Option<&str> {
        Some(&self.fingerprint)
    }
}

/// An error about a key of the recipe.
fn mismatch(key: &str, problem: String) -> TrainError {
    TrainError::Recipe { place: "recipe".to_owned(), message: format!("`{key}` {problem}") }
}

/// Bytes per weight of a model that is not trained.
const BYTES_PER_WEIGHT: u64 = 4;

/// Rejects a teacher that needs more memory than available, before anything is allocated.
fn check_memory(path: &Path, parameters: u64, available: Option<u64>) -> Result<(), TrainError> {
    let needed = BYTES_PER_WEIGHT.saturating_mul(parameters);
    match available {
        Some(available) if needed > available => {
            Err(TrainError::TeacherMemory { path: path.to_owned(), parameters, needed, available })
        }
        _ => Ok(()),
    }
}

/// Checks what the losses need of a teacher.
fn check_teacher(recipe: &Recipe, teacher: &Model, tokens: usize, compared: &Distillation) -> Result<(), TrainError> {
    let architecture = teacher.architecture();
    let fail = |problem| Err(mismatch("objective.teacher", problem));
    if architecture.causal {
        return fail("is a causal language model; expected a masked language model or an encoder".to_owned());
    }
    if compared.temperature.is_some() && recipe.model.init.is_none() && architecture.vocab_size != tokens {
        return fail(format!(
            "has {} embeddings, but its tokenizer has {tokens} tokens, and a new student has one embedding for each; soft targets need equal numbers, so \
             expected a teacher without additional embeddings, or objective.kl_weight = 0",
            architecture.vocab_size
        ));
    }
    let positions = architecture.max_sequence_length();
    if let Some(phase) = recipe.phase.iter().find(|phase| phase.seq_len > positions) {
        return fail(format!(
            "has {positions} positions, but a phase has seq_len = {}; expected at most that",
            phase.seq_len
        ));
    }
    if let Some(relations) = compared.relations.filter(|relations| relations.layer > architecture.layers) {
        let problem = format!("is {}, but the teacher only has {} layers", relations.layer, architecture.layers);
        return Err(mismatch("objective.relation_layer", problem));
    }
    check_relation_heads(compared, teacher, "teacher")
}

/// Checks that the relation heads divide the width of a model.
fn check_relation_heads(compared: &Distillation, model: &Model, role: &str) -> Result<(), TrainError> {
    let width = model.architecture().hidden_size;
    match compared.relations {
        Some(relations) if !width.is_multiple_of(relations.heads) => Err(mismatch(
            "objective.relation_heads",
            format!("is {}; expected a divisor of the {role}'s hidden_size, {width}", relations.heads),
        )),
        _ => Ok(()),
    }
}

/// A fingerprint of a model: of its configuration and its weights.
fn fingerprint(model: &Model) -> io::Result<String> {
    let mut digest = DigestWriter::new(io::sink());
    digest.write_all(model.config().to_json().as_bytes())?;
    for values in model.params.read_all().chunks(1 << 16) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        digest.write_all(&bytes)?;
    }
    Ok(digest.finish().1.xxh3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_teacher_that_exceeds_memory_is_rejected() {
        let path = Path::new("teacher");
        assert!(check_memory(path, 1 << 20, Some(1 << 24)).is_ok() && check_memory(path, 1 << 60, None).is_ok());
        let error = check_memory(path, 5_000_000_000, Some(16_000_000_000)).unwrap_err().to_string();
        assert!(error.contains("teacher") && error.contains("20.0 GB") && error.contains("16.0 GB"), "{error}");
    }
}
