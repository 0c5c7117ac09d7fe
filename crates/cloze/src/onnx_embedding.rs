//! How an [`Embedder`] makes a vector, for its export as ONNX.

use std::borrow::Cow;

use cloze_convert::onnx::embedding as onnx;
use cloze_tasks::TaskError;
use cloze_tasks::embed::Embedder;
use cloze_tasks::embed::modules::{Activation, Dense, Module, Residual};
use cloze_tasks::embed::pooling::Pool;

/// The pooling, the modules and the truncation of an embedder, for [`write_embedding`](cloze_convert::onnx::write_embedding).
///
/// ```
/// use cloze::convert::onnx::{OnnxOptions, write_embedding};
/// use cloze::model::Class;
/// use cloze::tasks::embed::Options;
/// use cloze::{DType, Device, Embedder, onnx_embedding};
///
/// # use cloze::{model::{Config, Heads, Model}, text::{SPECIAL_TOKENS, Tokenizer}};
/// # let temporary = tempfile::tempdir()?;
/// # let folder = temporary.path();
/// # let tokenizer = Tokenizer::from_tokens(SPECIAL_TOKENS.iter().map(|word| word.to_string()).collect(), false)?;
/// # let mut config = Config::preset("tiny")?;
/// # config.vocab_size = tokenizer.vocab_size();
/// # Model::new(config, Heads::ENCODER, &Device::cpu(Some(1))?, 1)?.save(folder)?;
/// # tokenizer.save(folder)?;
/// let embedder = Embedder::open(folder, Device::cpu(None)?, DType::F32, &Options::default())?;
/// let (model, path) = (&embedder.model.model, folder.join("model.onnx"));
/// write_embedding(model, &onnx_embedding(&embedder)?, &path, &OnnxOptions::new(Class::Encoder))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TaskError::Folder`] if the pooling leaves out the tokens of a prompt, which a graph does not know.
pub fn onnx_embedding(embedder: &Embedder) -> Result<onnx::Embedding<'_>, TaskError> {
    let refuse = |problem: String| TaskError::Folder { path: embedder.model.dir().to_owned(), problem };
    if !embedder.pooling.include_prompt {
        return Err(refuse(
            "its pooling leaves out the tokens of a prompt (include_prompt is false), which an ONNX graph does not know; \
             set include_prompt to true in the config.json of the Pooling if texts get no prompts"
                .to_owned(),
        ));
    }
    let pool = |pool: &Pool| match pool {
        Pool::Cls => Ok(onnx::Pool::Cls),
        Pool::Mean => Ok(onnx::Pool::Mean),
        Pool::MeanSqrtLen => Ok(onnx::Pool::MeanSqrtLen),
        Pool::WeightedMean => Ok(onnx::Pool::WeightedMean),
        Pool::Max => Ok(onnx::Pool::Max),
        Pool::LastToken => Ok(onnx::Pool::LastToken),
        Pool::Pooler => Ok(onnx::Pool::Pooler),
        other => Err(refuse(format!("the pooling {} cannot be exported as ONNX", other.name()))),
    };
    let module = |module| match module {
        &Module::Normalize => Ok(onnx::Module::Normalize),
        Module::Dense(of) => Ok(onnx::Module::Dense(dense(of))),
        Module::LayerNorm(norm) => {
            let [weight, bias] = [&norm.weight, &norm.bias].map(|values| Cow::Borrowed(&values[..]));
            Ok(onnx::Module::LayerNorm { weight, bias })
        }
        other => Err(refuse(format!("the module {other} cannot be exported as ONNX"))),
    };
    let mut modules = embedder.modules.iter().map(module).collect::<Result<Vec<_>, _>>()?;
    modules.extend(embedder.truncation().map(onnx::Module::Truncate));
    modules.extend(embedder.normalizes().then_some(onnx::Module::Normalize));
    Ok(onnx::Embedding {
        pools: embedder.pooling.pools.iter().map(pool).collect::<Result<_, _>>()?,
        layers: embedder.pooling.layers.clone(),
        modules,
    })
}

fn dense(Dense { inputs, outputs, weight, bias, activation, residual }: &Dense) -> onnx::Dense<'_> {
    onnx::Dense {
        inputs: *inputs,
        outputs: *outputs,
        weight: Cow::Borrowed(weight),
        bias: bias.as_deref().map(Cow::Borrowed),
        activation: match activation {
            Activation::Identity => onnx::Activation::Identity,
            Activation::Tanh => onnx::Activation::Tanh,
            Activation::Relu => onnx::Activation::Relu,
            Activation::Gelu => onnx::Activation::Gelu,
            Activation::Sigmoid => onnx::Activation::Sigmoid,
            Activation::Silu => onnx::Activation::Silu,
            Activation::Mish => onnx::Activation::Mish,
            Activation::LeakyRelu => onnx::Activation::LeakyRelu,
            Activation::Elu => onnx::Activation::Elu,
            Activation::Selu => onnx::Activation::Selu,
            Activation::Relu6 => onnx::Activation::Relu6,
            Activation::Softplus => onnx::Activation::Softplus,
            Activation::Softsign => onnx::Activation::Softsign,
        },
        residual: match residual {
            Residual::None => onnx::Residual::None,
            Residual::Same => onnx::Residual::Same,
            Residual::Projected(matrix) => onnx::Residual::Projected(Cow::Borrowed(matrix)),
        },
    }
}
