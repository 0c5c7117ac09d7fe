//! Finds the folder for `--model`: a model folder, the model of a run folder, or a model on the Hugging Face Hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use cloze_hub::{Contents, Environment, Event, Hub, HubError, Request, is_model_name};
use cloze_model::rtd_pair::DISCRIMINATOR;
use cloze_model::{Config, Layout};
use cloze_text::Tokenizer;
use cloze_train::checkpoint;
use cloze_train::run::RunFolder;

use crate::terminal::{Progress, Terminal};
use crate::{format, program};

/// Maximum number of a folder's entries in an error message.
const MAX_LISTED: usize = 5;

/// The `--model` option.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArguments {
    /// Model folder, checkpoint, run folder, or a name on the Hugging Face Hub such as bert-base-uncased
    ///
    /// A path on this machine is preferred to a name. For a run folder its model/ is used, otherwise its best
    /// checkpoint, otherwise its newest. A name is looked up in the local cache (HF_HUB_CACHE, else hub in HF_HOME,
    /// else ~/.cache/huggingface/hub); missing files are downloaded into the cache (from HF_ENDPOINT, with HF_TOKEN).
    #[arg(long = "model", value_name = "DIR|NAME")]
    pub named: PathBuf,

    #[command(flatten)]
    hub: HubArguments,
}

impl ModelArguments {
    /// The folder of the model. Prints a note if there was a choice.
    pub fn find(&self, terminal: &Terminal) -> Result<PathBuf> {
        self.hub.find(&self.named, Contents::Model, terminal)
    }

    /// Like [`find`](Self::find), but for vectors: the sentence-transformers folder, if the model is in one.
    pub fn find_with_pooling(&self, terminal: &Terminal) -> Result<PathBuf> {
        self.hub.find(&self.named, Contents::Vectors, terminal)
    }
}

/// Options for models on the Hub.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HubArguments {
    /// Branch, tag or commit of a model on the Hub [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,

    /// Use only cached models (like HF_HUB_OFFLINE=1)
    #[arg(long)]
    offline: bool,

    /// Do not verify the model's checksums
    #[arg(long, hide_short_help = true)]
    no_verify: bool,
}

impl HubArguments {
    /// The options as command-line text, each after a space.
    pub fn as_typed(&self) -> String {
        let revision = self.revision.as_ref().map(|revision| format!(" --revision {}", program::quoted(revision)));
        let flag = |is_set: bool, flag: &'static str| if is_set { flag } else { "" };
        revision.unwrap_or_default() + flag(self.offline, " --offline") + flag(self.no_verify, " --no-verify")
    }

    /// The folder of the model `named`: for vectors the sentence-transformers folder, if it is one, otherwise the
    /// folder of the weights.
    pub fn find(&self, named: &Path, contents: Contents, terminal: &Terminal) -> Result<PathBuf> {
        let folder = self.find_folder(named, contents, terminal)?;
        if contents == Contents::Vectors { Ok(folder) } else { model_in(&folder) }
    }

    fn find_folder(&self, named: &Path, contents: Contents, terminal: &Terminal) -> Result<PathBuf> {
        if named.exists() {
            self.check_local(named)?;
            return match on_disk(named)? {
                OnDisk::Model(found) => self.verified(found.show(terminal)),
                OnDisk::EmptyRun(problem) | OnDisk::Other(problem) => bail!(problem),
            };
        }
        match hub_name(named) {
            Some(name) => self.download(name, contents, terminal),
            None => bail!(
                "{}: no such folder; expected a model folder (config.json, model.safetensors), a run folder, or a name on the \
                 Hugging Face Hub (name or organisation/name)",
                named.display()
            ),
        }
    }

    /// The source of `cloze convert`: a folder, file or prefix, the model of a run folder, or a model on the Hub.
    pub fn find_source(&self, named: &Path, contents: Contents, terminal: &Terminal) -> Result<PathBuf> {
        let mut index = named.as_os_str().to_owned();
        index.push(".index");
        if named.is_dir() {
            self.check_local(named)?;
            match on_disk(named)? {
                OnDisk::Model(found) => return self.verified(found.show(terminal)),
                OnDisk::EmptyRun(problem) => bail!(problem),
                // Folders of other programs are what `convert` reads.
                OnDisk::Other(_) => {}
            }
        } else if named.exists() || Path::new(&index).exists() {
            self.check_local(named)?;
        } else if let Some(name) = hub_name(named) {
            return self.download(name, contents, terminal);
        }
        Ok(named.to_owned())
    }

    /// The folder or file of the tokenizer `named`: a path, the model of a run folder, or a model on the Hub.
    pub fn find_tokenizer(&self, named: &Path, terminal: &Terminal) -> Result<PathBuf> {
        let has_tokenizer = Tokenizer::is_in(named);
        if named.exists() {
            self.check_local(named)?;
            if named.is_dir()
                && !has_tokenizer
                && let OnDisk::Model(found) = on_disk(named)?
            {
                return model_in(&self.verified(found.show(terminal))?);
            }
            if is_model(named) {
                return self.verified(named.to_owned());
            }
        } else if let Some(name) = hub_name(named) {
            return self.download(name, Contents::Tokenizer, terminal);
        }
        Ok(named.to_owned())
    }

    /// Verifies the checksums of the model in `folder`, if it has any, and returns the folder.
    fn verified(&self, folder: PathBuf) -> Result<PathBuf> {
        if !self.no_verify {
            checkpoint::verify_model(&model_in(&folder)?)
                .map_err(|error| anyhow!("{error} (use --no-verify to skip this check)"))?;
        }
        Ok(folder)
    }

    /// The downloaded folder, if `named` is a model on the Hub; `None` for a path.
    pub fn find_if_named(&self, named: &Path, terminal: &Terminal) -> Result<Option<PathBuf>> {
        if named.exists() {
            self.check_local(named)?;
            if is_model(named) {
                self.verified(named.to_owned())?;
            }
            return Ok(None);
        }
        hub_name(named).map(|name| self.download(name, Contents::Model, terminal)).transpose()
    }

    fn check_local(&self, path: &Path) -> Result<()> {
        match &self.revision {
            Some(revision) => bail!(
                "--revision {revision}: {} is a local path; only models on the Hub have revisions",
                path.display()
            ),
            None => Ok(()),
        }
    }

    /// The folder of a Hub model in the cache, downloaded if necessary.
    fn download(&self, name: &str, contents: Contents, terminal: &Terminal) -> Result<PathBuf> {
        let mut environment = Environment::from_process();
        environment.offline |= self.offline;
        let is_bert = |config: &Path| Config::read(config).map(drop).map_err(|error| error.to_string());
        let mut request = Request::new(name, contents);
        request.revision = self.revision.as_deref();
        // A source for `convert` may have a configuration that only `convert` reads. A tokenizer is small.
        if matches!(contents, Contents::Model | Contents::Vectors) {
            request.check = Some(&is_bert);
        }
        let mut bar = None;
        let found = Hub::new(environment).find(&request, &mut |event| show_event(&mut bar, event, terminal));
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
            // The user may have meant a folder.
            Err(
                error @ (HubError::NoModel { .. }
                | HubError::NotCached { .. }
                | HubError::NoDownload { .. }
                | HubError::Network { .. }
                | HubError::RateLimited { .. }),
            ) => bail!("{name}: no such folder, and {error}"),
            Err(error @ HubError::NoWeights { convertible: true, .. }) => {
                bail!("{error}: cloze convert {name} --out DIR")
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The folder of the weights in a model folder. A folder with config.json is used directly, as Transformers does, even
/// if it has a modules.json.
pub fn model_in(folder: &Path) -> Result<PathBuf> {
    if folder.join("config.json").is_file() { Ok(folder.to_owned()) } else { Ok(Layout::of(folder)?.model) }
}

/// The argument as a name on the Hub, if its syntax allows it.
fn hub_name(named: &Path) -> Option<&str> {
    named.to_str().filter(|name| is_model_name(name))
}

/// Shows a download event in the progress bar, which is created at the first byte count.
fn show_event(bar: &mut Option<Progress>, event: Event<'_>, terminal: &Terminal) {
    match event {
        Event::Bytes { file, done, total } => {
            let bar = bar.get_or_insert_with(|| terminal.progress("download", Some(total)));
            bar.set_total(total);
            bar.set(done, &format!("{} of {}, {file}", format::bytes(done), format::bytes(total)));
        }
        Event::Retry { file, reason } => {
            note_above_bar(bar.as_ref(), &format!("{file}: {reason}; trying again"), terminal)
        }
        Event::Waiting { file } => {
            note_above_bar(bar.as_ref(), &format!("waiting for another process to download {file}"), terminal);
        }
        _ => {}
    }
}

/// Prints a line above the bar, if there is one.
fn note_above_bar(bar: Option<&Progress>, line: &str, terminal: &Terminal) {
    match bar {
        Some(bar) => bar.note(line),
        None => terminal.note(line),
    }
}

/// A model folder, and a note if it was chosen among several.
#[derive(Debug, PartialEq)]
struct Found {
    folder: PathBuf,
    note: Option<String>,
}

impl Found {
    fn show(self, terminal: &Terminal) -> PathBuf {
        match &self.note {
            Some(note) => terminal.note(note),
            None => terminal.detail(&format!("model: {}", self.folder.display())),
        }
        self.folder
    }
}

/// Whether a folder is a model folder. Old sentence-transformers folders have modules.json, and config.json in a
/// subfolder.
fn is_model(folder: &Path) -> bool {
    ["config.json", "modules.json"].iter().any(|name| folder.join(name).is_file())
}

/// The kind of an existing path.
#[derive(Debug, PartialEq)]
enum OnDisk {
    Model(Found),
    /// A run folder without a model, with the error message.
    EmptyRun(String),
    /// Neither a model nor a run, with the error message.
    Other(String),
}

/// Determines the kind of an existing path, and finds the model of a run folder.
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
    let newest = || -> Result<Option<PathBuf>> { Ok(checkpoint::list(&run)?.pop().map(|(_, newest)| newest)) };
    let candidates = [
        (Some(path.to_owned()), ""),
        (Some(run.model()), "the run's model"),
        (checkpoint::best(&run), "the run's best checkpoint; it has no model/ yet"),
        (newest()?, "the run's newest checkpoint; it has no model/ yet"),
    ];
    for (folder, what) in candidates.into_iter().filter_map(|(folder, what)| Some((folder?, what))) {
        // A run of replaced-token detection has two models, of which the discriminator is the one for tasks.
        let discriminator = folder.join(DISCRIMINATOR);
        let (model, what) = match is_model(&folder) {
            true => (folder, what.to_owned()),
            false if !is_model(&discriminator) => continue,
            false if what.is_empty() => (discriminator, "the discriminator".to_owned()),
            false => (discriminator, format!("the discriminator of {what}")),
        };
        let note = format!("model: {} ({what})", model.display());
        return Ok(OnDisk::Model(Found { folder: model, note: Some(note) }));
    }
    let entries = entries(path)?;
    let is_run = ["recipe.toml", "finetune.toml", "results.json", "metrics.jsonl", "checkpoints"]
        .iter()
        .any(|name| entries.iter().any(|entry| entry == name));
    let found = listed(&entries);
    if is_run {
        return Ok(OnDisk::EmptyRun(format!(
            "{shown}: this run has no model yet: no model/, no best checkpoint and none in checkpoints/ (found {found}); \
             continue it with --resume until it has saved one"
        )));
    }
    Ok(OnDisk::Other(format!(
        "{shown}: not a model folder: expected config.json and model.safetensors, or a run's model/ or checkpoints/; found {found}"
    )))
}

/// The names in a folder, sorted, without hidden files.
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

/// The first names, and the number of further ones.
fn listed(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        _ if names.len() > MAX_LISTED => {
            format!("{} and {} more", names[..MAX_LISTED].join(", "), names.len() - MAX_LISTED)
        }
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
    fn a_run_folder_gives_model_then_best_then_newest_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        let found = || match on_disk(run).unwrap() {
            OnDisk::Model(found) => found,
            other => panic!("{other:?}"),
        };
        write(&run.join("recipe.toml"));
        let OnDisk::EmptyRun(line) = on_disk(run).unwrap() else { panic!("expected a run without a model") };
        assert!(line.contains("no model yet") && line.contains("recipe.toml"), "{line}");
        fs::create_dir(run.join("checkpoints")).unwrap();
        assert!(matches!(on_disk(run).unwrap(), OnDisk::EmptyRun(_)));

        for step in [9, 10] {
            write(&run.join(format!("checkpoints/step-{step:08}/config.json")));
        }
        // An incomplete checkpoint.
        write(&run.join("checkpoints/.step-00000011.partial/config.json"));
        assert_eq!(found().folder, run.join("checkpoints/step-00000010"));
        assert!(found().note.unwrap().contains("newest checkpoint"));

        checkpoint::mark_best(&RunFolder::new(run), 9).unwrap();
        assert_eq!(
            fs::canonicalize(found().folder).unwrap(),
            fs::canonicalize(run.join("checkpoints/step-00000009")).unwrap()
        );
        fs::remove_dir_all(run.join("checkpoints/step-00000009")).unwrap();
        assert_eq!(found().folder, run.join("checkpoints/step-00000010"), "a removed best checkpoint is ignored");

        write(&run.join("model/config.json"));
        assert_eq!(found().folder, run.join("model"));
        assert!(found().note.unwrap().contains("the run's model"));
    }

    #[test]
    fn a_model_folder_is_used_without_a_note() {
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
    fn errors_list_the_contents_of_other_folders() {
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
