//! What is put before a text: sentence-transformers' prompts.

use serde_json::Value;

use crate::TaskError;

/// What a text is embedded as. Each has a prompt and a length of its own; they are the functions `encode`, `encode_query` and
/// `encode_document` of sentence-transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Just a text.
    Text,
    /// What is searched for.
    Query,
    /// What is searched through.
    Document,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Purpose; 3] = [Purpose::Text, Purpose::Query, Purpose::Document];

    /// The option that names its prompt.
    fn option(self) -> &'static str {
        match self {
            Purpose::Text => "--prompt-name",
            Purpose::Query => "--query-prompt-name",
            Purpose::Document => "--document-prompt-name",
        }
    }
}

/// Which prompt a caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// The folder's: of a text the default prompt, of a query and a document those of these names.
    #[default]
    Auto,
    /// The folder's of this name.
    Named(String),
    /// This text; empty for none.
    Text(String),
}

/// The prompts of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prompts {
    /// Name and text. `query` and `document` are always among them, as in sentence-transformers; empty where a folder does not say.
    named: Vec<(String, String)>,
    /// The name of a text's.
    default: Option<String>,
}

impl Default for Prompts {
    /// Those of a folder that says nothing of them.
    fn default() -> Prompts {
        let named = ["query", "document"].map(|name| (name.to_owned(), String::new()));
        Prompts { named: named.into(), default: None }
    }
}

impl Prompts {
    /// The prompts of a config_sentence_transformers.json.
    ///
    /// # Errors
    /// In words: prompts that are no texts, a default name that is none of them.
    pub(super) fn read(config: &Value) -> Result<Prompts, String> {
        let Prompts { mut named, .. } = Prompts::default();
        let listed = match &config["prompts"] {
            Value::Null => None,
            Value::Object(listed) => Some(listed),
            other => return Err(format!("\"prompts\": expected names with texts, found {other}")),
        };
        for (name, prompt) in listed.into_iter().flatten() {
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
        let prompts = Prompts { named, default };
        match &prompts.default {
            Some(name) if prompts.find(name).is_none() => {
                Err(format!("its default prompt {name:?} is not among its prompts (known: {})", prompts.listed()))
            }
            _ => Ok(prompts),
        }
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, prompt)| prompt.as_str())
    }

    fn listed(&self) -> String {
        let one = |(name, prompt): &(String, String)| format!("{name} {prompt:?}");
        self.named.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// What is put before a text of this purpose.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for a name that the folder lacks, with those that it has.
    pub(super) fn resolve<'a>(&'a self, prompt: &'a Prompt, purpose: Purpose) -> Result<&'a str, TaskError> {
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
            TaskError::setting(purpose.option(), format!("no prompt is called {name:?}; known: {}", self.listed()))
        })
    }

    /// What a user must know of the prompts that are used without a word of theirs, and of those that are not.
    pub(super) fn note(&self, purpose: Purpose) -> Option<String> {
        let own = self.resolve(&Prompt::Auto, purpose).unwrap_or_default();
        let others = || self.named.iter().filter(|(_, prompt)| !prompt.is_empty() && prompt != own);
        match purpose {
            Purpose::Text if !own.is_empty() => {
                let name = self.default.as_deref().unwrap_or_default();
                Some(format!(
                    "each text is put after {own:?}, the folder's default prompt ({name}); leave it out with --prompt \"\""
                ))
            }
            Purpose::Text => {
                let known: Vec<String> = others().map(|(name, prompt)| format!("{name} {prompt:?}")).collect();
                (!known.is_empty()).then(|| {
                    format!(
                        "the folder has prompts and no default one; name one with --prompt-name: {}",
                        known.join(", ")
                    )
                })
            }
            Purpose::Query if !own.is_empty() => Some(format!(
                "each query is put after {own:?}, the folder's prompt; leave it out with --query-prompt \"\""
            )),
            Purpose::Document if !own.is_empty() => Some(format!(
                "each document is put after {own:?}, the folder's prompt; leave it out with --document-prompt \"\""
            )),
            Purpose::Query => None,
            Purpose::Document => {
                let (name, prompt) = others().find(|(name, _)| ["passage", "corpus"].contains(&name.as_str()))?;
                Some(format!(
                    "documents get no prompt, as in sentence-transformers, which looks for one called document; the folder has {name} \
                     {prompt:?} (--document-prompt-name {name})"
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
    fn r14_unknown_names_are_listed_with_the_known_ones() {
        let prompts = Prompts::read(&json!({"prompts": {"query": "q: ", "x": null}})).unwrap();
        let line = prompts.resolve(&Prompt::Named("y".into()), Purpose::Query).unwrap_err().to_string();
        assert_eq!(line, "--query-prompt-name: no prompt is called \"y\"; known: query \"q: \", document \"\", x \"\"");
        for (config, expected) in [
            (
                json!({"prompts": {"query": "q: "}, "default_prompt_name": "passage"}),
                "default prompt \"passage\" is not among",
            ),
            (json!({"default_prompt_name": 1}), "expected a name, found 1"),
            (json!({"prompts": ["q: "]}), "expected names with texts"),
            (json!({"prompts": {"query": 3}}), "the prompt \"query\": expected a text, found 3"),
        ] {
            let line = Prompts::read(&config).unwrap_err();
            assert!(line.contains(expected), "{line}");
        }
        assert!(Prompts::read(&json!({"default_prompt_name": "document"})).is_ok(), "it is empty, and there");
    }

    #[test]
    fn r14_what_is_put_before_texts_without_a_word_is_told() {
        let notes = |config: Value| {
            let prompts = Prompts::read(&config).unwrap();
            Purpose::ALL.map(|purpose| prompts.note(purpose).unwrap_or_default())
        };
        assert_eq!(notes(Value::Null), ["", "", ""]);
        let [text, query, document] = notes(json!({"prompts": {"query": "q: ", "passage": "p: "}}));
        assert!(text.contains("no default one") && text.contains("query \"q: \", passage \"p: \""), "{text}");
        assert!(query.contains("after \"q: \"") && query.contains("--query-prompt"), "{query}");
        assert!(document.contains("--document-prompt-name passage"), "{document}");
        let [text, _, document] = notes(json!({"prompts": {"document": "d: "}, "default_prompt_name": "document"}));
        assert!(text.contains("after \"d: \", the folder's default prompt (document)"), "{text}");
        assert!(document.contains("each document is put after \"d: \""), "{document}");
    }
}
