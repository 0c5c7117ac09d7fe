//! The measures of training and evaluation: keys, titles, units, number formats; and the horizontal axes.

use crate::format;

/// Approximate number of ticks of a vertical axis.
const TICKS: usize = 6;

/// The format of a measure's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A fraction, written in percent.
    Percent,
    /// A loss or a correlation, with three decimals.
    Score,
    /// A learning rate, written as 5e-5.
    Rate,
    /// A large count.
    Count,
    /// Any other number.
    Plain,
}

impl Unit {
    /// A value as text: "7.1 %", "5.073", "5e-5", "12,345".
    pub fn text(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "–".into(),
            Unit::Percent => percent(value),
            Unit::Score if value.abs() < 100.0 => format!("{value:.3}"),
            Unit::Rate => short_exponent(value, 3),
            Unit::Count => format::count(value.round().max(0.0) as u64),
            Unit::Score | Unit::Plain => significant(value, 4),
        }
    }

    /// A value with one more digit than [`text`](Self::text), for the values under the pointer.
    pub fn exact(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "–".into(),
            Unit::Percent => format!("{} %", significant(100.0 * value, 4)),
            Unit::Rate => short_exponent(value, 4),
            Unit::Score | Unit::Plain => significant(value, 5),
            Unit::Count => self.text(value),
        }
    }

    /// Round values from `low` to `high` with their labels.
    pub fn ticks(self, low: f64, high: f64) -> Vec<(f64, String)> {
        match self {
            Unit::Percent => {
                let ticks = ticks(100.0 * low, 100.0 * high, TICKS);
                let places = ticks.places;
                ticks.values().map(|value| (value / 100.0, format!("{value:.places$} %"))).collect()
            }
            Unit::Rate => {
                let ticks = ticks(low, high, TICKS);
                ticks.values().map(|value| (value, short_exponent(value, ticks.digits()))).collect()
            }
            _ => self.ticks_of(low, high, TICKS),
        }
    }

    /// About `count` round values from `low` to `high`, written with enough decimals to distinguish them.
    pub fn ticks_of(self, low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
        let ticks = ticks(low, high, count);
        let (places, largest) = (ticks.places, ticks.largest());
        // Use short forms only if neighbouring ticks stay different: 13,200 and 13,220 are both "13.2k".
        let is_short = ticks.step >= 0.999 * short_step(largest);
        let text = |value: f64| match value.abs() {
            size if size >= 10_000.0 && is_short => short(value),
            size if size >= 10_000.0 && places == 0 => {
                let sign = if value < 0.0 { "-" } else { "" };
                format!("{sign}{}", format::count(size.round() as u64))
            }
            size if size > 0.0 && ticks.step < 1e-3 && largest < 0.1 => short_exponent(value, ticks.digits()),
            _ => format!("{value:.places$}"),
        };
        ticks.values().map(|value| (value, text(value))).collect()
    }
}

/// A measure of training or evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// The key in metrics.jsonl.
    pub key: &'static str,
    /// The name on the page.
    pub title: &'static str,
    /// The label of the vertical axis.
    pub axis: &'static str,
    /// The format of the values.
    pub unit: Unit,
    /// Whether the values vary so much between steps that a running mean is drawn.
    pub noisy: bool,
}

const fn measure(key: &'static str, title: &'static str, axis: &'static str, unit: Unit, noisy: bool) -> Measure {
    Measure { key, title, axis, unit, noisy }
}

/// All measures in the order of the page.
pub const MEASURES: [Measure; 34] = [
    measure("mlm_loss", "MLM loss", "nats per predicted token", Unit::Score, true),
    measure("mlm_perplexity", "MLM perplexity", "e to the power of the loss", Unit::Plain, true),
    measure("mlm_bits_per_character", "MLM bits per character", "bits per character of text", Unit::Score, false),
    measure("mlm_accuracy", "MLM accuracy", "correctly predicted tokens", Unit::Percent, true),
    measure("clm_loss", "CLM loss", "nats per token", Unit::Score, true),
    measure("clm_perplexity", "CLM perplexity", "e to the power of the loss", Unit::Plain, true),
    measure("clm_bits_per_character", "CLM bits per character", "bits per character of text", Unit::Score, false),
    measure("clm_accuracy", "CLM accuracy", "correctly predicted tokens", Unit::Percent, true),
    measure("nsp_loss", "NSP loss", "nats per sequence", Unit::Score, true),
    measure("nsp_accuracy", "NSP accuracy", "correct sequences", Unit::Percent, true),
    measure("sop_loss", "SOP loss", "nats per sequence", Unit::Score, true),
    measure("sop_accuracy", "SOP accuracy", "correct sequences", Unit::Percent, true),
    measure("kl_loss", "KL loss", "nats per predicted token", Unit::Score, true),
    measure("kl_accuracy", "KL accuracy", "tokens with the teacher's prediction", Unit::Percent, true),
    measure("cosine_loss", "Cosine loss", "distance per token", Unit::Score, true),
    measure("relation_loss", "Relation loss", "nats per token", Unit::Score, true),
    measure("loss", "Loss", "mean loss", Unit::Score, true),
    measure("best_f1", "F1 at the best threshold", "F1", Unit::Percent, false),
    measure("best_exact_match", "Exact match at the best threshold", "exact answers", Unit::Percent, false),
    measure("f1", "F1", "F1", Unit::Percent, false),
    measure("exact_match", "Exact match", "exact answers", Unit::Percent, false),
    measure("precision", "Precision", "correct share of the found", Unit::Percent, false),
    measure("recall", "Recall", "found share of the correct", Unit::Percent, false),
    measure("accuracy", "Accuracy", "correct answers", Unit::Percent, false),
    measure("micro_f1", "Micro F1", "F1 over all labels of all texts", Unit::Percent, false),
    measure("macro_f1", "Macro F1", "mean F1 of the labels", Unit::Percent, false),
    measure("matthews", "Matthews correlation", "correlation", Unit::Score, false),
    measure("pearson", "Pearson correlation", "correlation", Unit::Score, false),
    measure("spearman", "Spearman correlation", "correlation", Unit::Score, false),
    measure("mean_squared_error", "Mean squared error", "squared error", Unit::Plain, false),
    measure("lr", "Learning rate", "learning rate", Unit::Rate, false),
    measure("grad_norm", "Gradient norm", "global norm before clipping", Unit::Plain, true),
    measure("tokens_per_s", "Speed", "real tokens per second", Unit::Count, true),
    measure("share_of_peak", "Share of the matrix peak", "share of the peak", Unit::Percent, true),
];

/// The end of the keys of losses in bits per character.
pub const BITS: &str = "_bits_per_character";

impl Measure {
    /// The measure with a key of metrics.jsonl.
    pub fn find(key: &str) -> Option<Measure> {
        MEASURES.into_iter().find(|measure| measure.key == key)
    }

    /// Whether lower values are better.
    pub fn is_loss(&self) -> bool {
        self.loss_name().is_some()
            || self.is_perplexity()
            || self.key.ends_with(BITS)
            || ["loss", "mean_squared_error"].contains(&self.key)
    }

    /// If this is a pre-training loss, its name, such as `mlm`.
    pub fn loss_name(&self) -> Option<&'static str> {
        self.key.strip_suffix("_loss")
    }

    /// Whether this is the perplexity of a loss.
    pub fn is_perplexity(&self) -> bool {
        self.key.ends_with("_perplexity")
    }
}

#[cfg(test)]
impl Measure {
    pub fn of(key: &str) -> Measure {
        Measure::find(key).unwrap()
    }
}

/// A horizontal axis of the charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XAxis {
    /// Optimizer steps.
    Step,
    /// Passes over the training rows.
    Epoch,
    /// Real tokens (without padding) trained on.
    Tokens,
    /// Seconds of training.
    Time,
}

impl XAxis {
    /// All axes in the order of the page's switch.
    pub const ALL: [XAxis; 4] = [XAxis::Step, XAxis::Epoch, XAxis::Tokens, XAxis::Time];

    /// The name in CSS classes and in the switch.
    pub fn key(self) -> &'static str {
        match self {
            XAxis::Step => "step",
            XAxis::Epoch => "epoch",
            XAxis::Tokens => "tokens",
            XAxis::Time => "time",
        }
    }

    /// The size of one unit of the axis in steps, epochs, tokens or seconds, and the axis label. `max` is the largest
    /// value on the axis.
    pub fn scale(self, max: f64) -> (f64, &'static str) {
        match self {
            XAxis::Step => (1.0, "step"),
            XAxis::Epoch => (1.0, "epoch"),
            XAxis::Tokens => (1.0, "tokens"),
            XAxis::Time if max < 180.0 => (1.0, "seconds"),
            XAxis::Time if max < 3.0 * 3600.0 => (60.0, "minutes"),
            XAxis::Time => (3600.0, "hours"),
        }
    }
}

/// Equally spaced round values: `first` to `last` times `step`.
struct Ticks {
    first: i64,
    last: i64,
    step: f64,
    /// Decimals that distinguish neighbouring ticks.
    places: usize,
}

impl Ticks {
    fn values(&self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|number| number as f64 * self.step)
    }

    fn largest(&self) -> f64 {
        self.values().map(f64::abs).fold(0.0, f64::max)
    }

    /// Significant digits that distinguish neighbouring ticks, at least three.
    fn digits(&self) -> usize {
        let digits = (self.largest() / self.step).max(1.0).log10().floor() as usize + 1;
        // One more, because the leading digit of the quotient may cover less than that of the value.
        (digits + 1).max(3)
    }
}

/// About `count` round values between `low` and `high`. Their distance is 1, 2 or 5 times a power of ten.
fn ticks(low: f64, high: f64, count: usize) -> Ticks {
    let min_step = ((high - low) / count as f64).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(min_step.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&step| step >= min_step).unwrap_or(power);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = ((high / step + 1e-9).floor() as i64).min(first + 20);
    let places = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    Ticks { first, last, step, places }
}

/// A fraction in percent, as on the terminal: "7.1 %"; below 1 % with two significant digits: "0.0015 %".
pub fn percent(share: f64) -> String {
    let value = 100.0 * share;
    match value.abs() {
        0.0 => "0 %".into(),
        size if size >= 0.95 => format!("{value:.1} %"),
        _ => format!("{} %", significant(value, 2)),
    }
}

/// At most `digits` significant digits. Values below 1e-5 have an exponent; values from 100,000 are written as
/// "123.5k".
pub fn significant(value: f64, digits: i32) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if size < 1e-5 {
        return short_exponent(value, digits as usize);
    }
    if size >= 1e5 {
        return short(value);
    }
    let places = (digits - 1 - size.log10().floor() as i32).clamp(0, 9) as usize;
    without_zeros(&format!("{value:.places$}"))
}

/// "5e-5", "1.25e-4", "0".
fn short_exponent(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if value.abs() >= 0.1 {
        return significant(value, digits as i32);
    }
    let text = format!("{value:.*e}", digits.saturating_sub(1));
    match text.split_once('e') {
        Some((number, exponent)) => format!("{}e{exponent}", without_zeros(number)),
        None => text,
    }
}

/// The resolution of [`short`] for values up to `largest`.
fn short_step(largest: f64) -> f64 {
    match largest {
        size if size >= 1e9 => 1e8,
        size if size >= 1e6 => 1e5,
        _ => 100.0,
    }
}

/// Like [`format::short`], without ".0": "12.5k", "20k".
fn short(value: f64) -> String {
    format::short(value).replace(".0", "")
}

fn without_zeros(text: &str) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_match_the_terminal() {
        let texts = [0.0, 0.0714, 0.631, 1.0, 1.48e-5, 0.0012].map(percent);
        assert_eq!(texts, ["0 %", "7.1 %", "63.1 %", "100.0 %", "0.0015 %", "0.12 %"]);
    }

    #[test]
    fn values_have_the_digits_of_their_unit() {
        assert_eq!([5.0731, 0.5, -0.25].map(|value| Unit::Score.text(value)), ["5.073", "0.500", "-0.250"]);
        assert_eq!([5e-5, 1.25e-4, 0.0].map(|value| Unit::Rate.text(value)), ["5e-5", "1.25e-4", "0"]);
        assert_eq!([1234.5, 123_456.0, 0.01234].map(|value| Unit::Plain.text(value)), ["1234", "123.5k", "0.01234"]);
        assert_eq!(Unit::Count.text(12_345.4), "12,345");
        assert_eq!(Unit::Score.text(f64::NAN), "–");
        assert_eq!([Unit::Percent.exact(0.071428), Unit::Score.exact(5.073149)], ["7.143 %", "5.0731"]);
    }

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let texts = |ticks: Vec<(f64, String)>| ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(texts(Unit::Score.ticks(0.0, 10.0)), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(texts(Unit::Percent.ticks(0.0, 0.08)), ["0 %", "2 %", "4 %", "6 %", "8 %"]);
        assert_eq!(texts(Unit::Percent.ticks(0.5, 0.512)), ["50.0 %", "50.5 %", "51.0 %"]);
        assert_eq!(texts(Unit::Rate.ticks(0.0, 5e-5)), ["0", "1e-5", "2e-5", "3e-5", "4e-5", "5e-5"]);
        assert_eq!(texts(Unit::Plain.ticks_of(0.0, 60_000.0, 3)), ["0", "20k", "40k", "60k"]);
        assert_eq!(texts(Unit::Count.ticks(10_000.0, 30_000.0)), ["10k", "15k", "20k", "25k", "30k"]);
        assert!(Unit::Score.ticks(7.93, 8.0).iter().all(|tick| (7.93..=8.0).contains(&tick.0)));
    }

    #[test]
    fn tick_labels_are_distinct() {
        let texts = |ticks: Vec<(f64, String)>| ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        let speeds = ["13,200", "13,220", "13,240", "13,260", "13,280", "13,300"];
        assert_eq!(texts(Unit::Count.ticks(13_200.0, 13_300.0)), speeds);
        assert_eq!(texts(Unit::Score.ticks(0.6930, 0.6934)), ["0.6930", "0.6931", "0.6932", "0.6933", "0.6934"]);
        for unit in [Unit::Percent, Unit::Score, Unit::Rate, Unit::Count, Unit::Plain] {
            for size in [1e-8, 5e-5, 0.02, 0.11, 0.9, 7.0, 130.0, 9_990.0, 13_200.0, 999_000.0, 1.3e7, 2.1e9] {
                if unit == Unit::Rate && size > 1.0 {
                    continue; // Learning rates are not that large.
                }
                for width in [1e-3, 0.01, 0.1, 1.0, 10.0] {
                    let mut found = texts(unit.ticks(size, size * (1.0 + width)));
                    assert!(found.len() > 1, "{unit:?} {size} {width}");
                    found.dedup();
                    let all = unit.ticks(size, size * (1.0 + width)).len();
                    assert_eq!(found.len(), all, "{unit:?} {size} {width}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn time_axis_uses_a_suitable_unit() {
        assert_eq!(
            [XAxis::Time.scale(100.0).1, XAxis::Time.scale(600.0).1, XAxis::Time.scale(1e6).1],
            ["seconds", "minutes", "hours"]
        );
    }
}
