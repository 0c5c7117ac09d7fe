//! Whether all ranks of a job were started in the same way.

use cloze_comm::Communicator;
use cloze_engine::Parameters;

use crate::TrainError;

/// Compares the bytes that describe something with those of rank 0.
///
/// # Errors
/// [`TrainError::OtherRank`] with the first rank whose bytes differ, at all ranks.
pub fn require_same(ranks: &Communicator, what: &'static str, bytes: &[u8]) -> Result<(), TrainError> {
    if ranks.is_single() {
        return Ok(());
    }
    // Half of its 32 hexadecimal digits.
    let digest = cloze_files::digest::of_bytes(bytes);
    let half = u64::from_str_radix(&digest[..16], 16).expect("hexadecimal digits");
    match ranks.first_difference(half) {
        Some((rank, host)) => Err(TrainError::OtherRank { rank, host, what }),
        None => Ok(()),
    }
}

/// Compares all weights with those of rank 0.
///
/// # Errors
/// As [`require_same`].
pub fn require_same_weights(ranks: &Communicator, params: &Parameters) -> Result<(), TrainError> {
    if ranks.is_single() {
        return Ok(());
    }
    let mix = |hash: u64, weight: &f32| {
        (hash ^ u64::from(weight.to_bits())).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    };
    let hash = params.read_all().iter().fold(0, mix);
    require_same(ranks, "initial model", &hash.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_that_differs_is_named() {
        let results = cloze_testing::ranks(3, |ranks| {
            let same = require_same(ranks, "recipe", b"a");
            let other = require_same(ranks, "recipe", if ranks.rank() == 1 { b"b" } else { b"a" });
            (same.is_ok(), other.unwrap_err().to_string())
        });
        for (same, other) in results {
            assert!(same && other.contains("rank 1") && other.contains("different recipe"), "{other}");
        }
    }
}
