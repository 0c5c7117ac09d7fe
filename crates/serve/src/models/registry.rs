//! Names → open models. A change is atomic: requests get the model before or after it, and a running request keeps its model until it
//! ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use cloze_engine::Device;
use cloze_tasks::TaskError;
use cloze_tasks::inference::Precision;

use super::repository::Repository;
use super::served::{Fingerprint, Opening, Served};
use super::task::Task;
use crate::failure::{Failure, Reason};

/// A model to serve.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The name in requests.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// How it is opened.
    pub opening: Opening,
}

/// The models by name, and their order.
#[derive(Default)]
struct Models {
    by_name: BTreeMap<String, Arc<Served>>,
    /// The names in the order of the specifications.
    order: Vec<String>,
}

/// The changes that were seen in folders: see [`Registry::reload_changed`].
#[derive(Default)]
pub struct Watch {
    /// The state of changed folders.
    pending: BTreeMap<String, Fingerprint>,
    /// The state of folders that could not be opened.
    failed: BTreeMap<String, Fingerprint>,
}

/// How a model is loaded at run time, where it differs from what the server was started with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Its folder in the repository, by default that of its name.
    pub path: Option<String>,
    /// The precision.
    pub precision: Option<Precision>,
    /// Maximum number of tokens of a sequence.
    pub max_len: Option<usize>,
    /// The name of the prompt before each text.
    pub prompt: Option<String>,
}

impl Changes {
    fn apply(&self, opening: &mut Opening) {
        if let Some(precision) = self.precision {
            (opening.vectors, opening.others) = (precision, precision);
        }
        opening.max_len = self.max_len.or(opening.max_len);
        opening.prompt = self.prompt.clone().or(opening.prompt.take());
    }
}

/// A model that may be loaded, and whether it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Whether it is open.
    pub is_open: bool,
    /// Whether the server was started with it: it is ready only if all of these are.
    pub is_given: bool,
}

/// What may be loaded without looking at the repository.
#[derive(Clone, Default)]
struct Known {
    /// What the server was started with.
    given: Vec<Spec>,
    /// What was loaded from the repository since.
    added: Vec<Spec>,
}

impl Known {
    fn all(&self) -> impl Iterator<Item = &Spec> {
        self.given.iter().chain(&self.added)
    }
}

/// The models that are served.
pub struct Registry {
    device: Device,
    models: ArcSwap<Models>,
    known: ArcSwap<Known>,
    repository: Option<Repository>,
    /// Held while models are changed, so that changes come one after the other. Reading does not need it: opening a model takes time.
    changing: Mutex<()>,
}

impl Registry {
    /// Opens all models. Others may be loaded from the repository.
    ///
    /// # Errors
    /// The first model that cannot be opened.
    pub fn open(device: Device, specs: Vec<Spec>, repository: Option<Repository>) -> Result<Registry, TaskError> {
        let (models, known) = (ArcSwap::default(), ArcSwap::default());
        let registry = Registry { device, models, known, repository, changing: Mutex::default() };
        for spec in &specs {
            registry.open_one(spec)?;
        }
        registry.known.store(Arc::new(Known { given: specs, added: Vec::new() }));
        Ok(registry)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether models can be loaded that the server was not started with.
    pub fn has_repository(&self) -> bool {
        self.repository.is_some()
    }

    /// Opens a model beside the one of the same name, and then replaces that one.
    fn open_one(&self, spec: &Spec) -> Result<Arc<Served>, TaskError> {
        let version = self.models.load().by_name.get(&spec.name).map_or(1, |known| known.version + 1);
        let served = Arc::new(Served::open(&spec.name, &spec.dir, &self.device, &spec.opening, version)?);
        tracing::info!(
            model = spec.name,
            folder = %spec.dir.display(),
            class = served.model.model.class_name(),
            tasks = served.tasks().iter().map(|task| task.name()).collect::<Vec<_>>().join(","),
            dtype = served.model.precision().name(),
            milliseconds = served.took.as_millis() as u64,
            "model loaded"
        );
        self.change(|models| {
            if !models.order.contains(&spec.name) {
                models.order.push(spec.name.clone());
            }
            models.by_name.insert(spec.name.clone(), Arc::clone(&served));
        });
        Ok(served)
    }

    fn change(&self, change: impl Fn(&mut Models)) {
        let now = self.models.load();
        let mut models = Models { by_name: now.by_name.clone(), order: now.order.clone() };
        change(&mut models);
        self.models.store(Arc::new(models));
    }

    /// All open models, in the order in which they were given.
    pub fn all(&self) -> Vec<Arc<Served>> {
        let models = self.models.load();
        models.order.iter().filter_map(|name| models.by_name.get(name).cloned()).collect()
    }

    /// All models that may be loaded: those that the server was started with, and those of the repository. It reads folders.
    pub fn index(&self) -> Vec<Entry> {
        let (known, models) = (self.known.load(), self.models.load());
        let mut found: Vec<Entry> = Vec::new();
        let given = known.given.iter().map(|spec| (spec.name.clone(), true));
        let added = known.added.iter().map(|spec| (spec.name.clone(), false));
        let others = self.repository.iter().flat_map(Repository::names).map(|name| (name, false));
        for (name, is_given) in given.chain(added).chain(others) {
            if found.iter().all(|entry| entry.name != name) {
                found.push(Entry { is_open: models.by_name.contains_key(&name), name, is_given });
            }
        }
        found
    }

    /// Whether all models are open that the server was started with.
    pub fn is_complete(&self) -> bool {
        let models = self.models.load();
        self.known.load().given.iter().all(|spec| models.by_name.contains_key(&spec.name))
    }

    /// Whether a model of this name is open or known.
    pub fn knows(&self, name: &str) -> bool {
        self.models.load().by_name.contains_key(name)
            || self.known.load().all().any(|spec| spec.name == name)
            || self.repository.as_ref().is_some_and(|repository| repository.find(name).is_ok())
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`Reason::UnknownModel`].
    pub fn named(&self, name: &str) -> Result<Arc<Served>, Failure> {
        let models = self.models.load();
        models.by_name.get(name).cloned().ok_or_else(|| {
            let names: Vec<String> = models.order.iter().map(|name| format!("\"{name}\"")).collect();
            let known = if names.is_empty() { "no model".to_owned() } else { names.join(", ") };
            Failure::new(Reason::UnknownModel, format!("the model \"{name}\" does not exist; this server has {known}"))
        })
    }

    /// The model for a request: the named one; else the first that has one of the tasks.
    ///
    /// # Errors
    /// [`Reason::UnknownModel`], and [`Reason::WrongTask`] if no model has the task.
    pub fn find(&self, name: Option<&str>, tasks: &[Task]) -> Result<Arc<Served>, Failure> {
        if let Some(name) = name {
            return self.named(name);
        }
        let all = self.all();
        let has = |model: &&Arc<Served>| tasks.iter().any(|task| model.tasks().contains(task));
        match (all.iter().find(has), &all[..], tasks) {
            (Some(found), ..) => Ok(Arc::clone(found)),
            (None, [only], [task, ..]) => Err(only.lacks(*task)),
            (None, _, tasks) => {
                let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
                let message = format!("no model of this server has the task {}", names.join(" or "));
                Err(Failure::new(Reason::WrongTask, message))
            }
        }
    }

    /// Opens a model again, or one that was removed, or one of the repository. Requests that run finish on the old one.
    ///
    /// # Errors
    /// [`Reason::UnknownModel`] for a name that is neither known nor in the repository; [`Reason::Validation`] for a folder that is not in the
    /// repository; [`Reason::Backend`] for a model that cannot be opened: the old one is then still served.
    pub fn load(&self, name: &str, changes: &Changes) -> Result<Arc<Served>, Failure> {
        let _changing = self.lock();
        let mut known = Known::clone(&self.known.load());
        let is_given = known.given.iter().any(|spec| spec.name == name);
        if is_given && changes.path.is_some() {
            let message =
                format!("the server was started with the folder of \"{name}\"; load another name from the repository");
            return Err(Failure::validation(message));
        }
        let own = known.all().find(|spec| spec.name == name && changes.path.is_none()).cloned();
        let mut spec = match (own, &self.repository) {
            (Some(spec), _) => spec,
            (None, Some(repository)) => {
                let dir = repository.find(changes.path.as_deref().unwrap_or(name))?;
                Spec { name: name.to_owned(), dir, opening: repository.opening.clone() }
            }
            (None, None) => {
                let names: Vec<String> = known.all().map(|spec| format!("\"{}\"", spec.name)).collect();
                let message = format!(
                    "the model \"{name}\" is not configured; this server may load {}, and has no repository (--model-repository)",
                    names.join(", ")
                );
                return Err(Failure::new(Reason::UnknownModel, message));
            }
        };
        changes.apply(&mut spec.opening);
        let opened = self.open_one(&spec);
        let opened =
            opened.map_err(|error| Failure::new(Reason::Backend, format!("cannot load \"{name}\": {error}")))?;
        let list = if is_given { &mut known.given } else { &mut known.added };
        match list.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = spec,
            None => list.push(spec),
        }
        self.known.store(Arc::new(known));
        Ok(opened)
    }

    /// Removes a model. Requests that run finish on it.
    ///
    /// # Errors
    /// [`Reason::UnknownModel`].
    pub fn unload(&self, name: &str) -> Result<(), Failure> {
        let _changing = self.lock();
        self.named(name)?;
        self.remove(name);
        let mut known = Known::clone(&self.known.load());
        known.added.retain(|spec| spec.name != name);
        self.known.store(Arc::new(known));
        Ok(())
    }

    fn remove(&self, name: &str) {
        self.change(|models| {
            models.by_name.remove(name);
            models.order.retain(|known| known != name);
        });
        tracing::info!(model = name, "model removed");
    }

    /// Changes the models with which the server was started to these: opens new ones and those whose specification or files changed, removes
    /// the others. A model that cannot be opened is reported in the log, and the old one is still served. Those of the repository stay.
    pub fn update(&self, now: Vec<Spec>) {
        let _changing = self.lock();
        let mut known = Known::clone(&self.known.load());
        for gone in known.given.iter().filter(|spec| now.iter().all(|new| new.name != spec.name)) {
            self.remove(&gone.name);
        }
        for spec in &now {
            let open = self.models.load().by_name.get(&spec.name).cloned();
            let is_current =
                known.given.contains(spec) && open.is_some_and(|open| open.fingerprint == Fingerprint::of(&spec.dir));
            if !is_current {
                self.try_open(spec);
            }
        }
        known.added.retain(|spec| now.iter().all(|new| new.name != spec.name));
        known.given = now;
        self.known.store(Arc::new(known));
    }

    /// Opens the models again whose files have changed since they were opened and are the same as in the last call, so that a copy in
    /// progress is complete. Files that could not be opened are not tried again until they change.
    pub fn reload_changed(&self, watch: &mut Watch) {
        let _changing = self.lock();
        let (known, mut pending) = (self.known.load(), BTreeMap::new());
        for spec in known.all() {
            let Some(open) = self.models.load().by_name.get(&spec.name).cloned() else { continue };
            let now = Fingerprint::of(&spec.dir);
            let is_known = now == open.fingerprint || watch.failed.get(&spec.name) == Some(&now);
            if is_known || now == Fingerprint::default() {
                continue;
            }
            if watch.pending.get(&spec.name) != Some(&now) {
                pending.insert(spec.name.clone(), now);
            } else if !self.try_open(spec) {
                watch.failed.insert(spec.name.clone(), now);
            }
        }
        watch.pending = pending;
    }

    fn try_open(&self, spec: &Spec) -> bool {
        match self.open_one(spec) {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(model = spec.name, %error, "model not loaded");
                false
            }
        }
    }
}
