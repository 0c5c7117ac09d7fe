//! `--precision`: the type of activations, for all commands.

use cloze_engine::Device;
use cloze_train::recipe::Precision;

use crate::terminal::Terminal;

/// What `--precision` stands for on a device. For `auto` the choice and its reason are said in one line.
pub fn settle(asked: Precision, device: &Device, terminal: &Terminal) -> Precision {
    let precision = asked.resolved(device);
    if asked == Precision::Auto {
        let reason = device.explain(precision.dtype(device));
        terminal.note(&format!("{}, {} ({reason})", device.describe(), precision.name()));
    } else {
        terminal.detail(&format!("{}, {}", device.describe(), precision.name()));
    }
    precision
}
