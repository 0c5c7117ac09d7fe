//! The web page: a playground for the tasks of the models, and the curves of training runs. Its files are part of the program; it loads
//! nothing from elsewhere, and has no script or style in the HTML, so that a strict Content-Security-Policy holds.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use crate::failure::{Failure, Reason};

/// Everything comes from this server, and no other page may show this one in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the page: name, type, content.
const FILES: [(&str, &str, &str); 12] = [
    ("api.js", SCRIPT, include_str!("../web/api.js")),
    ("app.js", SCRIPT, include_str!("../web/app.js")),
    ("attention.js", SCRIPT, include_str!("../web/attention.js")),
    ("chart.js", SCRIPT, include_str!("../web/chart.js")),
    ("dom.js", SCRIPT, include_str!("../web/dom.js")),
    ("form.js", SCRIPT, include_str!("../web/form.js")),
    ("icon.svg", "image/svg+xml", include_str!("../web/icon.svg")),
    ("live.js", SCRIPT, include_str!("../web/live.js")),
    ("panels.js", SCRIPT, include_str!("../web/panels.js")),
    ("runs.js", SCRIPT, include_str!("../web/runs.js")),
    ("vectors.js", SCRIPT, include_str!("../web/vectors.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("../web/style.css")),
];

/// The playground.
static PLAYGROUND: LazyLock<Bytes> = LazyLock::new(|| html("Cloze", "app.js", include_str!("../web/index.html")));
/// The curves of runs.
static RUNS: LazyLock<Bytes> = LazyLock::new(|| html("Runs · Cloze", "runs.js", include_str!("../web/runs.html")));

/// A page: what all pages share around its body.
fn html(title: &str, script: &str, body: &str) -> Bytes {
    let shell = include_str!("../web/shell.html");
    shell.replace("{{title}}", title).replace("{{script}}", script).replace("{{body}}", body).into()
}

/// The routes of the page: `/`, `/runs` and `/web/FILE`. They need no key: the page asks for it.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|| async { page(HTML, PLAYGROUND.clone()) }))
        .route("/runs", get(|| async { page(HTML, RUNS.clone()) }))
        .route("/web/{file}", get(file))
}

/// Whether a path belongs to the page, which is public.
pub fn is_public(path: &str) -> bool {
    path == "/" || path == "/runs" || path.starts_with("/web/")
}

async fn file(Path(name): Path<String>) -> Result<Response, Failure> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, kind, content) = found.ok_or_else(|| {
        Failure::new(Reason::UnknownPath, format!("there is no /web/{name} on this server; the page is at /"))
    })?;
    Ok(page(kind, Bytes::from_static(content.as_bytes())))
}

fn page(kind: &'static str, content: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        // Another version of the program may answer next time.
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page must not depend on anything outside, and must hold its own policy.
    #[test]
    fn files_have_no_inline_code_and_no_external_address() {
        for html in [&PLAYGROUND, &RUNS].map(|page| std::str::from_utf8(page).unwrap()) {
            assert!(!html.contains("{{") && html.contains("</html>"), "{html}");
            assert!(
                !html.contains("<style") && !html.contains("style=") && !html.contains(" on"),
                "inline code in {html}"
            );
            let scripts: Vec<&str> = html.split("<script").skip(1).collect();
            assert!(
                !scripts.is_empty()
                    && scripts.iter().all(|script| script.contains("src=\"web/") && script.contains("></script>"))
            );
        }
        for (name, _, content) in FILES {
            let addresses = content.match_indices("://").count();
            // The namespace of SVG.
            let allowed = content.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(addresses, allowed, "{name}");
            for risky in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(!content.contains(risky), "{name}: {risky}");
            }
        }
    }

    /// Every file that a page or a module loads is served.
    #[test]
    fn all_loaded_files_are_served() {
        let texts = FILES
            .iter()
            .map(|(_, _, content)| *content)
            .chain([&PLAYGROUND, &RUNS].map(|page| std::str::from_utf8(page).unwrap()));
        let mut loaded = Vec::new();
        for text in texts {
            for start in ["\"web/", "from \"./"] {
                loaded.extend(text.split(start).skip(1).filter_map(|rest| rest.split_once('"')).map(|(name, _)| name));
            }
        }
        loaded.sort_unstable();
        loaded.dedup();
        assert!(loaded.len() > 8, "{loaded:?}");
        for name in loaded {
            assert!(FILES.iter().any(|(known, ..)| *known == name), "{name} is not served");
        }
        assert!(is_public("/web/app.js") && is_public("/") && !is_public("/runs.json") && !is_public("/models"));
    }
}
