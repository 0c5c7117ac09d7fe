//! The built-in recipes and their names: for each size, such as mini, `mini` trains for half an hour, and `mini-paper`
//! for the paper's million steps; for the families and the left-to-right ablation, one each.

use std::path::Path;

use crate::TrainError;

/// A model size: its half-hour recipe, and the values that are specific to its recipe of the paper.
struct Size {
    name: &'static str,
    text: &'static str,
    purpose: &'static str,
    /// Sequences per micro-batch at length 128; a quarter of that at 512.
    micro_batch: usize,
    /// Number of evaluation batches.
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
    size!("tiny", 128, 8, "tests and experiments"),
    size!("mini", 64, 16, "BERT for half an hour on a few cores"),
    size!("small", 32, 32, "better than mini after a few hours, or on more cores"),
    size!("medium", 32, 32, "better than small after a day, or on many cores"),
    size!("base", 32, 32, "BERT-base, mostly for further pre-training of an existing model"),
    size!("large", 16, 64, "BERT-large, mostly for further pre-training of an existing model"),
];

/// A recipe of another family or objective.
struct Variant {
    name: &'static str,
    text: &'static str,
    purpose: &'static str,
}

macro_rules! variant {
    ($name:literal, $purpose:literal) => {
        Variant { name: $name, text: include_str!(concat!("../../recipes/", $name, ".toml")), purpose: $purpose }
    };
}

const VARIANTS: [Variant; 7] = [
    variant!("roberta", "RoBERTa with mini's sizes"),
    variant!("albert", "ALBERT with mini's sizes: shared layers, sentence order"),
    variant!("modern", "start here: ModernBERT for an hour on a few cores"),
    variant!("electra", "ELECTRA-small: replaced-token detection"),
    variant!("left-to-right", "the left-to-right ablation with mini's sizes"),
    variant!("distil", "DistilBERT: a student of half the layers learns from a teacher"),
    variant!("continued", "further pre-training of a model on the text of a domain"),
];

/// The common part of the recipes of the paper's million steps.
const PAPER: &str = include_str!("../../recipes/paper.toml.in");
const PAPER_SUFFIX: &str = "-paper";
/// The paper's sequences per step.
const PAPER_BATCH: usize = 256;

/// A built-in recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Shipped {
    /// The name, such as `mini` or `mini-paper`.
    pub name: String,
    /// The number of parameters with a vocabulary of 30,522, such as "11.2 M"; empty if the recipe starts from a model.
    pub parameters: String,
    /// The purpose.
    pub purpose: String,
    /// The text of the recipe, with comments.
    pub text: String,
}

/// All built-in recipes: those for half an hour by size, those of other families and objectives, then those of the paper.
pub fn shipped() -> Vec<Shipped> {
    let half_hour = SIZES.iter().map(|size| Shipped {
        name: size.name.to_owned(),
        parameters: size.parameters().to_owned(),
        purpose: size.purpose.to_owned(),
        text: size.text.to_owned(),
    });
    let variants = VARIANTS.iter().map(|variant| Shipped {
        name: variant.name.to_owned(),
        parameters: parameters(variant.text).to_owned(),
        purpose: variant.purpose.to_owned(),
        text: variant.text.to_owned(),
    });
    let paper = SIZES.iter().map(|size| Shipped {
        name: format!("{}{PAPER_SUFFIX}", size.name),
        parameters: size.parameters().to_owned(),
        purpose: "as in the paper: a million steps of 256 sequences".to_owned(),
        text: size.paper(),
    });
    half_hour.chain(variants).chain(paper).collect()
}

impl Size {
    fn parameters(&self) -> &'static str {
        parameters(self.text)
    }

    /// The four lines with the model's sizes.
    fn sizes(&self) -> String {
        let keys = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"];
        let lines = self.text.lines().filter(|line| keys.iter().any(|key| line.starts_with(&format!("{key} ="))));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn paper(&self) -> String {
        let (short, long) = (self.micro_batch, self.micro_batch / 4);
        [
            ("{about}", about(self.text).to_owned()),
            ("{name}", format!("{}{PAPER_SUFFIX}", self.name)),
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
        .fold(PAPER.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
    }
}

/// The first paragraph of a recipe's comments.
fn about(text: &str) -> &str {
    text.split_once("\n#\n").map_or("", |(about, _)| about)
}

/// The number of parameters in the first paragraph.
fn parameters(text: &str) -> &str {
    let before = about(text).split_once(" parameters").map_or("", |(before, _)| before);
    before.rsplit_once(", ").map_or("", |(_, count)| count)
}

/// The text of a recipe, from a file or built in.
pub(crate) struct Source {
    pub text: String,
    /// The name in errors: the path or the recipe's name.
    pub name: String,
}

impl Source {
    /// Finds a recipe; a file has precedence over a built-in recipe.
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
        // Users who know the source folder may write `recipes/mini.toml`.
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let names: Vec<String> = all.into_iter().map(|recipe| recipe.name).collect();
        let suggestion = nearest(&stem, &names).cloned();
        Err(TrainError::NoRecipe { path: path.to_owned(), suggestion, names })
    }
}

/// The most similar name, if one is similar enough.
pub(crate) fn nearest<'a>(found: &str, names: &'a [String]) -> Option<&'a String> {
    let similarity = |name: &str| strsim::jaro_winkler(&found.to_lowercase(), name);
    let best = names.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) > 0.7).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Every, OptimizerKind, Recipe};

    fn open(name: &str) -> Recipe {
        Recipe::open(Path::new(name), &[]).unwrap()
    }

    /// The built-in recipes are readable and complete, and have the sizes of their names.
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
                // A run's folder stores the same recipe.
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
    fn every_recipe_has_a_description_and_no_placeholders() {
        let all = shipped();
        assert_eq!(all.len(), 19);
        for recipe in all {
            assert!(!recipe.purpose.is_empty(), "{}", recipe.name);
            let call = format!("cloze pretrain {} --set data=shards --out runs/{}", recipe.name, recipe.name);
            match open(&recipe.name).model.init {
                Some(_) => assert!(recipe.parameters.is_empty(), "{}", recipe.name),
                None => {
                    assert!(recipe.text.contains(&call), "{}", recipe.text);
                    assert!(recipe.parameters.ends_with(" M"), "{}: {}", recipe.name, recipe.parameters);
                    let counted = open(&recipe.name).parameters(30_522).unwrap();
                    let stated: f64 = recipe.parameters.trim_end_matches(" M").parse().unwrap();
                    assert!((counted as f64 / 1e6 / stated - 1.0).abs() < 0.012, "{}: {counted}", recipe.name);
                }
            }
            let placeholders = recipe.text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
            let left: Vec<&str> = placeholders.map(|(inside, _)| inside).filter(|name| !name.contains('=')).collect();
            assert!(left.is_empty(), "{}: {left:?}", recipe.name);
        }
    }

    /// Regression: they were rejected because of `short_seq_prob = 0.0`, which half of them have.
    #[test]
    fn every_recipe_can_train_a_causal_language_model() {
        for recipe in shipped().into_iter().filter(|recipe| VARIANTS.iter().all(|variant| variant.name != recipe.name))
        {
            let causal = ["data=shards", "objective.kind=causal-lm"].map(str::to_owned);
            let opened = Recipe::open(Path::new(&recipe.name), &causal);
            assert!(opened.is_ok(), "{}: {:?}", recipe.name, opened.err().map(|e| e.to_string()));
        }
    }

    #[test]
    fn files_have_precedence_and_unknown_names_get_a_suggestion() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mini");
        std::fs::write(&file, "steps = 3\n").unwrap();
        assert_eq!(Recipe::open_unchecked(&file).unwrap().steps, Some(3));
        for (name, expected) in [
            ("minni", "did you mean `mini`?"),
            ("elsewhere/mini.toml", "did you mean `mini`?"),
            ("mini-papers", "did you mean `mini-paper`?"),
            ("zzz.toml", "tiny, mini, small, medium, base, large, roberta"),
        ] {
            let Err(e) = Recipe::open(Path::new(name), &[]) else { panic!("{name} was found") };
            assert!(e.to_string().starts_with(name) && e.to_string().contains(expected), "{e}");
        }
        let e = Recipe::open(Path::new("mini"), &["optimizer.lr=0".into(), "steps=x".into()]).unwrap_err();
        assert!(e.to_string().starts_with("`set steps=x`: "), "{e}");
    }
}
