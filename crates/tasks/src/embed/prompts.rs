//! FolderPrompts: texts that sentence-transformers puts before a text.

use serde_json::Value;

use crate::TaskError;

/// The purpose of a text. Each purpose has its own prompt and maximum length. They correspond to the functions
/// `encode`, `encode_query` and `encode_document` of sentence-transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// No particular purpose.
    Text,
    /// A query, which is searched for.
    Query,
    /// A document, which is searched.
    Document,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Purpose; 3] = [Purpose::Text, Purpose::Query, Purpose::Document];

    /// The option that names its prompt.
    fn option(self) -> &'static str {
        match self {
            Purpose::Text => "prompt_name",
            Purpose::Query => "query_prompt_name",
            Purpose::Document => "document_prompt_name",
        }
    }
}

/// The prompt that a caller selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// The folder's prompt: the default prompt for texts, those named `query` and `document` for queries and documents.
    #[default]
    Auto,
    /// The folder's prompt with this name.
    Named(String),
    /// This text; empty for no prompt.
    Text(String),
}

/// The prompts of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FolderPrompts {
    /// The names and texts. As in sentence-transformers, `query` and `document` always exist; they are empty if the
    /// folder does not define them.
    named: Vec<(String, String)>,
    /// The name of the default prompt for texts.
    default: Option<String>,
}

impl Default for FolderPrompts {
    /// The prompts of a folder without settings.
    fn default() -> FolderPrompts {
        let named = ["query", "document"].map(|name| (name.to_owned(), String::new()));
        FolderPrompts { named: named.into(), default: None }
    }
}

impl FolderPrompts {
    /// Reads the prompts of config_sentence_transformers.json.
    ///
    /// # Errors
    /// A message, for prompts that are not texts and for an unknown default name.
    pub(crate) fn read(config: &Value) -> Result<FolderPrompts, String> {
        let FolderPrompts { mut named, .. } = FolderPrompts::default();
        let quoted_list = match &config["prompts"] {
            Value::Null => None,
            Value::Object(quoted_list) => Some(quoted_list),
            other => return Err(format!("\"prompts\": expected names with texts, found {other}")),
        };
        for (name, prompt) in quoted_list.into_iter().flatten() {
            let prompt = match prompt {
                Value::Null => String::new(),
                Value::String(prompt) => prompt.clone(),
                other => return Err(format!("the prompt {name:?}: expected a text, found {other}")),
            };
            match named.iter_mut().find(|(known, _)| known == name) {
                Some((_, place)) => *place = prompt,
                None => named.push((name.clone(), prompt)),
            }
        }
        let default = match &config["default_prompt_name"] {
            Value::Null => None,
            Value::String(name) => Some(name.clone()),
            other => return Err(format!("\"default_prompt_name\": expected a name, found {other}")),
        };
        let prompts = FolderPrompts { named, default };
        match &prompts.default {
            Some(name) if prompts.find(name).is_none() => {
                Err(format!("its default prompt {name:?} is not among its prompts: {}", prompts.quoted_list()))
            }
            _ => Ok(prompts),
        }
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, prompt)| prompt.as_str())
    }

    fn quoted_list(&self) -> String {
        let one = |(name, prompt): &(String, String)| format!("{name} {prompt:?}");
        self.named.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The prompt before a text with this purpose.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for an unknown name, with a list of the folder's prompts.
    pub(crate) fn resolve<'a>(&'a self, prompt: &'a Prompt, purpose: Purpose) -> Result<&'a str, TaskError> {
        let name = match (prompt, purpose) {
            (Prompt::Text(prompt), _) => return Ok(prompt),
            (Prompt::Named(name), _) => name,
            (_, Purpose::Text) => match &self.default {
                Some(name) => name,
                None => return Ok(""),
            },
            (_, Purpose::Query) => "query",
            (_, Purpose::Document) => "document",
        };
        self.find(name).ok_or_else(|| {
            TaskError::setting(
                purpose.option(),
                format!("unknown prompt {name:?}; the folder's prompts: {}", self.quoted_list()),
            )
        })
    }

    /// A note for the user about the prompt that is used by default, or about prompts that are not used.
    pub(crate) fn note(&self, purpose: Purpose) -> Option<String> {
        let own = self.resolve(&Prompt::Auto, purpose).unwrap_or_default();
        let others = || self.named.iter().filter(|(_, prompt)| !prompt.is_empty() && prompt != own);
        match purpose {
            Purpose::Text if !own.is_empty() => {
                let name = self.default.as_deref().unwrap_or_default();
                Some(format!(
                    "the folder's default prompt {own:?} ({name}) is put before each text; set `prompt` to \"\" to omit it"
                ))
            }
            Purpose::Text => {
                let known: Vec<String> = others().map(|(name, prompt)| format!("{name} {prompt:?}")).collect();
                (!known.is_empty()).then(|| {
                    format!("the folder has prompts but no default; set `prompt_name` to use one: {}", known.join(", "))
                })
            }
            Purpose::Query if !own.is_empty() => Some(format!(
                "the folder's prompt {own:?} is put before each query; set `query_prompt` to \"\" to omit it"
            )),
            Purpose::Document if !own.is_empty() => Some(format!(
                "the folder's prompt {own:?} is put before each document; set `document_prompt` to \"\" to omit it"
            )),
            Purpose::Query => None,
            Purpose::Document => {
                let (name, prompt) = others().find(|(name, _)| ["passage", "corpus"].contains(&name.as_str()))?;
                Some(format!(
                    "documents get no prompt, because (as in sentence-transformers) only the one named document is used; set \
                     `document_prompt_name` to {name} to use the folder's prompt {prompt:?}"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn r14_errors_of_unknown_names_list_the_known_names() {
        let prompts = FolderPrompts::read(&json!({"prompts": {"query": "q: ", "x": null}})).unwrap();
        let line = prompts.resolve(&Prompt::Named("y".into()), Purpose::Query).unwrap_err().to_string();
        assert_eq!(
            line,
            "`query_prompt_name`: unknown prompt \"y\"; the folder's prompts: query \"q: \", document \"\", x \"\""
        );
        for (config, expected) in [
            (
                json!({"prompts": {"query": "q: "}, "default_prompt_name": "passage"}),
                "default prompt \"passage\" is not among",
            ),
            (json!({"default_prompt_name": 1}), "expected a name, found 1"),
            (json!({"prompts": ["q: "]}), "expected names with texts"),
            (json!({"prompts": {"query": 3}}), "the prompt \"query\": expected a text, found 3"),
        ] {
            let line = FolderPrompts::read(&config).unwrap_err();
            assert!(line.contains(expected), "{line}");
        }
        assert!(FolderPrompts::read(&json!({"default_prompt_name": "document"})).is_ok(), "it exists and is empty");
    }

    #[test]
    fn r14_default_prompts_give_a_note() {
        let notes = |config: Value| {
            let prompts = FolderPrompts::read(&config).unwrap();
            Purpose::ALL.map(|purpose| prompts.note(purpose).unwrap_or_default())
        };
        assert_eq!(notes(Value::Null), ["", "", ""]);
        let [text, query, document] = notes(json!({"prompts": {"query": "q: ", "passage": "p: "}}));
        assert!(text.contains("no default") && text.contains("query \"q: \", passage \"p: \""), "{text}");
        assert!(
            query.contains("prompt \"q: \" is put before each query") && query.contains("`query_prompt`"),
            "{query}"
        );
        assert!(document.contains("`document_prompt_name` to passage"), "{document}");
        let [text, _, document] = notes(json!({"prompts": {"document": "d: "}, "default_prompt_name": "document"}));
        assert!(text.contains("the folder's default prompt \"d: \" (document)"), "{text}");
        assert!(document.contains("\"d: \" is put before each document"), "{document}");
    }
}
