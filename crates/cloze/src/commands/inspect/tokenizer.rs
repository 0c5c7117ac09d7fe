//! Descriptions of tokenizers.

use cloze_text::{AddedToken, SpecialTokens, Tokenizer};
use serde_json::{Value, json};

use crate::format;

/// Maximum number of added tokens to show.
const MAX_SHOWN: usize = 12;

/// "cased" or "uncased", with the handling of accents if it is unusual.
pub fn casing(tokenizer: &Tokenizer) -> &'static str {
    match (tokenizer.is_cased(), tokenizer.strips_accents()) {
        (true, false) => "cased",
        (true, true) => "cased, accents stripped",
        (false, true) => "uncased",
        (false, false) => "uncased, accents kept",
    }
}

/// Labels and values for the tokenizer's kind, added tokens, length limit and special tokens in texts.
pub fn details(tokenizer: &Tokenizer) -> Vec<(&'static str, String)> {
    let mut lines = vec![("kind", format!("{} as {} of Transformers", tokenizer.model(), tokenizer.class_name()))];
    let added = tokenizer.added_tokens();
    for (name, special) in [("added", false), ("own special", true)] {
        let all: Vec<&AddedToken> = added.iter().filter(|token| token.special == special).collect();
        if !all.is_empty() {
            let shown = all.iter().take(MAX_SHOWN).map(|token| format!("{} {}", token.text, token.id));
            let shown = shown.collect::<Vec<_>>().join(", ");
            let more = all.len().saturating_sub(MAX_SHOWN);
            let more = if more > 0 { format!(" and {} more", format::count(more as u64)) } else { String::new() };
            lines.push((name, shown + &more));
        }
    }
    if let Some(longest) = tokenizer.model_max_length() {
        lines.push((
            "length",
            format!("at most {} tokens per sequence (model_max_length)", format::count(longest as u64)),
        ));
    }
    lines.push((
        "names",
        match tokenizer.special_tokens() {
            SpecialTokens::Text => "names of special tokens are read as text (--special-tokens text)".to_owned(),
            SpecialTokens::Parse => {
                "names of special tokens are read as those tokens (--special-tokens parse)".to_owned()
            }
        },
    ));
    lines
}

/// The properties of the tokenizer as JSON.
pub fn as_json(tokenizer: &Tokenizer) -> Value {
    let added = |token: AddedToken| json!({"token": token.text, "id": token.id, "special": token.special});
    json!({
        "vocab_size": tokenizer.vocab_size(),
        "cased": tokenizer.is_cased(),
        "strips_accents": tokenizer.strips_accents(),
        "fingerprint": tokenizer.fingerprint(),
        "model": tokenizer.model(),
        "class": tokenizer.class_name(),
        "added": tokenizer.added_tokens().into_iter().map(added).collect::<Vec<_>>(),
        "model_max_length": tokenizer.model_max_length(),
        "special_tokens": tokenizer.special_tokens().name(),
        "notes": tokenizer.notes(),
    })
}
