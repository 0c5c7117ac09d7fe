//! `cloze bench train` and `infer`: measures a model with random weights step by step.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use cloze_engine::{
    Bandwidths, Cost, DType, Device, DropoutKey, Gradients, Moments, Parameters, Pass, Profile, StepSettings,
    UpdateRule, optimizer_step,
};
use cloze_model::family::BERT;
use cloze_model::losses::RTD;
use cloze_model::{Class, Config, FAMILIES, FlopsOf, Heads, Inputs, LossScale, Model, PretrainLabels, RtdPair};
use cloze_tasks::inference::Precision;
use cloze_text::Special;
use cloze_train::Recipe;
use cloze_train::objective::{Objective, ReplacedTokens};
use cloze_train::recipe::{Optimizer, OptimizerKind};
use serde_json::{Map, Value, json};

use crate::failure::usage;
use crate::format;
use crate::terminal::Terminal;

/// The size of a model and of its batches.
#[derive(Clone, Debug, clap::Args)]
pub struct Shape {
    /// Encoder layers
    #[arg(long, default_value_t = 12, value_name = "L", value_parser = crate::values::items)]
    pub layers: usize,

    /// Hidden size; the feed-forward layer is four times as wide
    #[arg(long, default_value_t = 768, value_name = "H", value_parser = crate::values::items)]
    pub hidden: usize,

    /// Attention heads
    #[arg(long, default_value_t = 12, value_name = "A", value_parser = crate::values::items)]
    pub heads: usize,

    /// Sequences in a batch
    #[arg(long, default_value_t = 16, value_name = "B", value_parser = crate::values::items)]
    pub batch: usize,

    /// Maximum sequence length in tokens
    #[arg(long, default_value_t = 128, value_name = "S", value_parser = crate::values::positive)]
    pub seq: usize,

    /// full: every sequence has --seq tokens; uniform: random lengths from 8 to --seq
    #[arg(long, value_enum, default_value_t = Lengths::Full)]
    pub lengths: Lengths,

    /// Number format of the activations and of the packed weights; int8 only for inference
    #[arg(long, default_value = "auto", value_parser = crate::values::named(&Precision::ALL))]
    pub precision: Precision,

    /// Recompute activations in the backward pass instead of keeping them (activation checkpointing)
    #[arg(long)]
    pub recompute: bool,

    /// Optimizer of a training step
    #[arg(long, default_value = "bert-adamw", value_parser = crate::values::named(&OptimizerKind::ALL))]
    pub optimizer: OptimizerKind,

    /// Model family; a training step of electra is that of a generator and a discriminator
    #[arg(long, default_value = "bert", value_name = "FAMILY", value_parser = family_names())]
    pub family: String,

    /// Vocabulary size
    #[arg(long, default_value_t = 30522, value_name = "V", value_parser = crate::values::positive)]
    pub vocab: usize,
}

fn family_names() -> PossibleValuesParser {
    PossibleValuesParser::new(FAMILIES.iter().map(|family| family.model_type))
}

/// The network of a benchmark.
enum Subject {
    Model(Box<Model>),
    /// ELECTRA in training.
    Pair(Box<RtdPair>),
}

impl Subject {
    fn params_mut(&mut self) -> &mut Parameters {
        match self {
            Subject::Model(model) => &mut model.params,
            Subject::Pair(pair) => &mut pair.params,
        }
    }

    fn params(&self) -> &Parameters {
        match self {
            Subject::Model(model) => &model.params,
            Subject::Pair(pair) => &pair.params,
        }
    }
}

impl Shape {
    /// The configuration of the model, and of ELECTRA's generator.
    fn configs(&self) -> Result<[Config; 2]> {
        let mut recipe = Recipe::default();
        let special = Special { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 };
        recipe.model.family = Some(self.family.clone());
        recipe.model.hidden_size = Some(self.hidden);
        recipe.model.num_hidden_layers = Some(self.layers);
        recipe.model.num_attention_heads = Some(self.heads);
        // One row more for families whose positions start after the padding token.
        recipe.model.max_position_embeddings = Some(self.seq.max(512) + 1);
        let [generator, model] = recipe.rtd_configs(self.vocab, special)?;
        Ok([model, generator])
    }

    /// A network with random weights and the heads of the family's pre-training.
    fn subject(&self, training: bool, device: &Device) -> Result<Subject> {
        let [config, generator] = self.configs()?;
        if training && config.schema().class_name(Class::ReplacedTokens).is_some() {
            return Ok(Subject::Pair(Box::new(RtdPair::new(generator, config, device, 0)?)));
        }
        match training {
            true => Ok(Subject::Model(Box::new(self.pretrained(device)?))),
            false => Ok(Subject::Model(Box::new(Model::new(config, Heads::NONE, device, 0)?))),
        }
    }

    /// A model with random weights and the heads of the family's pre-training.
    pub fn pretrained(&self, device: &Device) -> Result<Model> {
        let [config, _] = self.configs()?;
        let has_pairs = config.schema().class_name(Class::Pretraining).is_some();
        Ok(Model::new(config, if has_pairs { Heads::PRETRAINING } else { Heads::MLM }, device, 0)?)
    }

    /// A micro-batch of training.
    pub fn micro_batch(&self) -> (Inputs, PretrainLabels) {
        synthetic(self, true)
    }

    /// Refuses options without effect.
    pub fn check(&self, training: bool) -> Result<()> {
        anyhow::ensure!(
            training || !self.recompute,
            "--recompute has no effect on inference, which keeps no activations"
        );
        anyhow::ensure!(
            training || self.optimizer == OptimizerKind::BertAdamw,
            "--optimizer has no effect on inference"
        );
        if training && self.precision == Precision::Int8 {
            return Err(usage(
                "--precision int8: training needs f32 or bf16; int8 is for inference (cloze bench infer)",
            ));
        }
        Ok(())
    }
}

/// `cloze bench train` and `cloze bench infer`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze bench train --layers 12 --hidden 768 --heads 12 --batch 16 --seq 128 --json",
    after_long_help = "Prints the median of --steps steps after two warm-up steps. Only real tokens (without padding) and useful \
        FLOP are counted. Inference: 2·L(4h²+2hf) + 4·L·h·s FLOP per real token, with s = Σs²/Σs over the lengths in the batch. \
        Training (forward and backward): three times that, plus 6·p·(h²+hV) for the fraction p of predicted tokens (0.15), minus \
        the work of the last layer on unused outputs (all except those of predicted tokens and [CLS]). The matrix peak of the \
        machine is measured in the same run, with matrices that fit into the cache.\n\n\
        Examples:\n  cloze bench train --layers 12 --hidden 768 --heads 12 --batch 16 --seq 128 --json\n  \
        cloze bench train --layers 4 --hidden 256 --heads 4 --batch 32 --seq 128 --precision f32 --profile\n  \
        cloze bench infer --batch 8 --seq 512 --lengths uniform --threads 1"
)]
pub struct Arguments {
    #[command(flatten)]
    shape: Shape,

    /// Number of measured steps
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = crate::values::positive)]
    steps: usize,

    /// Print for each operation the time, GFLOP/s, GB/s and its bottleneck
    #[arg(long)]
    profile: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lengths {
    Full,
    Uniform,
}

/// Warm-up steps before the measurement, for page faults, caches and clock speed.
pub const WARM_UP: usize = 2;
/// The fraction of tokens predicted in training.
const PREDICTED: f64 = 0.15;

/// Measures training or inference and prints the result.
pub fn run(arguments: &Arguments, training: bool, terminal: &Terminal) -> Result<()> {
    let Arguments { shape, steps, profile, json } = arguments;
    shape.check(training)?;
    let bar = terminal.progress("bench", Some((WARM_UP + steps) as u64));
    let device = terminal.open_device()?;
    let measured = measure(shape, training, device, *steps, *profile, &mut |step, what| bar.set(step as u64, what))?;
    bar.finish();
    let mut out = crate::output::stdout();
    if *json {
        writeln!(out, "{}", measured.json(if training { "train" } else { "infer" }, shape, *steps))?;
        return Ok(());
    }
    write_figures(&mut out, &measured)?;
    write_profile(&mut out, &measured)?;
    Ok(())
}

/// The result of a measurement.
pub struct Measured {
    /// Real tokens per second of the median step.
    pub tokens_per_s: f64,
    pub gflops: f64,
    pub peak_gflops: f64,
    pub ms: f64,
    /// Description of the device with its threads.
    pub machine: String,
    pub instruction_set: &'static str,
    /// The precision, the type of the activations, and the reason for it and the instruction set.
    pub precision: Precision,
    pub dtype: DType,
    pub reason: String,
    pub threads: usize,
    pub parameters: usize,
    pub sequences: usize,
    pub tokens: usize,
    pub peak_memory: Option<u64>,
    /// Bytes of a GPU's memory that tensors used at most.
    pub device_memory: Option<u64>,
    pub profile: Vec<OperationTime>,
    /// Only measured for a profile.
    pub bandwidths: Option<Bandwidths>,
}

/// Runs the warm-up steps and `steps` measured ones. `on_step` is called before each with its number and kind.
pub fn measure(
    shape: &Shape,
    training: bool,
    device: Device,
    steps: usize,
    profile: bool,
    on_step: &mut dyn FnMut(usize, &str),
) -> Result<Measured> {
    let (precision, dtype) = (shape.precision.resolved(&device), shape.precision.activations(&device));
    if precision == Precision::Int8 && !device.multiplies_int8() {
        return Err(usage(format!(
            "--precision int8 is supported on CPUs only; use bf16 or f32 on {}",
            device.describe()
        )));
    }
    let mut subject = shape.subject(training, &device)?;
    match &mut subject {
        Subject::Model(model) if precision == Precision::Int8 => model.quantize(),
        subject if !training => subject.params_mut().cache_packed_weights(),
        _ => {}
    }
    let (inputs, mut labels) = synthetic(shape, training);
    let flops = match &subject {
        Subject::Model(model) => {
            if !model.heads.nsp {
                labels.nsp_labels.clear();
            }
            model.check(&inputs, &labels)?;
            model.useful_flops(&inputs, &labels, if training { FlopsOf::ForwardBackward } else { FlopsOf::Forward })
        }
        Subject::Pair(pair) => {
            labels.nsp_labels.clear();
            pair.useful_flops(&inputs, &labels)
        }
    };

    let mut optimizer = Optimizer::default();
    optimizer.kind = shape.optimizer;
    let (optimizer, recompute) = (optimizer.to_engine(), shape.recompute);
    let mut bench =
        Bench { subject, device, dtype, inputs, labels, recompute, optimizer, training: None, profile: None };
    if training {
        let gradients = Gradients::zeros_like(bench.subject.params());
        let moments = Moments::zeros_like(bench.subject.params());
        bench.training = Some((gradients, moments));
    }
    for step in 0..WARM_UP {
        on_step(step, "warming up");
        bench.step(step as u64 + 1);
    }
    bench.device.synchronize();
    let measure_peak = |device: &Device| match precision {
        Precision::Int8 => device.int8_peak(),
        _ => device.matrix_peak(dtype),
    };
    let peak = measure_peak(&bench.device);
    bench.profile = profile.then(Profile::default);
    let mut seconds = Vec::with_capacity(steps);
    for step in WARM_UP..WARM_UP + steps {
        on_step(step, "measuring");
        let start = Instant::now();
        bench.step(step as u64 + 1);
        bench.device.synchronize();
        seconds.push(start.elapsed().as_secs_f64());
    }
    let median = median(&mut seconds);
    // Other processes may disturb a measurement of the peak, so the larger of two is used.
    let peak = peak.max(measure_peak(&bench.device));
    // Before the bandwidth measurement, which allocates memory.
    let peak_memory = cloze_files::machine::peak_memory();
    let device_memory = bench.device.memory_use().map(|memory| memory.peak as u64);
    let bandwidths = profile.then(|| bench.device.bandwidths());
    Ok(Measured {
        tokens_per_s: bench.inputs.tokens() as f64 / median,
        gflops: flops / median / 1e9,
        peak_gflops: peak / 1e9,
        ms: median * 1e3,
        machine: bench.device.describe(),
        instruction_set: bench.device.instruction_set(),
        precision,
        dtype,
        reason: bench.device.explain(dtype),
        threads: bench.device.threads(),
        parameters: bench.subject.params().count(),
        sequences: bench.inputs.sequences(),
        tokens: bench.inputs.tokens(),
        peak_memory,
        device_memory,
        profile: bench.profile.as_ref().map(|profile| operation_times(profile, steps)).unwrap_or_default(),
        bandwidths,
    })
}

fn write_figures(out: &mut dyn Write, measured: &Measured) -> Result<()> {
    writeln!(out, "{}, {} ({})", measured.machine, measured.precision_name(), measured.reason)?;
    writeln!(
        out,
        "{} parameters, {} sequences, {} real tokens",
        format::count(measured.parameters as u64),
        measured.sequences,
        format::count(measured.tokens as u64),
    )?;
    writeln!(
        out,
        "{} real tokens/s   {:.1} useful GFLOP/s = {:.1} % of the matrix peak of {:.1}   {:.1} ms per step{}{}",
        format::count(measured.tokens_per_s as u64),
        measured.gflops,
        100.0 * measured.gflops / measured.peak_gflops,
        measured.peak_gflops,
        measured.ms,
        measured.peak_memory.map_or_else(String::new, |peak| format!("   peak memory {}", format::bytes(peak))),
        measured.device_memory.map_or_else(String::new, |peak| format!("   of the GPU {}", format::bytes(peak))),
    )?;
    Ok(())
}

fn write_profile(out: &mut dyn Write, measured: &Measured) -> Result<()> {
    let (profile, Some(bandwidths)) = (&measured.profile, &measured.bandwidths) else {
        return Ok(());
    };
    let width = profile.iter().map(|operation| operation.name.len()).max().unwrap_or(0);
    let gb = |rate: f64| format::count((rate / 1e9).round() as u64);
    let Bandwidths { l2, l3, dram } = *bandwidths;
    writeln!(out, "\nread from L2 at {} GB/s, from L3 at {}, from memory at {}", gb(l2), gb(l3), gb(dram))?;
    writeln!(
        out,
        "\n{:width$}  {:>9}  {:>7}  {:>5}  {:>7}  {:>6}  bottleneck, and its fraction of the time",
        "operation", "ms / step", "share", "calls", "GFLOP/s", "GB/s"
    )?;
    for operation in profile {
        let OperationTime { name, ms, calls, cost } = operation;
        let percent = 100.0 * ms / measured.ms;
        let rate = |work: f64| if work > 0.0 { format!("{:.0}", work / ms / 1e6) } else { "–".to_owned() };
        let bound = operation.bound(measured.peak_gflops * 1e9, bandwidths);
        let bound = bound.map_or_else(|| "–".to_owned(), |(what, part)| format!("{what} {:.0} %", 100.0 * part));
        writeln!(
            out,
            "{name:width$}  {ms:>9.2}  {percent:>5.1} %  {calls:>5}  {:>7}  {:>6}  {bound}",
            rate(cost.flops),
            rate(cost.bytes)
        )?;
    }
    Ok(())
}

/// The network and everything that a step needs.
struct Bench {
    subject: Subject,
    device: Device,
    dtype: DType,
    inputs: Inputs,
    labels: PretrainLabels,
    recompute: bool,
    optimizer: cloze_engine::Optimizer,
    training: Option<(Gradients, Moments)>,
    /// The profile, if requested.
    profile: Option<Profile>,
}

impl Bench {
    fn step(&mut self, step: u64) {
        let Some((gradients, moments)) = &mut self.training else {
            let mut pass = Pass::inference(&self.device, self.subject.params(), self.dtype);
            if let Some(profile) = &mut self.profile {
                pass = pass.profiled(profile);
            }
            let graph = match &self.subject {
                Subject::Model(model) => &***model,
                Subject::Pair(pair) => &pair.discriminator,
            };
            let _ = graph.hidden_states(&mut pass, &self.inputs, &[graph.architecture().layers]);
            return;
        };
        timed(&mut self.profile, "zero gradients", Cost::default(), || gradients.zero());
        let key = DropoutKey { seed: 0, step, micro: 0 };
        let mut pass = Pass::recording(&self.device, self.subject.params(), gradients, self.dtype, Some(key));
        pass = pass.checkpointing(self.recompute);
        if let Some(profile) = &mut self.profile {
            pass = pass.profiled(profile);
        }
        let scale = LossScale::mean(&self.labels);
        match &self.subject {
            Subject::Model(model) => drop(model.loss(&mut pass, &self.inputs, &self.labels, scale)),
            Subject::Pair(pair) => {
                let weight =
                    ReplacedTokens.terms().iter().find(|term| term.name == RTD).map_or(1.0, |term| term.weight);
                let scales = [scale.mlm, weight as f32 / self.inputs.tokens() as f32];
                drop(pair.loss(&mut pass, &self.inputs, &self.labels, scales, key));
            }
        }
        pass.backward();
        let settings = StepSettings { optimizer: self.optimizer, lr: 1e-4, step, clip_norm: Some(1.0) };
        // The norm reads the gradients (4 bytes). The update reads gradients, weights and two moments (16) and writes
        // the latter three (12). LAMB reads weights and moments again (12).
        let bytes = match self.optimizer.rule {
            UpdateRule::AdamW => 4 + 16 + 12,
            UpdateRule::Lamb => 4 + 16 + 12 + 12,
        };
        let cost = Cost::new(0, bytes * self.subject.params().count());
        timed(&mut self.profile, "optimizer", cost, || {
            optimizer_step(&self.device, self.subject.params_mut(), gradients, moments, &settings)
        });
    }
}

/// Runs `work`, and records it as a call of `name` if there is a profile.
fn timed<T>(profile: &mut Option<Profile>, name: &str, cost: Cost, work: impl FnOnce() -> T) -> T {
    match profile {
        Some(profile) => profile.time(name, cost, work),
        None => work(),
    }
}

/// Random token ids in sequences of the given lengths; in training 15 % of them are predicted.
fn synthetic(shape: &Shape, training: bool) -> (Inputs, PretrainLabels) {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    // xorshift64* (Vigna 2016), which is sufficient for a synthetic batch.
    let mut below = |bound: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ((u128::from(state.wrapping_mul(0x2545_F491_4F6C_DD1D)) * bound as u128) >> 64) as usize
    };
    let shortest = shape.seq.min(8);
    let (mut inputs, mut labels) = (Inputs::default(), PretrainLabels::default());
    for _ in 0..shape.batch {
        let length = match shape.lengths {
            Lengths::Full => shape.seq,
            Lengths::Uniform => shortest + below(shape.seq - shortest + 1),
        };
        let ids: Vec<u32> = (0..length).map(|_| below(shape.vocab) as u32).collect();
        let second = u8::from(shape.family == BERT.model_type);
        let segments: Vec<u8> = (0..length).map(|position| if position > length / 2 { second } else { 0 }).collect();
        inputs.push(&ids, &segments);
        if training {
            labels.nsp_labels.push(below(2) as i32);
        }
    }
    if training {
        let tokens = inputs.tokens();
        let predicted = ((tokens as f64 * PREDICTED).round() as usize).max(1);
        // Evenly distributed rows: exactly the fraction that the FLOP formula assumes.
        labels.mlm_rows = (0..predicted).map(|index| (index * tokens / predicted) as i32).collect();
        labels.mlm_labels = (0..predicted).map(|_| below(shape.vocab) as i32).collect();
    }
    (inputs, labels)
}

pub fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.len() / 2;
    if seconds.len().is_multiple_of(2) { (seconds[middle - 1] + seconds[middle]) / 2.0 } else { seconds[middle] }
}

impl Measured {
    /// The precision in words.
    fn precision_name(&self) -> String {
        match self.precision {
            Precision::Int8 => format!("int8 with activations in {}", self.dtype.name()),
            precision => precision.name().to_owned(),
        }
    }

    pub fn json(&self, kind: &str, shape: &Shape, steps: usize) -> Value {
        let mut line = json!({
            "bench": kind,
            "family": shape.family,
            "layers": shape.layers,
            "hidden": shape.hidden,
            "heads": shape.heads,
            "vocab": shape.vocab,
            "batch": shape.batch,
            "seq": shape.seq,
            "lengths": if shape.lengths == Lengths::Full { "full" } else { "uniform" },
            "precision": self.precision.name(),
            "activations": self.dtype.name(),
            "reason": self.reason,
            "recompute": shape.recompute,
            "optimizer": shape.optimizer.name(),
            "threads": self.threads,
            "steps": steps,
            "machine": self.machine,
            "parameters": self.parameters,
            "real_tokens_per_s": self.tokens_per_s,
            "useful_gflops": self.gflops,
            "peak_gflops": self.peak_gflops,
            "share_of_peak": self.gflops / self.peak_gflops,
            "ms": self.ms,
            "peak_rss_bytes": self.peak_memory,
        });
        if !self.profile.is_empty() {
            let by_operation: Map<String, Value> = self
                .profile
                .iter()
                .map(|operation| {
                    let OperationTime { name, ms, calls, cost } = operation;
                    (name.clone(), json!({"ms": ms, "calls": calls, "flops": cost.flops, "bytes": cost.bytes}))
                })
                .collect();
            line["profile"] = Value::Object(by_operation);
        }
        if let Some(Bandwidths { l2, l3, dram }) = self.bandwidths {
            line["bytes_per_s"] = json!({"l2": l2, "l3": l3, "dram": dram});
        }
        line
    }
}

/// The time and cost of an operation per step.
pub struct OperationTime {
    pub name: String,
    pub ms: f64,
    pub calls: u64,
    /// The minimum FLOP and bytes of all its calls in a step.
    pub cost: Cost,
}

/// Maximum bytes of a call whose data may be in L2 or L3.
const IN_L2: f64 = (1 << 20) as f64;
const IN_L3: f64 = (32 << 20) as f64;

impl OperationTime {
    /// The operation's bottleneck by the roofline model, and the time at that bound as a fraction of the measured time.
    /// The bound is computing at the matrix peak, or transferring operands and results once from the nearest memory
    /// that can hold them.
    fn bound(&self, peak: f64, bandwidths: &Bandwidths) -> Option<(&'static str, f64)> {
        let Cost { flops, bytes } = self.cost;
        let (memory, rate) = match bytes / self.calls.max(1) as f64 {
            call if call <= IN_L2 => ("L2", bandwidths.l2),
            call if call <= IN_L3 => ("L3", bandwidths.l3),
            _ => ("memory", bandwidths.dram),
        };
        let (compute, wait) = (flops / peak, bytes / rate);
        let (what, seconds) = if compute >= wait { ("compute", compute) } else { (memory, wait) };
        (seconds > 0.0 && self.ms > 0.0).then_some((what, seconds * 1e3 / self.ms))
    }
}

/// The operations sorted by time, the longest first.
fn operation_times(profile: &Profile, steps: usize) -> Vec<OperationTime> {
    let mut times: Vec<OperationTime> = profile
        .entries()
        .iter()
        .map(|entry| OperationTime {
            name: entry.name.clone(),
            ms: entry.seconds * 1e3 / steps as f64,
            calls: entry.calls / steps as u64,
            cost: Cost { flops: entry.cost.flops / steps as f64, bytes: entry.cost.bytes / steps as f64 },
        })
        .collect();
    times.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(lengths: Lengths) -> Shape {
        let (precision, optimizer) = (Precision::F32, OptimizerKind::Lamb);
        let (layers, hidden, heads, batch, seq, vocab, recompute) = (1, 32, 2, 40, 64, 100, false);
        let family = BERT.model_type.to_owned();
        Shape { layers, hidden, heads, batch, seq, lengths, precision, recompute, optimizer, family, vocab }
    }

    #[test]
    fn synthetic_batches_have_the_requested_lengths() {
        let (full, labels) = synthetic(&shape(Lengths::Full), true);
        assert_eq!((full.tokens(), full.sequences()), (40 * 64, 40));
        assert_eq!(labels.mlm_rows.len(), 384);
        let (ragged, labels) = synthetic(&shape(Lengths::Uniform), true);
        assert!(ragged.lengths().all(|length| (8..=64).contains(&length)));
        let mean = ragged.tokens() as f64 / 40.0;
        assert!((26.0..46.0).contains(&mean), "{mean}");
        assert!(labels.mlm_rows.is_sorted_by(|a, b| a < b));
        assert!(synthetic(&shape(Lengths::Full), false).1.mlm_rows.is_empty());
    }

    /// A training step and a forward pass of each family.
    #[test]
    fn every_family_is_measured() {
        for family in FAMILIES {
            let mut shape = shape(Lengths::Uniform);
            (shape.batch, shape.family) = (2, family.model_type.to_owned());
            for training in [true, false] {
                let device = Device::cpu(Some(1)).unwrap();
                let found = measure(&shape, training, device, 1, false, &mut |_, _| ()).unwrap();
                assert!(found.tokens_per_s > 0.0 && found.gflops > 0.0, "{}", family.model_type);
            }
        }
    }

    #[test]
    fn median_of_even_and_odd_counts() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
