//! A model without the values of its parameters: what it computes from a pass with the parameters.

use std::path::Path;

use cloze_engine::ops::{self, LossSum};
use cloze_engine::{Device, DropoutKey, ParamId, Parameters, Pass, Var};

use crate::architecture::Architecture;
use crate::bert::{Bert, Declarations, Embeddings, Packed};
use crate::config::Config;
use crate::error::ModelError;
use crate::flops::{FlopsOf, useful_flops};
use crate::heads::{Class, Heads, TaskHead};
use crate::inputs::{Inputs, PretrainLabels};
use crate::losses::{CLM, LossScale, Losses, MLM, NSP};
use crate::output_rows::{OutputRows, OutputRowsTensors, indices};
use crate::rates::Rates;
use crate::role::{Module, Role};
use crate::schema::Schema;
use crate::task_input::SequenceToken;

/// The configuration, heads and parameters of a model, without their values: a [`Model`](crate::Model) derefs to it. All
/// losses and outputs are methods of it. Two graphs can have parameters in the same arena, as in
/// [`RtdPair`](crate::RtdPair).
pub struct ModelGraph {
    pub(crate) config: Config,
    /// The heads.
    pub heads: Heads,
    pub(crate) bert: Bert,
    /// The parameters with their roles, in order of declaration.
    declared: Vec<(ParamId, Role)>,
    pub(crate) rates: Rates,
}

impl ModelGraph {
    /// Declares the parameters of a model: all of them, or all except for the embeddings of another one.
    pub(crate) fn declare(
        to: &mut Declarations,
        config: Config,
        heads: Heads,
        embeddings: Option<Embeddings>,
    ) -> ModelGraph {
        let bert = Bert::declare(to, config.architecture(), heads, embeddings);
        let declared = to.listed.iter().map(|declared| (declared.id, declared.role)).collect();
        ModelGraph { config, heads, bert, declared, rates: Rates::default() }
    }

    /// Sets the learning-rate factors of the parameters.
    pub(crate) fn apply_rates(&self, params: &mut Parameters) {
        for (id, role) in self.roles() {
            params.set_rate(id, self.rates.of(role.module, self.architecture()));
        }
    }

    /// The configuration, as [`save`](Self::save) writes it except for the class.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The sizes and settings of the network.
    pub fn architecture(&self) -> &Architecture {
        &self.bert.architecture
    }

    /// The parameter names of the model's family.
    pub fn schema(&self) -> Schema {
        self.config.schema()
    }

    /// The class of the model.
    pub fn class(&self) -> Class {
        self.heads.class(self.bert.architecture.causal)
    }

    /// The class name in Transformers, such as `BertForMaskedLM`.
    pub fn class_name(&self) -> &'static str {
        self.schema().class_name(self.class()).unwrap_or_default()
    }

    /// All parameters with their roles, in order of declaration: those of a [`Model`](crate::Model) in the order of its
    /// [`Parameters::ids`].
    pub fn roles(&self) -> impl Iterator<Item = (ParamId, Role)> + '_ {
        self.declared.iter().copied()
    }

    /// The parameter with this role; `None` if the model does not have it.
    pub fn find(&self, role: Role) -> Option<ParamId> {
        self.roles().find(|(_, known)| *known == role).map(|(id, _)| id)
    }

    /// The output layer of the head that classifies sequences, tokens or choices; `None` without such a head.
    pub fn classifier(&self) -> Option<Module> {
        let task = self.heads.task.filter(|task| *task != TaskHead::Answer)?;
        Some(task.output(self.architecture()))
    }

    /// Useful floating-point operations of [`loss`](Self::loss) and its backward pass, or of all [hidden
    /// states](Self::hidden_states); see [`useful_flops`].
    pub fn useful_flops(&self, inputs: &Inputs, labels: &PretrainLabels, of: FlopsOf) -> f64 {
        let (architecture, lengths) = (self.architecture(), inputs.lengths());
        match of {
            FlopsOf::Forward => useful_flops(architecture, lengths.map(|length| [length; 2]), 0, of),
            FlopsOf::ForwardBackward => {
                let rows = self.rows_of_losses(inputs, labels);
                let predicted = if self.heads.mlm { labels.mlm_rows.len() } else { 0 };
                useful_flops(architecture, lengths.zip(rows.counts()).map(|(s, r)| [s, r]), predicted, of)
            }
        }
    }

    /// Checks that the model has an embedding for each of a tokenizer's tokens, and for each segment of its sequences.
    /// Additional embeddings are allowed. Errors name the folder `dir`.
    ///
    /// # Errors
    /// [`ModelError::VocabularySize`], [`ModelError::Segments`].
    pub fn check_tokenizer(&self, dir: &Path, tokens: usize, segments: usize) -> Result<(), ModelError> {
        let path = dir.to_owned();
        match *self.architecture() {
            Architecture { vocab_size: found, .. } if tokens > found => {
                Err(ModelError::VocabularySize { path, expected: tokens, found })
            }
            Architecture { segments: found, .. } if found > 0 && segments > found => {
                Err(ModelError::Segments { path, expected: segments, found })
            }
            _ => Ok(()),
        }
    }

    /// Checks that a batch fits this model, for callers whose batches do not come from this model's vocabulary and
    /// recipe. All other functions assume it.
    ///
    /// # Errors
    /// [`ModelError::Batch`] with the first value that does not fit.
    pub fn check(&self, inputs: &Inputs, labels: &PretrainLabels) -> Result<(), ModelError> {
        let tokens = inputs.ids.len();
        let fail = |problem: String| Err(ModelError::Batch(problem));
        for (what, found) in [("positions", inputs.positions.len()), ("segments", inputs.segments.len())] {
            if found != tokens {
                return fail(format!("batch: {found} {what} for {tokens} ids: expected equal numbers"));
            }
        }
        let ends_fit = inputs.cu_seqlens.first() == Some(&0) && inputs.cu_seqlens.last() == Some(&(tokens as i32));
        if !ends_fit || !inputs.cu_seqlens.is_sorted_by(|a, b| a < b) {
            return fail(format!("batch: cu_seqlens must increase from 0 to the number of tokens, {tokens}"));
        }
        let sequences = inputs.cu_seqlens.len() - 1;
        if labels.mlm_rows.len() != labels.mlm_labels.len() {
            let (rows, found) = (labels.mlm_rows.len(), labels.mlm_labels.len());
            return fail(format!("batch: {found} labels for {rows} predicted tokens: expected equal numbers"));
        }
        if !labels.nsp_labels.is_empty() && labels.nsp_labels.len() != sequences {
            let found = labels.nsp_labels.len();
            return fail(format!(
                "batch: {found} next-sentence labels for {sequences} sequences: expected one for each or none"
            ));
        }
        let Architecture { vocab_size, segments, .. } = self.bert.architecture;
        let ranges = [
            ("token id", &inputs.ids, vocab_size, "the vocabulary size"),
            ("position", &inputs.positions, self.architecture().max_sequence_length(), "max_position_embeddings"),
            // Without a table, segments are not read.
            ("segment", &inputs.segments, if segments == 0 { usize::MAX } else { segments }, "type_vocab_size"),
            ("predicted row", &labels.mlm_rows, tokens, "the number of tokens"),
            ("label", &labels.mlm_labels, vocab_size, "the vocabulary size"),
            ("next-sentence label", &labels.nsp_labels, 2, "the number of classes"),
        ];
        for (what, values, limit, of) in ranges {
            if let Some(found) = values.iter().find(|&&value| value < 0 || value as usize >= limit) {
                return fail(format!(
                    "batch: {what} {found} is out of range: expected 0 or more and less than {of}, {limit}"
                ));
            }
        }
        Ok(())
    }

    /// Runs encoder and heads, and returns the losses of the batch. Their scaled gradients are recorded: call
    /// `pass.backward()`. Only the tokens that heads need go through all of the last layer, only predicted tokens go
    /// through the decoder, and their logits are never stored completely. In a causal model, `mlm_rows` are the tokens
    /// whose next token is predicted.
    pub fn loss(&self, pass: &mut Pass, inputs: &Inputs, labels: &PretrainLabels, scale: LossScale) -> Losses {
        let rows = self.rows_of_losses(inputs, labels);
        let mut losses = Losses::default();
        if rows.is_empty() {
            return losses;
        }
        let last = self.last_states(pass, inputs, &rows);
        if self.predicts_tokens(labels) {
            let states = rows.select(pass, &last, &labels.mlm_rows);
            let ids = indices(pass.device(), &labels.mlm_labels);
            let name = if self.architecture().causal { CLM } else { MLM };
            let features = self.bert.mlm_features(pass, &states);
            let loss = features.and_then(|features| self.bert.mlm_loss(pass, &features, &ids, scale.mlm));
            loss.into_iter().for_each(|loss| losses.add(name, loss));
        }
        if self.predicts_next_sentence(labels) {
            let cls = rows.select(pass, &last, inputs.cls_tokens());
            let classes = indices(pass.device(), &labels.nsp_labels);
            let logits = self.bert.nsp_logits(pass, &cls);
            let loss = logits.map(|logits| ops::cross_entropy(pass, &logits, &classes, scale.nsp));
            loss.into_iter().for_each(|loss| losses.add(NSP, loss));
        }
        losses
    }

    /// Runs the model and returns the MLM loss of the batch, and a token for each predicted one, sampled from the model's
    /// distribution. The samples are a pure function of the logits and `key`, and have no gradient. `None` without the
    /// head or without predicted tokens.
    pub fn mlm_loss_and_samples(
        &self,
        pass: &mut Pass,
        inputs: &Inputs,
        labels: &PretrainLabels,
        scale: f32,
        key: DropoutKey,
    ) -> Option<(LossSum, Vec<i32>)> {
        if !self.predicts_tokens(labels) {
            return None;
        }
        let states = self.states_at(pass, inputs, &labels.mlm_rows);
        let ids = indices(pass.device(), &labels.mlm_labels);
        let features = self.bert.mlm_features(pass, &states)?;
        self.bert.mlm_loss_and_samples(pass, &features, &ids, scale, key)
    }

    /// Whether the batch has an MLM or CLM loss.
    fn predicts_tokens(&self, labels: &PretrainLabels) -> bool {
        self.heads.mlm && !labels.mlm_rows.is_empty()
    }

    /// Whether the batch has a next-sentence loss.
    fn predicts_next_sentence(&self, labels: &PretrainLabels) -> bool {
        self.heads.nsp && !labels.nsp_labels.is_empty()
    }

    fn rows_of_losses(&self, inputs: &Inputs, labels: &PretrainLabels) -> OutputRows {
        let mut tokens = Vec::new();
        if self.predicts_tokens(labels) {
            tokens.extend(&labels.mlm_rows);
        }
        if self.predicts_next_sentence(labels) {
            tokens.extend(inputs.cls_tokens());
        }
        OutputRows::new(tokens, &inputs.cu_seqlens)
    }

    /// Runs the encoder and returns some hidden states of all tokens, `[T, H]` each, in the order of `numbers`: 0 is
    /// the output of the embeddings, n that of the n-th layer. Layers above the highest number do not run; other states
    /// are not kept. Panics for a number above that of the layers.
    pub fn hidden_states(&self, pass: &mut Pass, inputs: &Inputs, numbers: &[usize]) -> Vec<Var> {
        let Some(&top) = numbers.iter().max() else { return Vec::new() };
        let mut states: Vec<Option<Var>> = vec![None; numbers.len()];
        self.encode(pass, inputs, top, None, |number, state| {
            let requested = states.iter_mut().zip(numbers).filter(|(_, requested)| **requested == number);
            requested.for_each(|(slot, _)| *slot = Some(state.clone()));
        });
        states.into_iter().flatten().collect()
    }

    /// Runs the encoder and returns the last hidden state of each sequence's first token, `[S, H]`.
    pub fn cls_states(&self, pass: &mut Pass, inputs: &Inputs) -> Var {
        self.states_at(pass, inputs, inputs.cls_tokens())
    }

    /// The pooler's output, `[S, H]`, from the last hidden states of the first tokens; `None` without a pooler.
    pub fn pooler_output(&self, pass: &mut Pass, cls_states: &Var) -> Option<Var> {
        self.bert.pool(pass, cls_states)
    }

    /// Runs the model and returns the MLM logits of the tokens `rows`, `[M, V]`; `None` without the head or without
    /// tokens.
    pub fn mlm_logits(&self, pass: &mut Pass, inputs: &Inputs, rows: &[i32]) -> Option<Var> {
        if !self.heads.mlm || rows.is_empty() {
            return None;
        }
        let states = self.states_at(pass, inputs, rows);
        let features = self.bert.mlm_features(pass, &states)?;
        self.bert.mlm_logits(pass, &features)
    }

    /// Runs the model and returns the next-sentence logits, `[S, 2]`, where class 0 is "is next"; `None` without the
    /// head.
    pub fn nsp_logits(&self, pass: &mut Pass, inputs: &Inputs) -> Option<Var> {
        if !self.heads.nsp {
            return None;
        }
        let cls = self.cls_states(pass, inputs);
        self.bert.nsp_logits(pass, &cls)
    }

    /// Runs the model and returns the logits of the task head: `[S, C]` to classify, `[R, C]` for the tokens `rows` to
    /// tag, `[T, 2]` (start, end) to answer, `[S, 1]` to choose; `None` without a task head.
    pub fn task_logits(&self, pass: &mut Pass, inputs: &Inputs, rows: &[i32]) -> Option<Var> {
        let task = self.heads.task?;
        let architecture = self.architecture();
        let tokens = match task {
            TaskHead::Classify { .. } | TaskHead::Choose => Some(match architecture.task_input.token {
                SequenceToken::First => inputs.cls_tokens().to_vec(),
                SequenceToken::Last => inputs.last_tokens(),
            }),
            TaskHead::Tag { .. } => Some(rows.to_vec()),
            TaskHead::Answer => None,
        };
        let dropout = task.dropout(architecture);
        let mut features = match task {
            TaskHead::Classify { .. } | TaskHead::Choose
                if architecture.mean_pooling && architecture.task_input.is_direct() =>
            {
                let states = self.encode(pass, inputs, architecture.layers, None, |_, _| ());
                let cu_seqlens = indices(pass.device(), &inputs.cu_seqlens);
                ops::segment_mean(pass, &states, &cu_seqlens)
            }
            _ => self.task_input(pass, inputs, tokens.as_deref())?,
        };
        if let Some(head) = task.sequence_head(architecture) {
            features = self.bert.sequence_features(pass, &features, head, dropout)?;
        }
        self.bert.task_logits(pass, &features, dropout)
    }

    /// What the task's head reads of these tokens, or of all tokens: `[R, W]`; `None` without a task head.
    fn task_input(&self, pass: &mut Pass, inputs: &Inputs, tokens: Option<&[i32]>) -> Option<Var> {
        let Architecture { layers, task_input, .. } = *self.architecture();
        if task_input.is_direct() {
            return Some(match tokens {
                Some(tokens) => self.states_at(pass, inputs, tokens),
                None => self.encode(pass, inputs, layers, None, |_, _| ()),
            });
        }
        let mut states = self.hidden_states(pass, inputs, &task_input.features.states(layers));
        let tokens = tokens.map(|tokens| indices(pass.device(), tokens));
        if task_input.bilstm.is_none() {
            // Without a BiLSTM, a token's features depend only on its own states.
            if let Some(tokens) = &tokens {
                states = states.iter().map(|state| ops::index_select(pass, state, tokens)).collect();
            }
            return self.bert.joined_features(pass, &states);
        }
        let features = self.bert.joined_features(pass, &states)?;
        let cu_seqlens = indices(pass.device(), &inputs.cu_seqlens);
        let outputs = self.bert.bilstm(pass, &features, &cu_seqlens)?;
        Some(match &tokens {
            Some(tokens) => ops::index_select(pass, &outputs, tokens),
            None => outputs,
        })
    }

    /// Runs the model and returns the logits of "replaced" for the tokens `rows`, `[R, 1]`; `None` without the head or
    /// without tokens.
    pub fn rtd_logits(&self, pass: &mut Pass, inputs: &Inputs, rows: &[i32]) -> Option<Var> {
        if !self.heads.rtd || rows.is_empty() {
            return None;
        }
        let states = self.states_at(pass, inputs, rows);
        self.bert.rtd_logits(pass, &states)
    }

    /// Runs the model and returns the loss of the head that detects replaced tokens, over all tokens: the binary
    /// cross-entropy with `replaced`, `[T]` of 1 for a replaced token and 0 for an original one (Clark et al. 2020,
    /// section 2). Its gradient, recorded in the pass, is multiplied by `scale`. `None` without the head.
    pub fn rtd_loss(&self, pass: &mut Pass, inputs: &Inputs, replaced: &[f32], scale: f32) -> Option<LossSum> {
        if !self.heads.rtd {
            return None;
        }
        let states = self.encode(pass, inputs, self.bert.architecture.layers, None, |_, _| ());
        let logits = self.bert.rtd_logits(pass, &states)?;
        let targets = pass.device().tensor_f32(replaced, &[replaced.len(), 1]);
        Some(ops::binary_cross_entropy(pass, &logits, &targets, scale))
    }

    /// The last hidden states of some tokens, in any order, `[R, H]`.
    fn states_at(&self, pass: &mut Pass, inputs: &Inputs, tokens: &[i32]) -> Var {
        let rows = OutputRows::new(tokens.to_vec(), &inputs.cu_seqlens);
        let last = self.last_states(pass, inputs, &rows);
        rows.select(pass, &last, tokens)
    }

    fn last_states(&self, pass: &mut Pass, inputs: &Inputs, rows: &OutputRows) -> Var {
        self.encode(pass, inputs, self.bert.architecture.layers, Some(rows), |_, _| ())
    }

    /// Hidden state `top`: 0 is the output of the embeddings, n that of the n-th layer. The last layer is only computed
    /// for `rows`, if given. `visit` is called with each state and its number.
    pub(crate) fn encode(
        &self,
        pass: &mut Pass,
        inputs: &Inputs,
        top: usize,
        rows: Option<&OutputRows>,
        mut visit: impl FnMut(usize, &Var),
    ) -> Var {
        let packed = upload(pass.device(), inputs, self.bert.architecture.position_padding);
        let rows = rows.map(|rows| rows.upload(pass.device()));
        let mut run = |pass: &mut Pass, number: usize, layer: &dyn Fn(&mut Pass) -> Var| {
            let state = if self.rates.is_frozen(number) { pass.no_grad(layer) } else { layer(pass) };
            visit(number, &state);
            state
        };
        let mut last = run(pass, 0, &|pass| self.bert.embed(pass, &packed));
        for number in 1..=top {
            let rows: Option<&OutputRowsTensors> = rows.as_ref().filter(|_| number == top);
            last = run(pass, number, &|pass| self.bert.layer(pass, &packed, number - 1, &last, rows));
        }
        last
    }
}

pub(crate) fn upload(device: &Device, inputs: &Inputs, position_padding: Option<u32>) -> Packed {
    let counted = position_padding.map(|padding| positions_without(inputs, padding as i32));
    Packed {
        ids: indices(device, &inputs.ids),
        positions: indices(device, counted.as_ref().unwrap_or(&inputs.positions)),
        segments: indices(device, &inputs.segments),
        cu_seqlens: indices(device, &inputs.cu_seqlens),
    }
}

/// RoBERTa's positions: tokens other than padding are counted from `padding` + 1; padding has the position `padding`.
fn positions_without(inputs: &Inputs, padding: i32) -> Vec<i32> {
    let mut positions = Vec::with_capacity(inputs.ids.len());
    for pair in inputs.cu_seqlens.windows(2) {
        let mut last = padding;
        for &id in &inputs.ids[pair[0] as usize..pair[1] as usize] {
            last += i32::from(id != padding);
            positions.push(if id == padding { padding } else { last });
        }
    }
    positions
}
