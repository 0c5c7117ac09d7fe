//! Runs that are read while they are written: for the pages of `cloze serve --run`.
//!
//! Each metrics.jsonl is read once; later only what was appended is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use cloze_serve::runs::{RunMeasure, RunRecords, RunSeries, RunSource, RunStatus, RunSummary};

use super::measure::{MEASURES, Measure, Unit};
use super::model::{Kind, Record, Run};
use super::read::{FINETUNE, METRICS, run};

/// Folders are searched for new runs at most this often.
const SEARCH_INTERVAL: Duration = Duration::from_secs(2);
/// Runs are searched this many folders deep.
const DEPTH: usize = 4;
/// At most this many runs are followed.
const MOST_RUNS: usize = 1_000;
/// A run without a new record for this long is not running, unless its records are rarer than that.
const SILENCE: Duration = Duration::from_secs(60);

/// The runs of some folders.
pub struct LiveRuns {
    roots: Vec<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By name.
    runs: BTreeMap<String, Followed>,
    searched: Option<Instant>,
}

/// A run and how far its records were read.
struct Followed {
    run: Run,
    /// Bytes of metrics.jsonl that were read.
    read: u64,
    modified: SystemTime,
}

impl LiveRuns {
    /// The runs of these folders: each is a run or contains runs.
    ///
    /// # Errors
    /// A path that is not a folder.
    pub fn open(roots: &[PathBuf]) -> Result<LiveRuns> {
        for root in roots {
            if let Err(error) = fs::read_dir(root) {
                bail!("{}: {error}; expected the folder of a run, or a folder with runs", root.display());
            }
        }
        Ok(LiveRuns { roots: roots.to_vec(), state: Mutex::default() })
    }

    /// The state, up to date.
    fn update(&self) -> MutexGuard<'_, State> {
        // Whatever a panic left is read again or replaced.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.searched.is_none_or(|searched| searched.elapsed() >= SEARCH_INTERVAL) {
            let found = find(&self.roots);
            state.runs.retain(|name, followed| found.get(name) == Some(&followed.run.dir));
            for (name, dir) in found {
                state.runs.entry(name).or_insert_with_key(|name| Followed::new(name, &dir));
            }
            state.searched = Some(Instant::now());
        }
        state.runs.values_mut().for_each(Followed::update);
        state
    }
}

impl RunSource for LiveRuns {
    fn list(&self) -> Vec<RunSummary> {
        self.update().runs.values().map(Followed::summary).collect()
    }

    fn series(&self, name: &str, after: Option<u64>, points: usize) -> Option<RunSeries> {
        let state = self.update();
        let followed = state.runs.get(name)?;
        let run = &followed.run;
        // The sum of the losses of a pre-training has no unit, and is the loss itself if there is only one.
        let is_shown = |measure: &Measure| run.kind == Kind::FineTuning || measure.key != "loss";
        let has_values = |measure: &Measure| run.records().any(|record| record.value(measure.key).is_some());
        let shown = MEASURES.into_iter().filter(|measure| is_shown(measure) && has_values(measure));
        Some(RunSeries {
            summary: followed.summary(),
            measures: shown
                .map(|measure| RunMeasure {
                    key: measure.key.to_owned(),
                    title: measure.title.to_owned(),
                    axis: measure.axis.to_owned(),
                    unit: match measure.unit {
                        Unit::Percent => "percent",
                        Unit::Score => "score",
                        Unit::Rate => "rate",
                        Unit::Count => "count",
                        Unit::Plain => "plain",
                    }
                    .to_owned(),
                    noisy: measure.noisy,
                })
                .collect(),
            training: records(&run.training, after, points),
            evaluation: records(&run.evaluations, after, points),
            phases: run.phases(),
            events: run.events.clone(),
        })
    }
}

impl Followed {
    fn new(name: &str, dir: &Path) -> Followed {
        let kind = if dir.join(FINETUNE).is_file() { Kind::FineTuning } else { Kind::PreTraining };
        Followed { run: Run::new(name.to_owned(), dir, kind), read: 0, modified: SystemTime::UNIX_EPOCH }
    }

    /// Reads the lines that were appended. A file that became shorter is another one.
    fn update(&mut self) {
        let Ok(mut file) = File::open(self.run.dir.join(METRICS)) else { return };
        let Ok(about) = file.metadata() else { return };
        self.modified = about.modified().unwrap_or(self.modified);
        if about.len() == self.read {
            return;
        }
        if about.len() < self.read || self.read == 0 {
            // Settings, and which measure decides, are those of the folder; records are read below.
            let name = self.run.name.clone();
            let Ok(run) = run(&self.run.dir, name) else { return };
            self.run =
                Run { training: Vec::new(), evaluations: Vec::new(), starts: Vec::new(), events: Vec::new(), ..run };
            self.read = 0;
        }
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_end(&mut bytes)).is_err() {
            return;
        }
        // The last line may not be complete yet.
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.run.read_metrics(&String::from_utf8_lossy(&bytes[..complete]));
        self.read += complete as u64;
    }

    fn summary(&self) -> RunSummary {
        let run = &self.run;
        let last = run.training.last();
        let losses = run.losses();
        let value = |key: &str| last.and_then(|record| record.value(key));
        let score = run.evaluations.last().and_then(|record| {
            let deciding = run.deciding().or_else(|| losses.first().copied());
            let measure = deciding.filter(|measure| record.value(measure.key).is_some())?;
            Some((measure.title.to_owned(), measure.unit.text(record.value(measure.key)?)))
        });
        RunSummary {
            name: run.name.clone(),
            kind: run.kind.name().to_owned(),
            status: self.status(),
            step: run.step(),
            steps: run.start().and_then(|start| start.steps).or_else(|| run.settings.get("steps")?.parse().ok()),
            seconds: run.seconds(),
            updated: self.modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            starts: run.starts.len(),
            loss: losses.first().and_then(|measure| value(measure.key)),
            score,
            tokens_per_s: value("tokens_per_s"),
        }
    }

    fn status(&self) -> RunStatus {
        let run = &self.run;
        let is_finished = match run.kind {
            // Written at the end.
            Kind::FineTuning => run.dir.join("scores.json").is_file(),
            Kind::PreTraining => {
                let ended = run.events.iter().rev().find(|(_, message)| message.starts_with("finished after step"));
                ended.is_some_and(|(step, _)| step.is_some_and(|step| step >= run.step()))
            }
        };
        let is_interrupted = run.events.last().is_some_and(|(step, message)| {
            message.starts_with("interrupted") && step.is_none_or(|step| step >= run.step())
        });
        // Three times as long as between the last records.
        let pause = run.training.windows(2).next_back().and_then(|pair| Some(pair[1].seconds? - pair[0].seconds?));
        let pause = Duration::try_from_secs_f64(3.0 * pause.unwrap_or(0.0)).unwrap_or_default().max(SILENCE);
        match self.modified.elapsed() {
            _ if is_finished => RunStatus::Finished,
            _ if is_interrupted => RunStatus::Stopped,
            Ok(silent) if silent > pause => RunStatus::Stopped,
            _ => RunStatus::Running,
        }
    }
}

/// Records as columns: from a step on, or evenly spaced ones of all, the last one included.
fn records(all: &[Record], after: Option<u64>, points: usize) -> RunRecords {
    let stride = if after.is_some() { 1 } else { all.len().div_ceil(points.max(1)).max(1) };
    let first = after.unwrap_or(0);
    let is_chosen =
        |(at, record): &(usize, &Record)| record.step >= first && (all.len() - 1 - at).is_multiple_of(stride);
    let chosen: Vec<&Record> = all.iter().enumerate().filter(is_chosen).map(|(_, record)| record).collect();
    let known = MEASURES.into_iter().filter(|measure| chosen.iter().any(|record| record.value(measure.key).is_some()));
    RunRecords {
        step: chosen.iter().map(|record| record.step).collect(),
        epoch: chosen.iter().map(|record| record.epoch).collect(),
        tokens: chosen.iter().map(|record| record.tokens).collect(),
        seconds: chosen.iter().map(|record| record.seconds).collect(),
        values: known
            .map(|measure| (measure.key.to_owned(), chosen.iter().map(|record| record.value(measure.key)).collect()))
            .collect(),
    }
}

/// The runs of these folders by name: a run's path below the folder, after the folder's own name if there are several folders. A folder
/// that is a run itself has its own name.
fn find(roots: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for root in roots {
        let full = fs::canonicalize(root).unwrap_or_else(|_| root.clone());
        let own = full.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned());
        if root.join(METRICS).is_file() {
            add(&mut found, own, root);
        } else {
            let prefix = if roots.len() > 1 { format!("{own}/") } else { String::new() };
            search(root, &prefix, DEPTH, &mut found);
        }
    }
    found
}

fn search(dir: &Path, prefix: &str, depth: usize, found: &mut BTreeMap<String, PathBuf>) {
    let mut below: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    below.sort_by_key(fs::DirEntry::file_name);
    for entry in below {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // Links are not followed: `best` of a run links to a checkpoint.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_dir || name.starts_with('.') || found.len() >= MOST_RUNS {
            continue;
        }
        if path.join(METRICS).is_file() {
            add(found, format!("{prefix}{name}"), &path);
        } else if depth > 1 {
            search(&path, &format!("{prefix}{name}/"), depth - 1, found);
        }
    }
}

/// Adds a run; a number follows a name that is used.
fn add(found: &mut BTreeMap<String, PathBuf>, name: String, dir: &Path) {
    let mut names = std::iter::once(name.clone()).chain((2..).map(|number| format!("{name} ({number})")));
    if let Some(free) = names.find(|name| !found.contains_key(name)) {
        found.insert(free, dir.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(step: u64) -> String {
        format!(
            "{{\"kind\":\"train\",\"step\":{step},\"tokens\":{},\"seconds\":{step},\"mlm_loss\":{},\"lr\":0.5}}\n",
            10 * step,
            9.0 - step as f64 / 10.0
        )
    }

    fn append(dir: &Path, text: &str) {
        fs::create_dir_all(dir).unwrap();
        let mut file = File::options().create(true).append(true).open(dir.join(METRICS)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn open(root: &Path) -> LiveRuns {
        LiveRuns::open(&[root.to_owned()]).unwrap()
    }

    #[test]
    fn appended_records_are_seen_and_resumed_steps_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a").join("mini");
        append(&dir, "{\"kind\":\"start\",\"step\":0,\"steps\":40}\n");
        append(&dir, &line(10));
        // A line that is not complete yet.
        append(&dir, &line(20)[..30]);
        let runs = open(folder.path());
        let summary = &runs.list()[0];
        assert_eq!(
            (summary.name.as_str(), summary.step, summary.steps, summary.loss),
            ("a/mini", 10, Some(40), Some(8.0))
        );
        assert_eq!((summary.status, summary.kind.as_str()), (RunStatus::Running, "pre-training"));
        append(&dir, &line(20)[30..]);
        append(&dir, "{\"kind\":\"eval\",\"step\":20,\"mlm_loss\":7.5,\"mlm_accuracy\":0.25}\n");
        let series = runs.series("a/mini", Some(20), 100).unwrap();
        assert_eq!((series.training.step, series.training.tokens), (vec![20], vec![Some(200)]));
        assert_eq!(series.evaluation.values["mlm_accuracy"], [Some(0.25)]);
        assert_eq!(series.summary.score, Some(("MLM loss".to_owned(), "7.500".to_owned())));
        let keys: Vec<&str> = series.measures.iter().map(|measure| measure.key.as_str()).collect();
        assert_eq!(keys, ["mlm_loss", "mlm_accuracy", "lr"]);

        // Resumed from step 10.
        append(&dir, &format!("{{\"kind\":\"start\",\"step\":10}}\n{}{}", line(15), line(25)));
        let series = runs.series("a/mini", None, 100).unwrap();
        assert_eq!((series.training.step, series.summary.starts), (vec![10, 15, 25], 2));
        append(&dir, "{\"kind\":\"event\",\"step\":25,\"message\":\"finished after step 25\"}\n");
        assert_eq!(runs.list()[0].status, RunStatus::Finished);
        append(
            &dir,
            &format!("{}{{\"kind\":\"event\",\"step\":30,\"message\":\"interrupted after step 30\"}}\n", line(30)),
        );
        assert_eq!(runs.list()[0].status, RunStatus::Stopped);

        // Started anew in the same folder.
        fs::write(dir.join(METRICS), line(5)).unwrap();
        assert_eq!(runs.series("a/mini", None, 100).unwrap().training.step, [5]);
        assert!(runs.series("mini", None, 100).is_none());
    }

    #[test]
    fn long_runs_are_thinned_to_evenly_spaced_records() {
        let folder = tempfile::tempdir().unwrap();
        append(&folder.path().join("long"), &(1..=95).map(line).collect::<String>());
        let runs = open(folder.path());
        let steps = runs.series("long", None, 10).unwrap().training.step;
        assert_eq!(steps, [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]);
        assert_eq!(runs.series("long", None, 95).unwrap().training.step.len(), 95);
        assert_eq!(runs.series("long", Some(90), 2).unwrap().training.step, [90, 91, 92, 93, 94, 95]);
    }

    #[test]
    fn runs_have_the_names_of_their_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["one", "many/x", "many/y/z", "other/x"] {
            append(&path(name), &line(1));
        }
        // Nothing below a run is one.
        append(&path("one").join("checkpoints").join("step-1"), &line(1));
        let names = |roots: &[&str]| -> Vec<String> {
            let roots: Vec<PathBuf> = roots.iter().map(|root| path(root)).collect();
            LiveRuns::open(&roots).unwrap().list().into_iter().map(|run| run.name).collect()
        };
        assert_eq!(names(&["one"]), ["one"]);
        assert_eq!(names(&["many"]), ["x", "y/z"]);
        assert_eq!(names(&["many", "other", "one"]), ["many/x", "many/y/z", "one", "other/x"]);
        assert_eq!(names(&["one", "one"]), ["one", "one (2)"]);
        assert_eq!(names(&[""]), ["many/x", "many/y/z", "one", "other/x"]);
        let error = LiveRuns::open(&[path("none")]).err().unwrap().to_string();
        assert!(
            error.contains("none: ") && error.ends_with("expected the folder of a run, or a folder with runs"),
            "{error}"
        );
    }
}
