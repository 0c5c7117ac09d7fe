//! `cloze bench scale`: measures a training step that the ranks of a job share, and the exchange between them.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use cloze_comm::Communicator;
use cloze_engine::Device;
use cloze_model::{Inputs, Model, PretrainLabels};
use cloze_train::batch::PretrainBatch;
use cloze_train::device::device_of_ranks;
use cloze_train::exchange::Wire;
use cloze_train::objective::{MaskedLm, train_step};
use cloze_train::recipe::Optimizer;
use cloze_train::step::Trainer;
use serde_json::json;

use super::measure::{Shape, WARM_UP, median};
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, ranks};

/// Numbers that are copied to measure the bandwidth of a copy: 256 MB.
const COPIED: usize = 64 << 20;

/// `cloze bench scale`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mpirun -np 4 cloze bench scale --batch 8 --micro-batches 4",
    after_long_help = "Start it with mpirun or srun. It prints medians at rank 0: of a step with all micro-batches; of the exchange of \
        gradients and weights alone; and of a step in which each rank trains alone with its micro-batches, without an exchange. The \
        communication's share is the part of the step that the last one does not need.\n\n\
        Examples:\n  mpirun -np 4 cloze bench scale --batch 8 --micro-batches 4\n  \
        mpirun -np 2 cloze bench scale --layers 4 --hidden 256 --heads 4 --json"
)]
pub struct Arguments {
    #[command(flatten)]
    shape: Shape,

    /// Micro-batches of a step, of --batch sequences each [default: one for each rank]
    #[arg(long, value_name = "M", value_parser = crate::values::items)]
    micro_batches: Option<usize>,

    /// Type of the gradients between the ranks
    #[arg(long, value_enum, default_value_t = Type::F32)]
    gradients: Type,

    /// Number of measured steps
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = crate::values::positive)]
    steps: usize,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Type {
    F32,
    Bf16,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let (shape, ranks) = (&arguments.shape, ranks::current());
    let count = arguments.micro_batches.unwrap_or(ranks.size());
    if count < ranks.size() {
        return Err(usage(format!("--micro-batches {count}: expected at least {}, one for each rank", ranks.size())));
    }
    let device = device_of_ranks(ranks, terminal.threads, || Ok::<_, anyhow::Error>(terminal.open_device()?))?;
    shape.check(true)?;
    let dtype = shape.precision.activations(&device);
    let (model, inputs, labels) = shape.bert(&device)?;
    let objective = MaskedLm::of(&model);
    let mut optimizer = Optimizer::default();
    optimizer.kind = shape.optimizer;
    let new_trainer = |model: Model, ranks: &Communicator| {
        let mut trainer = Trainer::new(model, &device, dtype, &optimizer, 0, ranks);
        trainer.recompute = shape.recompute;
        trainer.wire = if arguments.gradients == Type::Bf16 { Wire::Bf16 } else { Wire::F32 };
        trainer
    };
    let own = ranks.part(count).len();
    let batches: Vec<PretrainBatch> =
        (0..own).map(|_| PretrainBatch { inputs: inputs.clone(), labels: labels.clone() }).collect();
    let tokens = count * inputs.tokens();

    let bar = terminal.progress("bench", Some(2 * (WARM_UP + arguments.steps) as u64));
    let step = |trainer: &mut Trainer<Model>, count: usize, of: &str| {
        let mut seconds = Vec::new();
        for number in 0..WARM_UP + arguments.steps {
            bar.set(number as u64, of);
            ranks.barrier();
            let start = Instant::now();
            train_step(&objective, trainer, &batches, count, number as u64, 1e-4);
            ranks.barrier();
            if number >= WARM_UP {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        median(&mut seconds)
    };
    let mut trainer = new_trainer(model, ranks);
    let weights = trainer.network.params.count();
    let together = step(&mut trainer, count, "together");
    let memory = cloze_files::machine::peak_memory().unwrap_or_default();
    let exchange = measure_exchange(&mut trainer, ranks, arguments.steps);
    let Trainer { network, .. } = trainer;
    let alone = step(&mut new_trainer(network, &Communicator::single()), own, "alone");
    bar.finish();
    let copy = copy_bandwidth(ranks);
    let memory = ranks.all_gather_numbers(&[memory]).into_iter().max().unwrap_or_default();

    let size = ranks.size() as f64;
    // Each rank sends all but its slices of the gradient, and receives all but its slices of the weights.
    let of_gradient = if arguments.gradients == Type::Bf16 { 2.0 } else { 4.0 };
    let bytes = (of_gradient + 4.0) * weights as f64 * (size - 1.0) / size;
    let exchange_rate = if ranks.is_single() { 0.0 } else { bytes / exchange };
    let share = (1.0 - alone / together).max(0.0);
    let mut out = crate::output::stdout();
    if arguments.json {
        let line = json!({
            "bench": "scale", "ranks": ranks.size(), "threads": device.threads(), "transport": ranks.describe(), "layers": shape.layers,
            "hidden": shape.hidden, "batch": shape.batch, "seq": shape.seq, "precision": dtype.name(), "micro_batches": count,
            "gradients": if arguments.gradients == Type::Bf16 { "bf16" } else { "f32" }, "parameters": weights,
            "machine": device.describe(), "steps_per_s": 1.0 / together, "real_tokens_per_s": tokens as f64 / together,
            "ms": together * 1e3, "alone_ms": alone * 1e3, "exchange_ms": exchange * 1e3, "communication_share": share,
            "exchange_bytes_per_s": exchange_rate, "copy_bytes_per_s": copy, "peak_rss_bytes": memory,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(out, "{} ranks, each: {}, {}; {}", ranks.size(), device.describe(), dtype.name(), ranks.describe())?;
    writeln!(
        out,
        "{} parameters, {count} micro-batches of {} tokens: {:.1} ms per step, {} real tokens/s, peak memory of a rank {}",
        format::count(weights as u64),
        format::count(inputs.tokens() as u64),
        together * 1e3,
        format::count((tokens as f64 / together) as u64),
        format::bytes(memory),
    )?;
    writeln!(
        out,
        "the same micro-batches without communication {:.1} ms; the share of communication is {:.1} %",
        alone * 1e3,
        100.0 * share
    )?;
    if !ranks.is_single() {
        writeln!(
            out,
            "the exchange alone {:.1} ms: {:.2} GB/s, {:.0} % of a copy in memory ({:.2} GB/s, each rank at the same time)",
            exchange * 1e3,
            exchange_rate / 1e9,
            100.0 * exchange_rate / copy,
            copy / 1e9
        )?;
    }
    Ok(())
}

/// Seconds of the exchange of gradients and weights, without a forward and backward pass.
fn measure_exchange(trainer: &mut Trainer<Model>, ranks: &Communicator, steps: usize) -> f64 {
    let mut seconds = Vec::new();
    for _ in 0..steps {
        ranks.barrier();
        let start = Instant::now();
        trainer.exchange();
        ranks.barrier();
        seconds.push(start.elapsed().as_secs_f64());
    }
    median(&mut seconds)
}

/// Bytes per second that a rank copies, while the others copy, too: read and written bytes count once.
fn copy_bandwidth(ranks: &Communicator) -> f64 {
    let from = vec![1f32; COPIED];
    let mut to = vec![0f32; COPIED];
    let mut seconds = Vec::new();
    for _ in 0..5 {
        ranks.barrier();
        let start = Instant::now();
        black_box(&mut to).copy_from_slice(black_box(&from));
        seconds.push(start.elapsed().as_secs_f64());
    }
    size_of_val(&from[..]) as f64 / median(&mut seconds)
}

impl Shape {
    /// A BERT with random weights and the heads of its pre-training, and a micro-batch.
    fn bert(&self, device: &Device) -> Result<(Model, Inputs, PretrainLabels)> {
        let model = self.pretrained(device)?;
        let (inputs, mut labels) = self.micro_batch();
        if !model.heads.nsp {
            labels.nsp_labels.clear();
        }
        model.check(&inputs, &labels)?;
        Ok((model, inputs, labels))
    }
}
