//! The results of an ablation: means and standard deviations over seeds beside the published figures.

use std::fmt::Write;

use cloze_tasks::metrics::mean_std::{MeanStd, mean_std};
use serde_json::{Value, json};

use super::records::{BLIMP, FAILED, Key, Records};
use super::study::{Row, Study};

/// Shown for a missing value.
const MISSING: &str = "–";

/// A column of the results.
#[derive(Debug, Clone, PartialEq)]
pub struct Heading {
    /// The measure in the records.
    measure: String,
    pub title: String,
    /// The task, whose name can be the key of a published figure.
    task: Option<String>,
    /// The factor between a record and what is shown.
    factor: f64,
    pub decimals: usize,
    /// Whether it is a result, and not a property of the run.
    pub is_result: bool,
}

/// A value of the results.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    pub ours: Option<MeanStd>,
    pub published: Option<f64>,
    /// Seeds of which there is a record without a value: their training diverged.
    pub diverged: usize,
}

/// The results of an ablation.
#[derive(Debug)]
pub struct Results {
    pub study: Study,
    pub headings: Vec<Heading>,
    /// A cell for each heading, for each row of the study.
    pub rows: Vec<Vec<Cell>>,
    /// The objective of each row's held-out loss: `mlm`, `clm`.
    objectives: Vec<Option<String>>,
    seeds: Vec<usize>,
}

impl Results {
    /// The results in the records, with a column for each measure of which there is a value or a published figure.
    pub fn new(study: &Study, records: &Records) -> Results {
        let heading = |measure: &str, title: &str, factor: f64, decimals: usize, is_result: bool| Heading {
            measure: measure.to_owned(),
            title: title.to_owned(),
            task: None,
            factor,
            decimals,
            is_result,
        };
        let mut headings = vec![
            heading("parameters", "M parameters", 1e-6, 1, false),
            heading("tokens", "M tokens", 1e-6, 1, false),
            heading("minutes", "minutes", 1.0, 1, false),
            heading("loss", "held-out loss", 1.0, 3, true),
            heading("perplexity", "perplexity", 1.0, 2, true),
            heading("bits_per_character", "bits per character", 1.0, 3, true),
            heading(BLIMP, "BLiMP", 100.0, 1, true),
        ];
        headings.extend(study.columns.iter().map(|column| Heading {
            task: Some(column.task.clone()),
            ..heading(&column.name, &column.name, 100.0, 1, true)
        }));
        let cells = |row: &Row| headings.iter().map(|heading| cell(study, row, heading, records)).collect();
        let mut rows: Vec<Vec<Cell>> = study.rows.iter().map(cells).collect();
        // Leave out what has not been measured, except for the columns of the study.
        let is_shown: Vec<bool> = (0..headings.len())
            .map(|column| headings[column].task.is_some() || rows.iter().any(|cells| cells[column].has_value()))
            .collect();
        let shown = |column: &usize| is_shown[*column];
        headings = (0..headings.len()).filter(shown).map(|column| headings[column].clone()).collect();
        for cells in &mut rows {
            *cells = (0..cells.len()).filter(shown).map(|column| cells[column].clone()).collect();
        }
        let seeds_of = |row: &Row| records.seeds(&study.name, &row.name);
        let objective = |row: &Row| {
            let seed = *seeds_of(row).first()?;
            let key = Key { study: &study.name, row: &row.name, seed, measure: "objective" };
            records.text(&key).map(str::to_owned)
        };
        let objectives = study.rows.iter().map(objective).collect();
        let seeds = study.rows.iter().map(|row| seeds_of(row).len()).collect();
        Results { study: study.clone(), headings, rows, objectives, seeds }
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.study.title);
        let _ = write!(
            text,
            "`cloze ablate {}`: mean ± standard deviation over the seeds. Held-out text is masked at 15 %; `clm` are causal models, \
             which predict every token from those before it. Scores are those of the best model on the dev rows, in percent.",
            self.study.name
        );
        if let Some(source) = &self.study.source {
            let _ = write!(text, " In parentheses: {source}.");
        }
        text += "\n\n| row | seeds |";
        self.headings.iter().for_each(|heading| text += &format!(" {} |", heading.title));
        text += "\n| --- | ---: |";
        self.headings.iter().for_each(|_| text += " ---: |");
        text.push('\n');
        for (number, (row, cells)) in self.study.rows.iter().zip(&self.rows).enumerate() {
            let _ = write!(text, "| {} | {} |", row.title, self.seeds[number]);
            for (heading, cell) in self.headings.iter().zip(cells) {
                let mut shown = cell.text(heading);
                let objective = self.objectives[number].as_deref().filter(|objective| *objective != "mlm");
                if let Some(objective) = objective.filter(|_| heading.measure == "loss") {
                    shown += &format!(" {objective}");
                }
                let _ = write!(text, " {shown} |");
            }
            text.push('\n');
        }
        text
    }

    /// The results as JSON: an object for each row.
    pub fn to_json(&self) -> Value {
        let row = |(row, cells): (&Row, &Vec<Cell>)| {
            let cell = |(heading, cell): (&Heading, &Cell)| {
                let value = json!({"ours": cell.ours, "published": cell.published, "diverged": cell.diverged});
                (heading.title.clone(), value)
            };
            let columns: serde_json::Map<String, Value> = self.headings.iter().zip(cells).map(cell).collect();
            json!({"row": row.name, "title": row.title, "columns": columns})
        };
        self.study.rows.iter().zip(&self.rows).map(row).collect()
    }
}

fn cell(study: &Study, row: &Row, heading: &Heading, records: &Records) -> Cell {
    let seeds = records.seeds(&study.name, &row.name);
    let of_seed = |measure, seed| records.text(&Key { study: &study.name, row: &row.name, seed, measure });
    let texts: Vec<&str> = seeds.iter().filter_map(|seed| of_seed(&*heading.measure, *seed)).collect();
    let values: Vec<f64> =
        texts.iter().filter_map(|text| text.parse().ok()).map(|value: f64| value * heading.factor).collect();
    let has_no_value = |seed: &&u64| match of_seed(&*heading.measure, **seed) {
        // A causal language model has no value of some measures: an empty text.
        Some(text) => !text.is_empty() && text.parse::<f64>().is_err(),
        None => of_seed(FAILED, **seed).is_some(),
    };
    let published = row.published.get(&heading.title);
    let published = published.or_else(|| heading.task.as_ref().and_then(|task| row.published.get(task)));
    Cell { ours: mean_std(&values), published: published.copied(), diverged: seeds.iter().filter(has_no_value).count() }
}

impl Cell {
    fn has_value(&self) -> bool {
        self.ours.is_some() || self.published.is_some()
    }

    /// "84.1 ± 0.3 (84.4)".
    fn text(&self, heading: &Heading) -> String {
        let decimals = heading.decimals;
        let mut parts = Vec::new();
        match &self.ours {
            Some(MeanStd { mean, deviation: Some(deviation), .. }) if heading.is_result => {
                parts.push(format!("{mean:.decimals$} ± {deviation:.decimals$}"));
            }
            Some(MeanStd { mean, .. }) => parts.push(format!("{mean:.decimals$}")),
            None if self.diverged > 0 => {}
            None => parts.push(MISSING.to_owned()),
        }
        match self.diverged {
            0 => {}
            1 => parts.push("diverged".to_owned()),
            several => parts.push(format!("{several} diverged")),
        }
        parts.extend(self.published.map(|value| format!("({value})")));
        parts.join(" ")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::super::records::Record;
    use super::*;

    pub fn results() -> Results {
        let study = Study::open(Path::new("paper-table-5"), "mini").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut records = Records::open(folder.path(), 0).unwrap();
        let record = |row: &str, seed, measure: &str, value: &str| Record {
            study: study.name.clone(),
            row: row.to_owned(),
            seed,
            measure: measure.to_owned(),
            value: value.to_owned(),
            settings: String::new(),
            machine: String::new(),
            version: String::new(),
        };
        let values = [
            record("bert", 0, "SST-2", "0.8"),
            record("bert", 1, "SST-2", "0.82"),
            record("bert", 0, "MRPC", "not finite at step 3"),
            record("bert", 1, "MRPC", "0.7"),
            record("bert", 0, "tokens", "18500000"),
            record("ltr", 0, "objective", "clm"),
            record("ltr", 0, "loss", "4.5"),
            record("ltr", 0, "perplexity", ""),
            record("no-nsp", 0, FAILED, "step 30: …"),
        ];
        records.add(values).unwrap();
        Results::new(&study, &records)
    }

    #[test]
    fn tables_have_means_deviations_and_published_figures() {
        let text = results().markdown();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            lines,
            [
                "| row | seeds | M tokens | held-out loss | MNLI-m | QNLI | MRPC | SST-2 | SQuAD |",
                "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
                "| BERT (masked LM, next sentence) | 2 | 18.5 | – | – (84.4) | – (88.4) | 70.0 diverged (86.7) | 81.0 ± 1.4 (92.7) | – (88.5) |",
                "| No NSP | 1 | diverged | diverged | diverged (83.9) | diverged (84.9) | diverged (86.5) | diverged (92.6) | diverged (87.9) |",
                "| LTR & No NSP | 1 | – | 4.500 clm | – (82.1) | – (84.3) | – (77.5) | – (92.1) | – (77.8) |",
                "| LTR & No NSP + BiLSTM | 0 | – | – | – (82.1) | – (84.1) | – (75.7) | – (91.6) | – (84.9) |",
            ]
        );
        assert_eq!(results().to_json()[0]["columns"]["SST-2"]["published"], 92.7);
    }
}
