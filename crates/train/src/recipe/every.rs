//! Intervals of a run: by steps, by fractions of the run, or by time.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::plan::RunPosition;

/// An interval. In a recipe it is a number of steps (`500`), a percentage of the run (`"10 %"`) or a time (`"5 min"`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Every {
    /// A number of steps; 0 means never.
    Steps(u64),
    /// A percentage of the run.
    Percent(f64),
    /// A number of minutes.
    Minutes(f64),
}

impl Every {
    /// Whether it never occurs.
    pub fn is_never(self) -> bool {
        self == Every::Steps(0)
    }

    /// Whether an interval ended with the step that moved the run from `before` to `after`.
    pub fn is_due(self, before: RunPosition, after: RunPosition) -> bool {
        self.count(after) > self.count(before)
    }

    /// The number of completed intervals.
    pub(crate) fn count(self, position: RunPosition) -> u64 {
        // Rounding must not move a boundary that is a whole step to the next step.
        let completed = |intervals: f64| (intervals + 1e-9) as u64;
        match self {
            Every::Steps(0) => 0,
            Every::Steps(steps) => position.step / steps,
            Every::Percent(percent) => completed(100.0 * position.progress / percent),
            Every::Minutes(minutes) => completed(position.seconds / (60.0 * minutes)),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Every::Steps(steps) => write!(f, "{steps}"),
            Every::Percent(percent) => write!(f, "{percent} %"),
            Every::Minutes(minutes) => write!(f, "{minutes} min"),
        }
    }
}

impl FromStr for Every {
    type Err = ();

    fn from_str(text: &str) -> Result<Every, ()> {
        let number = |text: &str| text.trim().parse::<f64>().map_err(|_| ());
        let text = text.trim();
        if let Some(percent) = text.strip_suffix('%') {
            return number(percent).map(Every::Percent);
        }
        match ["minutes", "minute", "min"].iter().find_map(|unit| text.strip_suffix(unit)) {
            Some(minutes) => number(minutes).map(Every::Minutes),
            None => text.parse().map(Every::Steps).map_err(|_| ()),
        }
    }
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Every::Steps(steps) => to.serialize_u64(*steps),
            other => to.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Every, D::Error> {
        struct Interval;
        impl Visitor<'_> for Interval {
            type Value = Every;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of steps (500), a percentage of the run (\"10 %\") or a time (\"5 min\")")
            }

            fn visit_u64<E: Error>(self, steps: u64) -> Result<Every, E> {
                Ok(Every::Steps(steps))
            }

            fn visit_i64<E: Error>(self, steps: i64) -> Result<Every, E> {
                u64::try_from(steps).map(Every::Steps).map_err(|_| E::invalid_value(Unexpected::Signed(steps), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Every, E> {
                text.parse().map_err(|()| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    fn recipe(length: &str) -> Recipe {
        let text = format!(
            "data = \"shards\"\n{length}\n[model]\nhidden_size = 64\nnum_hidden_layers = 2\nnum_attention_heads = 2\n\
             [[phase]]\nseq_len = 64\nbatch_sequences = 4\n"
        );
        Recipe::parse(&text, "r.toml", &[]).unwrap()
    }

    #[test]
    fn intervals_are_parsed_and_displayed() {
        for (text, every) in [
            ("500", Every::Steps(500)),
            ("10 %", Every::Percent(10.0)),
            ("0.5%", Every::Percent(0.5)),
            ("5 min", Every::Minutes(5.0)),
            ("1.5minutes", Every::Minutes(1.5)),
        ] {
            assert_eq!(text.parse(), Ok(every));
            assert_eq!(every.to_string().parse(), Ok(every));
        }
        for text in ["", "%", "ten %", "5 h", "-3", "min"] {
            assert_eq!(text.parse::<Every>(), Err(()), "{text}");
        }
    }

    #[test]
    fn percentages_end_on_whole_steps() {
        for steps in [1u64, 7, 10, 30, 49, 1000] {
            let plan = recipe(&format!("steps = {steps}")).plan();
            let due = |every: Every| -> Vec<u64> {
                (1..=steps).filter(|&s| every.is_due(plan.position(s - 1, 0.0), plan.position(s, 0.0))).collect()
            };
            let tenths: Vec<u64> = due(Every::Percent(10.0));
            let mut expected: Vec<u64> = (1..=10).map(|i| (i * steps).div_ceil(10)).collect();
            expected.dedup();
            assert_eq!(tenths, expected, "of {steps}");
            assert_eq!(due(Every::Steps(3)), (1..=steps / 3).map(|i| 3 * i).collect::<Vec<_>>());
            assert!(due(Every::Steps(0)).is_empty());
        }
    }

    #[test]
    fn with_a_time_limit_each_interval_occurs_once() {
        let plan = recipe("minutes = 3").plan();
        let every_second = |every: Every| {
            (1..=180)
                .filter(|&s| every.is_due(plan.position(s - 1, (s - 1) as f64), plan.position(s, s as f64)))
                .collect::<Vec<u64>>()
        };
        assert_eq!(every_second(Every::Percent(25.0)), [45, 90, 135, 180]);
        assert_eq!(every_second(Every::Minutes(1.0)), [60, 120, 180]);
        // A step that is longer than several intervals completes all of them.
        assert!(Every::Percent(1.0).is_due(plan.position(1, 10.0), plan.position(2, 100.0)));
    }
}
