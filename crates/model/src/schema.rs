//! The names of a model family's parameters in checkpoints: one table per family, and the only place that parses names.
//!
//! A row of `ModuleNames` is a module with its names in Transformers' models with a head and in google-research's
//! TensorFlow code. [`Inventory`] maps the names that exporters write to the former: names without `bert.` in files
//! with only an encoder, other prefixes, `gamma` and `beta`, copies of tied tensors, buffers without weights.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::heads::Class;
use crate::role::{Head, Kind, LayerPart, Module, Role, Table};

/// The names of a model family.
#[derive(Debug)]
pub struct Schema {
    /// `model_type` of its config.json.
    pub model_type: &'static str,
    /// Prefix of all names except those of heads. Missing in files with only an encoder.
    prefix: &'static str,
    /// The beginnings of names without that prefix.
    encoder: &'static [&'static str],
    /// Suffixes of the names of tensors that are not weights.
    buffers: &'static [&'static str],
    /// The modules of a layer are listed once, for layer 0; `{}` in a name is the number of the layer.
    modules: &'static [ModuleNames],
    /// Prefixes of the names of each head's tensors.
    heads: &'static [(Head, &'static str)],
    /// Transformers' classes.
    classes: &'static [(Class, &'static str)],
}

#[derive(Debug)]
struct ModuleNames {
    module: Module,
    name: &'static str,
    tensorflow: Option<&'static str>,
}

const fn module(module: Module, name: &'static str, tensorflow: &'static str) -> ModuleNames {
    ModuleNames { module, name, tensorflow: Some(tensorflow) }
}

const fn part(part: LayerPart, name: &'static str, tensorflow: &'static str) -> ModuleNames {
    module(Module::layer(0, part), name, tensorflow)
}

/// Devlin et al. 2019: Transformers' `modeling_bert.py`; google-research/bert's `modeling.py`, `run_pretraining.py`,
/// `run_classifier.py` and `run_squad.py`.
pub static BERT: Schema = Schema {
    model_type: "bert",
    prefix: "bert.",
    encoder: &["embeddings.", "encoder.", "pooler."],
    buffers: &["embeddings.position_ids", "embeddings.token_type_ids"],
    modules: &[
        module(Module::Embedding(Table::Word), "bert.embeddings.word_embeddings", "bert/embeddings/word_embeddings"),
        module(
            Module::Embedding(Table::Position),
            "bert.embeddings.position_embeddings",
            "bert/embeddings/position_embeddings",
        ),
        module(
            Module::Embedding(Table::Segment),
            "bert.embeddings.token_type_embeddings",
            "bert/embeddings/token_type_embeddings",
        ),
        module(Module::EmbeddingNorm, "bert.embeddings.LayerNorm", "bert/embeddings/LayerNorm"),
        part(
            LayerPart::Query,
            "bert.encoder.layer.{}.attention.self.query",
            "bert/encoder/layer_{}/attention/self/query",
        ),
        part(LayerPart::Key, "bert.encoder.layer.{}.attention.self.key", "bert/encoder/layer_{}/attention/self/key"),
        part(
            LayerPart::Value,
            "bert.encoder.layer.{}.attention.self.value",
            "bert/encoder/layer_{}/attention/self/value",
        ),
        part(
            LayerPart::AttentionOutput,
            "bert.encoder.layer.{}.attention.output.dense",
            "bert/encoder/layer_{}/attention/output/dense",
        ),
        part(
            LayerPart::AttentionNorm,
            "bert.encoder.layer.{}.attention.output.LayerNorm",
            "bert/encoder/layer_{}/attention/output/LayerNorm",
        ),
        part(
            LayerPart::Intermediate,
            "bert.encoder.layer.{}.intermediate.dense",
            "bert/encoder/layer_{}/intermediate/dense",
        ),
        part(LayerPart::Output, "bert.encoder.layer.{}.output.dense", "bert/encoder/layer_{}/output/dense"),
        part(LayerPart::OutputNorm, "bert.encoder.layer.{}.output.LayerNorm", "bert/encoder/layer_{}/output/LayerNorm"),
        module(Module::Pooler, "bert.pooler.dense", "bert/pooler/dense"),
        module(Module::MlmTransform, "cls.predictions.transform.dense", "cls/predictions/transform/dense"),
        module(Module::MlmNorm, "cls.predictions.transform.LayerNorm", "cls/predictions/transform/LayerNorm"),
        module(Module::MlmBias, "cls.predictions", "cls/predictions"),
        ModuleNames { module: Module::MlmDecoder, name: "cls.predictions.decoder", tensorflow: None },
        module(Module::NspHead, "cls.seq_relationship", "cls/seq_relationship"),
        module(Module::Classifier, "classifier", ""),
        module(Module::SpanHead, "qa_outputs", "cls/squad"),
    ],
    heads: &[
        (Head::Pooler, "bert.pooler."),
        (Head::Mlm, "cls.predictions."),
        (Head::Nsp, "cls.seq_relationship."),
        (Head::Classifier, "classifier."),
        (Head::Span, "qa_outputs."),
    ],
    classes: &[
        (Class::Encoder, "BertModel"),
        (Class::Pretraining, "BertForPreTraining"),
        (Class::MaskedLm, "BertForMaskedLM"),
        (Class::CausalLm, "BertLMHeadModel"),
        (Class::NextSentence, "BertForNextSentencePrediction"),
        (Class::Classify, "BertForSequenceClassification"),
        (Class::Tag, "BertForTokenClassification"),
        (Class::Answer, "BertForQuestionAnswering"),
        (Class::Choose, "BertForMultipleChoice"),
    ],
};

impl Schema {
    /// A parameter's name in Transformers' models with a head.
    pub fn name(&self, role: Role) -> String {
        let kind = match role.kind {
            Kind::Weight => "weight",
            Kind::Bias => "bias",
        };
        format!("{}.{kind}", self.module_name(role.module))
    }

    /// A module's name in Transformers' models with a head. Panics for a module that the family does not have.
    pub fn module_name(&self, module: Module) -> String {
        let (row, number) = match module {
            Module::Layer { number, part } => (Module::layer(0, part), number),
            other => (other, 0),
        };
        let row = self.modules.iter().find(|names| names.module == row);
        let row = row.unwrap_or_else(|| panic!("{} has no name for {module:?}", self.model_type));
        row.name.replace("{}", &number.to_string())
    }

    /// The role of the parameter with this name in Transformers' models with a head.
    pub fn role(&self, name: &str) -> Option<Role> {
        let (module, kind) = match name.rsplit_once('.')? {
            (module, "weight") => (module, Kind::Weight),
            (module, "bias") => (module, Kind::Bias),
            _ => return None,
        };
        let module = self.modules.iter().find_map(|names| match_pattern(names.module, names.name, module))?;
        // Reject other spellings of a layer's number, such as 01.
        Some(Role { module, kind }).filter(|role| module.has(kind) && self.name(*role) == name)
    }

    /// The role of the parameter with this name in google-research's code, and whether it is a kernel `[in, out]`,
    /// which must be transposed to the network's `[out, in]`.
    pub fn role_in_tensorflow(&self, variable: &str) -> Option<(Role, bool)> {
        self.modules.iter().find_map(|names| {
            let path = names.tensorflow?;
            let with_suffix = |last: &str| {
                let module = if path.is_empty() {
                    variable.strip_suffix(last)?
                } else {
                    variable.strip_suffix(last)?.strip_suffix('/')?
                };
                match_pattern(names.module, path, module)
            };
            match names.module {
                Module::Embedding(_) => {
                    match_pattern(names.module, path, variable).map(|module| (module.weight(), false))
                }
                Module::EmbeddingNorm
                | Module::MlmNorm
                | Module::Layer { part: LayerPart::AttentionNorm | LayerPart::OutputNorm, .. } => {
                    let gamma = with_suffix("gamma").map(Module::weight);
                    gamma.or_else(|| with_suffix("beta").map(Module::bias)).map(|role| (role, false))
                }
                Module::MlmBias | Module::NspHead | Module::Classifier | Module::SpanHead => {
                    let weight = with_suffix("output_weights").map(Module::weight);
                    let role = weight.or_else(|| with_suffix("output_bias").map(Module::bias))?;
                    role.module.has(role.kind).then_some((role, false))
                }
                _ => {
                    let kernel = with_suffix("kernel").map(|module| (module.weight(), true));
                    kernel.or_else(|| with_suffix("bias").map(|module| (module.bias(), false)))
                }
            }
        })
    }

    /// The head to which the tensor with this name, in Transformers' models with a head, belongs.
    pub fn head(&self, name: &str) -> Option<Head> {
        self.heads.iter().find(|(_, start)| name.starts_with(start)).map(|(head, _)| *head)
    }

    /// Whether a tensor with this name, in Transformers' models with a head, belongs to the encoder or the pooler.
    pub fn is_of_encoder(&self, name: &str) -> bool {
        name.starts_with(self.prefix)
    }

    /// Converts a name in Transformers' models with a head to that in a model of this class.
    pub fn name_in<'a>(&self, class: Class, name: &'a str) -> &'a str {
        match name.strip_prefix(self.prefix) {
            Some(rest) if class == Class::Encoder => rest,
            _ => name,
        }
    }

    /// The name of a class in Transformers.
    pub fn class_name(&self, class: Class) -> &'static str {
        let row = self.classes.iter().find(|(known, _)| *known == class);
        row.unwrap_or_else(|| panic!("{} has no name for {class:?}", self.model_type)).1
    }

    /// The class with this name.
    pub fn class(&self, name: &str) -> Option<Class> {
        self.classes.iter().find(|(_, known)| *known == name).map(|(class, _)| *class)
    }

    /// The prefix that an exporter added to all names: `module.` by DistributedDataParallel, `model.` by Lightning, or
    /// the attribute name in a class that contains the encoder. It is what precedes the name of the position
    /// embeddings, which a model has only once. If there are several tables, returns an empty prefix and the list of
    /// prefixes.
    fn added_prefix<'a>(&self, stored: &[&'a str]) -> (&'a str, Vec<&'a str>) {
        let table = self.name(Module::Embedding(Table::Position).weight());
        let table = table.strip_prefix(self.prefix).unwrap_or(&table);
        let before = |name: &&'a str| {
            let before = name.strip_suffix(table).filter(|before| before.is_empty() || before.ends_with('.'))?;
            let shorter = before.strip_suffix(self.prefix).filter(|rest| rest.is_empty() || rest.ends_with('.'));
            Some(shorter.unwrap_or(before))
        };
        let found: BTreeSet<&str> = stored.iter().filter_map(before).collect();
        match found.len() {
            1 => (found.first().copied().unwrap_or_default(), Vec::new()),
            _ if found.contains("") => ("", Vec::new()),
            _ => ("", found.into_iter().collect()),
        }
    }

    /// Converts a tensor's name, as any exporter writes it, to that in Transformers' models with a head.
    fn canonical_name(&self, stored: &str) -> String {
        let is_unprefixed = self.encoder.iter().any(|start| stored.starts_with(start));
        let name = if is_unprefixed { format!("{}{stored}", self.prefix) } else { stored.to_owned() };
        if let Some(norm) = name.strip_suffix(".gamma") {
            format!("{norm}.weight")
        } else if let Some(norm) = name.strip_suffix(".beta") {
            format!("{norm}.bias")
        } else {
            name
        }
    }
}

/// `module` with the layer number found in `name`, if the name matches the pattern.
fn match_pattern(module: Module, pattern: &str, name: &str) -> Option<Module> {
    match (module, pattern.split_once("{}")) {
        (Module::Layer { part, .. }, Some((before, after))) => {
            let digits = name.strip_prefix(before)?.strip_suffix(after)?;
            Some(Module::layer(digits.parse().ok()?, part))
        }
        _ => (pattern == name).then_some(module),
    }
}

/// The tensors of a checkpoint by role, independent of the exporter.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Inventory {
    /// Tensors that are not copies, in order of name.
    pub tensors: Vec<NamedTensor>,
    /// The stored names of buffers: tensors that are not weights.
    pub buffers: Vec<String>,
    /// Copies of tied tensors whose originals are also stored.
    pub copies: Vec<TiedCopy>,
    /// A line for each pair of tensors with the same role.
    pub duplicates: Vec<String>,
    /// The name prefixes of the models, if the tensors are those of several models.
    pub models: Vec<String>,
}

/// A tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedTensor {
    /// Its name as stored.
    pub stored: String,
    /// Its name in Transformers' models with a head.
    pub name: String,
    /// Its role; `None` for unknown tensors.
    pub role: Option<Role>,
}

/// A tensor that should equal another one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TiedCopy {
    /// Its name as stored.
    pub stored: String,
    /// Its name in Transformers' models with a head.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The stored name of the tensor that it is tied to.
    pub original: String,
}

impl Inventory {
    /// Classifies the tensors with these names. If the original of a tied tensor is missing, its copy replaces it. The
    /// decoder's bias always replaces the head's, because it is the one that PyTorch's layer adds.
    pub fn of<'a>(schema: &Schema, stored: impl IntoIterator<Item = &'a str>) -> Inventory {
        let stored: Vec<&str> = stored.into_iter().collect();
        let (prefix, models) = schema.added_prefix(&stored);
        let models = models.into_iter().map(str::to_owned).collect();
        let mut inventory = Inventory { models, ..Inventory::default() };
        let mut named: BTreeMap<String, String> = BTreeMap::new();
        for from in stored {
            let name = schema.canonical_name(from.strip_prefix(prefix).unwrap_or(from));
            if schema.buffers.iter().any(|end| from.ends_with(end)) {
                inventory.buffers.push(from.to_owned());
            } else if let Some(other) = named.insert(name, from.to_owned()) {
                inventory.duplicates.push(format!("{from} and {other} are the same tensor"));
            }
        }
        let mut copies: Vec<(String, Role, Role)> = named
            .keys()
            .filter_map(|name| schema.role(name).map(|role| (name, role)))
            .filter_map(|(name, role)| Some((name.clone(), role, role.tied_to()?)))
            .collect();
        copies.sort_by_key(|(_, role, _)| *role);
        for (name, role, original) in copies {
            let Some(stored) = named.remove(&name) else { continue };
            match named.entry(schema.name(original)) {
                Entry::Occupied(mut original) => {
                    let stored = if role.kind == Kind::Bias { original.insert(stored) } else { stored };
                    inventory.copies.push(TiedCopy { stored, name, role, original: original.get().clone() });
                }
                Entry::Vacant(entry) => {
                    entry.insert(stored);
                }
            }
        }
        let tensor = |(name, stored): (String, String)| NamedTensor { role: schema.role(&name), name, stored };
        inventory.tensors = named.into_iter().map(tensor).collect();
        inventory
    }

    /// Makes a copy of a tied tensor a separate tensor, because its values differ.
    pub fn untie(&mut self, role: Role) {
        if let Some(number) = self.copies.iter().position(|copy| copy.role == role) {
            let TiedCopy { stored, name, role, .. } = self.copies.remove(number);
            self.tensors.push(NamedTensor { stored, name, role: Some(role) });
            self.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// The stored name of the parameter with this role.
    pub fn find(&self, role: Role) -> Option<&str> {
        self.tensors.iter().find(|tensor| tensor.role == Some(role)).map(|tensor| tensor.stored.as_str())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::heads::{Heads, TaskHead};

    const fn named(module: Module, name: &'static str) -> ModuleNames {
        ModuleNames { module, name, tensorflow: None }
    }

    const fn in_layer(part: LayerPart, name: &'static str) -> ModuleNames {
        named(Module::layer(0, part), name)
    }

    /// Another family as another table: Transformers' `modeling_albert.py`, here with one layer group per layer.
    pub(crate) static ALBERT: Schema = Schema {
        model_type: "albert",
        prefix: "albert.",
        encoder: &["embeddings.", "encoder.", "pooler."],
        buffers: &["embeddings.position_ids"],
        modules: &[
            named(Module::Embedding(Table::Word), "albert.embeddings.word_embeddings"),
            named(Module::Embedding(Table::Position), "albert.embeddings.position_embeddings"),
            named(Module::Embedding(Table::Segment), "albert.embeddings.token_type_embeddings"),
            named(Module::EmbeddingNorm, "albert.embeddings.LayerNorm"),
            named(Module::EmbeddingProjection, "albert.encoder.embedding_hidden_mapping_in"),
            in_layer(LayerPart::Query, "albert.encoder.albert_layer_groups.{}.albert_layers.0.attention.query"),
            in_layer(LayerPart::Key, "albert.encoder.albert_layer_groups.{}.albert_layers.0.attention.key"),
            in_layer(LayerPart::Value, "albert.encoder.albert_layer_groups.{}.albert_layers.0.attention.value"),
            in_layer(
                LayerPart::AttentionOutput,
                "albert.encoder.albert_layer_groups.{}.albert_layers.0.attention.dense",
            ),
            in_layer(
                LayerPart::AttentionNorm,
                "albert.encoder.albert_layer_groups.{}.albert_layers.0.attention.LayerNorm",
            ),
            in_layer(LayerPart::Intermediate, "albert.encoder.albert_layer_groups.{}.albert_layers.0.ffn"),
            in_layer(LayerPart::Output, "albert.encoder.albert_layer_groups.{}.albert_layers.0.ffn_output"),
            in_layer(
                LayerPart::OutputNorm,
                "albert.encoder.albert_layer_groups.{}.albert_layers.0.full_layer_layer_norm",
            ),
            named(Module::Pooler, "albert.pooler"),
            named(Module::MlmTransform, "predictions.dense"),
            named(Module::MlmNorm, "predictions.LayerNorm"),
            named(Module::MlmBias, "predictions"),
            named(Module::MlmDecoder, "predictions.decoder"),
            named(Module::NspHead, "sop_classifier.classifier"),
            named(Module::Classifier, "classifier"),
            named(Module::SpanHead, "qa_outputs"),
        ],
        heads: &[
            (Head::Pooler, "albert.pooler."),
            (Head::Mlm, "predictions."),
            (Head::Nsp, "sop_classifier."),
            (Head::Classifier, "classifier."),
            (Head::Span, "qa_outputs."),
        ],
        classes: &[(Class::Encoder, "AlbertModel"), (Class::MaskedLm, "AlbertForMaskedLM")],
    };

    #[test]
    fn names_and_roles_convert_both_ways() {
        for schema in [&BERT, &ALBERT] {
            for names in schema.modules {
                let modules = match names.module {
                    Module::Layer { part, .. } => vec![Module::layer(0, part), Module::layer(11, part)],
                    other => vec![other],
                };
                for module in modules {
                    assert_eq!(schema.head(&schema.name(module.weight())), module.head(), "{module:?}");
                    for role in [module.weight(), module.bias()] {
                        let known = module.has(role.kind).then_some(role);
                        assert_eq!(schema.role(&schema.name(role)), known, "{}", schema.name(role));
                    }
                }
            }
        }
        assert_eq!(
            ALBERT.name(Module::layer(1, LayerPart::Output).bias()),
            "albert.encoder.albert_layer_groups.1.albert_layers.0.ffn_output.bias"
        );
        for unknown in [
            "bert.encoder.layer.x.output.dense.weight",
            "bert.encoder.layer.01.output.dense.weight",
            "bert.encoder.layer.1.output.dense.gamma",
            "bert.encoder.layer.1.attention.self.distance_embedding.weight",
            "cls.predictions.weight",
            "classifier.dense.weight",
            "weight",
            "",
        ] {
            assert_eq!(BERT.role(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn all_kinds_of_tensorflow_variables_are_mapped() {
        let cases = [
            ("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings.weight", false),
            ("bert/embeddings/LayerNorm/gamma", "bert.embeddings.LayerNorm.weight", false),
            (
                "bert/encoder/layer_11/attention/self/query/kernel",
                "bert.encoder.layer.11.attention.self.query.weight",
                true,
            ),
            (
                "bert/encoder/layer_0/attention/output/LayerNorm/beta",
                "bert.encoder.layer.0.attention.output.LayerNorm.bias",
                false,
            ),
            ("bert/encoder/layer_3/output/dense/bias", "bert.encoder.layer.3.output.dense.bias", false),
            ("bert/pooler/dense/kernel", "bert.pooler.dense.weight", true),
            ("cls/predictions/transform/dense/kernel", "cls.predictions.transform.dense.weight", true),
            ("cls/predictions/output_bias", "cls.predictions.bias", false),
            ("cls/seq_relationship/output_weights", "cls.seq_relationship.weight", false),
            ("cls/squad/output_bias", "qa_outputs.bias", false),
            ("output_weights", "classifier.weight", false),
        ];
        for (from, name, transposed) in cases {
            let (role, found) = BERT.role_in_tensorflow(from).unwrap();
            assert_eq!((BERT.name(role).as_str(), found), (name, transposed), "{from}");
        }
        for unknown in [
            "",
            "bert",
            "bert/encoder/layer_x/output/dense/bias",
            "bert/encoder/layer_1/output/dense/gamma",
            "bert/encoder/layer_1/output/LayerNorm/kernel",
            "bert/encoder/layer_1/attention/dense/kernel",
            "bert/embeddings/word_embeddings/adam_m",
            "cls/predictions/output_weights",
            "electra/embeddings/word_embeddings",
        ] {
            assert_eq!(BERT.role_in_tensorflow(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn class_names_convert_both_ways() {
        let task = |task| Heads::of(task);
        let cases = [
            (Heads::PRETRAINING, "BertForPreTraining"),
            (Heads::MLM, "BertForMaskedLM"),
            (Heads::NSP, "BertForNextSentencePrediction"),
            (Heads::ENCODER, "BertModel"),
            (task(TaskHead::Classify { labels: 2 }), "BertForSequenceClassification"),
            (task(TaskHead::Tag { labels: 2, layers: 1 }), "BertForTokenClassification"),
            (task(TaskHead::Answer), "BertForQuestionAnswering"),
            (task(TaskHead::Choose), "BertForMultipleChoice"),
        ];
        for (heads, name) in cases {
            assert_eq!(BERT.class_name(heads.class(false)), name);
            assert_eq!(BERT.class(name), Some(heads.class(false)));
        }
        assert_eq!(BERT.class_name(Heads::MLM.class(true)), "BertLMHeadModel");
        assert_eq!(BERT.class("RobertaModel"), None);
    }

    #[test]
    fn names_of_all_exporters_are_classified() {
        let inventory = Inventory::of(
            &BERT,
            [
                "embeddings.LayerNorm.gamma",
                "embeddings.position_ids",
                "bert.pooler.dense.bias",
                "pooler.dense.bias",
                "cls.predictions.decoder.weight",
                "cls.predictions.decoder.bias",
                "bert.embeddings.word_embeddings.weight",
                "adapter.weight",
            ],
        );
        let found = |role: Role| inventory.find(role);
        assert_eq!(found(Module::EmbeddingNorm.weight()), Some("embeddings.LayerNorm.gamma"));
        assert_eq!(found(Module::MlmBias.bias()), Some("cls.predictions.decoder.bias"), "replaced by its copy");
        assert_eq!(inventory.buffers, ["embeddings.position_ids"]);
        assert_eq!(inventory.duplicates, ["pooler.dense.bias and bert.pooler.dense.bias are the same tensor"]);
        let copies: Vec<(&str, &str)> =
            inventory.copies.iter().map(|copy| (copy.stored.as_str(), copy.original.as_str())).collect();
        assert_eq!(copies, [("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight")]);
        let unknown: Vec<&str> = inventory
            .tensors
            .iter()
            .filter(|tensor| tensor.role.is_none())
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(unknown, ["adapter.weight"]);
    }

    #[test]
    fn the_decoder_bias_replaces_the_heads_and_an_untied_decoder_is_kept() {
        let names = [
            "cls.predictions.bias",
            "cls.predictions.decoder.bias",
            "cls.predictions.decoder.weight",
            "bert.embeddings.word_embeddings.weight",
        ];
        let mut inventory = Inventory::of(&BERT, names);
        assert_eq!(inventory.find(Module::MlmBias.bias()), Some("cls.predictions.decoder.bias"));
        let decoder = Module::MlmDecoder.weight();
        assert_eq!((inventory.find(decoder), inventory.copies.len()), (None, 2));
        inventory.untie(decoder);
        assert_eq!((inventory.find(decoder), inventory.copies.len()), (Some("cls.predictions.decoder.weight"), 1));
    }
}
