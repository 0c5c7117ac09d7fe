//! Cache folder, endpoint, token and offline mode from the environment variables of `huggingface_hub`.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// The default hub.
const ENDPOINT: &str = "https://huggingface.co";

/// The configuration that `huggingface_hub` reads from environment variables.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Environment {
    /// The cache folder. In order of precedence: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `hub` in `HF_HOME`, `huggingface/hub` in
    /// `XDG_CACHE_HOME` or `~/.cache`.
    pub cache: PathBuf,
    /// The hub's address without a trailing slash: `HF_ENDPOINT`.
    pub endpoint: String,
    /// The access token, which is sent only if necessary. In order of precedence: `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, the file
    /// `HF_TOKEN_PATH`, the file `token` in `HF_HOME`.
    pub token: Option<String>,
    /// Do not use the network: `HF_HUB_OFFLINE`, otherwise `TRANSFORMERS_OFFLINE`.
    pub offline: bool,
}

// The token must not appear in logs.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish()
    }
}

impl Environment {
    /// The configuration from the environment of this process.
    pub fn from_process() -> Environment {
        Environment::from_variables(|name| std::env::var_os(name), std::env::home_dir())
    }

    /// The configuration from a function that returns variables, and a home folder. Empty variables are ignored.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Environment {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = home.unwrap_or_else(|| PathBuf::from("."));
        let folder = |name: &str| {
            given(name).map(PathBuf::from).map(|path| match path.strip_prefix("~") {
                Ok(rest) => home.join(rest),
                Err(_) => path,
            })
        };
        let text = |name: &str| given(name).map(|value| value.to_string_lossy().trim().to_owned());
        let hf_home = folder("HF_HOME")
            .unwrap_or_else(|| folder("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("huggingface"));
        let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| fs::read_to_string(token_file).ok().map(|token| token.trim().to_owned()));
        let is_set = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        Environment {
            cache: cache.unwrap_or_else(|| hf_home.join("hub")),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()).trim_end_matches('/').to_owned(),
            token: token.filter(|token| !token.is_empty()),
            offline: text("HF_HUB_OFFLINE").or_else(|| text("TRANSFORMERS_OFFLINE")).is_some_and(is_set),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Environment {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Environment::from_variables(value, Some("/home/ada".into()))
    }

    #[test]
    fn cache_folder_equals_that_of_huggingface_hub() {
        // Each line adds a variable that takes precedence over the previous ones.
        let mut variables = Vec::new();
        assert_eq!(of(&variables).cache, Path::new("/home/ada/.cache/huggingface/hub"));
        for (name, value, expected) in [
            ("XDG_CACHE_HOME", "/xdg", "/xdg/huggingface/hub"),
            ("HF_HOME", "/hf", "/hf/hub"),
            ("HUGGINGFACE_HUB_CACHE", "/old", "/old"),
            ("HF_HUB_CACHE", "/new", "/new"),
        ] {
            variables.push((name, ""));
            let before = of(&variables[..variables.len() - 1]).cache;
            assert_eq!(of(&variables).cache, before, "an empty {name} is ignored");
            variables.pop();
            variables.push((name, value));
            assert_eq!(of(&variables).cache, Path::new(expected), "{name}");
        }
        assert_eq!(of(&[("HF_HOME", "~/models")]).cache, Path::new("/home/ada/models/hub"));
        assert_eq!(of(&[("HF_HUB_CACHE", "~/models")]).cache, Path::new("/home/ada/models"));
    }

    #[test]
    fn token_is_read_from_variables_then_files() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let other = dir.path().join("other");
        fs::write(dir.path().join("token"), "of-file\n").unwrap();
        fs::write(&other, " of-other-file ").unwrap();
        let mut variables = vec![("HF_HOME", home)];
        let token = |variables: &[(&str, &str)]| of(variables).token;
        assert_eq!(token(&[]), None);
        assert_eq!(token(&variables).as_deref(), Some("of-file"));
        // The cache may be elsewhere; the token remains in HF_HOME.
        variables.push(("HF_HUB_CACHE", "/elsewhere"));
        assert_eq!(token(&variables).as_deref(), Some("of-file"));
        variables.push(("HF_TOKEN_PATH", other.to_str().unwrap()));
        assert_eq!(token(&variables).as_deref(), Some("of-other-file"));
        variables.push(("HUGGING_FACE_HUB_TOKEN", "old"));
        assert_eq!(token(&variables).as_deref(), Some("old"));
        variables.push(("HF_TOKEN", " new\n"));
        assert_eq!(token(&variables).as_deref(), Some("new"));
        assert!(!format!("{:?}", of(&variables)).contains("new"), "debug output does not contain the token");
    }

    #[test]
    fn endpoint_and_offline_mode() {
        assert_eq!(of(&[]).endpoint, "https://huggingface.co");
        assert_eq!(of(&[("HF_ENDPOINT", "http://mirror/hub/")]).endpoint, "http://mirror/hub");
        for on in ["1", "true", "ON", "Yes"] {
            assert!(of(&[("HF_HUB_OFFLINE", on)]).offline, "{on}");
        }
        for off in ["0", "false", "", "off"] {
            assert!(!of(&[("HF_HUB_OFFLINE", off)]).offline, "{off}");
        }
        assert!(of(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!of(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
    }
}
