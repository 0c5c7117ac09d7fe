//! `--precision`: the type of activations, for all commands.

use cloze_engine::Device;
use cloze_train::recipe::Precision;

use crate::terminal::Terminal;

/// A type of activations as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Type {
    /// The faster of the two on this machine, by measurement
    Auto,
    /// Single precision
    F32,
    /// bfloat16, with sums in f32; computed in f32 where the CPU is faster so
    Bf16,
}

impl From<Type> for Precision {
    fn from(name: Type) -> Precision {
        match name {
            Type::Auto => Precision::Auto,
            Type::F32 => Precision::F32,
            Type::Bf16 => Precision::Bf16,
        }
    }
}

impl Type {
    /// What it stands for on a device. For `auto` the choice and its reason are said in one line.
    pub fn settle(self, device: &Device, terminal: &Terminal) -> Precision {
        let precision = Precision::from(self).resolved(device);
        if self == Type::Auto {
            let reason = device.explain(precision.dtype(device));
            terminal.note(&format!("{}, {} ({reason})", device.describe(), precision.name()));
        } else {
            terminal.detail(&format!("{}, {}", device.describe(), precision.name()));
        }
        precision
    }
}
