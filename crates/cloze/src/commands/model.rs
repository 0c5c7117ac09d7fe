//! Which folder `--model` means: a model's folder, the model of a run's folder, or a model named on the Hugging Face Hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use cloze_hub::{Contents, Environment, Event, Hub, HubError, Request, is_model_name};
use cloze_model::{Config, Layout};
use cloze_train::checkpoint;
use cloze_train::run::RunFolder;

use crate::terminal::{Progress, Terminal};
use crate::{format, program};

/// Entries of a folder that an error names.
const SHOWN: usize = 5;

/// The model of a command that needs one.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArguments {
    /// Model folder, checkpoint, run folder, or a name on the Hugging Face Hub such as bert-base-uncased
    ///
    /// What exists on this machine comes first. A run's folder stands for its model/, else its best, else its newest checkpoint.
    /// A name is looked up in the local cache (HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub); what is not
    /// there is downloaded into it (from HF_ENDPOINT, with HF_TOKEN).
    #[arg(long = "model", value_name = "DIR|NAME")]
    pub named: PathBuf,

    #[command(flatten)]
    hub: HubArguments,
}

impl ModelArguments {
    /// The folder of the model; says on standard error what was chosen where there was a choice.
    pub fn find(&self, terminal: &Terminal) -> Result<PathBuf> {
        self.hub.find(&self.named, Contents::Model, terminal)
    }

    /// The same, with what sentence-transformers says of how a text becomes a vector.
    pub fn find_with_pooling(&self, terminal: &Terminal) -> Result<PathBuf> {
        self.hub.find(&self.named, Contents::Vectors, terminal)
    }
}

/// How a model's name is looked up.
#[derive(Debug, Clone, clap::Args)]
pub struct HubArguments {
    /// Branch, tag or commit of a model named on the hub [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,

    /// Look for named models in the local cache only (as with HF_HUB_OFFLINE=1)
    #[arg(long)]
    offline: bool,

    /// Use a model whose files differ from the checksums saved with them
    #[arg(long, hide_short_help = true)]
    no_verify: bool,
}

impl HubArguments {
    /// The options as they were typed, each after a space.
    pub fn as_typed(&self) -> String {
        let revision = self.revision.as_ref().map(|revision| format!(" --revision {}", program::quoted(revision)));
        let flag = |is_set: bool, flag: &'static str| if is_set { flag } else { "" };
        revision.unwrap_or_default() + flag(self.offline, " --offline") + flag(self.no_verify, " --no-verify")
    }

    /// The folder of the model that `named` means: for vectors the sentence-transformers folder, if it is one, else the folder of the
    /// weights.
    pub fn find(&self, named: &Path, wanted: Contents, terminal: &Terminal) -> Result<PathBuf> {
        let folder = self.find_folder(named, wanted, terminal)?;
        if wanted == Contents::Vectors { Ok(folder) } else { model_in(&folder) }
    }

    fn find_folder(&self, named: &Path, wanted: Contents, terminal: &Terminal) -> Result<PathBuf> {
        if named.exists() {
            self.check_local(named)?;
            return match on_disk(named)? {
                OnDisk::Model(found) => self.verified(found.tell(terminal)),
                OnDisk::EmptyRun(problem) | OnDisk::Other(problem) => bail!(problem),
            };
        }
        match as_name(named) {
            Some(name) => self.download(name, wanted, terminal),
            None => bail!(
                "{}: no such folder; expected a model's folder (config.json, model.safetensors), a run's folder, or a name on \
                 the Hugging Face Hub (name or organisation/name)",
                named.display()
            ),
        }
    }

    /// What `cloze convert` is to read: a folder, file or prefix that it knows, the model of a run's folder, or a named model.
    pub fn find_source(&self, named: &Path, wanted: Contents, terminal: &Terminal) -> Result<PathBuf> {
        let mut index = named.as_os_str().to_owned();
        index.push(".index");
        if named.is_dir() {
            self.check_local(named)?;
            match on_disk(named)? {
                OnDisk::Model(found) => return self.verified(found.tell(terminal)),
                OnDisk::EmptyRun(problem) => bail!(problem),
                // Other programs' folders are what it is for.
                OnDisk::Other(_) => {}
            }
        } else if named.exists() || Path::new(&index).exists() {
            self.check_local(named)?;
        } else if let Some(name) = as_name(named) {
            return self.download(name, wanted, terminal);
        }
        Ok(named.to_owned())
    }

    /// The tokenizer that `named` means: a folder or file as it is, the model of a run's folder, or that of a named model.
    pub fn find_tokenizer(&self, named: &Path, terminal: &Terminal) -> Result<PathBuf> {
        let has_tokenizer = ["tokenizer.json", "vocab.txt"].iter().any(|file| named.join(file).is_file());
        if named.exists() {
            self.check_local(named)?;
            if named.is_dir()
                && !has_tokenizer
                && let OnDisk::Model(found) = on_disk(named)?
            {
                return model_in(&self.verified(found.tell(terminal))?);
            }
            if is_model(named) {
                return self.verified(named.to_owned());
            }
        } else if let Some(name) = as_name(named) {
            return self.download(name, Contents::Tokenizer, terminal);
        }
        Ok(named.to_owned())
    }

    /// The folder, whose files must be as they were saved where there are checksums of them.
    fn verified(&self, folder: PathBuf) -> Result<PathBuf> {
        if !self.no_verify {
            checkpoint::verify_model(&model_in(&folder)?)
                .map_err(|error| anyhow!("{error} (--no-verify uses it as it is)"))?;
        }
        Ok(folder)
    }

    /// The folder of a model that is named where a path may stand as well: none if a path is meant.
    pub fn find_if_named(&self, named: &Path, terminal: &Terminal) -> Result<Option<PathBuf>> {
        if named.exists() {
            self.check_local(named)?;
            if is_model(named) {
                self.verified(named.to_owned())?;
            }
            return Ok(None);
        }
        as_name(named).map(|name| self.download(name, Contents::Model, terminal)).transpose()
    }

    fn check_local(&self, path: &Path) -> Result<()> {
        match &self.revision {
            Some(revision) => bail!(
                "--revision {revision}: {} is on this machine; only a model named on the hub has revisions",
                path.display()
            ),
            None => Ok(()),
        }
    }

    /// A named model's folder in the cache, downloaded if need be.
    fn download(&self, name: &str, wanted: Contents, terminal: &Terminal) -> Result<PathBuf> {
        let mut environment = Environment::from_process();
        environment.offline |= self.offline;
        let is_bert = |config: &Path| Config::read(config).map(drop).map_err(|error| error.to_string());
        let mut request = Request::new(name, wanted);
        request.revision = self.revision.as_deref();
        // A model to convert may have a configuration that only `convert` reads; a tokenizer is small.
        if matches!(wanted, Contents::Model | Contents::Vectors) {
            request.check = Some(&is_bert);
        }
        let mut bar = None;
        let found = Hub::new(environment).find(&request, &mut |news| tell(&mut bar, news, terminal));
        if let Some(bar) = bar {
            bar.finish();
        }
        match found {
            Ok(found) => {
                if let Some(note) = &found.note {
                    terminal.warn(note);
                }
                if found.downloaded > 0 {
                    let size = format::bytes(found.downloaded);
                    terminal.note(&format!("downloaded {name} ({size}) to {}", found.folder.display()));
                }
                Ok(found.folder)
            }
            // The word may have been meant for a folder.
            Err(
                error @ (HubError::NoModel { .. }
                | HubError::NotCached { .. }
                | HubError::NoDownload { .. }
                | HubError::Network { .. }
                | HubError::RateLimited { .. }),
            ) => bail!("{name}: no such folder here, and {error}"),
            Err(error @ HubError::NoWeights { convertible: true, .. }) => {
                bail!("{error}: cloze convert {name} --out DIR")
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The folder of the weights in a model's folder. Transformers looks for no modules.json, and what has a config.json is its own.
pub fn model_in(folder: &Path) -> Result<PathBuf> {
    if folder.join("config.json").is_file() { Ok(folder.to_owned()) } else { Ok(Layout::of(folder)?.model) }
}

/// What is typed as a name on the hub, if it can be one.
fn as_name(named: &Path) -> Option<&str> {
    named.to_str().filter(|name| is_model_name(name))
}

fn tell(bar: &mut Option<Progress>, news: Event<'_>, terminal: &Terminal) {
    match news {
        Event::Bytes { file, done, total } => {
            let bar = bar.get_or_insert_with(|| terminal.progress("download", Some(total)));
            bar.set_total(total);
            bar.set(done, &format!("{} of {}, {file}", format::bytes(done), format::bytes(total)));
        }
        Event::Retry { file, reason } => note(bar.as_ref(), &format!("{file}: {reason}; trying again"), terminal),
        Event::Waiting { file } => {
            note(bar.as_ref(), &format!("waiting for another process that downloads {file}"), terminal);
        }
        _ => {}
    }
}

/// A line that does not write over the bar.
fn note(bar: Option<&Progress>, line: &str, terminal: &Terminal) {
    match bar {
        Some(bar) => bar.note(line),
        None => terminal.note(line),
    }
}

/// A model's folder, and why it was taken where that needs a word.
#[derive(Debug, PartialEq)]
struct Found {
    folder: PathBuf,
    note: Option<String>,
}

impl Found {
    fn tell(self, terminal: &Terminal) -> PathBuf {
        match &self.note {
            Some(note) => terminal.note(note),
            None => terminal.detail(&format!("model: {}", self.folder.display())),
        }
        self.folder
    }
}

/// Whether a folder is taken for a model's as it is. Old sentence-transformers folders keep config.json in a folder of the
/// model's own.
fn is_model(folder: &Path) -> bool {
    ["config.json", "modules.json"].iter().any(|name| folder.join(name).is_file())
}

/// What a path that exists is.
#[derive(Debug, PartialEq)]
enum OnDisk {
    Model(Found),
    /// A run's folder without a model, and what to say of it.
    EmptyRun(String),
    /// Neither, and what to say of it.
    Other(String),
}

/// What an existing path is, and the model of a run.
fn on_disk(path: &Path) -> Result<OnDisk> {
    if is_model(path) {
        return Ok(OnDisk::Model(Found { folder: path.to_owned(), note: None }));
    }
    let shown = path.display();
    if !path.is_dir() {
        let problem = format!("{shown}: expected a folder with config.json and model.safetensors, found a file");
        return Ok(OnDisk::Other(problem));
    }
    let run = RunFolder::new(path);
    let chosen = |model: PathBuf, what: &str| {
        let note = format!("model: {} ({what})", model.display());
        Ok(OnDisk::Model(Found { folder: model, note: Some(note) }))
    };
    if is_model(&run.model()) {
        return chosen(run.model(), "the run's model");
    }
    if let Some(best) = checkpoint::best(&run).filter(|best| is_model(best)) {
        return chosen(best, "the run's best checkpoint; it has no model/ yet");
    }
    if let Some((_, newest)) = checkpoint::list(&run)?.pop() {
        return chosen(newest, "the run's newest checkpoint; it has no model/ yet");
    }
    let entries = entries(path)?;
    let is_run = ["recipe.toml", "finetune.toml", "results.json", "metrics.jsonl", "checkpoints"]
        .iter()
        .any(|name| entries.iter().any(|entry| entry == name));
    let found = listed(&entries);
    if is_run {
        return Ok(OnDisk::EmptyRun(format!(
            "{shown}: this run has no model yet: no model/, no best, no checkpoint in checkpoints/ (found {found}); let it go on \
             with --resume until it has saved one"
        )));
    }
    Ok(OnDisk::Other(format!(
        "{shown}: no model folder: expected config.json and model.safetensors, or a run's model/ or checkpoints/; found {found}"
    )))
}

/// Names in a folder, sorted, those that start with a dot left out.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = match read() {
        Ok(names) => names,
        Err(error) => bail!("cannot read {}: {error}", folder.display()),
    };
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}

/// The first few names, and how many more there are.
fn listed(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        _ if names.len() > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }

    #[test]
    fn a_run_gives_its_model_else_its_best_else_its_newest_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        let found = || match on_disk(run).unwrap() {
            OnDisk::Model(found) => found,
            other => panic!("{other:?}"),
        };
        write(&run.join("recipe.toml"));
        let OnDisk::EmptyRun(line) = on_disk(run).unwrap() else { panic!("a run without a model has one") };
        assert!(line.contains("no model yet") && line.contains("recipe.toml"), "{line}");
        fs::create_dir(run.join("checkpoints")).unwrap();
        assert!(matches!(on_disk(run).unwrap(), OnDisk::EmptyRun(_)));

        for step in [9, 10] {
            write(&run.join(format!("checkpoints/step-{step:08}/config.json")));
        }
        // Saved only half.
        write(&run.join("checkpoints/.step-00000011.partial/config.json"));
        assert_eq!(found().folder, run.join("checkpoints/step-00000010"));
        assert!(found().note.unwrap().contains("newest checkpoint"));

        checkpoint::mark_best(&RunFolder::new(run), 9).unwrap();
        assert_eq!(
            fs::canonicalize(found().folder).unwrap(),
            fs::canonicalize(run.join("checkpoints/step-00000009")).unwrap()
        );
        fs::remove_dir_all(run.join("checkpoints/step-00000009")).unwrap();
        assert_eq!(found().folder, run.join("checkpoints/step-00000010"), "a best that is gone is none");

        write(&run.join("model/config.json"));
        assert_eq!(found().folder, run.join("model"));
        assert!(found().note.unwrap().contains("the run's model"));
    }

    #[test]
    fn a_model_folder_is_taken_as_it_is_and_nothing_said() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a/config.json"));
        write(&dir.path().join("a/model/config.json"));
        write(&dir.path().join("b/modules.json"));
        for name in ["a", "b"] {
            let folder = dir.path().join(name);
            assert_eq!(on_disk(&folder).unwrap(), OnDisk::Model(Found { folder, note: None }));
        }
    }

    #[test]
    fn other_folders_and_files_are_named_with_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| match on_disk(path).unwrap() {
            OnDisk::Other(line) => line,
            other => panic!("{other:?}"),
        };
        assert!(error(dir.path()).contains("found nothing"));
        (0..8).for_each(|number| write(&dir.path().join(format!("text-{number}.txt"))));
        let line = error(dir.path());
        assert!(line.contains("text-0.txt") && line.contains("and 3 more") && line.contains("config.json"), "{line}");
        assert!(error(&dir.path().join("text-0.txt")).contains("found a file"));
    }
}
