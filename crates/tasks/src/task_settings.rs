//! How the rows of a fine-tuned model are read and scored. [`finetune`](crate::finetune::finetune) stores these
//! settings in the model's config.json, and they are read when the model is opened. Callers pass the same structure to
//! override them.

use std::path::Path;

use cloze_model::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TaskError;
use crate::datasets::table::Column;

/// The key of config.json that holds the settings.
const KEY: &str = "cloze";
/// The current version of the settings. Settings without a version are version 0.
const VERSION: u32 = 1;

/// Settings of a task. Each has the name of its option. A missing setting has the default of the model, of the data set
/// preset, or of the kind of task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TaskSettings {
    /// The kind of task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name of the data set preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The column of the text.
    #[serde(skip_serializing_if = "Option::is_none", with = "column")]
    pub text: Option<Column>,
    /// The column of the second text.
    #[serde(skip_serializing_if = "Option::is_none", with = "column")]
    pub pair: Option<Column>,
    /// The column of the label.
    #[serde(skip_serializing_if = "Option::is_none", with = "column")]
    pub label: Option<Column>,
    /// The metric that selects the best model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Maximum number of tokens of a sequence, special tokens included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_len: Option<usize>,
    /// Step between the windows of a long text, in tokens; 0: long texts are truncated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// The settings that only this kind of task has, by the names of their options.
    #[serde(flatten)]
    pub own: Map<String, Value>,
}

impl TaskSettings {
    /// The settings stored in a model's configuration; none if the model was not fine-tuned by this library. `dir` is
    /// the model folder.
    ///
    /// # Errors
    /// [`TaskError::File`] for settings that are not valid or that a later version of this library wrote.
    pub fn from_config(config: &Config, dir: &Path) -> Result<Option<TaskSettings>, TaskError> {
        let Some(value) = config.extra.get(KEY) else { return Ok(None) };
        let path = dir.join("config.json");
        TaskSettings::from_json(value)
            .map(Some)
            .map_err(|problem| TaskError::file(&path, format!("\"{KEY}\" {problem}")))
    }

    /// Stores the settings in a model's configuration.
    pub fn write_to(&self, config: &mut Config) {
        config.extra.insert(KEY.to_owned(), self.to_json());
    }

    /// The JSON form in which the settings are stored, with the version.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("settings serialize: all keys are strings");
        value["version"] = VERSION.into();
        value
    }

    /// Parses stored settings of any version up to the current one. Settings without a version have the same keys.
    ///
    /// # Errors
    /// The problem, as the end of a sentence.
    pub fn from_json(value: &Value) -> Result<TaskSettings, String> {
        let damaged = |e: String| format!("is not valid; expected the settings that fine-tuning writes: {e}");
        let mut object = value.as_object().cloned().ok_or_else(|| damaged("expected an object".to_owned()))?;
        match object.remove("version").as_ref().map(|version| version.as_u64()) {
            None => {}
            Some(Some(version)) if version <= u64::from(VERSION) => {}
            Some(Some(version)) => {
                return Err(format!(
                    "has version {version}, expected at most {VERSION}; the model was written by a later version of cloze: use that version"
                ));
            }
            Some(None) => return Err(damaged("\"version\" is not a number".to_owned())),
        }
        serde_json::from_value(Value::Object(object)).map_err(|e| damaged(e.to_string()))
    }

    /// The settings that only this kind of task has, deserialized.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for a value that does not have the expected type.
    pub fn own<'de, T: Deserialize<'de>>(&self) -> Result<T, TaskError> {
        T::deserialize(Value::Object(self.own.clone())).map_err(|e| TaskError::setting("task_settings", e.to_string()))
    }
}

/// Serializes a column as a string: its name, or `#` and its number.
mod column {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::datasets::table::Column;

    pub(super) fn serialize<S: Serializer>(column: &Option<Column>, to: S) -> Result<S::Ok, S::Error> {
        match column {
            None => to.serialize_none(),
            Some(Column::Name(name)) => to.serialize_str(name),
            Some(Column::Number(number)) => to.serialize_str(&format!("#{number}")),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Column>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| Column::parse(&text)).transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The settings of folders that were written before settings had a version.
    fn before_versions() -> Value {
        json!({"kind": "answer", "task": "squad2", "max_len": 384, "stride": 128, "max_question": 64, "null_threshold": 0.5})
    }

    #[test]
    fn settings_without_a_version_have_the_same_meaning() {
        let old = TaskSettings::from_json(&before_versions()).unwrap();
        let new = TaskSettings::from_json(&old.to_json()).unwrap();
        assert_eq!((old.clone(), old.max_len, old.stride), (new, Some(384), Some(128)));
        assert_eq!(old.own["null_threshold"], 0.5);
        let mut written = before_versions();
        written["version"] = 1.into();
        assert_eq!(old.to_json(), written);
        let columns = json!({"text": "#2", "pair": "b"});
        let read = TaskSettings::from_json(&columns).unwrap();
        assert_eq!((read.text, read.pair), (Some(Column::number(2)), Some(Column::name("b"))));
    }

    #[test]
    fn settings_that_are_not_valid_report_the_problem() {
        let fails = |value: Value| TaskSettings::from_json(&value).unwrap_err();
        assert!(fails(json!({"version": 2})).contains("has version 2, expected at most 1"));
        assert!(fails(json!({"version": "1"})).contains("not a number"));
        assert!(fails(json!("classify")).contains("expected an object"));
        assert!(fails(json!({"max_len": "long"})).contains("long"));
        assert!(fails(json!({"text": "#0"})).contains("#0"));
        let mut config = Config::default();
        config.extra = json!({"cloze": 3}).as_object().unwrap().clone();
        let line = TaskSettings::from_config(&config, Path::new("m")).unwrap_err().to_string();
        assert!(
            line.contains("config.json: \"cloze\" is not valid; expected the settings that fine-tuning writes"),
            "{line}"
        );
    }
}
