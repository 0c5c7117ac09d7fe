//! records.csv: one measured value per line. What it contains is never measured again, so that a copy of this file can
//! replace the runs.
//!
//! If several ranks of a job share the rows, each has a file of its own, until rank 0 puts all records into one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Name of the file in the folder of an ablation.
const FILE: &str = "records.csv";
/// The start of the names of the files of other ranks.
const OF_RANK: &str = "records-rank-";

/// The measure of a row whose training diverged. Its value is the reason.
pub const FAILED: &str = "failed";
/// Measures of the pre-training, and of its evaluation on held-out text.
pub const PRETRAINING: [&str; 4] = ["parameters", "steps", "tokens", "minutes"];
pub const HELD_OUT: [&str; 5] = ["objective", "loss", "perplexity", "bits_per_character", "accuracy"];
/// The accuracy on minimal pairs.
pub const BLIMP: &str = "blimp";

/// Whether this is a measure of every row. The other measures are the headings of columns.
pub fn is_reserved(measure: &str) -> bool {
    [&PRETRAINING[..], &HELD_OUT, &[BLIMP, FAILED]].concat().contains(&measure)
}

/// A measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub study: String,
    pub row: String,
    pub seed: u64,
    /// `steps`, `loss`, …, or the heading of a column.
    pub measure: String,
    pub value: String,
    /// The fingerprint of everything that the value depends on: the recipe, the text, the task.
    pub settings: String,
    /// The device on which it was measured.
    pub machine: String,
    /// The version of Cloze.
    pub version: String,
}

/// The records of an ablation.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    all: Vec<Record>,
}

impl Records {
    /// Reads the records of all ranks in a folder; none if there is no file. New records go to the file of `rank`.
    pub fn open(folder: &Path, rank: usize) -> Result<Records> {
        let name = if rank == 0 { FILE.to_owned() } else { format!("{OF_RANK}{rank}.csv") };
        let mut records = Records { path: folder.join(name), all: Vec::new() };
        let mut all = read(&folder.join(FILE))?;
        for path in of_other_ranks(folder)? {
            all.append(&mut read(&path)?);
        }
        records.insert(all);
        Ok(records)
    }

    /// Puts the records of all ranks into the file of rank 0.
    pub fn merge(folder: &Path) -> Result<Records> {
        let records = Records::open(folder, 0)?;
        let others = of_other_ranks(folder)?;
        if !others.is_empty() {
            records.write()?;
        }
        for path in others {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(records)
    }

    /// The value of a measure of a row with a seed.
    ///
    /// # Errors
    /// It was measured with other settings.
    pub fn value(&self, key: &Key<'_>, settings: &str) -> Result<Option<&str>> {
        let Some(found) = self.all.iter().find(|record| key.is_of(record)) else { return Ok(None) };
        if found.settings != settings {
            bail!(
                "{}: {} of the row {} with seed {} was measured with other settings of the recipe, the text or the task; \
                 give the same ones, or choose another `out`",
                self.path.display(),
                key.measure,
                key.row,
                key.seed
            );
        }
        Ok(Some(&found.value))
    }

    /// The value of a measure, with any settings.
    pub fn text(&self, key: &Key<'_>) -> Option<&str> {
        self.all.iter().find(|record| key.is_of(record)).map(|record| &*record.value)
    }

    /// The seeds with a record of a row, in order.
    pub fn seeds(&self, study: &str, row: &str) -> Vec<u64> {
        let of_row = self.all.iter().filter(|record| record.study == study && record.row == row);
        let mut seeds: Vec<u64> = of_row.map(|record| record.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds
    }

    /// The records of another row that depend on the same settings, such as those of a pre-training that two rows share.
    pub fn with_settings<'r>(&'r self, settings: &'r str) -> impl Iterator<Item = &'r Record> {
        self.all.iter().filter(move |record| record.settings == settings)
    }

    /// Adds records and writes the file, if there is a new one. A record that exists is not added again.
    pub fn add(&mut self, records: impl IntoIterator<Item = Record>) -> Result<()> {
        let before = self.all.len();
        self.insert(records);
        if self.all.len() == before { Ok(()) } else { self.write() }
    }

    /// Adds those that do not exist.
    fn insert(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            let key = Key { study: &record.study, row: &record.row, seed: record.seed, measure: &record.measure };
            if !self.all.iter().any(|found| key.is_of(found)) {
                self.all.push(record);
            }
        }
    }

    fn write(&self) -> Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        self.all.iter().try_for_each(|record| writer.serialize(record))?;
        Ok(cloze_files::write(&self.path, &writer.into_inner()?)?)
    }
}

/// Reads a file; nothing if there is none.
fn read(path: &Path) -> Result<Vec<Record>> {
    let mut all = Vec::new();
    if path.is_file() {
        let mut reader = csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
        for record in reader.deserialize() {
            // The error contains the line.
            all.push(record.with_context(|| format!("{} is damaged", path.display()))?);
        }
    }
    Ok(all)
}

/// The files of the ranks other than rank 0.
fn of_other_ranks(folder: &Path) -> Result<Vec<PathBuf>> {
    let names = cloze_files::folder::entry_names(folder)?;
    let is_of_rank = |name: &&String| name.starts_with(OF_RANK) && name.ends_with(".csv");
    Ok(names.iter().filter(is_of_rank).map(|name| folder.join(name)).collect())
}

/// What a record is about.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    pub study: &'a str,
    pub row: &'a str,
    pub seed: u64,
    pub measure: &'a str,
}

impl Key<'_> {
    fn is_of(&self, record: &Record) -> bool {
        (self.measure, self.row, self.seed, self.study) == (&*record.measure, &*record.row, record.seed, &*record.study)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(row: &str, measure: &str, value: &str) -> Record {
        Record {
            study: "s".to_owned(),
            row: row.to_owned(),
            seed: 1,
            measure: measure.to_owned(),
            value: value.to_owned(),
            settings: "a1".to_owned(),
            machine: "a, b \"c\"".to_owned(),
            version: "1".to_owned(),
        }
    }

    fn read_file(folder: &Path) -> Vec<Record> {
        super::read(&folder.join(FILE)).unwrap()
    }

    #[test]
    fn records_are_read_again_and_other_settings_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = Records::open(folder.path(), 0).unwrap();
        records.add([record("x", "loss", "3.25"), record("x", FAILED, "diverged, at step 3")]).unwrap();
        records.add([record("x", "loss", "4"), record("y", "loss", "5")]).unwrap();
        let read = Records::open(folder.path(), 0).unwrap();
        assert_eq!(read.all, records.all);
        assert_eq!(read.all.len(), 3);
        let key = Key { study: "s", row: "x", seed: 1, measure: "loss" };
        assert_eq!(read.value(&key, "a1").unwrap(), Some("3.25"));
        assert_eq!(read.text(&Key { row: "y", ..key }), Some("5"));
        assert_eq!(read.value(&Key { seed: 2, ..key }, "a1").unwrap(), None);
        let error = read.value(&key, "a2").unwrap_err().to_string();
        assert!(error.contains("loss of the row x with seed 1 was measured with other settings"), "{error}");
        // Another rank has a file of its own, until all are merged.
        let mut other = Records::open(folder.path(), 1).unwrap();
        other.add([record("z", "loss", "6")]).unwrap();
        assert_eq!(Records::open(folder.path(), 0).unwrap().all.len(), 4);
        assert_eq!(read_file(folder.path()).len(), 3);
        Records::merge(folder.path()).unwrap();
        assert_eq!(read_file(folder.path()).len(), 4);
        assert!(of_other_ranks(folder.path()).unwrap().is_empty());
        std::fs::write(folder.path().join(FILE), "study,row\n1,2\n").unwrap();
        assert!(format!("{:#}", Records::open(folder.path(), 0).unwrap_err()).contains("is damaged"));
    }
}
