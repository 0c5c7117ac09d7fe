//! The recipe of a run: resolved when the run starts, stored in its folder, and compared when the run is resumed.

use std::path::Path;

use cloze_comm::Communicator;
use cloze_engine::Device;

use crate::TrainError;
use crate::agreement::require_same;
use crate::recipe::{Precision, Recipe};
use crate::run::RunFolder;

/// Resolves a recipe for a run on this device: makes paths absolute, so that the run can be resumed from another working
/// directory, and sets precision and instruction set to the values in use. The run to resume, in the folder `resumed`,
/// keeps its precision.
pub(super) fn resolve(recipe: &Recipe, device: &Device, resumed: Option<&RunFolder>) -> Result<Recipe, TrainError> {
    let mut recipe = recipe.clone();
    let paths = [&mut recipe.model.init, &mut recipe.objective.teacher].into_iter().flatten();
    for path in std::iter::once(&mut recipe.data).chain(paths) {
        *path = std::path::absolute(&*path).map_err(|e| TrainError::io("find", path, e))?;
    }
    if recipe.precision == Precision::Auto
        && let Some(previous) = previous_recipe(resumed)?
    {
        recipe.precision = previous.precision;
    }
    recipe.precision = recipe.precision.resolved(device);
    recipe.instruction_set = Some(device.instruction_set().to_owned());
    Ok(recipe)
}

/// As [`resolve`], for the ranks of a job: all have the precision and the instruction set of rank 0.
pub(super) fn resolve_for(
    ranks: &Communicator,
    recipe: &Recipe,
    device: &Device,
    resumed: Option<&RunFolder>,
) -> Result<Recipe, TrainError> {
    let mut given = recipe.clone();
    given.threads = None;
    require_same(ranks, "recipe", given.to_toml()?.as_bytes())?;
    let mut resolved = resolve(recipe, device, resumed.filter(|_| ranks.is_root()))?;
    if ranks.of_root(u8::from(resolved.precision == Precision::Bf16)) == 1 {
        resolved.precision = Precision::Bf16;
    } else {
        resolved.precision = Precision::F32;
    }
    Ok(resolved)
}

/// The device of a run, to be passed to [`pretrain`](super::pretrain()): with the instruction set of the recipe;
/// otherwise, if the run in the folder `out` is resumed, with that of the run if this machine has it; otherwise with
/// the fastest one. All ranks of a job have the instruction set of rank 0.
///
/// # Errors
/// An instruction set that is unknown or not available on this machine; a number of threads out of range; a recipe in
/// the folder that cannot be read.
pub fn device_of_run(recipe: &Recipe, out: &Path, resume: bool, ranks: &Communicator) -> Result<Device, TrainError> {
    crate::device::device_of_ranks(ranks, recipe.threads, || {
        let previous = previous_recipe(resume.then(|| RunFolder::new(out)).as_ref())?;
        let previous = previous.as_ref().and_then(|previous| previous.instruction_set.as_deref());
        Ok(crate::device::run_device(recipe.device, recipe.threads, recipe.instruction_set.as_deref(), previous)?)
    })
}

/// The recipe of the run to resume, if there is one.
fn previous_recipe(resumed: Option<&RunFolder>) -> Result<Option<Recipe>, TrainError> {
    match resumed.map(RunFolder::recipe).filter(|path| path.is_file()) {
        Some(path) => Ok(Some(Recipe::open_unchecked(&path)?)),
        None => Ok(None),
    }
}

/// Compares a recipe with that of the run to resume; returns the keys that changed.
///
/// Keys that affect weights and losses must not change, because a resumed run promises the same results as an
/// uninterrupted one. Its length, the locations of the shards and of the teacher, threads, logs, evaluation and checkpoints may change.
///
/// # Errors
/// [`TrainError::NoRun`], [`TrainError::RecipeChanged`], or the system's error.
pub(super) fn check_resumed(folder: &RunFolder, recipe: &Recipe) -> Result<Vec<String>, TrainError> {
    let path = folder.recipe();
    if !path.is_file() {
        return Err(TrainError::NoRun(folder.root().to_owned()));
    }
    let previous = Recipe::open_unchecked(&path)?;
    let may_change = |key: &String| {
        let section = key.split('.').next().unwrap_or_default();
        ["data", "device", "threads", "instruction_set", "recompute", "steps", "minutes", "eval", "checkpoint", "log"]
            .contains(&section)
            // Its contents must not change; see `State::teacher`.
            || key == "objective.teacher"
    };
    let (changed, forbidden): (Vec<String>, Vec<String>) =
        recipe.differences(&previous)?.into_iter().partition(may_change);
    if forbidden.is_empty() { Ok(changed) } else { Err(TrainError::RecipeChanged { path, keys: forbidden }) }
}

/// Stores the recipe in the run's folder.
///
/// # Errors
/// The system's error.
pub(super) fn write_recipe(folder: &RunFolder, recipe: &Recipe) -> Result<(), TrainError> {
    let text = format!(
        "# As resolved from the recipe and its overrides by cloze {}.\n{}",
        env!("CARGO_PKG_VERSION"),
        recipe.to_toml()?
    );
    Ok(cloze_files::write(&folder.recipe(), text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_and_a_changed_recipe_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(&dir.path().join("run"));
        let mut recipe = Recipe::default();
        let e = check_resumed(&folder, &recipe).unwrap_err();
        assert!(matches!(e, TrainError::NoRun(_)), "{e}");
        drop(folder.create().unwrap());
        write_recipe(&folder, &recipe).unwrap();
        let e = folder.create().unwrap_err();
        assert!(e.to_string().contains("`resume`"), "{e}");
        recipe.steps = Some(9);
        assert_eq!(check_resumed(&folder, &recipe).unwrap(), ["steps"]);
        write_recipe(&folder, &recipe).unwrap();
        recipe.optimizer.lr = 3.0;
        let e = check_resumed(&folder, &recipe).unwrap_err();
        assert!(e.to_string().contains("optimizer.lr"), "{e}");
    }
}
