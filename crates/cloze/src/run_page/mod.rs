//! The page of a training run: one HTML file with its curves drawn as inline SVG, its recipe, its corpus report.
//!
//! It loads nothing from anywhere, follows the reader's light or dark preference, prints, and is readable with
//! scripts off; with them on, pointing at a curve shows its values.

mod chart;

use std::fmt::Write;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::format;
use chart::{Chart, Series};

/// What is known about a run.
#[derive(Debug, Default)]
pub struct Run {
    /// The run's folder name.
    pub name: String,
    /// `kind = "train"` records by rising step.
    pub train: Vec<Value>,
    /// `kind = "eval"` records by rising step.
    pub evaluations: Vec<Value>,
    /// `kind = "start"` records: one for each start or resumption.
    pub starts: Vec<Value>,
    /// Messages of `kind = "event"` records with their steps, if known.
    pub events: Vec<(Option<u64>, String)>,
    /// Lines that could not be read (the last one is cut when a run was killed).
    pub unreadable: usize,
    /// The text of recipe.toml.
    pub recipe: Option<String>,
    /// The corpus report of the shards' manifest.
    pub corpus: Option<Value>,
}

impl Run {
    /// Reads the lines of metrics.jsonl. Steps that a resumed run did again replace the earlier ones.
    ///
    /// # Errors
    /// When no line holds a training record.
    pub fn read_metrics(&mut self, text: &str) -> Result<()> {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let Ok(record) = serde_json::from_str::<Value>(line) else {
                self.unreadable += 1;
                continue;
            };
            match record["kind"].as_str() {
                Some("train") => push_by_step(&mut self.train, record),
                Some("eval") => push_by_step(&mut self.evaluations, record),
                Some("start") => self.starts.push(record),
                Some("event") => {
                    let message = record["message"].as_str().unwrap_or_default().to_string();
                    self.events.push((record["step"].as_u64(), message));
                }
                _ => self.unreadable += 1,
            }
        }
        if self.train.is_empty() {
            bail!("metrics.jsonl holds no training step yet ({} lines)", text.lines().count());
        }
        Ok(())
    }

    /// The page.
    pub fn html(&self) -> String {
        let mut body = String::new();
        let _ = writeln!(body, "<h1>{}</h1>", escape(&self.name));
        self.write_summary(&mut body);
        self.write_charts(&mut body);
        self.write_evaluations(&mut body);
        self.write_events(&mut body);
        if let Some(recipe) = &self.recipe {
            let _ = writeln!(body, "<h2>Recipe</h2>\n<pre>{}</pre>", escape(recipe.trim_end()));
        }
        if let Some(corpus) = &self.corpus {
            let _ = writeln!(body, "<h2>Corpus</h2>\n{}", table(corpus));
        }
        if let Some(start) = self.starts.last() {
            let _ = writeln!(body, "<h2>Machine and run</h2>\n{}", table(start));
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{} · cloze</title>\n<style>\n{}</style>\n</head>\n<body>\n{body}\
             <footer>made by cloze {}</footer>\n<script>\n{}</script>\n</body>\n</html>\n",
            escape(&self.name),
            include_str!("page.css"),
            env!("CARGO_PKG_VERSION"),
            include_str!("page.js"),
        )
    }

    fn write_summary(&self, body: &mut String) {
        let Some(last) = self.train.last() else { return };
        let mut tiles: Vec<(&str, String)> = vec![
            ("steps", format::count(last["step"].as_u64().unwrap_or(0))),
            ("tokens", format::short(last["tokens"].as_f64().unwrap_or(0.0))),
            ("time", format::duration(last["seconds"].as_f64().unwrap_or(0.0))),
        ];
        if let Some(value) = last["tokens_per_s"].as_f64() {
            tiles.push(("tokens/s", format::short(value)));
        }
        if let Some(evaluation) = self.evaluations.last() {
            for (label, key) in [
                ("held-out MLM loss", "mlm_loss"),
                ("held-out MLM accuracy", "mlm_accuracy"),
                ("held-out NSP accuracy", "nsp_accuracy"),
            ] {
                if let Some(value) = evaluation[key].as_f64() {
                    tiles.push((label, chart::number(value)));
                }
            }
        }
        body.push_str("<div class=\"tiles\">\n");
        for (label, value) in tiles {
            let _ = writeln!(body, "<div><b>{}</b><span>{label}</span></div>", escape(&value));
        }
        body.push_str("</div>\n");
    }

    fn write_charts(&self, body: &mut String) {
        let phases = self.phase_starts();
        body.push_str("<div class=\"charts\">\n");
        for (title, key, held_out, smooth) in [
            ("MLM loss", "mlm_loss", true, true),
            ("MLM accuracy", "mlm_accuracy", true, true),
            ("NSP loss", "nsp_loss", true, true),
            ("NSP accuracy", "nsp_accuracy", true, true),
            ("learning rate", "lr", false, false),
            ("gradient norm", "grad_norm", false, true),
            ("tokens per second", "tokens_per_s", false, true),
            ("share of the machine's matrix peak", "share_of_peak", false, true),
        ] {
            let train = points(&self.train, key);
            let held = if held_out { points(&self.evaluations, key) } else { Vec::new() };
            if train.is_empty() && held.is_empty() {
                continue;
            }
            let mut series = Vec::new();
            if smooth && train.len() > 20 {
                series.push(Series { name: "step", class: "raw", points: train.clone(), dots: false });
                let smoothed = chart::smooth(&train, (train.len() / 50).clamp(3, 200));
                series.push(Series { name: "mean", class: "line", points: smoothed, dots: false });
            } else {
                series.push(Series { name: "train", class: "line", points: train, dots: false });
            }
            if !held.is_empty() {
                series.push(Series { name: "held-out", class: "held", points: held, dots: true });
            }
            body.push_str(&Chart { title, series, marks: &phases }.svg());
        }
        body.push_str("</div>\n");
    }

    /// The first steps of the second and later phases.
    fn phase_starts(&self) -> Vec<f64> {
        self.train
            .windows(2)
            .filter(|pair| pair[0]["phase"] != pair[1]["phase"])
            .filter_map(|pair| pair[1]["step"].as_f64())
            .collect()
    }

    fn write_evaluations(&self, body: &mut String) {
        if self.evaluations.is_empty() {
            return;
        }
        let keys = ["step", "seconds", "mlm_loss", "mlm_perplexity", "mlm_accuracy", "nsp_loss", "nsp_accuracy"];
        let heads = ["step", "time", "MLM loss", "MLM perplexity", "MLM accuracy", "NSP loss", "NSP accuracy"];
        body.push_str("<h2>Held-out documents</h2>\n<div class=\"wide\"><table>\n<tr>");
        for head in heads {
            let _ = write!(body, "<th>{head}</th>");
        }
        body.push_str("</tr>\n");
        for evaluation in &self.evaluations {
            body.push_str("<tr>");
            for key in keys {
                let text = match (key, evaluation[key].as_f64()) {
                    (_, None) => "–".to_string(),
                    ("step", Some(value)) => format::count(value as u64),
                    ("seconds", Some(value)) => format::duration(value),
                    (_, Some(value)) => chart::number(value),
                };
                let _ = write!(body, "<td class=\"n\">{text}</td>");
            }
            body.push_str("</tr>\n");
        }
        body.push_str("</table></div>\n");
    }

    fn write_events(&self, body: &mut String) {
        if self.events.is_empty() && self.unreadable == 0 && self.starts.len() < 2 {
            return;
        }
        body.push_str("<h2>Events</h2>\n<ul>\n");
        if self.starts.len() > 1 {
            let _ = writeln!(body, "<li>started {} times (resumed {})</li>", self.starts.len(), self.starts.len() - 1);
        }
        if self.unreadable > 0 {
            let _ = writeln!(body, "<li>{} unreadable lines in metrics.jsonl</li>", self.unreadable);
        }
        for (step, message) in &self.events {
            let at = step.map_or_else(String::new, |step| format!("step {}: ", format::count(step)));
            let _ = writeln!(body, "<li>{at}{}</li>", escape(message));
        }
        body.push_str("</ul>\n");
    }
}

/// Appends a record, after dropping those at its step or later: a resumed run has done them again.
fn push_by_step(records: &mut Vec<Value>, record: Value) {
    let step = record["step"].as_u64();
    while records.last().is_some_and(|last| last["step"].as_u64() >= step) {
        records.pop();
    }
    records.push(record);
}

fn points(records: &[Value], key: &str) -> Vec<(f64, f64)> {
    records
        .iter()
        .filter_map(|record| Some((record["step"].as_f64()?, record[key].as_f64()?)))
        .filter(|(_, value)| value.is_finite())
        .collect()
}

/// A JSON object as a two-column table; nested objects as tables within.
fn table(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut out = String::from("<table>\n");
            for (key, value) in fields {
                if key == "kind" || value.is_null() {
                    continue;
                }
                let _ = writeln!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(&key.replace('_', " ")), table(value));
            }
            out + "</table>"
        }
        Value::Array(items) if items.iter().any(Value::is_object) => items.iter().map(table).collect(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(table).collect();
            items.join("<br>")
        }
        Value::String(text) => escape(text),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => format::count(whole),
            (None, Some(value)) => chart::number(value),
            (None, None) => number.to_string(),
        },
        other => escape(&other.to_string()),
    }
}

/// Makes `text` safe between tags and inside quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: u64) -> Run {
        let mut lines = String::from("{\"kind\":\"start\",\"device\":\"2 threads <cpu>\"}\n");
        for step in 1..=steps {
            let loss = 8.0 - step as f64 / steps as f64;
            lines += &format!(
                "{{\"kind\":\"train\",\"step\":{step},\"tokens\":{},\"seconds\":{step},\"mlm_loss\":{loss},\
                 \"mlm_accuracy\":0.1,\"nsp_loss\":null,\"nsp_accuracy\":null,\"loss\":{loss},\"lr\":1e-4,\
                 \"grad_norm\":1.0,\"tokens_per_s\":100.0,\"share_of_peak\":0.5,\"phase\":{}}}\n",
                step * 100,
                u64::from(step > steps / 2),
            );
        }
        lines += "{\"kind\":\"eval\",\"step\":5,\"seconds\":5,\"mlm_loss\":7.5,\"mlm_perplexity\":1808,\
                  \"mlm_accuracy\":0.12,\"nsp_loss\":null,\"nsp_accuracy\":null}\n";
        lines += "{\"kind\":\"event\",\"step\":3,\"message\":\"skipped <a step>\"}\n{\"kind\":\"tr";
        let mut run = Run { name: "mini & co".into(), ..Run::default() };
        run.read_metrics(&lines).unwrap();
        run
    }

    #[test]
    fn page_is_self_contained_and_escaped() {
        let mut run = run(100);
        run.recipe = Some("a = \"<b>\"".into());
        run.corpus = Some(serde_json::json!({"documents": 1234567, "warnings": ["one", "two"]}));
        let html = run.html();
        assert!(html.starts_with("<!doctype html>"));
        for outside in ["http:", "https:", "src=", "url(", "@import"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.contains("mini &amp; co") && html.contains("skipped &lt;a step&gt;"));
        assert!(html.contains("a = &quot;&lt;b&gt;&quot;") && html.contains("1,234,567"));
        assert!(html.contains("2 threads &lt;cpu&gt;") && html.contains("1 unreadable lines"));
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(html.contains("MLM loss") && !html.contains("NSP loss</h3>"), "no chart without values");
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn one_step_is_enough_and_none_is_an_error() {
        assert!(run(1).html().contains("<svg"));
        assert!(Run::default().read_metrics("{\"kind\":\"start\"}").is_err());
    }

    #[test]
    fn resumed_steps_replace_earlier_ones() {
        let mut records = Vec::new();
        for (step, loss) in [(1, 9.0), (2, 8.0), (3, 7.0), (2, 8.5)] {
            push_by_step(&mut records, serde_json::json!({"step": step, "mlm_loss": loss}));
        }
        assert_eq!(points(&records, "mlm_loss"), [(1.0, 9.0), (2.0, 8.5)]);
    }
}
