//! `--precision`: the precision at inference, for all commands.

use cloze_engine::Device;
use cloze_tasks::inference::Precision;

use crate::terminal::Terminal;

/// Determines the precision of `--precision` on a device. For `auto`, prints the choice and its reason.
pub fn resolve(precision: impl Into<Precision>, device: &Device, terminal: &Terminal) -> Precision {
    let given = precision.into();
    let resolved = given.resolved(device);
    let activations = resolved.activations(device);
    if given == Precision::Auto {
        let reason = device.explain(activations);
        terminal.note(&format!("{}, {} ({reason})", device.describe(), resolved.name()));
    } else {
        let rest = match resolved {
            Precision::Int8 => format!(", and {} where int8 is not used", activations.name()),
            _ => String::new(),
        };
        terminal.detail(&format!("{}, {}{rest}", device.describe(), resolved.name()));
    }
    resolved
}
