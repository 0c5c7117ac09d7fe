//! The definition of an ablation: a TOML file with rows and columns, or with a grid of recipe keys.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use cloze_train::Recipe;
use serde::Deserialize;
use toml::{Table, Value};

/// The built-in studies: names and texts.
pub const BUILT_IN: [(&str, &str); 8] = [
    ("paper-table-5", include_str!("../../ablations/paper-table-5.toml")),
    ("paper-table-6", include_str!("../../ablations/paper-table-6.toml")),
    ("paper-table-7", include_str!("../../ablations/paper-table-7.toml")),
    ("paper-masking", include_str!("../../ablations/paper-masking.toml")),
    ("rate", include_str!("../../ablations/rate.toml")),
    ("objective", include_str!("../../ablations/objective.toml")),
    ("optimizer", include_str!("../../ablations/optimizer.toml")),
    ("family", include_str!("../../ablations/family.toml")),
];

/// The size whose layers, hidden size and heads are those of the paper's base model.
const PAPER_SCALE: &str = "base";
/// Width of an attention head of every published size.
const HEAD: usize = 64;

/// The definition of an ablation.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// The name: of the built-in study, or of the file without its extension.
    pub name: String,
    pub title: String,
    /// Where the published figures come from.
    pub source: Option<String>,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

/// A task whose score is a column of the table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// The name of the task's data in `tasks`.
    pub task: String,
    /// The score, such as `accuracy`; by default the one that selects the best model.
    pub score: Option<String>,
    /// Options of fine-tuning.
    #[serde(default)]
    pub finetune: Table,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// A name of letters, digits and `._=,-`.
    pub name: String,
    pub title: String,
    /// The recipe: a name or a file.
    pub recipe: String,
    /// The kind of tokenizer of the shards to use, if there are some: `bpe`, `unigram`, `wordpiece`.
    pub tokenizer: Option<String>,
    /// Tokens of pre-training, instead of the budget of the other rows.
    pub tokens: Option<u64>,
    /// Overrides of the recipe, `key=value`, in order.
    pub overrides: Vec<String>,
    /// Options of fine-tuning.
    pub finetune: Table,
    /// The published figure of a column (its heading or task), in the column's unit.
    pub published: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    title: Option<String>,
    source: Option<String>,
    recipe: Option<String>,
    #[serde(default)]
    set: Table,
    #[serde(default)]
    finetune: Table,
    #[serde(default)]
    column: Vec<Column>,
    #[serde(default)]
    row: Vec<RowEntry>,
    #[serde(default)]
    grid: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowEntry {
    name: String,
    title: Option<String>,
    recipe: Option<String>,
    tokenizer: Option<String>,
    size: Option<[usize; 3]>,
    tokens: Option<u64>,
    #[serde(default)]
    set: Table,
    #[serde(default)]
    finetune: Table,
    #[serde(default)]
    published: BTreeMap<String, f64>,
}

impl Study {
    /// A built-in study, or the one in a TOML file. `scale` is the size of the models of rows without a recipe.
    pub fn open(named: &Path, scale: &str) -> Result<Study> {
        let built_in = BUILT_IN.iter().find(|(name, _)| Path::new(name) == named);
        if let (Some((name, text)), false) = (built_in, named.is_file()) {
            return Study::parse(text, name, scale);
        }
        if !named.exists() {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!("{}: no such file, and no built-in study; built in are {}", named.display(), names.join(", "));
        }
        let text = std::fs::read_to_string(named).with_context(|| format!("cannot read {}", named.display()))?;
        let name = named.file_stem().unwrap_or_default().to_string_lossy();
        Study::parse(&text, &name, scale).with_context(|| named.display().to_string())
    }

    fn parse(text: &str, name: &str, scale: &str) -> Result<Study> {
        let file: StudyFile = toml::from_str(text)?;
        let rows = match (file.row.is_empty(), file.grid.is_empty()) {
            (false, true) => file.row,
            (true, false) => grid_rows(&file.grid)?,
            (true, true) => bail!("expected [[row]] entries or a [grid], found neither"),
            (false, false) => bail!("expected [[row]] entries or a [grid], found both"),
        };
        let scaling = Scaling::new(scale)?;
        let mut found: Vec<Row> = Vec::new();
        for entry in rows {
            if let Some(name) = Some(&entry.name).filter(|name| !is_plain(name)) {
                bail!("row {name:?}: a name consists of letters, digits and . _ = , -");
            }
            if found.iter().any(|row| row.name == entry.name) {
                bail!("two rows have the name {:?}", entry.name);
            }
            let recipe = entry.recipe.or_else(|| file.recipe.clone()).unwrap_or_else(|| scale.to_owned());
            let mut overrides = overrides_of(&file.set)?;
            overrides.extend(overrides_of(&entry.set)?);
            overrides.extend(entry.size.map(|size| scaling.overrides(size)).into_iter().flatten());
            let mut finetune = file.finetune.clone();
            finetune.extend(entry.finetune);
            let title = entry.title.unwrap_or_else(|| entry.name.clone());
            let RowEntry { name, tokenizer, tokens, published, .. } = entry;
            found.push(Row { name, title, recipe, tokenizer, tokens, overrides, finetune, published });
        }
        for column in &file.column {
            if file.column.iter().filter(|other| other.name == column.name).count() > 1 {
                bail!("two columns have the name {:?}", column.name);
            }
        }
        let title = file.title.unwrap_or_else(|| name.to_owned());
        Ok(Study { name: name.to_owned(), title, source: file.source, columns: file.column, rows: found })
    }
}

/// Whether a name can be used as the name of a folder and on a command line.
fn is_plain(name: &str) -> bool {
    let is_allowed = |c: char| c.is_alphanumeric() || "._=,-".contains(c);
    !name.is_empty() && name.chars().all(is_allowed) && !name.starts_with(['.', '-'])
}

/// All combinations of the values of a grid, with its keys in alphabetical order; the first varies slowest.
fn grid_rows(grid: &Table) -> Result<Vec<RowEntry>> {
    let mut combinations: Vec<Vec<(String, Value)>> = vec![Vec::new()];
    for (key, values) in flattened(grid) {
        let Value::Array(values) = values else { bail!("[grid]: `{key}` is {values}: expected a list of values") };
        if values.is_empty() {
            bail!("[grid]: `{key}` is an empty list");
        }
        let with =
            |chosen: &Vec<(String, Value)>, value: &Value| [&chosen[..], &[(key.clone(), value.clone())]].concat();
        combinations = combinations.iter().flat_map(|chosen| values.iter().map(|value| with(chosen, value))).collect();
    }
    let row = |chosen: Vec<(String, Value)>| {
        let part = |(key, value): &(String, Value)| {
            let key = key.rsplit('.').next().unwrap_or(key);
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{key}={value}")
        };
        let title = chosen.iter().map(part).collect::<Vec<_>>().join(",");
        RowEntry {
            name: title.chars().map(|c| if is_plain(&format!("x{c}")) { c } else { '_' }).collect(),
            title: Some(title),
            recipe: None,
            tokenizer: None,
            size: None,
            tokens: None,
            set: chosen.into_iter().collect(),
            finetune: Table::new(),
            published: BTreeMap::new(),
        }
    };
    Ok(combinations.into_iter().map(row).collect())
}

/// The values of a table with their dotted keys: `[optimizer] lr = 1` is the same as `"optimizer.lr" = 1`.
fn flattened(table: &Table) -> Vec<(String, Value)> {
    let inner = |(key, value): (&String, &Value)| match value {
        Value::Table(inner) => {
            flattened(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)).collect()
        }
        value => vec![(key.clone(), value.clone())],
    };
    table.iter().flat_map(inner).collect()
}

/// The values of a table as overrides of a recipe.
fn overrides_of(set: &Table) -> Result<Vec<String>> {
    let text = |(key, value): (String, Value)| match value {
        Value::Array(_) => bail!("`{key}` is a list: expected a value; lists of values are for [grid]"),
        value => Ok(format!("{key}={value}")),
    };
    flattened(set).into_iter().map(text).collect()
}

/// The ratio of a size to the paper's base model.
struct Scaling {
    layers: f64,
    width: f64,
    heads: f64,
}

impl Scaling {
    fn new(scale: &str) -> Result<Scaling> {
        let sizes = |name: &str| -> Result<[f64; 3]> {
            let model = Recipe::open_unchecked(Path::new(name))?.model;
            let sizes = [model.num_hidden_layers, model.hidden_size, model.num_attention_heads];
            let missing = || format!("`scale`: {name} has no sizes; expected tiny, mini, small, medium, base or large");
            let [Some(layers), Some(width), Some(heads)] = sizes else { bail!(missing()) };
            Ok([layers, width, heads].map(|size| size as f64))
        };
        let ([layers, width, heads], base) = (sizes(scale)?, sizes(PAPER_SCALE)?);
        Ok(Scaling { layers: layers / base[0], width: width / base[1], heads: heads / base[2] })
    }

    /// The overrides that give a model the sizes of the paper in this scale. The hidden size is a multiple of the width of a
    /// head and of the number of heads.
    fn overrides(&self, [layers, width, heads]: [usize; 3]) -> [String; 4] {
        let scaled = |size: usize, factor: f64| ((size as f64 * factor).round() as usize).max(1);
        let (layers, heads) = (scaled(layers, self.layers), scaled(heads, self.heads));
        let hidden = (width as f64 * self.width / HEAD as f64).round().max(1.0) as usize * HEAD;
        let hidden = hidden.next_multiple_of(heads);
        [
            format!("model.num_hidden_layers={layers}"),
            format!("model.hidden_size={hidden}"),
            format!("model.num_attention_heads={heads}"),
            format!("model.intermediate_size={}", 4 * hidden),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, scale: &str) -> Study {
        Study::open(Path::new(name), scale).unwrap()
    }

    /// The recipe of a row.
    fn recipe(row: &Row) -> Recipe {
        Recipe::open(Path::new(&row.recipe), &row.overrides).unwrap_or_else(|error| panic!("{}: {error}", row.name))
    }

    #[test]
    fn built_in_studies_are_valid_at_every_scale() {
        for (name, _) in BUILT_IN {
            for scale in ["tiny", "mini", "small", "medium", "base", "large"] {
                let study = open(name, scale);
                assert!(study.rows.len() >= 3 && study.title != study.name, "{name}");
                for row in &study.rows {
                    let recipe = recipe(row);
                    assert!(recipe.parameters(8192).is_some(), "{name} at {scale}: {}", row.name);
                    for key in row.published.keys().filter(|key| *key != "perplexity") {
                        let has_column = study.columns.iter().any(|column| column.name == *key);
                        assert!(has_column || study.columns.is_empty(), "{name}: no column {key}");
                    }
                }
            }
        }
    }

    /// Devlin et al. 2019, table 6, at its own scale and at a third of it.
    #[test]
    fn sizes_are_scaled() {
        let sizes = |scale: &str| -> Vec<[usize; 3]> {
            let of = |row: &Row| {
                let model = recipe(row).model;
                [model.num_hidden_layers, model.hidden_size, model.num_attention_heads].map(Option::unwrap)
            };
            open("paper-table-6", scale).rows.iter().map(of).collect()
        };
        let paper = [[3, 768, 12], [6, 768, 3], [6, 768, 12], [12, 768, 12], [12, 1024, 16], [24, 1024, 16]];
        assert_eq!(sizes("base"), paper);
        assert_eq!(sizes("mini"), [[1, 256, 4], [2, 256, 1], [2, 256, 4], [4, 256, 4], [4, 320, 5], [8, 320, 5]]);
    }

    #[test]
    fn grids_are_all_combinations() {
        let text = "recipe = \"tiny\"\n[set]\nsteps = 9\nminutes = \"\"\n[grid]\n\"objective.rate\" = [0.15, 0.3]\n\
                    [grid.optimizer]\nkind = [\"adamw\", \"lamb\"]";
        let study = Study::parse(text, "mine", "mini").unwrap();
        let names: Vec<&str> = study.rows.iter().map(|row| &*row.name).collect();
        assert_eq!(names, ["rate=0.15,kind=adamw", "rate=0.15,kind=lamb", "rate=0.3,kind=adamw", "rate=0.3,kind=lamb"]);
        let last = recipe(&study.rows[3]);
        assert_eq!((last.steps, last.minutes, last.objective.rate), (Some(9), None, 0.3));
        assert_eq!((last.optimizer.kind.name(), study.title), ("lamb", "mine".to_owned()));
    }

    #[test]
    fn invalid_studies_are_refused() {
        for (text, expected) in [
            ("", "found neither"),
            ("[[row]]\nname = \"a\"\n[grid]\nseed = [1]", "found both"),
            ("[[row]]\nname = \"a\"\n[[row]]\nname = \"a\"", "two rows have the name \"a\""),
            ("[[row]]\nname = \"a/b\"", "letters, digits"),
            ("[[row]]\nname = \"a\"\nsets = 1", "unknown field `sets`"),
            ("[grid]\nseed = 1", "`seed` is 1: expected a list"),
            ("[grid]\nseed = []", "empty list"),
            ("[[row]]\nname = \"a\"\nset = { seed = [1] }", "`seed` is a list"),
        ] {
            let error = format!("{:#}", Study::parse(text, "s", "mini").unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = format!("{:#}", Study::open(Path::new("paper-table-9"), "mini").unwrap_err());
        assert!(error.contains("built in are paper-table-5"), "{error}");
        assert!(Study::open(Path::new("rate"), "huge").is_err());
    }
}
