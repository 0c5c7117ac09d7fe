//! `cloze bench sweep`: measures how the speed changes along each axis from a base shape; writes CSV and SVG.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use cloze_engine::Device;

use super::measure::{Measured, Shape, WARM_UP, measure};
use crate::failure::check_out;
use crate::format;
use crate::run_page::Unit;
use crate::terminal::Terminal;

/// `cloze bench sweep`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze bench sweep --layers 4 --hidden 256 --heads 4 --batch 32 --seq 128 --out sweep",
    after_long_help = "Measures the given shape and variations along five axes: batch size, sequence length, width (with the head \
        size of the base), depth and threads. Writes sweep.csv with one line per measurement, and sweep.svg with tokens/s and the \
        fraction of the matrix peak along each axis.\n\nExamples:\n  cloze bench \
        sweep --layers 4 --hidden 256 --heads 4 --batch 32 --seq 128 --out sweep\n  cloze bench sweep --infer --layers 6 \
        --hidden 384 --heads 12 --batch 8 --out sweep-infer"
)]
pub struct Arguments {
    #[command(flatten)]
    shape: Shape,

    /// Measure the encoder's forward pass instead of a training step
    #[arg(long)]
    infer: bool,

    /// Number of measured steps per point
    #[arg(long, default_value_t = 3, value_name = "K", value_parser = crate::values::positive)]
    steps: usize,

    /// Output folder, which must be new or empty
    #[arg(long, default_value = "sweep", value_name = "DIR")]
    out: PathBuf,

    /// Print one JSON object for each measurement
    #[arg(long)]
    json: bool,
}

/// A property of the shape that is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Batch,
    Length,
    Width,
    Depth,
    Threads,
}

impl Axis {
    const ALL: [Axis; 5] = [Axis::Batch, Axis::Length, Axis::Width, Axis::Depth, Axis::Threads];

    fn name(self) -> &'static str {
        match self {
            Axis::Batch => "batch",
            Axis::Length => "seq",
            Axis::Width => "hidden",
            Axis::Depth => "layers",
            Axis::Threads => "threads",
        }
    }

    /// The label of the axis.
    fn title(self) -> &'static str {
        match self {
            Axis::Batch => "sequences in a batch",
            Axis::Length => "tokens in a sequence",
            Axis::Width => "hidden size",
            Axis::Depth => "layers",
            Axis::Threads => "threads",
        }
    }

    /// The value of the base shape.
    fn base_value(self, base: &Shape, threads: usize) -> usize {
        match self {
            Axis::Batch => base.batch,
            Axis::Length => base.seq,
            Axis::Width => base.hidden,
            Axis::Depth => base.layers,
            Axis::Threads => threads,
        }
    }

    /// The values to measure, including the base's, in ascending order.
    fn values(self, base: &Shape, threads: usize) -> Vec<usize> {
        let head = base.hidden / base.heads;
        let mut values: Vec<usize> = match self {
            Axis::Batch => vec![1, 2, 4, 8, 16, 32, 64],
            Axis::Length => vec![32, 64, 128, 256, 512],
            Axis::Width => [128, 256, 512, 768].map(|h: usize| h.next_multiple_of(head)).to_vec(),
            Axis::Depth => vec![1, 2, 4, 8, 12],
            Axis::Threads => (0..).map(|power| 1 << power).take_while(|&n| n < threads).collect(),
        };
        values.push(self.base_value(base, threads));
        values.sort_unstable();
        values.dedup();
        values
    }

    /// The base shape and the threads, with this axis set to `value`.
    fn shape_at(self, base: &Shape, threads: usize, value: usize) -> (Shape, usize) {
        let mut shape = base.clone();
        match self {
            Axis::Batch => shape.batch = value,
            Axis::Length => shape.seq = value,
            Axis::Width => {
                shape.heads = value / (base.hidden / base.heads);
                shape.hidden = value;
            }
            Axis::Depth => shape.layers = value,
            Axis::Threads => return (shape, value),
        }
        (shape, threads)
    }
}

/// One measurement.
struct Point {
    axis: Axis,
    value: usize,
    tokens_per_s: f64,
    share_of_peak: f64,
    /// Whether it is the base shape.
    base: bool,
}

const HEADER: &str = "axis,value,layers,hidden,heads,batch,seq,threads,real_tokens_per_s,useful_gflops,peak_gflops,ms";

fn csv_line(axis: Axis, value: usize, shape: &Shape, measured: &Measured) -> String {
    let Shape { layers, hidden, heads, batch, seq, .. } = shape;
    let Measured { threads, tokens_per_s, gflops, peak_gflops, ms, .. } = measured;
    let axis = axis.name();
    format!(
        "{axis},{value},{layers},{hidden},{heads},{batch},{seq},{threads},{tokens_per_s:.1},{gflops:.1},{peak_gflops:.1},{ms:.3}"
    )
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let Arguments { shape: base, infer, steps, out, json } = arguments;
    anyhow::ensure!(
        base.hidden.is_multiple_of(base.heads),
        "--hidden {} is not divisible by --heads {}",
        base.hidden,
        base.heads
    );
    base.check(!infer)?;
    check_out(out)?;
    let device = terminal.open_device()?;
    let all_threads = device.threads();
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let csv = out.join("sweep.csv");
    let mut table = fs::File::create(&csv).with_context(|| format!("cannot write {}", csv.display()))?;
    writeln!(table, "{HEADER}").with_context(|| format!("cannot write {}", csv.display()))?;
    let plan: Vec<(Axis, usize)> = Axis::ALL
        .into_iter()
        .flat_map(|axis| axis.values(base, all_threads).into_iter().map(move |value| (axis, value)))
        .collect();
    let bar = terminal.progress("sweep", Some((plan.len() * (WARM_UP + steps)) as u64));
    let mut points = Vec::with_capacity(plan.len());
    for (number, &(axis, value)) in plan.iter().enumerate() {
        let (shape, threads) = axis.shape_at(base, all_threads, value);
        let label = format!("{} {value}", axis.name());
        let mut on_step = |step: usize, _: &str| bar.set((number * (WARM_UP + steps) + step) as u64, &label);
        let measured = measure(&shape, !infer, Device::cpu(Some(threads))?, *steps, false, &mut on_step)?;
        let line = csv_line(axis, value, &shape, &measured);
        writeln!(table, "{line}").with_context(|| format!("cannot write {}", csv.display()))?;
        if *json {
            let mut line = measured.json(if *infer { "infer" } else { "train" }, &shape, *steps);
            line["axis"] = axis.name().into();
            line["value"] = value.into();
            writeln!(crate::output::stdout(), "{line}")?;
        }
        let share_of_peak = measured.gflops / measured.peak_gflops;
        let base = value == axis.base_value(base, all_threads);
        points.push(Point { axis, value, tokens_per_s: measured.tokens_per_s, share_of_peak, base });
    }
    bar.finish();
    let chart = out.join("sweep.svg");
    let title = format!(
        "{} of L{} H{} A{}, {} × {} tokens, {}, {all_threads} threads",
        if *infer { "Forward pass" } else { "Training step" },
        base.layers,
        base.hidden,
        base.heads,
        base.batch,
        base.seq,
        base.precision.resolved(&device).name(),
    );
    fs::write(&chart, svg(&title, &points)).with_context(|| format!("cannot write {}", chart.display()))?;
    if *json {
        return Ok(());
    }
    let mut stdout = crate::output::stdout();
    for Point { axis, value, tokens_per_s, share_of_peak, .. } in &points {
        let tokens = format::count(*tokens_per_s as u64);
        writeln!(
            stdout,
            "{:<8}{value:>6}{tokens:>12} tokens/s{:>7.1} % of the peak",
            axis.name(),
            100.0 * share_of_peak
        )?;
    }
    writeln!(stdout, "written to {} and {}", csv.display(), chart.display())?;
    Ok(())
}

const PANEL: (f64, f64) = (320.0, 220.0);
const TOP: f64 = 40.0;
/// Space in a panel for the tick labels, above the bars, and below them.
const LEFT: f64 = 48.0;
const ABOVE: f64 = 54.0;
const BELOW: f64 = 44.0;

const STYLE: &str = "text { font: 12px sans-serif; fill: #1c1f23 } .title { font-size: 16px } .soft { fill: #5a6270 } \
    .back { fill: #fff } .over { paint-order: stroke; stroke: #fff; stroke-width: 3px } .bar { fill: #7aa6d8 } .base { fill: #0b62b0 } .grid { stroke: #dde0e5 } .axis { stroke: #1c1f23 }\n\
    @media (prefers-color-scheme: dark) { text { fill: #e6e8eb } .soft { fill: #a0a9b4 } .back { fill: #15181c } \
    .over { stroke: #15181c } .bar { fill: #3d6ea6 } .base { fill: #6cb0ff } .grid { stroke: #323943 } .axis { stroke: #e6e8eb } }";

/// The chart: for each axis a panel with its own scale, with bars of tokens/s and the fraction of the peak above each
/// bar.
fn svg(title: &str, points: &[Point]) -> String {
    let (width, height) = (3.0 * PANEL.0, TOP + 2.0 * PANEL.1);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<rect class=\"back\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"14\" y=\"26\">{title}</text>\n"
    );
    let axes = Axis::ALL.into_iter().filter(|axis| points.iter().any(|point| point.axis == *axis));
    let mut corner = (0.0, TOP);
    for (number, axis) in axes.enumerate() {
        panel(axis, points, corner, &mut out);
        let next = number + 1;
        corner = ((next % 3) as f64 * PANEL.0, TOP + (next / 3) as f64 * PANEL.1);
    }
    for (line, text) in [
        ("bar", "real tokens per second (each panel has its own scale)"),
        ("base", "the base shape; each panel varies one axis"),
        ("", "%: useful FLOP/s as a fraction of the matrix peak"),
    ]
    .into_iter()
    .enumerate()
    .map(|(line, key)| (line as f64 * 22.0, key))
    {
        let (x, y) = (corner.0 + 14.0, corner.1 + 70.0 + line);
        if !text.0.is_empty() {
            let _ = write!(out, "<rect class=\"{}\" x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\"/>", text.0, y - 10.0);
        }
        let _ = writeln!(out, "<text class=\"soft\" x=\"{}\" y=\"{y}\">{}</text>", x + 18.0, text.1);
    }
    out.push_str("</svg>\n");
    out
}

fn panel(axis: Axis, points: &[Point], (x0, y0): (f64, f64), out: &mut String) {
    let panel_points: Vec<&Point> = points.iter().filter(|point| point.axis == axis).collect();
    let max = panel_points.iter().map(|point| point.tokens_per_s).fold(f64::MIN_POSITIVE, f64::max);
    let (left, right, bottom) = (x0 + LEFT, x0 + PANEL.0 - 14.0, y0 + PANEL.1 - BELOW);
    let height = |value: f64| (PANEL.1 - ABOVE - BELOW) * value / max;
    let _ = writeln!(out, "<text class=\"soft\" x=\"{}\" y=\"{}\">tokens/s</text>", x0 + 14.0, y0 + 16.0);
    for (value, text) in Unit::Plain.ticks_of(0.0, max, 4) {
        let y = bottom - height(value);
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>\
             <text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            left - 6.0,
            y + 4.0
        );
    }
    let step = (right - left) / panel_points.len().max(1) as f64;
    for (number, point) in panel_points.iter().enumerate() {
        let (x, bar_height) = (left + number as f64 * step, height(point.tokens_per_s).max(1.0));
        let (middle, top) = (x + step / 2.0, bottom - bar_height);
        let _ = writeln!(
            out,
            "<rect class=\"{}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{bar_height:.1}\"/>\
             <text class=\"over\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"over soft\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0} %</text>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            if point.base { "base" } else { "bar" },
            x + 3.0,
            step - 6.0,
            top - 17.0,
            format::short(point.tokens_per_s),
            top - 4.0,
            100.0 * point.share_of_peak,
            bottom + 15.0,
            point.value,
        );
    }
    let _ = writeln!(
        out,
        "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (left + right) / 2.0,
        bottom + 34.0,
        axis.title(),
    );
}

#[cfg(test)]
mod tests {
    use super::super::measure::Lengths;
    use super::*;
    use cloze_engine::DType;
    use cloze_tasks::inference::Precision;
    use cloze_train::recipe::OptimizerKind;

    fn base() -> Shape {
        let (lengths, precision, optimizer) = (Lengths::Full, Precision::F32, OptimizerKind::BertAdamw);
        let (layers, hidden, heads, batch, seq, vocab, recompute) = (3, 192, 4, 6, 48, 100, false);
        let family = "bert".to_owned();
        Shape { layers, hidden, heads, batch, seq, lengths, precision, recompute, optimizer, family, vocab }
    }

    #[test]
    fn every_axis_includes_the_base_and_gives_valid_models() {
        for axis in Axis::ALL {
            let values = axis.values(&base(), 6);
            assert!(values.is_sorted_by(|a, b| a < b), "{axis:?}: {values:?}");
            let shapes: Vec<(Shape, usize)> = values.iter().map(|&v| axis.shape_at(&base(), 6, v)).collect();
            assert!(
                shapes.iter().all(|(shape, _)| shape.hidden % shape.heads == 0 && shape.hidden / shape.heads == 48)
            );
            let is_base = |(shape, threads): &&(Shape, usize)| {
                let of = |s: &Shape| [s.layers, s.hidden, s.heads, s.batch, s.seq];
                of(shape) == of(&base()) && *threads == 6
            };
            assert_eq!(shapes.iter().filter(is_base).count(), 1, "{axis:?}: {values:?}");
        }
        assert_eq!(Axis::Threads.values(&base(), 6), [1, 2, 4, 6]);
        assert_eq!(Axis::Threads.values(&base(), 1), [1]);
    }

    #[test]
    fn the_chart_shows_every_point() {
        let chart = svg("Training step", &points());
        assert_eq!(chart.matches("<rect class=\"bar\"").count(), 2 + 1, "two bars and the key");
        assert_eq!(chart.matches("<rect class=\"base\"").count(), 1 + 1, "one bar and the key");
        for text in [">900<", ">20.0k<", ">25 %<", ">sequences in a batch<", ">threads<", ">tokens/s<"] {
            assert!(chart.contains(text), "{text}: {chart}");
        }
        assert!(!chart.contains("NaN") && chart.contains("prefers-color-scheme: dark"));
    }

    fn points() -> [Point; 3] {
        let point =
            |axis, value, tokens_per_s| Point { axis, value, tokens_per_s, share_of_peak: 0.25, base: value == 8 };
        [point(Axis::Batch, 1, 900.0), point(Axis::Batch, 8, 20_000.0), point(Axis::Threads, 2, 1.0)]
    }

    #[test]
    fn each_panel_has_its_own_scale() {
        let chart = svg("Training step", &points());
        let heights: Vec<f64> = chart
            .lines()
            .filter(|line| line.starts_with("<rect class=\"ba") && line.contains("text-anchor"))
            .map(|line| line.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(heights.len(), 3);
        assert_eq!(heights[1], heights[2], "the highest bar of each panel has the full height");
    }

    #[test]
    fn csv_lines_have_the_columns_of_the_header() {
        let measured = Measured {
            tokens_per_s: 1234.56,
            gflops: 7.0,
            peak_gflops: 100.0,
            ms: 3.5,
            machine: String::new(),
            instruction_set: "avx2",
            precision: Precision::F32,
            dtype: DType::F32,
            reason: String::new(),
            threads: 2,
            parameters: 1,
            sequences: 6,
            tokens: 288,
            peak_memory: None,
            device_memory: None,
            profile: Vec::new(),
            bandwidths: None,
        };
        let line = csv_line(Axis::Width, 192, &base(), &measured);
        assert_eq!(line, "hidden,192,3,192,4,6,48,2,1234.6,7.0,100.0,3.500");
        assert_eq!(line.split(',').count(), HEADER.split(',').count());
    }
}
