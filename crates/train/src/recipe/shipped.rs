//! The recipes that are built into the program, under names: `mini` for half an hour, `mini-paper` for the paper's million
//! steps, and so for each size.

use std::path::Path;

use crate::TrainError;

/// A size of the family: its recipe for half an hour, and what its recipe of the paper has of its own.
struct Size {
    name: &'static str,
    text: &'static str,
    purpose: &'static str,
    /// Sequences of a micro-batch at length 128; a quarter at 512.
    micro_batch: usize,
    /// Evaluation batches.
    batches: usize,
}

macro_rules! size {
    ($name:literal, $micro_batch:literal, $batches:literal, $purpose:literal) => {
        Size {
            name: $name,
            text: include_str!(concat!("../../recipes/", $name, ".toml")),
            purpose: $purpose,
            micro_batch: $micro_batch,
            batches: $batches,
        }
    };
}

const SIZES: [Size; 6] = [
    size!("tiny", 128, 8, "tests, and trying things out"),
    size!("mini", 64, 16, "start here: the right size for half an hour on a few cores"),
    size!("small", 32, 32, "learns more than a mini in some hours, or on more cores"),
    size!("medium", 32, 32, "learns more than a small in a day, or on many cores"),
    size!("base", 32, 32, "BERT-base, mostly for further pre-training of a model that exists"),
    size!("large", 16, 64, "BERT-large, mostly for further pre-training of a model that exists"),
];

/// What the recipes of the paper's million steps have in common.
const PAPER: &str = include_str!("../../recipes/paper.toml.in");
const PAPER_ENDING: &str = "-paper";
/// The paper's sequences a step.
const PAPER_BATCH: usize = 256;

/// A recipe that is built in.
#[derive(Debug, Clone, PartialEq)]
pub struct Shipped {
    /// What it is called by, such as `mini` or `mini-paper`.
    pub name: String,
    /// Its parameters with a vocabulary of 30,522, such as "11.2 M".
    pub parameters: String,
    /// What it is for.
    pub purpose: String,
    /// The recipe, with comments.
    pub text: String,
}

/// All of them: those for half an hour by size, then those of the paper.
pub fn shipped() -> Vec<Shipped> {
    let half_hour = SIZES.iter().map(|size| Shipped {
        name: size.name.to_owned(),
        parameters: size.parameters().to_owned(),
        purpose: size.purpose.to_owned(),
        text: size.text.to_owned(),
    });
    let paper = SIZES.iter().map(|size| Shipped {
        name: format!("{}{PAPER_ENDING}", size.name),
        parameters: size.parameters().to_owned(),
        purpose: "as in the paper: a million steps of 256 sequences".to_owned(),
        text: size.paper(),
    });
    half_hour.chain(paper).collect()
}

impl Size {
    /// The first paragraph of the recipe's comment.
    fn about(&self) -> &'static str {
        self.text.split_once("\n#\n").map_or("", |(about, _)| about)
    }

    fn parameters(&self) -> &'static str {
        let before = self.about().split_once(" parameters").map_or("", |(before, _)| before);
        before.rsplit_once(", ").map_or("", |(_, count)| count)
    }

    /// The four lines of the model's sizes.
    fn sizes(&self) -> String {
        let keys = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"];
        let lines = self.text.lines().filter(|line| keys.iter().any(|key| line.starts_with(&format!("{key} ="))));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn paper(&self) -> String {
        let (short, long) = (self.micro_batch, self.micro_batch / 4);
        [
            ("{about}", self.about().to_owned()),
            ("{name}", format!("{}{PAPER_ENDING}", self.name)),
            ("{size}", self.name.to_owned()),
            ("{sizes}", self.sizes()),
            ("{short}", format!("{short:<3}")),
            ("{short_tokens}", (128 * short).to_string()),
            ("{short_accumulate}", (PAPER_BATCH / short).to_string()),
            ("{long}", long.to_string()),
            ("{long_accumulate}", (PAPER_BATCH / long).to_string()),
            ("{batches}", self.batches.to_string()),
        ]
        .iter()
        .fold(PAPER.to_owned(), |text, (mark, value)| text.replace(mark, value))
    }
}

/// The text of a recipe: a file, or else one that is built in.
pub(crate) struct Source {
    pub text: String,
    /// What errors call it: the path or the name.
    pub name: String,
}

impl Source {
    /// A file wins over a name.
    pub fn find(path: &Path) -> Result<Source, TrainError> {
        let name = path.display().to_string();
        if path.is_file() {
            let text =
                std::fs::read_to_string(path).map_err(|source| TrainError::io("read the recipe", path, source))?;
            return Ok(Source { text, name });
        }
        let all = shipped();
        if let Some(recipe) = all.iter().find(|recipe| recipe.name == name) {
            return Ok(Source { text: recipe.text.clone(), name: format!("recipe {name}") });
        }
        // Users who know the folder of the sources may give `recipes/mini.toml`.
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let names: Vec<String> = all.into_iter().map(|recipe| recipe.name).collect();
        let suggestion = nearest(&stem, &names).cloned();
        Err(TrainError::NoRecipe { path: path.to_owned(), suggestion, names })
    }
}

/// The closest of some names, if any is close.
pub(crate) fn nearest<'a>(found: &str, names: &'a [String]) -> Option<&'a String> {
    let likeness = |name: &str| strsim::jaro_winkler(&found.to_lowercase(), name);
    let best = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.7).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Every, OptimizerKind, Recipe};

    fn open(name: &str) -> Recipe {
        Recipe::open(Path::new(name), &[]).unwrap()
    }

    /// The recipes that ship must be readable, complete, and as large as their names say.
    #[test]
    fn shipped_recipes_are_valid() {
        for (name, layers, hidden, heads) in [
            ("tiny", 2, 128, 2),
            ("mini", 4, 256, 4),
            ("small", 4, 512, 8),
            ("medium", 8, 512, 8),
            ("base", 12, 768, 12),
            ("large", 24, 1024, 16),
        ] {
            let (half_hour, paper) = (open(name), open(&format!("{name}-paper")));
            for recipe in [&half_hour, &paper] {
                let m = &recipe.model;
                assert_eq!(
                    (m.num_hidden_layers, m.hidden_size, m.num_attention_heads, m.intermediate_size),
                    (Some(layers), Some(hidden), Some(heads), Some(4 * hidden)),
                    "{name}"
                );
                assert_eq!(recipe.data, Path::new("shards"));
                // What a run's folder keeps is the same recipe.
                assert_eq!(&Recipe::parse(&recipe.to_toml().unwrap(), "resolved", &[]).unwrap(), recipe);
            }
            assert_eq!((half_hour.steps, half_hour.minutes), (None, Some(30.0)));
            assert!(half_hour.phase.iter().all(|p| p.batch_sequences.unwrap() * p.seq_len <= 4096), "{name}");

            assert_eq!((paper.steps, paper.minutes), (Some(1_000_000), None));
            let sequences: Vec<usize> =
                paper.phase.iter().map(|p| p.batch_sequences.unwrap() * p.accumulate as usize).collect();
            assert_eq!(sequences, [256, 256], "{name}: the paper's batch");
            assert_eq!(paper.plan().phase_at(899_999, 0.0), 0);
            assert_eq!(paper.plan().phase_at(900_000, 0.0), 1);
            assert_eq!((paper.optimizer.kind, paper.optimizer.lr), (OptimizerKind::BertAdamw, 1e-4));
            assert!(paper.objective.nsp && paper.model.hidden_dropout_prob == Some(0.1));
            assert_eq!(paper.eval.every, Every::Steps(5000));
        }
    }

    #[test]
    fn every_recipe_has_a_line_and_no_mark_is_left() {
        let all = shipped();
        assert_eq!(all.len(), 12);
        for recipe in all {
            assert!(!recipe.purpose.is_empty(), "{}", recipe.name);
            assert!(recipe.parameters.ends_with(" M"), "{}: {}", recipe.name, recipe.parameters);
            let call = format!("cloze pretrain {} --set data=shards --out runs/{}", recipe.name, recipe.name);
            assert!(recipe.text.contains(&call), "{}", recipe.text);
            let marks = recipe.text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
            let left: Vec<&str> = marks.map(|(inside, _)| inside).filter(|mark| !mark.contains('=')).collect();
            assert!(left.is_empty(), "{}: {left:?}", recipe.name);
        }
    }

    /// They were refused for the `short_seq_prob = 0.0` that half of them have.
    #[test]
    fn every_recipe_can_train_a_causal_language_model() {
        for recipe in shipped() {
            let causal = ["data=shards", "objective.kind=causal-lm"].map(str::to_owned);
            let opened = Recipe::open(Path::new(&recipe.name), &causal);
            assert!(opened.is_ok(), "{}: {:?}", recipe.name, opened.err().map(|e| e.to_string()));
        }
    }

    #[test]
    fn a_file_wins_over_a_name_and_unknown_names_get_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mini");
        std::fs::write(&file, "steps = 3\n").unwrap();
        assert_eq!(Recipe::open_unchecked(&file).unwrap().steps, Some(3));
        for (asked, says) in [
            ("minni", "did you mean `mini`?"),
            ("elsewhere/mini.toml", "did you mean `mini`?"),
            ("mini-papers", "did you mean `mini-paper`?"),
            ("zzz.toml", "tiny, mini, small, medium, base, large, tiny-paper"),
        ] {
            let Err(e) = Recipe::open(Path::new(asked), &[]) else { panic!("{asked} was found") };
            assert!(e.to_string().starts_with(asked) && e.to_string().contains(says), "{e}");
        }
        let e = Recipe::open(Path::new("mini"), &["optimizer.lr=0".into(), "steps=x".into()]).unwrap_err();
        assert!(e.to_string().starts_with("--set steps=x: "), "{e}");
    }
}
