//! The number formats in which a model computes at inference.

use cloze_engine::{DType, Device};
use cloze_train::recipe;

/// The number formats in which a model computes at inference.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Precision {
    /// f32 or bf16: the faster of the two on the device, by measurement.
    #[default]
    Auto,
    /// f32 everywhere.
    F32,
    /// Activations and operands of matrix products in bf16, sums in f32.
    Bf16,
    /// Weights of the encoder's dense layers in int8, and their inputs rounded to int8, token by token
    /// ([`Model::quantize`](cloze_model::Model::quantize)). All other activations are f32 or bf16, as with [`Auto`](Self::Auto).
    Int8,
}

impl Precision {
    /// All of them, with their names and what they mean.
    pub const ALL: [(Precision, &'static str, &'static str); 4] = [
        (Precision::Auto, "auto", "The faster of f32 and bf16 on this machine, by measurement"),
        (Precision::F32, "f32", "Single precision"),
        (Precision::Bf16, "bf16", "bfloat16, with sums in f32; computed in f32 where the CPU is faster so"),
        (
            Precision::Int8,
            "int8",
            "Products of the encoder's weights in int8, with scales per token and feature; the rest as auto",
        ),
    ];

    /// The type of the activations on a device.
    pub fn activations(self, device: &Device) -> DType {
        match self {
            Precision::Auto | Precision::Int8 => device.fastest_precision(),
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// The precision on a device, with [`Auto`](Self::Auto) resolved.
    pub fn resolved(self, device: &Device) -> Precision {
        match self {
            Precision::Auto => Precision::from(device.fastest_precision()),
            other => other,
        }
    }

    /// `"auto"`, `"f32"`, `"bf16"` or `"int8"`.
    pub fn name(self) -> &'static str {
        Precision::ALL.iter().find(|(precision, ..)| *precision == self).map_or("", |(_, name, _)| name)
    }
}

/// The precision whose activations have this type. Panics for integers.
impl From<DType> for Precision {
    fn from(dtype: DType) -> Precision {
        match dtype {
            DType::F32 => Precision::F32,
            DType::BF16 => Precision::Bf16,
            DType::I32 => panic!("activations are real numbers"),
        }
    }
}

impl From<recipe::Precision> for Precision {
    fn from(precision: recipe::Precision) -> Precision {
        match precision {
            recipe::Precision::F32 => Precision::F32,
            recipe::Precision::Bf16 => Precision::Bf16,
            _ => Precision::Auto,
        }
    }
}
