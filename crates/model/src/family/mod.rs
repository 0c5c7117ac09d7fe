//! The model families. They share one network; a [`Family`] is a table of what differs.
//!
//! | file | families | from BERT it differs in |
//! | --- | --- | --- |
//! | `table.rs` | | the form of the table |
//! | `bert.rs` | BERT (Devlin et al. 2019) | |
//! | `roberta.rs` | RoBERTa (Liu et al. 2019), XLM-RoBERTa (Conneau et al. 2020), CamemBERT (Martin et al. 2020) | positions, heads |
//! | `mpnet.rs` | MPNet (Song et al. 2020) | positions, a bias by distance, heads |
//! | `modernbert.rs` | ModernBERT (Warner et al. 2024) | LayerNorm before each block, rotary positions, windows, gated units, heads |
//! | `distilbert.rs` | DistilBERT (Sanh et al. 2019) | no segments and no pooler, heads, names of keys |
//! | `albert.rs` | ALBERT (Lan et al. 2020) | factorized embeddings, shared layers |
//! | `electra.rs` | ELECTRA (Clark et al. 2020) | factorized embeddings, no pooler, heads, discriminator |

mod albert;
mod bert;
mod distilbert;
mod electra;
mod modernbert;
mod mpnet;
mod roberta;
mod table;

pub use albert::ALBERT;
pub use bert::BERT;
pub use distilbert::DISTILBERT;
pub use electra::ELECTRA;
pub use modernbert::MODERNBERT;
pub use mpnet::MPNET;
pub use roberta::{CAMEMBERT, ROBERTA, XLM_ROBERTA};
pub use table::Family;
pub(crate) use table::{DefaultValue, HeadDropout, ModuleNames, Positions, Projection};

use crate::role::Module;

/// All supported families.
pub static FAMILIES: [&Family; 9] =
    [&BERT, &ROBERTA, &XLM_ROBERTA, &CAMEMBERT, &MPNET, &MODERNBERT, &DISTILBERT, &ALBERT, &ELECTRA];

impl Family {
    /// The family with this `model_type`.
    pub fn of(model_type: &str) -> Option<&'static Family> {
        FAMILIES.into_iter().find(|family| family.model_type == model_type)
    }

    /// Whether positions count only tokens other than padding, from the padding token's id + 1, as in RoBERTa.
    pub fn positions_skip_padding(&self) -> bool {
        matches!(self.network.positions, Positions::AfterPadding | Positions::After(_))
    }

    /// The padding token of its embeddings, if a model's `pad_token_id` is `configured`.
    pub fn padding(&self, configured: Option<u32>) -> Option<u32> {
        match self.network.positions {
            Positions::After(padding) => Some(padding),
            Positions::All | Positions::AfterPadding => configured,
        }
    }

    /// The name of a key of BERT's config.json in its own.
    pub fn key<'a>(&self, berts: &'a str) -> &'a str {
        self.config.renamed.iter().find(|(ours, _)| *ours == berts).map_or(berts, |(_, theirs)| *theirs)
    }

    /// Whether it is ModernBERT, whose config.json has keys for parts of the network that other families do not have:
    /// rotary positions, windows, layers without biases.
    pub fn is_modern(&self) -> bool {
        self.has_module(Module::FinalNorm)
    }

    /// Whether it has this module, where the modules of a layer are those of layer 0.
    pub(crate) fn has_module(&self, module: Module) -> bool {
        self.modules.iter().any(|names| names.module == module)
    }

    /// Whether its config.json has the key that has this name in BERT's or ALBERT's.
    pub fn has_key(&self, key: &str) -> bool {
        !self.config.absent.contains(&key)
    }
}
