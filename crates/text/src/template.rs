//! How one text or a pair of texts becomes a sequence: the positions of the special tokens, and each token's segment.
//!
//! BERT's template is `[CLS] a [SEP]`, and for a pair `[CLS] a [SEP] b [SEP]` with `b [SEP]` in segment 1 (Devlin et al.
//! 2019, figure 2). RoBERTa's is `<s> a </s>` and `<s> a </s></s> b </s>` in one segment (Liu et al. 2019). Each is a value of
//! [`Template`]; no other code in this workspace places special tokens. Position ids are not part of the template: the
//! model computes them.

use serde_json::Value;

use crate::TextError;

/// The content of one element of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The special token with this id.
    Special(u32),
    /// The text, or the first text of a pair.
    First,
    /// The second text of a pair.
    Second,
}

/// An element of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The content.
    pub slot: Slot,
    /// The segment (token type) of its tokens.
    pub segment: u8,
}

/// The input of the network for one example: token ids and their segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// The segment of each token. In BERT's template: 0 for \[CLS\], the first text and its \[SEP\]; 1 for the second text and
    /// its \[SEP\].
    pub segments: Vec<u8>,
}

/// The layout of sequences for one text and for a pair of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    single: Vec<Part>,
    pair: Vec<Part>,
}

impl Template {
    /// A template with these layouts, for one text and for a pair.
    ///
    /// # Errors
    /// [`TextError::Template`]: a layout that omits or repeats a text, has the second text before the first, or adds no token.
    pub fn new(single: Vec<Part>, pair: Vec<Part>) -> Result<Template, TextError> {
        for (name, parts, texts) in
            [("one text", &single, &[Slot::First][..]), ("a pair", &pair, &[Slot::First, Slot::Second])]
        {
            let found: Vec<Slot> =
                parts.iter().map(|part| part.slot).filter(|slot| !matches!(slot, Slot::Special(_))).collect();
            if found != texts {
                return Err(TextError::Template(format!(
                    "of {name} has {found:?} in this order; expected {texts:?}, each text once"
                )));
            }
            if parts.len() == texts.len() {
                return Err(TextError::Template(format!(
                    "of {name} adds no special token; expected at least one, so that the sequence of an empty text is not empty"
                )));
            }
        }
        Ok(Template { single, pair })
    }

    /// BERT's template: `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, with these two ids.
    pub fn bert(cls: u32, sep: u32) -> Template {
        let part = |slot, segment| Part { slot, segment };
        let first = [part(Slot::Special(cls), 0), part(Slot::First, 0), part(Slot::Special(sep), 0)];
        let second = [part(Slot::Second, 1), part(Slot::Special(sep), 1)];
        Template { single: first.to_vec(), pair: [&first[..], &second].concat() }
    }

    /// The template in the `post_processor` of a tokenizer.json; `None` if it adds no tokens.
    ///
    /// # Errors
    /// [`TextError::Template`] for a template that this type cannot represent.
    pub(crate) fn of_post_processor(processor: &Value) -> Result<Option<Template>, TextError> {
        let unknown =
            |what: String| TextError::Template(format!("{what}; expected the layout that the tokenizers crate writes"));
        let token = |key: &str| {
            // Written as [token, id].
            let id = processor[key][1].as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| unknown(format!("has no id of \"{key}\"")))
        };
        match processor["type"].as_str() {
            Some("TemplateProcessing") => {
                let layout = |name: &str| parts(&processor[name], &processor["special_tokens"]).map_err(unknown);
                Template::new(layout("single")?, layout("pair")?).map(Some)
            }
            Some("BertProcessing") => Ok(Some(Template::bert(token("cls")?, token("sep")?))),
            Some("RobertaProcessing") => {
                let [cls, sep] = [token("cls")?, token("sep")?].map(Slot::Special);
                let parts = |slots: &[Slot]| slots.iter().map(|&slot| Part { slot, segment: 0 }).collect();
                let pair = parts(&[cls, Slot::First, sep, sep, Slot::Second, sep]);
                Template::new(parts(&[cls, Slot::First, sep]), pair).map(Some)
            }
            Some("Sequence") => {
                let mut found = None;
                for inner in processor["processors"].as_array().into_iter().flatten() {
                    if let Some(template) = Template::of_post_processor(inner)?
                        && found.replace(template).is_some()
                    {
                        return Err(TextError::Template("is defined twice in one post_processor; expected one".into()));
                    }
                }
                Ok(found)
            }
            // ByteLevel changes offsets and adds no tokens.
            _ => Ok(None),
        }
    }

    /// The elements of a sequence for one text or for a pair, in order.
    pub fn parts(&self, pair: bool) -> &[Part] {
        if pair { &self.pair } else { &self.single }
    }

    /// Number of segments of a sequence for one text or for a pair: the highest segment plus 1.
    pub fn segments(&self, pair: bool) -> usize {
        self.parts(pair).iter().map(|part| usize::from(part.segment) + 1).max().unwrap_or(1)
    }

    /// Number of special tokens that are added to one text or to a pair, at least 1.
    pub fn added(&self, pair: bool) -> usize {
        self.parts(pair).len() - 1 - usize::from(pair)
    }

    /// Maximal number of text tokens in a sequence of `max_len` tokens; for a pair, of both texts together.
    pub fn room(&self, max_len: usize, pair: bool) -> usize {
        max_len.saturating_sub(self.added(pair))
    }

    /// The same layout with all elements in segment 0.
    pub(crate) fn in_one_segment(mut self) -> Template {
        self.single.iter_mut().chain(&mut self.pair).for_each(|part| part.segment = 0);
        self
    }

    /// Index in the sequence of the first token of the text, or of the first text of a pair.
    pub fn start_of_first(&self, pair: bool) -> usize {
        self.before(pair, Slot::First)
    }

    /// Index in the sequence of the first token of a pair's second text, if the first text has `first` tokens.
    pub fn start_of_second(&self, first: usize) -> usize {
        // Subtract the element of the first text itself.
        self.before(true, Slot::Second) - 1 + first
    }

    fn before(&self, pair: bool, slot: Slot) -> usize {
        self.parts(pair).iter().take_while(|part| part.slot != slot).count()
    }

    /// Whether the template adds this token.
    pub fn adds(&self, id: u32) -> bool {
        self.pair.iter().chain(&self.single).any(|part| part.slot == Slot::Special(id))
    }

    /// The highest id of a special token in the template.
    pub(crate) fn largest_id(&self) -> u32 {
        let id = |part: &Part| if let Slot::Special(id) = part.slot { id } else { 0 };
        self.pair.iter().chain(&self.single).map(id).max().unwrap_or(0)
    }

    /// The sequence for one text or for a pair. Texts are not truncated.
    pub fn sequence(&self, first: &[u32], second: Option<&[u32]>) -> Sequence {
        let parts = self.parts(second.is_some());
        let second = second.unwrap_or_default();
        let len = parts.len() + first.len() + second.len();
        let (mut ids, mut segments) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for part in parts {
            match part.slot {
                Slot::Special(id) => ids.push(id),
                Slot::First => ids.extend_from_slice(first),
                Slot::Second => ids.extend_from_slice(second),
            }
            segments.resize(ids.len(), part.segment);
        }
        Sequence { ids, segments }
    }
}

/// The layout `pieces` of a TemplateProcessing, whose special tokens are defined in `special`. The error is the rest of a
/// sentence that begins with "the sequence template".
fn parts(pieces: &Value, special: &Value) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for piece in pieces.as_array().into_iter().flatten() {
        let (text, token) = (&piece["Sequence"], &piece["SpecialToken"]);
        let segment = text["type_id"].as_u64().or(token["type_id"].as_u64());
        let segment = segment.and_then(|segment| u8::try_from(segment).ok());
        let segment = segment.ok_or_else(|| format!("has {piece}, whose type_id is not 0 to 255"))?;
        let slots = match (text["id"].as_str(), token["id"].as_str()) {
            (Some("A"), None) => vec![Slot::First],
            (Some("B"), None) => vec![Slot::Second],
            (None, Some(name)) => {
                let ids = special[name]["ids"].as_array().into_iter().flatten();
                let ids = ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).map(Slot::Special));
                let ids: Option<Vec<Slot>> = ids.collect();
                ids.filter(|ids| !ids.is_empty()).ok_or_else(|| format!("has {name}, whose ids are not given"))?
            }
            _ => return Err(format!("has {piece}, which is neither a text nor a special token")),
        };
        parts.extend(slots.into_iter().map(|slot| Part { slot, segment }));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ids(template: &Template, first: &[u32], second: Option<&[u32]>) -> (Vec<u32>, Vec<u8>) {
        let Sequence { ids, segments } = template.sequence(first, second);
        (ids, segments)
    }

    fn of(processor: Value) -> Result<Option<Template>, String> {
        Template::of_post_processor(&processor).map_err(|e| e.to_string())
    }

    #[test]
    fn sequences_have_special_tokens_and_segments() {
        let bert = Template::bert(2, 3);
        assert_eq!(bert.sequence(&[7, 8], None), Sequence { ids: vec![2, 7, 8, 3], segments: vec![0, 0, 0, 0] });
        assert_eq!(
            bert.sequence(&[7, 8], Some(&[9])),
            Sequence { ids: vec![2, 7, 8, 3, 9, 3], segments: vec![0, 0, 0, 0, 1, 1] }
        );
        // A pair of empty texts is still a pair.
        assert_eq!(bert.sequence(&[], Some(&[])).segments, [0, 0, 1]);
        assert_eq!((bert.added(false), bert.added(true)), (2, 3));
        assert_eq!((bert.segments(false), bert.segments(true)), (1, 2));
        assert_eq!((bert.room(8, false), bert.room(8, true), bert.room(2, true)), (6, 5, 0));
        assert_eq!((bert.start_of_first(false), bert.start_of_first(true), bert.start_of_second(2)), (1, 1, 4));
        assert_eq!([1, 2, 3, 4].map(|id| bert.adds(id)), [false, true, true, false]);
    }

    #[test]
    fn post_processors_of_bert_and_roberta_are_read() {
        let bert = of(json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]})).unwrap();
        assert_eq!(bert, Some(Template::bert(2, 3)));
        let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true,
            "add_prefix_space": false});
        let nested = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, roberta.clone()]});
        for json in [roberta.clone(), nested] {
            let template = of(json).unwrap().unwrap();
            assert_eq!(ids(&template, &[7, 8], None), (vec![0, 7, 8, 2], vec![0; 4]));
            assert_eq!(ids(&template, &[7, 8], Some(&[9])), (vec![0, 7, 8, 2, 2, 9, 2], vec![0; 7]));
            assert_eq!((template.added(false), template.added(true), template.start_of_second(2)), (2, 4, 5));
        }
        assert_eq!(of(Value::Null), Ok(None));
        assert_eq!(of(json!({"type": "ByteLevel", "add_prefix_space": true})), Ok(None));
        let twice = json!({"type": "Sequence", "processors": [roberta.clone(), roberta]});
        assert!(of(twice).unwrap_err().contains("defined twice"));
    }

    #[test]
    fn templates_that_cannot_be_represented_are_rejected() {
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let special = |id: &str, segment: u32| json!({"SpecialToken": {"id": id, "type_id": segment}});
        let cls = || special("[CLS]", 0);
        let build = |single: &[Value], pair: &[Value]| {
            of(json!({"type": "TemplateProcessing", "single": single, "pair": pair,
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2, 5], "tokens": ["[CLS]", "x"]}}}))
        };
        let template =
            build(&[cls(), text("A")], &[cls(), text("A"), text("B"), special("[CLS]", 4)]).unwrap().unwrap();
        assert_eq!(ids(&template, &[9], Some(&[8])), (vec![2, 5, 9, 8, 2, 5], vec![0, 0, 0, 0, 4, 4]));
        assert_eq!((template.start_of_first(false), template.start_of_second(3), template.largest_id()), (2, 5, 5));

        let fails = |single: &[Value], pair: &[Value], expected: &str| {
            let error = build(single, pair).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        };
        let pair = [cls(), text("A"), text("B")];
        fails(&[cls()], &pair, "of one text has [] in this order");
        fails(&[text("A")], &pair, "adds no special token");
        fails(&[cls(), text("A"), text("A")], &pair, "[First, First]");
        fails(&[cls(), text("A")], &[cls(), text("B"), text("A")], "of a pair has [Second, First]");
        fails(&[cls(), text("A")], &[cls(), text("A")], "expected [First, Second]");
        fails(&[special("[SEP]", 0), text("A")], &pair, "[SEP], whose ids are not given");
        fails(&[special("[CLS]", 256), text("A")], &pair, "type_id is not 0 to 255");
        fails(&[cls(), text("C")], &pair, "neither a text nor a special token");
        let no_id = of(json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": "[CLS]"})).unwrap_err();
        assert!(no_id.contains("no id of \"cls\""), "{no_id}");
    }
}
