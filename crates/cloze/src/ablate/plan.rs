//! From a study, a budget, shards and tasks to the runs of an ablation.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cloze_engine::DeviceChoice;
use cloze_text::Tokenizer;
use cloze_train::Recipe;
use cloze_train::pretrain::{TextOfRun, text_of_run};
use cloze_train::recipe::{CheckpointSection, Eval, Log, ObjectiveKind, Precision};
use toml::{Table, Value};

use super::records::is_reserved;
use super::study::{Column, Row, Study};

/// How long each row is pre-trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    Minutes(f64),
    Tokens(u64),
    /// As the recipe says.
    Recipe,
}

/// The labelled data of a task: `NAME=DIR` for a known data set, or a recipe of `cloze finetune`.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSource {
    pub name: String,
    /// Options of `cloze finetune`, and `kind`.
    pub options: Table,
}

impl TaskSource {
    /// Parses `NAME=DIR`, `NAME=FILE.toml` or `FILE.toml`.
    pub fn parse(text: &str) -> Result<TaskSource> {
        let (name, path) = text.split_once('=').map_or((None, text), |(name, path)| (Some(name), path));
        let path = Path::new(path);
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let options: Table = toml::from_str(&text).with_context(|| path.display().to_string())?;
            for option in ["model", "out", "resume", "seeds", "seed", "dry_run", "dry-run", "json"] {
                if options.contains_key(option) {
                    bail!("{}: `{option}` is set by the ablation; remove it", path.display());
                }
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(TaskSource { name: name.map_or(stem, str::to_owned), options });
        }
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            bail!("`tasks`: expected NAME=DIR of a known data set, or a recipe FILE.toml; found {text:?}");
        };
        let strings = [("task", name.to_owned()), ("data", path.to_string_lossy().into_owned())];
        let options = strings.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect();
        Ok(TaskSource { name: name.to_owned(), options })
    }
}

/// The options of an ablation.
pub struct Options<'a> {
    /// Folders of shards: the first is the default, the others are for rows that prefer their tokenizer.
    pub shards: Vec<PathBuf>,
    pub tasks: Vec<TaskSource>,
    pub budget: Budget,
    /// Number of seeds, from that of the recipe up.
    pub seeds: u64,
    /// Names of the rows to run; all if there are none.
    pub rows: Vec<String>,
    /// Overrides of every recipe.
    pub set: Vec<String>,
    pub threads: Option<usize>,
    /// The device of every run.
    pub device: DeviceChoice,
    /// Finds the model from which a recipe starts, and the teacher.
    pub find_model: &'a dyn Fn(&Path) -> Result<PathBuf>,
}

/// The runs of an ablation.
#[derive(Debug)]
pub struct Plan {
    /// The study, with the tasks that it did not have as columns. There are runs for the chosen rows only.
    pub study: Study,
    /// The columns for which there is data, and their tasks.
    pub tasks: Vec<(Column, TaskSource)>,
    /// All rows with the first seed, then with the second, and so on.
    pub runs: Vec<Run>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// A row with a seed.
#[derive(Debug)]
pub struct Run {
    pub row: Row,
    /// With the seed and the budget.
    pub recipe: Recipe,
    /// The fingerprint of the pre-training: rows with the same one share its model.
    pub settings: String,
    /// The name of the folder of the pre-training: that of the first row that has it.
    pub folder: String,
    /// Expected number of tokens of a pre-training with a number of steps.
    pub tokens: Option<f64>,
}

impl Plan {
    /// # Errors
    /// Unknown rows; recipes, shards or combinations of them that are not valid.
    pub fn new(mut study: Study, options: &Options<'_>) -> Result<Plan> {
        for name in &options.rows {
            if !study.rows.iter().any(|row| row.name == *name) {
                let names: Vec<&str> = study.rows.iter().map(|row| &*row.name).collect();
                bail!("`rows`: `{}` has no row {name:?}; its rows are {}", study.name, names.join(", "));
            }
        }
        let (tasks, notes) = tasks_of(&mut study, &options.tasks);
        if let Some(column) = study.columns.iter().find(|column| is_reserved(&column.name)) {
            bail!(
                "column {:?}: this is the name of a measure of every row; rename the column or the task",
                column.name
            );
        }
        let shards = Shards::open(&options.shards)?;
        let mut plan = Plan { tasks, runs: Vec::new(), notes, study };
        let mut rows = Vec::new();
        for row in &plan.study.rows {
            if options.rows.is_empty() || options.rows.contains(&row.name) {
                let (data, note) = shards.of_row(row);
                plan.notes.extend(note);
                rows.push(PreparedRow::new(row, data, options)?);
            }
        }
        for number in 0..options.seeds {
            for row in &rows {
                let run = row.run(number, &plan.runs)?;
                plan.runs.push(run);
            }
        }
        Ok(plan)
    }
}

/// A row with its recipe, and what is known of the text that it trains on.
struct PreparedRow<'a> {
    row: &'a Row,
    recipe: Recipe,
    text: TextOfRun,
}

impl<'a> PreparedRow<'a> {
    /// A row with its budget, on the shards in `data`.
    fn new(row: &'a Row, data: &Path, options: &Options<'_>) -> Result<PreparedRow<'a>> {
        let sets = |key: &str| {
            let all = options.set.iter().chain(&row.overrides);
            all.filter_map(|set| set.split_once('=')).any(|(name, value)| name.trim() == key && !value.is_empty())
        };
        // The budget of the recipe itself is replaced; one that the row sets is kept.
        let has_own_budget = sets("steps") || sets("minutes");
        let budget = row.tokens.map_or(options.budget, Budget::Tokens);
        let mut overrides = match budget {
            _ if has_own_budget => vec!["minutes=".to_owned(), "steps=".to_owned()],
            Budget::Recipe => Vec::new(),
            Budget::Minutes(minutes) => vec!["steps=".to_owned(), format!("minutes={minutes}")],
            Budget::Tokens(_) => vec!["minutes=".to_owned(), "steps=1000000".to_owned()],
        };
        overrides.extend(options.set.iter().cloned());
        overrides.extend(row.overrides.iter().cloned());
        let data = data.to_str().with_context(|| format!("{}: expected a path in UTF-8", data.display()))?;
        overrides.push(format!("data={}", Value::String(data.to_owned())));
        let named = || format!("row {}", row.name);
        let mut recipe = Recipe::open(Path::new(&row.recipe), &overrides).with_context(named)?;
        let text = text_of_run(&recipe).with_context(named)?;
        if let (Budget::Tokens(tokens), false) = (budget, has_own_budget) {
            let steps = (tokens as f64 / text.step_tokens).round().max(1.0) as u64;
            overrides.push(format!("steps={steps}"));
            recipe = Recipe::open(Path::new(&row.recipe), &overrides).with_context(named)?;
        }
        (recipe.threads, recipe.device) = (options.threads, options.device);
        for model in [&mut recipe.model.init, &mut recipe.objective.teacher].into_iter().flatten() {
            *model = (options.find_model)(model)?;
        }
        Ok(PreparedRow { row, recipe, text })
    }

    /// The run with the recipe's seed increased by `number`, in the folder of the earlier one with the same pre-training if
    /// there is one.
    fn run(&self, number: u64, earlier: &[Run]) -> Result<Run> {
        let mut recipe = self.recipe.clone();
        recipe.seed = recipe.seed.saturating_add(number);
        let settings = fingerprint(&format!("{}{}", what_matters(&recipe).to_toml()?, self.text.fingerprint));
        let same = earlier.iter().find(|run| run.settings == settings);
        let folder = same.map_or_else(|| format!("{}-seed{}", self.row.name, recipe.seed), |run| run.folder.clone());
        let tokens = recipe.plan().total_steps().map(|steps| steps as f64 * self.text.step_tokens);
        Ok(Run { row: self.row.clone(), recipe, settings, folder, tokens })
    }
}

impl Run {
    pub fn seed(&self) -> u64 {
        self.recipe.seed
    }

    /// The options of the fine-tuning for a column, without those that name the model and the run folder.
    pub fn finetune_options(&self, column: &Column, task: &TaskSource, common: &Table) -> Table {
        let mut options = task.options.clone();
        // The published sizes are fine-tuned with a rate of the paper. Smaller models need larger ones; this is the
        // largest of those tried for BERT's miniatures (Turc et al. 2019).
        let width = self.recipe.model.hidden_size;
        if width.is_some_and(|width| width < 768) && !options.contains_key("lr") {
            options.insert("lr".to_owned(), Value::Float(3e-4));
        }
        for more in [common, &column.finetune, &self.row.finetune] {
            options.extend(more.clone());
        }
        options.insert("seed".to_owned(), Value::Integer(self.seed().min(i64::MAX as u64) as i64));
        options
    }

    /// The fingerprint of a fine-tuning: of the pre-training and its own options.
    pub fn finetune_settings(&self, options: &Table) -> String {
        let mut options = options.clone();
        options.remove("data");
        fingerprint(&format!("{}{options}", self.settings))
    }

    /// The keys of the recipe that differ from those of another one, without those that do not change the result.
    pub fn differences(&self, other: &Recipe) -> Result<Vec<String>> {
        Ok(what_matters(&self.recipe).differences(&what_matters(other))?)
    }

    /// Whether it trains a generator and a discriminator.
    pub fn is_rtd(&self) -> bool {
        self.recipe.objective.kind == ObjectiveKind::Rtd
    }
}

/// A recipe without what does not change the result or is chosen by the machine.
fn what_matters(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    (recipe.data, recipe.threads, recipe.recompute) = (PathBuf::new(), None, false);
    recipe.device = DeviceChoice::Cpu;
    (recipe.eval, recipe.checkpoint, recipe.log) = (Eval::default(), CheckpointSection::default(), Log::default());
    (recipe.precision, recipe.instruction_set) = (Precision::Auto, None);
    recipe
}

/// A short fingerprint of a text.
pub fn fingerprint(text: &str) -> String {
    cloze_files::digest::of_bytes(text.as_bytes())[..12].to_owned()
}

/// The columns for which there is data, in the order of the study; the given tasks that are in no column become columns.
fn tasks_of(study: &mut Study, given: &[TaskSource]) -> (Vec<(Column, TaskSource)>, Vec<String>) {
    let is_same = |a: &str, b: &str| {
        let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
        plain(a) == plain(b)
    };
    for task in given {
        if !study.columns.iter().any(|column| is_same(&column.task, &task.name)) {
            let (name, finetune) = (task.name.clone(), Table::new());
            study.columns.push(Column { name: name.clone(), task: name, score: None, finetune });
        }
    }
    let data = |column: &Column| given.iter().find(|task| is_same(&task.name, &column.task)).cloned();
    let missing: Vec<&str> =
        study.columns.iter().filter(|column| data(column).is_none()).map(|column| &*column.name).collect();
    let note = (!missing.is_empty()).then(|| format!("no data for {}: their scores are \"–\"", missing.join(", ")));
    let tasks = study.columns.iter().filter_map(|column| Some((column.clone(), data(column)?))).collect();
    (tasks, note.into_iter().collect())
}

/// Folders of shards with the kinds of their tokenizers.
struct Shards(Vec<(PathBuf, &'static str)>);

impl Shards {
    fn open(folders: &[PathBuf]) -> Result<Shards> {
        let open = |folder: &PathBuf| -> Result<(PathBuf, &'static str)> {
            let shards = cloze_data::shards::Shards::open(folder)?;
            Ok((folder.clone(), Tokenizer::open(&shards.tokenizer_dir())?.model()))
        };
        folders.iter().map(open).collect::<Result<_>>().map(Shards)
    }

    /// The shards for a row, and a note if they do not have the tokenizer that it prefers.
    fn of_row(&self, row: &Row) -> (&Path, Option<String>) {
        let (default, _) = &self.0[0];
        let Some(kind) = &row.tokenizer else { return (default, None) };
        match self.0.iter().find(|(_, found)| found.eq_ignore_ascii_case(kind)) {
            Some((folder, _)) => (folder, None),
            None => {
                let note = format!(
                    "row {}: no shards with a {kind} tokenizer; those of {} are used",
                    row.name,
                    default.display()
                );
                (default, Some(note))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_folders_of_known_data_sets_or_recipes() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = folder.path().join("tags.toml");
        std::fs::write(&recipe, "kind = \"tag\"\ntrain = \"a.conllu\"").unwrap();
        let known = TaskSource::parse("sst2=glue/SST-2").unwrap();
        assert_eq!(
            (known.options["task"].as_str(), known.options["data"].as_str()),
            (Some("sst2"), Some("glue/SST-2"))
        );
        let path = recipe.to_str().unwrap();
        assert_eq!(TaskSource::parse(path).unwrap().name, "tags");
        assert_eq!(TaskSource::parse(&format!("ud={path}")).unwrap().name, "ud");
        std::fs::write(&recipe, "kind = \"tag\"\nmodel = \"m\"").unwrap();
        for (text, expected) in [
            (path, "`model` is set by the ablation"),
            ("glue/SST-2", "expected NAME=DIR"),
            ("=x", "expected NAME=DIR"),
            ("missing.toml", "cannot read"),
        ] {
            let error = format!("{:#}", TaskSource::parse(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn columns_without_data_are_noted_and_other_tasks_are_added() {
        let mut study = Study::open(Path::new("paper-table-5"), "mini").unwrap();
        let given = ["SST-2=a", "cola=b"].map(|text| TaskSource::parse(text).unwrap());
        let (tasks, notes) = tasks_of(&mut study, &given);
        let names: Vec<(&str, &str)> = tasks.iter().map(|(column, task)| (&*column.name, &*task.name)).collect();
        assert_eq!(names, [("SST-2", "SST-2"), ("cola", "cola")]);
        assert_eq!(notes, ["no data for MNLI-m, QNLI, MRPC, SQuAD: their scores are \"–\""]);
        assert_eq!(study.columns.len(), 6);
    }
}
