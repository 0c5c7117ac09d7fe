//! Names → open models. A change is atomic: requests get the model before or after it, and a running request keeps its model until it
//! ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use cloze_engine::Device;
use cloze_tasks::TaskError;

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

/// The models that are served.
pub struct Registry {
    device: Device,
    models: ArcSwap<Models>,
    /// All models that may be loaded. Held while models are changed, so that changes come one after the other.
    specs: Mutex<Vec<Spec>>,
}

impl Registry {
    /// Opens all models.
    ///
    /// # Errors
    /// The first model that cannot be opened.
    pub fn open(device: Device, specs: Vec<Spec>) -> Result<Registry, TaskError> {
        let registry = Registry { device, models: ArcSwap::default(), specs: Mutex::default() };
        for spec in &specs {
            registry.open_one(spec)?;
        }
        *registry.specs.lock().unwrap_or_else(PoisonError::into_inner) = specs;
        Ok(registry)
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

    /// All models that may be loaded, with whether they are.
    pub fn index(&self) -> Vec<(Spec, bool)> {
        let (specs, models) = (self.specs.lock().unwrap_or_else(PoisonError::into_inner), self.models.load());
        specs.iter().map(|spec| (spec.clone(), models.by_name.contains_key(&spec.name))).collect()
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

    /// Opens a model again, or one that was removed. Requests that run finish on the old one.
    ///
    /// # Errors
    /// [`Reason::UnknownModel`] for a name that the server was not started with; [`Reason::Backend`] for a model that cannot be opened: the old
    /// one is then still served.
    pub fn load(&self, name: &str) -> Result<Arc<Served>, Failure> {
        let specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
            let names: Vec<String> = specs.iter().map(|spec| format!("\"{}\"", spec.name)).collect();
            let message = format!("the model \"{name}\" is not configured; this server may load {}", names.join(", "));
            return Err(Failure::new(Reason::UnknownModel, message));
        };
        self.open_one(spec).map_err(|error| Failure::new(Reason::Backend, format!("cannot load \"{name}\": {error}")))
    }

    /// Removes a model. Requests that run finish on it.
    ///
    /// # Errors
    /// [`Reason::UnknownModel`].
    pub fn unload(&self, name: &str) -> Result<(), Failure> {
        let _changing = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        self.named(name)?;
        self.change(|models| {
            models.by_name.remove(name);
            models.order.retain(|known| known != name);
        });
        tracing::info!(model = name, "model removed");
        Ok(())
    }

    /// Changes the models to these: opens new ones and those whose specification or files changed, removes the others. A model that
    /// cannot be opened is reported in the log, and the old one is still served.
    pub fn update(&self, now: Vec<Spec>) {
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in specs.iter().filter(|spec| now.iter().all(|new| new.name != spec.name)) {
            self.change(|models| {
                models.by_name.remove(&gone.name);
                models.order.retain(|known| *known != gone.name);
            });
            tracing::info!(model = gone.name, "model removed");
        }
        for spec in &now {
            let open = self.models.load().by_name.get(&spec.name).cloned();
            let is_current =
                specs.contains(spec) && open.is_some_and(|open| open.fingerprint == Fingerprint::of(&spec.dir));
            if !is_current {
                self.try_open(spec);
            }
        }
        *specs = now;
    }

    /// Opens the models again whose files have changed since they were opened and are the same as in the last call, so that a copy in
    /// progress is complete. Files that could not be opened are not tried again until they change.
    pub fn reload_changed(&self, watch: &mut Watch) {
        let specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pending = BTreeMap::new();
        for spec in specs.iter() {
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
