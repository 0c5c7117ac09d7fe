//! `cloze bench defaults`: checks whether the default instruction set and precision are the fastest.

use std::io::Write;

use anyhow::{Result, ensure};
use cloze_engine::Device;
use cloze_tasks::inference::Precision;
use serde_json::{Value, json};

use super::measure::{Shape, WARM_UP, measure, median};
use crate::format;
use crate::terminal::Terminal;

/// `cloze bench defaults`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze bench defaults --layers 4 --hidden 256 --heads 4 --batch 32 --seq 128",
    after_long_help = "Measures a training step and a forward pass with the defaults, and with each forced instruction set and \
        precision, alternating. A ratio above 1 means that the default is faster. The ratios are medians over the rounds, with \
        minimum and maximum. Compare them with the ratio of the default to itself, which shows the noise.\n\n\
        Examples:\n  cloze bench defaults\n  \
        cloze bench defaults --layers 4 --hidden 256 --heads 4 --batch 32 --rounds 7 --json"
)]
pub struct Arguments {
    #[command(flatten)]
    shape: Shape,

    /// Number of measured steps per round
    #[arg(long, default_value_t = 3, value_name = "K", value_parser = crate::values::positive)]
    steps: usize,

    /// Number of rounds
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = crate::values::positive)]
    rounds: usize,

    /// Print one JSON object for each setting
    #[arg(long)]
    json: bool,
}

/// A forced instruction set and precision, or the default, with its measurements.
struct Setting {
    /// The instruction set and precision; `None` for the default.
    forced: Option<(&'static str, Precision)>,
    /// Real tokens per second in each round.
    rates: Vec<f64>,
    /// The instruction set and precision that were used.
    name: String,
}

impl Setting {
    fn new(forced: Option<(&'static str, Precision)>) -> Setting {
        Setting { forced, rates: Vec::new(), name: String::new() }
    }
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let Arguments { shape, steps, rounds, json } = arguments;
    ensure!(shape.precision == Precision::Auto, "--precision has no effect: every precision is measured");
    let is_unforced = Device::forced_instruction_set().is_none();
    ensure!(is_unforced, "CLOZE_CPU is set, so there is no default to measure; unset it");
    for training in [true, false] {
        if !training && shape.recompute {
            break;
        }
        let mut settings = settings();
        let label = if training { "training" } else { "inference" };
        let bar = terminal.progress(label, Some((settings.len() * rounds * (WARM_UP + steps)) as u64));
        let mut done = 0;
        for round in 0..*rounds {
            // Start each round with another setting, so that clock speed and temperature affect all settings equally.
            for number in 0..settings.len() {
                let index = (round + number) % settings.len();
                let setting = &mut settings[index];
                let (device, precision) = match setting.forced {
                    None => (Device::cpu(terminal.threads)?, Precision::Auto),
                    Some((level, precision)) => (Device::cpu_at(terminal.threads, level)?, precision),
                };
                let shape = Shape { precision, ..shape.clone() };
                let measured = measure(&shape, training, device, *steps, false, &mut |step, _| {
                    bar.set((done + step) as u64, &setting.name);
                })?;
                done += WARM_UP + steps;
                setting.name = format!("{}, {}", measured.instruction_set, measured.precision.name());
                setting.rates.push(measured.tokens_per_s);
            }
        }
        bar.finish();
        write(&settings, label, *json)?;
    }
    Ok(())
}

/// The default twice, then all combinations that can be forced, without the portable code unless it is the only one.
fn settings() -> Vec<Setting> {
    let mut settings = vec![Setting::new(None), Setting::new(None)];
    let levels = Device::instruction_sets();
    let levels = levels.iter().filter(|level| **level != "portable" || levels.len() == 1);
    settings.extend(
        levels.flat_map(|level| [Precision::F32, Precision::Bf16].map(|kind| Setting::new(Some((*level, kind))))),
    );
    settings
}

/// The ratios of the default's speed to the other's over the rounds: median, minimum, maximum.
fn ratios(default: &[f64], other: &[f64]) -> [f64; 3] {
    let mut ratios: Vec<f64> = default.iter().zip(other).map(|(default, other)| default / other).collect();
    let middle = median(&mut ratios); // which sorts them
    [middle, ratios[0], ratios[ratios.len() - 1]]
}

fn write(settings: &[Setting], label: &str, json: bool) -> Result<()> {
    let mut out = crate::output::stdout();
    let (default, others) = (&settings[0], &settings[1..]);
    if !json {
        let rate = median(&mut default.rates.clone());
        writeln!(out, "{label}: the default is {}, {} real tokens/s", default.name, format::count(rate as u64))?;
    }
    for other in others {
        let [ratio, least, most] = ratios(&default.rates, &other.rates);
        let rate = median(&mut other.rates.clone());
        let name = if other.forced.is_some() { other.name.as_str() } else { "the default again" };
        if json {
            let line: Value = json!({
                "bench": label,
                "default": default.name,
                "setting": name,
                "real_tokens_per_s": rate,
                "default_is_faster_by": {"median": ratio, "least": least, "most": most},
                "rounds": other.rates.len(),
            });
            writeln!(out, "{line}")?;
        } else {
            let rate = format::count(rate as u64);
            writeln!(out, "  {name:<20}{rate:>12} real tokens/s   ratio {ratio:.2} ({least:.2} to {most:.2})")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_compared_with_all_forced_settings() {
        let settings = settings();
        assert!(settings[0].forced.is_none() && settings[1].forced.is_none());
        let forced: Vec<_> = settings[2..].iter().filter_map(|setting| setting.forced).collect();
        let default = Device::cpu(Some(1)).unwrap();
        if std::env::var_os("CLOZE_CPU").is_none() {
            assert!(forced.contains(&(default.instruction_set(), Precision::F32)), "{forced:?}");
            assert!(forced.contains(&(default.instruction_set(), Precision::Bf16)), "{forced:?}");
        }
    }

    #[test]
    fn ratios_are_computed_within_rounds() {
        assert_eq!(ratios(&[2.0, 30.0, 4.0], &[1.0, 10.0, 4.0]), [2.0, 1.0, 3.0]);
    }
}
