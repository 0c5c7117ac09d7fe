//! `--precision`: the precision of the activations, for all commands.

use cloze_engine::Device;
use cloze_train::recipe::Precision;

use crate::terminal::Terminal;

/// Determines the precision of `--precision` on a device. For `auto`, prints the choice and its reason.
pub fn resolve(precision: Precision, device: &Device, terminal: &Terminal) -> Precision {
    let resolved = precision.resolved(device);
    if precision == Precision::Auto {
        let reason = device.explain(resolved.dtype(device));
        terminal.note(&format!("{}, {} ({reason})", device.describe(), resolved.name()));
    } else {
        terminal.detail(&format!("{}, {}", device.describe(), resolved.name()));
    }
    resolved
}
