//! Finds BERT's five special tokens in a vocabulary.

use ahash::AHashMap;

use crate::{Slot, Template};

/// BERT's special tokens, in the order in which [`learn`](crate::learn()) writes them at the beginning of a vocabulary.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// `[PAD]`, or the token with this role.
    pub pad: u32,
    /// `[UNK]`
    pub unk: u32,
    /// `[CLS]`
    pub cls: u32,
    /// `[SEP]`
    pub sep: u32,
    /// `[MASK]`
    pub mask: u32,
}

/// The keys of tokenizer_config.json for these tokens, in the order of [`SPECIAL_TOKENS`].
pub(crate) const KEYS: [&str; 5] = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];

/// RoBERTa's names for these tokens, in the same order.
pub(crate) const OTHER_NAMES: [&str; 5] = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"];

/// MPNet's names for these tokens, in the same order.
pub(crate) const MPNET_NAMES: [&str; 5] = ["<pad>", "[UNK]", "<s>", "</s>", "<mask>"];

/// ALBERT's names for these tokens, in the same order, which is also that of their ids.
pub(crate) const ALBERT_NAMES: [&str; 5] = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"];

impl Special {
    /// Finds the special tokens among `ids`. In order of precedence: the token that `named` returns for a key of [`KEYS`]; the
    /// first and the last token that `template` adds to a text; the names of BERT and RoBERTa.
    ///
    /// # Errors
    /// BERT's names of the missing tokens, separated by spaces.
    pub(crate) fn find<'a>(
        ids: &AHashMap<String, u32>,
        named: impl Fn(&str) -> Option<&'a str>,
        template: Option<&Template>,
    ) -> Result<Special, String> {
        let by_template = |role: &str| {
            let mut added = template?.parts(false).iter().filter_map(|part| match part.slot {
                Slot::Special(id) => Some(id),
                Slot::First | Slot::Second => None,
            });
            match role {
                "[CLS]" => added.next(),
                "[SEP]" => added.next_back(),
                _ => None,
            }
        };
        let find = |role: usize| {
            let configured = named(KEYS[role]).and_then(|name| ids.get(name).copied());
            let usual = || [SPECIAL_TOKENS[role], OTHER_NAMES[role]].iter().find_map(|&name| ids.get(name).copied());
            configured.or_else(|| by_template(SPECIAL_TOKENS[role])).or_else(usual)
        };
        let found = [0, 1, 2, 3, 4].map(find);
        let [Some(pad), Some(unk), Some(cls), Some(sep), Some(mask)] = found else {
            let missing = SPECIAL_TOKENS.iter().zip(found).filter(|(_, id)| id.is_none()).map(|(&token, _)| token);
            return Err(missing.collect::<Vec<_>>().join(" "));
        };
        Ok(Special { pad, unk, cls, sep, mask })
    }

    /// All five ids, in the order of [`SPECIAL_TOKENS`].
    pub fn all(self) -> [u32; 5] {
        [self.pad, self.unk, self.cls, self.sep, self.mask]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_are_found_by_name_then_template_then_usual_name() {
        let tokens = ["<s>", "<pad>", "</s>", "<unk>", "[MASK]", "<mask>", "[CLS]", "x"];
        let ids: AHashMap<String, u32> = tokens.iter().map(|token| token.to_string()).zip(0..).collect();
        let find = |named: &[(&str, &'static str)], template: Option<&Template>| {
            Special::find(&ids, |key| named.iter().find(|(name, _)| *name == key).map(|(_, token)| *token), template)
        };
        let usual = find(&[], None).unwrap();
        assert_eq!(usual, Special { pad: 1, unk: 3, cls: 6, sep: 2, mask: 4 });
        assert_eq!(usual.all(), [1, 3, 6, 2, 4]);
        let framed = find(&[], Some(&Template::bert(0, 7))).unwrap();
        assert_eq!((framed.cls, framed.sep), (0, 7));
        // A name that is not in the vocabulary is ignored.
        let named = [("mask_token", "<mask>"), ("cls_token", "[BOS]"), ("sep_token", "<s>")];
        let named = find(&named, Some(&Template::bert(0, 7))).unwrap();
        assert_eq!(named, Special { pad: 1, unk: 3, cls: 0, sep: 0, mask: 5 });
        let few: AHashMap<String, u32> = [("<s>".to_owned(), 0), ("[PAD]".to_owned(), 1)].into_iter().collect();
        assert_eq!(Special::find(&few, |_| None, None), Err("[UNK] [SEP] [MASK]".to_owned()));
    }
}
