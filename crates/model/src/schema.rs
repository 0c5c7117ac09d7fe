//! What checkpoints of a model family call its parameters: one table a family, and the only place that takes names apart.
//!
//! A row of `ModuleNames` is a module with its name in Transformers' models with a head, and in google-research's TensorFlow code. To
//! these names [`Inventory`] brings whatever an exporter wrote: no `bert.` before an encoder alone, something else before every name,
//! `gamma` and `beta`, copies of tied tensors, buffers without weights.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::heads::Class;
use crate::role::{Head, Kind, LayerPart, Module, Role, Table};

/// The names of a model family.
#[derive(Debug)]
pub struct Schema {
    /// `model_type` of its config.json.
    pub model_type: &'static str,
    /// What is before the names of everything but the heads, unless the encoder was saved alone.
    prefix: &'static str,
    /// What those names then start with.
    encoder: &'static [&'static str],
    /// How the names of tensors end that hold no weights.
    buffers: &'static [&'static str],
    /// A layer's modules stand here once, for layer 0; `{}` in a name is the layer's number.
    modules: &'static [ModuleNames],
    /// What the names of each head's tensors start with.
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

    /// A module's name in Transformers' models with a head. Panics for a module that the family lacks.
    pub fn module_name(&self, module: Module) -> String {
        let (row, number) = match module {
            Module::Layer { number, part } => (Module::layer(0, part), number),
            other => (other, 0),
        };
        let row = self.modules.iter().find(|names| names.module == row);
        let row = row.unwrap_or_else(|| panic!("{} has a name for {module:?}", self.model_type));
        row.name.replace("{}", &number.to_string())
    }

    /// The parameter that has this name in Transformers' models with a head.
    pub fn role(&self, name: &str) -> Option<Role> {
        let (module, kind) = match name.rsplit_once('.')? {
            (module, "weight") => (module, Kind::Weight),
            (module, "bias") => (module, Kind::Bias),
            _ => return None,
        };
        let module = self.modules.iter().find_map(|names| at(names.module, names.name, module))?;
        // A layer's number has one spelling.
        Some(Role { module, kind }).filter(|role| module.has(kind) && self.name(*role) == name)
    }

    /// The parameter that google-research's code has under this name, and whether it is a kernel `[in, out]` there, where the network
    /// has `[out, in]`.
    pub fn role_in_tensorflow(&self, variable: &str) -> Option<(Role, bool)> {
        self.modules.iter().find_map(|names| {
            let path = names.tensorflow?;
            let in_it = |last: &str| {
                let module = if path.is_empty() {
                    variable.strip_suffix(last)?
                } else {
                    variable.strip_suffix(last)?.strip_suffix('/')?
                };
                at(names.module, path, module)
            };
            match names.module {
                Module::Embedding(_) => at(names.module, path, variable).map(|module| (module.weight(), false)),
                Module::EmbeddingNorm
                | Module::MlmNorm
                | Module::Layer { part: LayerPart::AttentionNorm | LayerPart::OutputNorm, .. } => {
                    let gamma = in_it("gamma").map(Module::weight);
                    gamma.or_else(|| in_it("beta").map(Module::bias)).map(|role| (role, false))
                }
                Module::MlmBias | Module::NspHead | Module::Classifier | Module::SpanHead => {
                    let weight = in_it("output_weights").map(Module::weight);
                    let role = weight.or_else(|| in_it("output_bias").map(Module::bias))?;
                    role.module.has(role.kind).then_some((role, false))
                }
                _ => {
                    let kernel = in_it("kernel").map(|module| (module.weight(), true));
                    kernel.or_else(|| in_it("bias").map(|module| (module.bias(), false)))
                }
            }
        })
    }

    /// The head whose tensors' names, in Transformers' models with a head, start like this one.
    pub fn head(&self, name: &str) -> Option<Head> {
        self.heads.iter().find(|(_, start)| name.starts_with(start)).map(|(head, _)| *head)
    }

    /// Whether a name, in Transformers' models with a head, is one of the encoder's, the pooler included.
    pub fn is_of_encoder(&self, name: &str) -> bool {
        name.starts_with(self.prefix)
    }

    /// The name, given that in Transformers' models with a head, in a model of this class.
    pub fn name_in<'a>(&self, class: Class, name: &'a str) -> &'a str {
        match name.strip_prefix(self.prefix) {
            Some(rest) if class == Class::Encoder => rest,
            _ => name,
        }
    }

    /// The name of a class in Transformers.
    pub fn class_name(&self, class: Class) -> &'static str {
        let row = self.classes.iter().find(|(known, _)| *known == class);
        row.unwrap_or_else(|| panic!("{} has a name for {class:?}", self.model_type)).1
    }

    /// The class of this name.
    pub fn class(&self, name: &str) -> Option<Class> {
        self.classes.iter().find(|(_, known)| *known == name).map(|(class, _)| *class)
    }

    /// What an exporter put before the names of the encoder and of its heads, beyond what Transformers puts there: `module.` of
    /// DistributedDataParallel, `model.` of Lightning, the attribute of a class around the encoder. It is what is before the position
    /// embeddings, of which a model has one table. Empty where there are several of them; they are then listed.
    fn wrapper<'a>(&self, stored: &[&'a str]) -> (&'a str, Vec<&'a str>) {
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

    /// The name in Transformers' models with a head of a tensor, whichever of its names an exporter wrote.
    fn present_name(&self, stored: &str) -> String {
        let alone = self.encoder.iter().any(|start| stored.starts_with(start));
        let name = if alone { format!("{}{stored}", self.prefix) } else { stored.to_owned() };
        if let Some(norm) = name.strip_suffix(".gamma") {
            format!("{norm}.weight")
        } else if let Some(norm) = name.strip_suffix(".beta") {
            format!("{norm}.bias")
        } else {
            name
        }
    }
}

/// `module`, with the layer's number found in `name`, if that is what `pattern` says.
fn at(module: Module, pattern: &str, name: &str) -> Option<Module> {
    match (module, pattern.split_once("{}")) {
        (Module::Layer { part, .. }, Some((before, after))) => {
            let digits = name.strip_prefix(before)?.strip_suffix(after)?;
            Some(Module::layer(digits.parse().ok()?, part))
        }
        _ => (pattern == name).then_some(module),
    }
}

/// The tensors of a checkpoint by what they are, whichever exporter wrote them.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Inventory {
    /// Tensors with values of their own, in order of name.
    pub tensors: Vec<NamedTensor>,
    /// The stored names of tensors that hold no weights.
    pub buffers: Vec<String>,
    /// Copies of tied tensors whose originals are there, too.
    pub copies: Vec<TiedCopy>,
    /// A line for each two tensors that are the same one.
    pub twice: Vec<String>,
    /// Where the tensors are those of several models: what is before the names of each.
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
    /// What it is, if the network knows it.
    pub role: Option<Role>,
}

/// A tensor that must equal another one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TiedCopy {
    /// Its name as stored.
    pub stored: String,
    /// Its name in Transformers' models with a head.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The stored name of the tensor that it is tied to.
    pub original: String,
}

impl Inventory {
    /// Sorts the tensors of these names. A copy of a tied tensor takes the original's place if that is missing. The decoder's bias
    /// always does: it is the one that PyTorch's layer adds.
    pub fn of<'a>(schema: &Schema, stored: impl IntoIterator<Item = &'a str>) -> Inventory {
        let stored: Vec<&str> = stored.into_iter().collect();
        let (wrapper, models) = schema.wrapper(&stored);
        let models = models.into_iter().map(str::to_owned).collect();
        let mut inventory = Inventory { models, ..Inventory::default() };
        let mut named: BTreeMap<String, String> = BTreeMap::new();
        for from in stored {
            let name = schema.present_name(from.strip_prefix(wrapper).unwrap_or(from));
            if schema.buffers.iter().any(|end| from.ends_with(end)) {
                inventory.buffers.push(from.to_owned());
            } else if let Some(other) = named.insert(name, from.to_owned()) {
                inventory.twice.push(format!("twice: {from} and {other} are the same tensor"));
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
                Entry::Vacant(place) => {
                    place.insert(stored);
                }
            }
        }
        let tensor = |(name, stored): (String, String)| NamedTensor { role: schema.role(&name), name, stored };
        inventory.tensors = named.into_iter().map(tensor).collect();
        inventory
    }

    /// Gives a copy of a tied tensor a place of its own: it has other values.
    pub fn untie(&mut self, role: Role) {
        if let Some(number) = self.copies.iter().position(|copy| copy.role == role) {
            let TiedCopy { stored, name, role, .. } = self.copies.remove(number);
            self.tensors.push(NamedTensor { stored, name, role: Some(role) });
            self.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// The stored name of a parameter.
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

    /// Another family as another table: Transformers' `modeling_albert.py`, a group of layers for each layer.
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
    fn every_name_of_every_family_leads_back_to_its_role() {
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
    fn every_kind_of_tensorflow_variable_finds_its_name() {
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
    fn classes_are_named_and_found_again() {
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
    fn whatever_an_exporter_wrote_is_sorted() {
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
        assert_eq!(found(Module::MlmBias.bias()), Some("cls.predictions.decoder.bias"), "its copy stands for it");
        assert_eq!(inventory.buffers, ["embeddings.position_ids"]);
        assert_eq!(inventory.twice, ["twice: pooler.dense.bias and bert.pooler.dense.bias are the same tensor"]);
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
    fn the_bias_that_the_decoder_adds_is_taken_and_an_untied_decoder_has_a_place() {
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
