//! Which device computes: the value of `--device` and of `device` in recipes.

use std::fmt;
use std::str::FromStr;

use crate::{Device, EngineError};

/// A choice of device. As text: `auto`, `cpu`, `cuda`, or `cuda:1` for the second GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The first GPU if it can be used, otherwise the CPU.
    Auto,
    /// The CPU.
    #[default]
    Cpu,
    /// The GPU with this number.
    Cuda(usize),
}

/// A larger number is a mistake.
const MAX_ORDINAL: usize = 1023;

impl FromStr for DeviceChoice {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<DeviceChoice, EngineError> {
        let ordinal = |text: &str| text.parse().ok().filter(|ordinal| *ordinal <= MAX_ORDINAL);
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => match text.strip_prefix("cuda:").and_then(ordinal) {
                Some(ordinal) => Ok(DeviceChoice::Cuda(ordinal)),
                None => Err(EngineError::UnknownDevice { found: text.to_owned() }),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(0) => f.write_str("cuda"),
            DeviceChoice::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl DeviceChoice {
    /// The GPU, if the choice is one or `auto` finds one; otherwise `None`, with the reason if the choice is `auto`. Then the caller
    /// opens the CPU.
    ///
    /// # Errors
    /// The chosen GPU cannot be used.
    pub fn gpu(self) -> Result<(Option<Device>, Option<EngineError>), EngineError> {
        match self {
            DeviceChoice::Cpu => Ok((None, None)),
            DeviceChoice::Cuda(ordinal) => Ok((Some(Device::cuda(ordinal)?), None)),
            DeviceChoice::Auto => match Device::cuda(0) {
                Ok(device) => Ok((Some(device), None)),
                Err(reason) => Ok((None, Some(reason))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().expect("a device"), choice);
            assert_eq!(choice.to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:99999", "CUDA"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    /// On a machine without a GPU, `auto` says why and leaves the CPU; a chosen GPU is an error.
    #[test]
    fn without_a_gpu_auto_says_why() {
        if Device::cuda(0).is_ok() {
            println!("skipped: this machine has a GPU");
            return;
        }
        let (device, reason) = DeviceChoice::Auto.gpu().expect("no error");
        assert!(device.is_none() && !reason.expect("a reason").to_string().is_empty());
        assert!(DeviceChoice::Cuda(0).gpu().is_err());
        assert!(matches!(DeviceChoice::Cpu.gpu(), Ok((None, None))));
    }
}
