//! Parses TOML text and overrides to a [`Recipe`]. Errors say where the problem is and what would be valid.

use std::path::Path;

use serde::Deserialize;
use serde_path_to_error::Segment;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::checks::InvalidValue;
use super::sections::{MaskingKind, ObjectiveKind, ObjectiveSection, Recipe};
use super::shipped::{Source, nearest};
use crate::TrainError;

impl Recipe {
    /// Reads a recipe file or a built-in recipe (see [`shipped`](super::shipped()); a file has precedence over a name),
    /// applies the overrides (`key=value`) in order, and validates the result.
    ///
    /// # Errors
    /// One line with the file and line number (or the override), the key, and the nearest valid name or the valid
    /// range.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Recipe, TrainError> {
        let source = Source::find(path)?;
        Recipe::parse(&source.text, &source.name, overrides)
    }

    /// As [`open`](Self::open), from a text; `name` is the file's name in errors.
    ///
    /// # Errors
    /// As `open`.
    pub fn parse(text: &str, name: &str, overrides: &[String]) -> Result<Recipe, TrainError> {
        let (recipe, origin) = read(text, name, overrides)?;
        recipe.check().map_err(|e| origin.locate(e))?;
        Ok(recipe)
    }

    /// As [`open`](Self::open), for display, without requiring a complete recipe: unknown keys and types are checked,
    /// missing and contradictory values are not.
    ///
    /// # Errors
    /// As `open`, for these checks.
    pub fn open_unchecked(path: &Path) -> Result<Recipe, TrainError> {
        let source = Source::find(path)?;
        Ok(read(&source.text, &source.name, &[])?.0)
    }

    /// The recipe as TOML, as stored in a run's folder.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] for a path that is not UTF-8, which TOML cannot represent.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(self).map_err(not_toml)
    }

    /// The dotted keys whose values differ between two recipes, in order.
    ///
    /// # Errors
    /// As [`to_toml`](Self::to_toml).
    pub fn differences(&self, other: &Recipe) -> Result<Vec<String>, TrainError> {
        fn walk(a: Option<&Value>, b: Option<&Value>, path: &str, out: &mut Vec<String>) {
            if a == b {
                return;
            }
            let (Some(Value::Table(x)), Some(Value::Table(y))) = (a, b) else {
                out.push(path.to_owned());
                return;
            };
            let mut keys: Vec<&String> = x.keys().chain(y.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let deeper = match path {
                    "" => key.clone(),
                    _ => format!("{path}.{key}"),
                };
                walk(x.get(key), y.get(key), &deeper, out);
            }
        }
        let table = |recipe: &Recipe| Table::try_from(recipe).map(Value::Table).map_err(not_toml);
        let mut out = Vec::new();
        walk(Some(&table(self)?), Some(&table(other)?), "", &mut out);
        Ok(out)
    }
}

fn not_toml(error: toml::ser::Error) -> TrainError {
    TrainError::Recipe { place: "recipe".to_owned(), message: format!("cannot be written as TOML: {error}") }
}

/// The sources of a recipe's values, for error messages.
struct Origin<'a> {
    text: &'a str,
    name: &'a str,
    overrides: &'a [String],
}

impl Origin<'_> {
    /// Converts an invalid value to an error, with file and line (or the override).
    fn locate(&self, invalid: InvalidValue) -> TrainError {
        let sets_key = |argument: &&String| argument.split_once('=').is_some_and(|(k, _)| k.trim() == invalid.key);
        let place = match self.overrides.iter().rev().find(sets_key) {
            Some(argument) => format!("`set {argument}`"),
            None => self.place_in_file(&invalid.key),
        };
        TrainError::Recipe { place, message: invalid.to_string() }
    }

    /// File and line number of a dotted key.
    fn place_in_file(&self, key: &str) -> String {
        match line_of_key(self.text, key) {
            Some(line) => format!("{}:{line}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// Parses the text, then applies each override; checks both for unknown keys and wrong types.
fn read<'a>(text: &'a str, name: &'a str, overrides: &'a [String]) -> Result<(Recipe, Origin<'a>), TrainError> {
    let mut table: Table = toml::from_str(text).map_err(|e: toml::de::Error| TrainError::Recipe {
        place: format!("{name}:{}", line_of_offset(text, e.span().map_or(0, |s| s.start))),
        message: e.message().lines().next().unwrap_or_default().to_owned(),
    })?;
    let origin = Origin { text, name, overrides };
    let mut recipe = deserialize(&table)
        .map_err(|error| TrainError::Recipe { place: origin.place_in_file(&error.key), message: error.message })?;
    for argument in overrides {
        let error = |message: String| TrainError::Recipe { place: format!("`set {argument}`"), message };
        let (key, value) = argument
            .split_once('=')
            .ok_or_else(|| error("expected key=value, for example optimizer.lr=5e-4".into()))?;
        let key = key.trim();
        (table, recipe) = apply_override(&table, key, value.trim()).map_err(error)?;
    }
    complete(&mut recipe.objective, table.get("objective"));
    Ok((recipe, origin))
}

/// Sets the values of an objective that depend on which keys are given.
fn complete(objective: &mut ObjectiveSection, given: Option<&Value>) {
    // The former key. If it contradicts the new one, it remains, and the check of the recipe fails.
    if matches!(objective.masking, MaskingKind::Token | MaskingKind::WholeWord)
        && std::mem::take(&mut objective.whole_word)
    {
        objective.masking = MaskingKind::WholeWord;
    }
    if (objective.sop || objective.kind == ObjectiveKind::Distill) && given.and_then(|given| given.get("nsp")).is_none()
    {
        objective.nsp = false;
    }
}

/// An unknown key, or a value of the wrong type.
struct KeyError {
    /// The dotted key.
    key: String,
    message: String,
}

fn deserialize(table: &Table) -> Result<Recipe, KeyError> {
    serde_path_to_error::deserialize(table.clone()).map_err(|e: serde_path_to_error::Error<toml::de::Error>| {
        let key = dotted(e.path());
        let message = describe(e.inner().message(), &key);
        KeyError { key, message }
    })
}

/// The dotted form of a path: `phase.0.seq_len`.
fn dotted(path: &serde_path_to_error::Path) -> String {
    let names = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    names.collect::<Vec<_>>().join(".")
}

/// A copy of `table` with one value replaced, and the resulting recipe.
fn apply_override(table: &Table, key: &str, value: &str) -> Result<(Table, Recipe), String> {
    // A bare word such as `cosine`, or a path, is not TOML: use it as a string.
    let as_toml = toml::from_str::<Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let as_text = Value::String(value.to_owned());
    let attempt = |value: Value| {
        let mut table = table.clone();
        // An empty value, as in `minutes=`, removes the key.
        let value = Some(value).filter(|value| value.as_str() != Some(""));
        set_value(&mut table, key, value)?;
        let recipe = deserialize(&table).map_err(|error| error.message)?;
        Ok((table, recipe))
    };
    match as_toml {
        // `data=2024` may be the name of a folder: try a value of the wrong type again as a string.
        Some(v) => attempt(v).or_else(|e: String| attempt(as_text).map_err(|_| e)),
        None => attempt(as_text),
    }
}

/// Maximal number of parts of a dotted key; `phase.0.seq_len` has three. Tables nested without limit would overflow the stack.
const MAX_PARTS: usize = 8;

/// Sets the value of a dotted key, or removes it. Numbers are indices of lists (`phase.0.seq_len`).
fn set_value(table: &mut Table, key: &str, value: Option<Value>) -> Result<(), String> {
    let parts: Vec<&str> = key.split('.').collect();
    if parts.len() > MAX_PARTS || parts.iter().any(|p| p.is_empty()) {
        return Err(format!("`{key}` is not a key"));
    }
    let (last, parents) = parts.split_last().expect("split gives at least one part");
    let mut slot: &mut Table = table;
    let mut parents = parents.iter();
    let mut path = String::new();
    while let Some(part) = parents.next() {
        path += part;
        let entry = slot.entry(part.to_string()).or_insert_with(|| Value::Table(Table::new()));
        slot = match entry {
            Value::Table(t) => t,
            Value::Array(items) => {
                let count = items.len();
                let part = parents.next();
                let index = part.and_then(|p| p.parse::<usize>().ok());
                match index.and_then(|i| items.get_mut(i)) {
                    Some(Value::Table(t)) => t,
                    _ => {
                        // `phase.0` is an entry, not a value, and `phase.seq_len` has no index.
                        let inside = if last.parse::<usize>().is_ok() { "KEY" } else { last };
                        return Err(format!(
                            "`{path}` is a list of {count}: write {path}.0.{inside}{}",
                            if count > 1 { format!(" … {path}.{}.{inside}", count - 1) } else { String::new() }
                        ));
                    }
                }
            }
            _ => return Err(format!("`{path}` is a value, not a section")),
        };
        path.push('.');
    }
    match value {
        Some(value) => slot.insert((*last).to_owned(), value),
        None => slot.remove(*last),
    };
    Ok(())
}

/// Rewrites serde's message: the dotted key, what was expected, the nearest valid name.
fn describe(message: &str, key: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (found, expected) = rest.split_once('`').unwrap_or((rest, ""));
        let section = match key.rsplit_once('.') {
            Some((section, _)) => format!("{section}."),
            None => String::new(),
        };
        return format!("unknown key `{section}{found}`; {}", nearest_key(&section, found, &quoted(expected)));
    }
    let message = ["u64", "usize", "u32"]
        .iter()
        .fold(message.to_owned(), |m, t| m.replace(&format!("expected {t}"), "expected a whole number"))
        .replace("expected f64", "expected a number")
        .replace("expected a boolean", "expected true or false")
        .replace("expected path string", "expected a path in quotes");
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let (found, expected) = rest.split_once('`').unwrap_or((rest, ""));
        let names = quoted(expected);
        return format!(
            "`{key}` cannot be \"{found}\"; {}expected one of {}",
            nearest(found, &names).map(|n| format!("did you mean \"{n}\"? ")).unwrap_or_default(),
            names.join(", ")
        );
    }
    if key.is_empty() { message } else { format!("`{key}`: {message}") }
}

/// The names between backticks.
fn quoted(text: &str) -> Vec<String> {
    let inside = text.split('`').skip(1).step_by(2);
    inside.map(str::to_owned).collect()
}

/// A suggestion for an unknown key: the same name in another section, otherwise the nearest in this one, otherwise all
/// of this one.
fn nearest_key(section: &str, found: &str, names: &[String]) -> String {
    let other_section = SECTIONS.iter().filter(|s| **s != section).find(|s| section_keys(s).iter().any(|k| k == found));
    if let Some(other) = other_section {
        return format!("did you mean `{other}{found}`?");
    }
    match nearest(found, names) {
        Some(name) => format!("the nearest valid name is `{section}{name}`"),
        None => format!("valid names are {}", names.join(", ")),
    }
}

const SECTIONS: [&str; 9] =
    ["", "model.", "objective.", "phase.0.", "optimizer.", "schedule.", "eval.", "checkpoint.", "log."];

/// The keys of a section, from serde's error for an unknown key.
fn section_keys(section: &str) -> Vec<String> {
    let mut table = Table::new();
    let phases = Value::Array(vec![Value::Table(Table::new())]);
    table.insert("phase".into(), phases);
    if set_value(&mut table, &format!("{section}?"), Some(Value::Boolean(true))).is_err() {
        return Vec::new();
    }
    match Recipe::deserialize(table) {
        Err(e) => quoted(e.message().split_once(',').map_or("", |(_, list)| list)),
        Ok(_) => Vec::new(),
    }
}

/// The line number, from 1, of a dotted key, or of its section if the key is not in the text.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let parsed = DeTable::parse(text).ok()?;
    let mut table = parsed.get_ref();
    let mut line = None;
    let mut parts = key.split('.');
    while let Some(part) = parts.next() {
        let (name, value) = table.iter().find(|(k, _)| k.get_ref() == part)?;
        line = Some(line_of_offset(text, name.span().start));
        table = match value.get_ref() {
            DeValue::Table(t) => t,
            DeValue::Array(items) => {
                let Some(item) = parts.next().and_then(|p| p.parse::<usize>().ok()).and_then(|i| items.get(i)) else {
                    return line;
                };
                line = Some(line_of_offset(text, item.span().start));
                let Some(t) = item.get_ref().as_table() else {
                    return line;
                };
                t
            }
            _ => return line,
        };
        if !key_continues(table, parts.clone().next()) {
            return line;
        }
    }
    line
}

fn key_continues(table: &DeTable, part: Option<&str>) -> bool {
    part.is_some_and(|part| table.iter().any(|(k, _)| k.get_ref() == part))
}

fn line_of_offset(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|&&b| b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "data = \"shards\"\nsteps = 10\n\n[model]\nhidden_size = 64\nnum_hidden_layers = 2\n\
                        num_attention_heads = 2\n\n[[phase]]\nseq_len = 64\nbatch_sequences = 4\n\n[optimizer]\nlr = 1e-3\n";

    fn error(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        let e = Recipe::parse(text, "r.toml", &overrides).unwrap_err();
        let line = e.to_string();
        assert!(!line.contains('\n'), "one line: {line}");
        line
    }

    #[test]
    fn unknown_keys_are_reported_with_line_and_nearest_name() {
        assert_eq!(
            error(&GOOD.replace("lr =", "learning_rate ="), &[]),
            "r.toml:14: unknown key `optimizer.learning_rate`; the nearest valid name is `optimizer.lr`"
        );
        assert_eq!(
            error(&GOOD.replace("lr =", "xyz ="), &[]),
            "r.toml:14: unknown key `optimizer.xyz`; valid names are kind, lr, beta1, beta2, eps, weight_decay, clip_norm, bias_correction"
        );
        assert_eq!(
            error(&GOOD.replace("hidden_size", "hiden_size"), &[]),
            "r.toml:5: unknown key `model.hiden_size`; the nearest valid name is `model.hidden_size`"
        );
        assert_eq!(
            error(&GOOD.replace("batch_sequences", "batch_seqs"), &[]),
            "r.toml:11: unknown key `phase.0.batch_seqs`; the nearest valid name is `phase.0.batch_sequences`"
        );
        assert_eq!(
            error(&format!("lr = 1.0\n{GOOD}"), &[]),
            "r.toml:1: unknown key `lr`; did you mean `optimizer.lr`?"
        );
        assert_eq!(
            error(&GOOD.replace("[optimizer]", "[optimiser]"), &[]),
            "r.toml:13: unknown key `optimiser`; the nearest valid name is `optimizer`"
        );
    }

    #[test]
    fn wrong_types_are_reported_with_line_and_type() {
        assert_eq!(
            error(&GOOD.replace("steps = 10", "steps = \"ten\""), &[]),
            "r.toml:2: `steps`: invalid type: string \"ten\", expected a whole number"
        );
        assert_eq!(
            error(&GOOD.replace("lr = 1e-3", "lr = true"), &[]),
            "r.toml:14: `optimizer.lr`: invalid type: boolean `true`, expected a number"
        );
        assert_eq!(
            error(&GOOD.replace("lr = 1e-3", "kind = \"adam\""), &[]),
            "r.toml:14: `optimizer.kind` cannot be \"adam\"; did you mean \"adamw\"? expected one of bert-adamw, adamw, lamb"
        );
        assert_eq!(
            error(&GOOD.replace("steps = 10", "steps = -1"), &[]),
            "r.toml:2: `steps`: invalid value: integer `-1`, expected a whole number"
        );
        assert!(error("steps = = 3\n", &[]).starts_with("r.toml:1: "));
    }

    #[test]
    fn overrides_are_applied_and_checked_in_the_same_way() {
        let overrides: Vec<String> = [
            "optimizer.lr=5e-4",
            "phase.0.seq_len=32",
            "schedule.kind=cosine",
            "data=/some where/shards",
            "threads=3",
            "objective.nsp=false",
        ]
        .map(String::from)
        .to_vec();
        let r = Recipe::parse(GOOD, "r.toml", &overrides).unwrap();
        assert_eq!(r.optimizer.lr, 5e-4);
        assert_eq!(r.phase[0].seq_len, 32);
        assert_eq!(r.schedule.kind, crate::recipe::ScheduleKind::Cosine);
        assert_eq!(r.data.to_str(), Some("/some where/shards"));
        assert_eq!((r.threads, r.objective.nsp), (Some(3), false));
        assert_eq!(
            error(GOOD, &["optimizer.lrr=1"]),
            "`set optimizer.lrr=1`: unknown key `optimizer.lrr`; the nearest valid name is `optimizer.lr`"
        );
        assert_eq!(error(GOOD, &["lr=1"]), "`set lr=1`: unknown key `lr`; did you mean `optimizer.lr`?");
        assert_eq!(
            error(GOOD, &["steps=many"]),
            "`set steps=many`: `steps`: invalid type: string \"many\", expected a whole number"
        );
        assert_eq!(
            error(GOOD, &["phase.seq_len=3"]),
            "`set phase.seq_len=3`: `phase` is a list of 1: write phase.0.seq_len"
        );
        assert_eq!(
            error(&GOOD.replace("[[phase]]", "[[phase]]\nseq_len = 8\n[[phase]]"), &["phase.2.seq_len=3"]),
            "`set phase.2.seq_len=3`: `phase` is a list of 2: write phase.0.seq_len … phase.1.seq_len"
        );
        assert_eq!(error(GOOD, &["phase.0=3"]), "`set phase.0=3`: `phase` is a list of 1: write phase.0.KEY");
        assert_eq!(error(GOOD, &["steps"]), "`set steps`: expected key=value, for example optimizer.lr=5e-4");
        assert_eq!(error(GOOD, &["steps.more=3"]), "`set steps.more=3`: `steps` is a value, not a section");
        assert_eq!(
            error(GOOD, &["optimizer.lr.peak=3"]),
            "`set optimizer.lr.peak=3`: `optimizer.lr` is a value, not a section"
        );
    }

    /// Regression: `optimiser.lr` was reported as the key `optimiser.optimiser`.
    #[test]
    fn an_unknown_section_is_reported_with_its_path() {
        for (argument, expected) in [
            ("optimiser.lr=1", "unknown key `optimiser`; the nearest valid name is `optimizer`"),
            ("optimiser.lr.peak=1", "unknown key `optimiser`; the nearest valid name is `optimizer`"),
            ("optimizer.rates.first=1", "unknown key `optimizer.rates`; valid names are kind, lr, "),
            ("optimizer.lrr.first=1", "unknown key `optimizer.lrr`; the nearest valid name is `optimizer.lr`"),
            ("optimizer={lrr=1}", "unknown key `optimizer.lrr`; the nearest valid name is `optimizer.lr`"),
            ("phase.0.seq_length=1", "unknown key `phase.0.seq_length`; the nearest valid name is `phase.0.seq_len`"),
            ("phase.0.xyz.b=1", "unknown key `phase.0.xyz`; valid names are steps, share, "),
            ("phase=[{seq_lan=8}]", "unknown key `phase.0.seq_lan`; the nearest valid name is `phase.0.seq_len`"),
            ("phase=[{},{seq_lan=8}]", "unknown key `phase.1.seq_lan`; the nearest valid name is `phase.1.seq_len`"),
            ("phases.0.seq_len=8", "unknown key `phases`; the nearest valid name is `phase`"),
            ("model.model=1", "unknown key `model.model`; "),
            ("phase=[{seq_len=true}]", "`phase.0.seq_len`: invalid type: boolean `true`, expected a whole number"),
        ] {
            let line = error(GOOD, &[argument]);
            assert!(line.starts_with(&format!("`set {argument}`: {expected}")), "{argument}: {line}");
        }
        let in_file = format!("{GOOD}[schedule.warmup]\nsteps = 3\n");
        assert_eq!(
            error(&in_file, &[]),
            "r.toml:15: unknown key `schedule.warmup`; the nearest valid name is `schedule.warmup_share`"
        );
    }

    #[test]
    fn an_empty_value_removes_a_key() {
        let overrides = ["minutes=5".to_owned(), "steps=".to_owned(), "optimizer.lr=".to_owned()];
        let r = Recipe::parse(GOOD, "r.toml", &overrides).unwrap();
        assert_eq!((r.steps, r.minutes, r.optimizer.lr), (None, Some(5.0), 1e-4));
        assert!(error(GOOD, &["model.hidden_size="]).contains("`model.hidden_size` is missing"));
    }

    #[test]
    fn intervals_are_steps_percentages_or_minutes() {
        use crate::recipe::Every;
        for (argument, every) in [
            ("eval.every=0", Every::Steps(0)),
            ("eval.every=7", Every::Steps(7)),
            ("eval.every=10%", Every::Percent(10.0)),
            ("eval.every=2.5 min", Every::Minutes(2.5)),
        ] {
            assert_eq!(Recipe::parse(GOOD, "r.toml", &[argument.to_owned()]).unwrap().eval.every, every);
        }
        assert_eq!(
            error(GOOD, &["checkpoint.every=often"]),
            "`set checkpoint.every=often`: `checkpoint.every`: invalid value: string \"often\", expected a number of steps \
             (500), a percentage of the run (\"10 %\") or a time (\"5 min\")"
        );
        for bad in ["log.every=-5", "log.every=true", "log.every=1.5"] {
            assert!(error(GOOD, &[bad]).contains("expected a number of steps (500)"), "{bad}");
        }
    }

    /// Recipes of earlier runs have `whole_word`, and their folders must resume with recipes that have `masking`.
    #[test]
    fn the_former_key_of_whole_word_masking_is_read() {
        let parse = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
            Recipe::parse(GOOD, "r.toml", &overrides).unwrap()
        };
        let (former, now) = (parse(&["objective.whole_word=true"]), parse(&["objective.masking=whole-word"]));
        assert_eq!((former.objective.masking, &former), (MaskingKind::WholeWord, &now));
        let text = now.to_toml().unwrap();
        assert!(text.contains("masking = \"whole-word\"") && !text.contains("whole_word"), "{text}");
        let both = parse(&["objective.masking=token", "objective.whole_word=true"]);
        assert_eq!(both, now, "an override of a recipe that has the default");
        assert_eq!(
            parse(&["objective.whole_word=false", "objective.masking=span"]).objective.masking,
            MaskingKind::Span
        );
    }

    #[test]
    fn sentence_order_replaces_next_sentences_unless_both_are_given() {
        let parse = |argument: &str| Recipe::parse(GOOD, "r.toml", &[argument.to_owned()]).unwrap().objective;
        assert_eq!([parse("objective.sop=true").nsp, parse("objective.sop=false").nsp], [false, true]);
    }

    #[test]
    fn differences_are_dotted_keys() {
        let a = Recipe::parse(GOOD, "r.toml", &[]).unwrap();
        let mut b = a.clone();
        b.optimizer.lr = 1.0;
        b.threads = Some(1);
        assert_eq!(a.differences(&b).unwrap(), ["optimizer.lr", "threads"]);
        assert!(a.differences(&a.clone()).unwrap().is_empty());
    }

    #[test]
    fn a_key_of_many_parts_is_refused() {
        let argument = format!("{}=1", vec!["a"; 100_000].join("."));
        let error = Recipe::parse(GOOD, "r.toml", &[argument]).unwrap_err().to_string();
        assert!(error.ends_with("` is not a key"), "{}", error.len());
    }

    /// Each seed must give a recipe or an error, without a panic.
    #[test]
    fn seeds_of_the_fuzz_target_are_read() {
        for seed in cloze_testing::fuzz_seeds("recipe") {
            let seed = String::from_utf8_lossy(&seed);
            let (text, changes) = seed.split_once("\n-----\n").unwrap_or((&seed, ""));
            let changes: Vec<String> = changes.lines().map(str::to_owned).collect();
            let _ = Recipe::parse(text, "recipe.toml", &changes);
        }
    }
}
