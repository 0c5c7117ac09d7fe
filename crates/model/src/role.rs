//! What each parameter of the network is for, whatever a checkpoint calls it.

/// A module of the network, in PyTorch's sense: it owns a weight, a bias or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// A table of embeddings: a weight alone.
    Embedding(Table),
    /// LayerNorm of the summed embeddings.
    EmbeddingNorm,
    /// From the embeddings' width to the hidden states', where the two differ.
    EmbeddingProjection,
    /// A part of an encoder layer.
    Layer {
        /// The layer, from 0.
        number: usize,
        /// Its part.
        part: LayerPart,
    },
    /// tanh dense on `[CLS]`.
    Pooler,
    /// The MLM head's dense layer.
    MlmTransform,
    /// The MLM head's LayerNorm.
    MlmNorm,
    /// What is added to the MLM head's logits: a bias alone.
    MlmBias,
    /// The MLM head's last product. Its bias is [tied](Role::tied_to), and as a rule its weight, too; some checkpoints hold copies of them.
    /// The network declares a weight where it is not tied.
    MlmDecoder,
    /// Next sentence or not.
    NspHead,
    /// Labels of sequences, tokens or choices.
    Classifier,
    /// Start and end of a span.
    SpanHead,
}

/// The tables whose rows are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// A row for each token of the vocabulary.
    Word,
    /// A row for each position.
    Position,
    /// A row for each segment (token type).
    Segment,
}

/// The modules of an encoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerPart {
    /// To queries.
    Query,
    /// To keys.
    Key,
    /// To values.
    Value,
    /// From the attention heads' outputs, side by side, to the hidden width.
    AttentionOutput,
    /// LayerNorm after attention.
    AttentionNorm,
    /// To the feed-forward block's inner width.
    Intermediate,
    /// From it.
    Output,
    /// LayerNorm after the feed-forward block.
    OutputNorm,
}

/// The two kinds of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A matrix, or a LayerNorm's γ.
    Weight,
    /// A vector that is added.
    Bias,
}

/// A parameter's place in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role {
    /// Where it is.
    pub module: Module,
    /// Which of the module's parameters it is.
    pub kind: Kind,
}

/// What is put on the encoder, each part with tensors of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Head {
    /// tanh dense on `[CLS]`.
    Pooler,
    /// Masked-language-model head.
    Mlm,
    /// Next-sentence head.
    Nsp,
    /// Classifier of sequences, tokens or choices.
    Classifier,
    /// Start and end of a span.
    Span,
}

impl Module {
    /// Its weight.
    pub const fn weight(self) -> Role {
        Role { module: self, kind: Kind::Weight }
    }

    /// Its bias.
    pub const fn bias(self) -> Role {
        Role { module: self, kind: Kind::Bias }
    }

    /// A part of the encoder layer `number`.
    pub const fn layer(number: usize, part: LayerPart) -> Module {
        Module::Layer { number, part }
    }

    /// The head that it is a part of; none for the embeddings and the encoder.
    pub fn head(self) -> Option<Head> {
        match self {
            Module::Embedding(_) | Module::EmbeddingNorm | Module::EmbeddingProjection | Module::Layer { .. } => None,
            Module::Pooler => Some(Head::Pooler),
            Module::MlmTransform | Module::MlmNorm | Module::MlmBias | Module::MlmDecoder => Some(Head::Mlm),
            Module::NspHead => Some(Head::Nsp),
            Module::Classifier => Some(Head::Classifier),
            Module::SpanHead => Some(Head::Span),
        }
    }

    /// How many layers are below its output's: 0 for the embeddings, n + 1 for layer n; none for a head.
    pub fn height(self) -> Option<usize> {
        match self {
            Module::Layer { number, .. } => Some(number + 1),
            _ if self.head().is_none() => Some(0),
            _ => None,
        }
    }

    /// Whether it has parameters of this kind.
    pub fn has(self, kind: Kind) -> bool {
        match self {
            Module::Embedding(_) => kind == Kind::Weight,
            Module::MlmBias => kind == Kind::Bias,
            _ => true,
        }
    }
}

impl Role {
    /// The parameter whose values this one shares, as a rule.
    pub fn tied_to(self) -> Option<Role> {
        match (self.module, self.kind) {
            (Module::MlmDecoder, Kind::Weight) => Some(Module::Embedding(Table::Word).weight()),
            (Module::MlmDecoder, Kind::Bias) => Some(Module::MlmBias.bias()),
            _ => None,
        }
    }
}

impl Head {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Head::Pooler => "pooler",
            Head::Mlm => "masked-language-model head",
            Head::Nsp => "next-sentence head",
            Head::Classifier | Head::Span => "task's head",
        }
    }
}
