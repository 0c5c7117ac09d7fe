//! The names of a model's parameters in checkpoints, by the table of its [family](crate::family). No other code parses
//! names.
//!
//! A row of the table is a module with its names in Transformers' models with a head and in google-research's
//! TensorFlow code. [`Inventory`] maps the names that exporters write to the former: names without `bert.` in files
//! with only an encoder, other prefixes, `gamma` and `beta`, copies of tied tensors, buffers without weights.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::family::{FAMILIES, Family, ModuleNames};
use crate::heads::Class;
use crate::role::{Head, Kind, LayerPart, Module, Role, Table};

/// Stands for a number in the names of a layer's modules.
const NUMBER: &str = "{}";

/// Modules that Transformers does not have, with their names in models of every family.
const OWN: [(Module, &str); 2] = [(Module::MixWeights, "cloze_mix"), (Module::MixScale, "cloze_mix_scale")];
/// Precedes the names that `torch.nn.LSTM` has for its parameters.
const BILSTM: &str = "cloze_bilstm.";

/// The names of a model's parameters: those of its family, for a number of layers per group.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    family: &'static Family,
    /// Layers per group, in families that number the layers of each group.
    inner: usize,
}

impl Schema {
    /// The names of a family's models with `inner` layers per group; 1 for families without groups.
    pub fn new(family: &'static Family, inner: usize) -> Schema {
        Schema { family, inner: inner.max(1) }
    }

    /// The family.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// Whether the family has this module.
    pub fn has(&self, module: Module) -> bool {
        self.row(module).is_some()
    }

    fn row(&self, module: Module) -> Option<&'static ModuleNames> {
        let module = match module {
            Module::Layer { part, .. } => Module::layer(0, part),
            other => other,
        };
        self.family.modules.iter().find(|names| names.module == module)
    }

    /// A parameter's name in Transformers' models with a head.
    pub fn name(&self, role: Role) -> String {
        let kind = match role.kind {
            Kind::Weight => "weight",
            Kind::Bias => "bias",
        };
        match role.module {
            Module::BiLstm { layer, reverse, recurrent } => {
                let (input, direction) = (if recurrent { "hh" } else { "ih" }, if reverse { "_reverse" } else { "" });
                format!("{BILSTM}{kind}_{input}_l{layer}{direction}")
            }
            module => format!("{}.{kind}", self.module_name(module)),
        }
    }

    /// A module's name in Transformers' models with a head. Panics for a module that the family does not have.
    pub fn module_name(&self, module: Module) -> String {
        if let Some((_, name)) = OWN.iter().find(|(own, _)| *own == module) {
            return (*name).to_owned();
        }
        let row = self.row(module).unwrap_or_else(|| panic!("{} has no name for {module:?}", self.family.model_type));
        let Module::Layer { number, .. } = module else { return row.name.to_owned() };
        match row.name.matches(NUMBER).count() {
            1 => row.name.replace(NUMBER, &number.to_string()),
            _ => {
                let in_group = row.name.replacen(NUMBER, &(number / self.inner).to_string(), 1);
                in_group.replace(NUMBER, &(number % self.inner).to_string())
            }
        }
    }

    /// The role of the parameter with this name in Transformers' models with a head.
    pub fn role(&self, name: &str) -> Option<Role> {
        if let Some(name) = name.strip_prefix(BILSTM) {
            return role_in_lstm(name);
        }
        let (module, kind) = match name.rsplit_once('.')? {
            (module, "weight") => (module, Kind::Weight),
            (module, "bias") => (module, Kind::Bias),
            _ => return None,
        };
        if let Some((own, _)) = OWN.iter().find(|(_, name)| *name == module) {
            return Some(Role { module: *own, kind }).filter(|role| own.has(role.kind));
        }
        let mut candidates = self.family.modules.iter().filter(|names| names.module.has(kind));
        let module = candidates.find_map(|names| self.match_pattern(names.module, names.name, module))?;
        // Reject other spellings of a layer's number, such as 01.
        Some(Role { module, kind }).filter(|role| self.name(*role) == name)
    }

    /// The role of the parameter with this name in google-research's code, and whether it is a kernel `[in, out]`,
    /// which must be transposed to the network's `[out, in]`.
    pub fn role_in_tensorflow(&self, variable: &str) -> Option<(Role, bool)> {
        self.family.modules.iter().find_map(|names| {
            let path = names.tensorflow?;
            let with_suffix = |last: &str| {
                let module = if path.is_empty() {
                    variable.strip_suffix(last)?
                } else {
                    variable.strip_suffix(last)?.strip_suffix('/')?
                };
                self.match_pattern(names.module, path, module)
            };
            match names.module {
                Module::Embedding(_) => {
                    self.match_pattern(names.module, path, variable).map(|module| (module.weight(), false))
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
        if name.starts_with(BILSTM)
            || OWN.iter().any(|(_, own)| name.rsplit_once('.').is_some_and(|(module, _)| module == *own))
        {
            return Some(Head::Features);
        }
        self.family.heads.iter().find(|(_, start)| name.starts_with(start)).map(|(head, _)| *head)
    }

    /// Whether a tensor with this name, in Transformers' models with a head, belongs to the encoder or the pooler.
    pub fn is_of_encoder(&self, name: &str) -> bool {
        name.starts_with(self.family.prefix)
    }

    /// Converts a name in Transformers' models with a head to that in a model of this class.
    pub fn name_in<'a>(&self, class: Class, name: &'a str) -> &'a str {
        match name.strip_prefix(self.family.prefix) {
            Some(rest) if class == Class::Encoder => rest,
            _ => name,
        }
    }

    /// The name of a class in Transformers; `None` if the family does not have this class.
    pub fn class_name(&self, class: Class) -> Option<&'static str> {
        self.family.classes.iter().find(|(known, _)| *known == class).map(|(_, name)| *name)
    }

    /// The class with this name.
    pub fn class(&self, name: &str) -> Option<Class> {
        self.family.classes.iter().find(|(_, known)| *known == name).map(|(class, _)| *class)
    }

    /// The prefix that an exporter added to all names: `module.` by DistributedDataParallel, `model.` by Lightning, or
    /// the attribute name in a class that contains the encoder. It is what precedes the name of the position
    /// embeddings, which a model has only once; without position embeddings, that of the word embeddings. If there are several tables, returns an empty prefix and the list of
    /// prefixes.
    fn added_prefix<'a>(&self, stored: &[&'a str]) -> (&'a str, Vec<&'a str>) {
        let table = self.only_table();
        let table = table.strip_prefix(self.family.prefix).unwrap_or(&table);
        let before = |name: &&'a str| {
            let before = name.strip_suffix(table).filter(|before| before.is_empty() || before.ends_with('.'))?;
            let shorter = before.strip_suffix(self.family.prefix).filter(|rest| rest.is_empty() || rest.ends_with('.'));
            Some(shorter.unwrap_or(before))
        };
        let found: BTreeSet<&str> = stored.iter().filter_map(before).collect();
        match found.len() {
            1 => (found.first().copied().unwrap_or_default(), Vec::new()),
            _ if found.contains("") => ("", Vec::new()),
            _ => ("", found.into_iter().collect()),
        }
    }

    /// The name of the table that is searched for an added prefix.
    fn only_table(&self) -> String {
        let position = Module::Embedding(Table::Position);
        self.name(if self.has(position) { position } else { Module::Embedding(Table::Word) }.weight())
    }

    /// `module` with the number of the layer found in `name`, if the name matches the pattern.
    fn match_pattern(&self, module: Module, pattern: &str, name: &str) -> Option<Module> {
        let Module::Layer { part, .. } = module else { return (pattern == name).then_some(module) };
        let mut pieces = pattern.split(NUMBER);
        let mut rest = name.strip_prefix(pieces.next()?)?;
        let mut numbers = Vec::new();
        for piece in pieces {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            numbers.push(rest[..digits].parse::<usize>().ok()?);
            rest = rest[digits..].strip_prefix(piece)?;
        }
        let number = match *numbers {
            [number] => number,
            [group, layer] if layer < self.inner => group.checked_mul(self.inner)?.checked_add(layer)?,
            _ => return None,
        };
        rest.is_empty().then(|| Module::layer(number, part))
    }

    /// Converts a tensor's name, as any exporter writes it, to that in Transformers' models with a head.
    fn canonical_name(&self, stored: &str) -> String {
        let is_unprefixed = self.family.encoder.iter().any(|start| stored.starts_with(start));
        let name = if is_unprefixed { format!("{}{stored}", self.family.prefix) } else { stored.to_owned() };
        if let Some(norm) = name.strip_suffix(".gamma") {
            format!("{norm}.weight")
        } else if let Some(norm) = name.strip_suffix(".beta") {
            format!("{norm}.bias")
        } else {
            name
        }
    }
}

/// The role of a parameter of the BiLSTM by its name in `torch.nn.LSTM`, such as `weight_ih_l0_reverse`.
fn role_in_lstm(name: &str) -> Option<Role> {
    let (name, reverse) = match name.strip_suffix("_reverse") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let (module, number) = name.rsplit_once("_l")?;
    let layer = number.parse().ok().filter(|layer: &usize| layer.to_string() == number)?;
    let (kind, recurrent) = match module {
        "weight_ih" => (Kind::Weight, false),
        "weight_hh" => (Kind::Weight, true),
        "bias_ih" => (Kind::Bias, false),
        "bias_hh" => (Kind::Bias, true),
        _ => return None,
    };
    Some(Role { module: Module::BiLstm { layer, reverse, recurrent }, kind })
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
    /// The family that has such tensor names, if it is another one.
    pub other_family: Option<&'static str>,
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
    pub fn of<'a>(schema: Schema, stored: impl IntoIterator<Item = &'a str>) -> Inventory {
        let stored: Vec<&str> = stored.into_iter().collect();
        let (prefix, models) = schema.added_prefix(&stored);
        let table = |schema: Schema| schema.only_table().strip_prefix(schema.family.prefix).map(str::to_owned);
        let is_other = |family: &&'static Family| {
            family.prefix != schema.family.prefix
                && prefix.ends_with(family.prefix)
                && table(Schema::new(family, 1)) == table(schema)
        };
        let other_family = FAMILIES.into_iter().find(is_other).map(|family| family.title);
        let models = models.into_iter().map(str::to_owned).collect();
        let mut inventory = Inventory { models, other_family, ..Inventory::default() };
        let mut named: BTreeMap<String, String> = BTreeMap::new();
        for from in stored {
            let name = schema.canonical_name(from.strip_prefix(prefix).unwrap_or(from));
            if schema.family.buffers.iter().any(|end| from.ends_with(end)) {
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
mod tests {
    use super::*;
    use crate::family::{ALBERT, BERT};
    use crate::heads::{Heads, TaskHead};

    fn bert() -> Schema {
        Schema::new(&BERT, 1)
    }

    #[test]
    fn names_and_roles_convert_both_ways() {
        for schema in FAMILIES.into_iter().flat_map(|family| [1, 3].map(|inner| Schema::new(family, inner))) {
            for names in schema.family.modules {
                let modules = match names.module {
                    Module::Layer { part, .. } => vec![Module::layer(0, part), Module::layer(11, part)],
                    other => vec![other],
                };
                for module in modules {
                    assert_eq!(schema.head(&schema.name(module.weight())), module.head(), "{module:?}");
                    for role in [module.weight(), module.bias()] {
                        let known = match role.tied_to() {
                            // Some families have one name for both.
                            Some(original) if schema.name(original) == schema.name(role) => Some(original),
                            _ => module.has(role.kind).then_some(role),
                        };
                        if module != Module::MlmBias || role.kind == Kind::Bias {
                            assert_eq!(schema.role(&schema.name(role)), known, "{}", schema.name(role));
                        }
                    }
                }
            }
        }
        for (module, name) in [
            (Module::BiLstm { layer: 1, reverse: true, recurrent: false }, "cloze_bilstm.weight_ih_l1_reverse"),
            (Module::BiLstm { layer: 12, reverse: false, recurrent: true }, "cloze_bilstm.weight_hh_l12"),
            (Module::MixWeights, "cloze_mix.weight"),
            (Module::MixScale, "cloze_mix_scale.weight"),
        ] {
            let role = module.weight();
            assert_eq!((bert().name(role).as_str(), bert().role(name)), (name, Some(role)));
            assert_eq!(bert().head(name), Some(Head::Features));
        }
        let [one, two] = [1, 2].map(|inner| Schema::new(&ALBERT, inner));
        let role = Module::layer(3, LayerPart::Output).bias();
        assert_eq!(one.name(role), "albert.encoder.albert_layer_groups.3.albert_layers.0.ffn_output.bias");
        assert_eq!(two.name(role), "albert.encoder.albert_layer_groups.1.albert_layers.1.ffn_output.bias");
        assert_eq!(one.role(&two.name(role)), None, "a group has one layer");
        for unknown in [
            "bert.encoder.layer.x.output.dense.weight",
            "bert.encoder.layer.01.output.dense.weight",
            "bert.encoder.layer.1.output.dense.gamma",
            "bert.encoder.layer.1.attention.self.distance_embedding.weight",
            "cls.predictions.weight",
            "classifier.dense.weight",
            "cloze_bilstm.weight_ih_l01",
            "cloze_bilstm.weight_hr_l0",
            "cloze_mix.bias",
            "weight",
            "",
        ] {
            assert_eq!(bert().role(unknown), None, "{unknown}");
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
            let (role, found) = bert().role_in_tensorflow(from).unwrap();
            assert_eq!((bert().name(role).as_str(), found), (name, transposed), "{from}");
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
            assert_eq!(bert().role_in_tensorflow(unknown), None, "{unknown}");
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
            (task(TaskHead::Tag { labels: 2 }), "BertForTokenClassification"),
            (task(TaskHead::Answer), "BertForQuestionAnswering"),
            (task(TaskHead::Choose), "BertForMultipleChoice"),
        ];
        for (heads, name) in cases {
            assert_eq!(bert().class_name(heads.class(false)), Some(name));
            assert_eq!(bert().class(name), Some(heads.class(false)));
        }
        assert_eq!(bert().class_name(Heads::MLM.class(true)), Some("BertLMHeadModel"));
        assert_eq!(bert().class("RobertaModel"), None);
        assert_eq!(Schema::new(&ALBERT, 1).class_name(Class::CausalLm), None);
    }

    #[test]
    fn names_of_all_exporters_are_classified() {
        let inventory = Inventory::of(
            bert(),
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
        let mut inventory = Inventory::of(bert(), names);
        assert_eq!(inventory.find(Module::MlmBias.bias()), Some("cls.predictions.decoder.bias"));
        let decoder = Module::MlmDecoder.weight();
        assert_eq!((inventory.find(decoder), inventory.copies.len()), (None, 2));
        inventory.untie(decoder);
        assert_eq!((inventory.find(decoder), inventory.copies.len()), (Some("cls.predictions.decoder.weight"), 1));
    }
}
