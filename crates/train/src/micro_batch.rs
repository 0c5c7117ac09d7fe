//! The results of micro-batches, exchanged between ranks.

use cloze_comm::Communicator;
use cloze_engine::ops::LossSum;
use cloze_model::Losses;

/// The result of a micro-batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MicroBatch {
    /// Its losses.
    pub losses: Losses,
    /// Number of tokens.
    pub tokens: u64,
    /// Useful floating-point operations; 0 if they are not counted.
    pub flops: f64,
}

impl MicroBatch {
    /// Appends the bytes of the result: exact, unlike text.
    fn write(&self, to: &mut Vec<u8>) {
        let mut word = |number: u64| to.extend(number.to_le_bytes());
        word(self.tokens);
        word(self.flops.to_bits());
        word(self.losses.iter().count() as u64);
        for (name, LossSum { sum, weight, count, correct }) in self.losses.iter() {
            to.push(name.len() as u8);
            to.extend(name.as_bytes());
            for number in [sum.to_bits(), weight.to_bits(), count as u64, correct as u64] {
                to.extend(number.to_le_bytes());
            }
        }
    }

    /// Reads what [`write`](Self::write) wrote. Both are the same program.
    fn read(from: &mut &[u8]) -> MicroBatch {
        let tokens = word(from);
        let flops = f64::from_bits(word(from));
        let mut losses = Losses::default();
        for _ in 0..word(from) {
            let length = usize::from(bytes::<1>(from)[0]);
            let (name, rest) = from.split_at(length);
            *from = rest;
            let name = String::from_utf8_lossy(name).into_owned();
            let [sum, weight] = [(); 2].map(|()| f64::from_bits(word(from)));
            let [count, correct] = [(); 2].map(|()| word(from) as usize);
            losses.add(name, LossSum { sum, weight, count, correct });
        }
        MicroBatch { losses, tokens, flops }
    }
}

fn bytes<const N: usize>(from: &mut &[u8]) -> [u8; N] {
    let (now, rest) = from.split_first_chunk().expect("a complete message");
    *from = rest;
    *now
}

fn word(from: &mut &[u8]) -> u64 {
    u64::from_le_bytes(bytes(from))
}

/// The results of all micro-batches, in order. Each rank gives those of its [`part`](Communicator::part).
pub(crate) fn gather(ranks: &Communicator, own: Vec<MicroBatch>) -> Vec<MicroBatch> {
    of_ranks(ranks, own).into_iter().flatten().collect()
}

/// The results of all batches, in order. They are dealt to the ranks in turn.
pub fn gather_in_turn(ranks: &Communicator, own: Vec<MicroBatch>) -> Vec<MicroBatch> {
    let mut of_ranks: Vec<_> = of_ranks(ranks, own).into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    for rank in (0..ranks.size()).cycle() {
        match of_ranks[rank].next() {
            Some(result) => all.push(result),
            None => break,
        }
    }
    all
}

/// The results of each rank.
fn of_ranks(ranks: &Communicator, own: Vec<MicroBatch>) -> Vec<Vec<MicroBatch>> {
    if ranks.is_single() {
        return vec![own];
    }
    let mut message = Vec::new();
    own.iter().for_each(|result| result.write(&mut message));
    let read = |message: Vec<u8>| {
        let (mut rest, mut results) = (&message[..], Vec::new());
        while !rest.is_empty() {
            results.push(MicroBatch::read(&mut rest));
        }
        results
    };
    ranks.all_gather(&message).into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_exchanged_exactly() {
        let mut losses = Losses::default();
        losses.add("mlm", LossSum { sum: 0.1 + 0.2, weight: 7.5, count: 8, correct: 3 });
        losses.add("nsp", LossSum { sum: f64::NAN, weight: 0.0, count: 0, correct: 0 });
        let results = [MicroBatch { losses, tokens: 123, flops: 1e17 / 3.0 }, MicroBatch::default()];
        let mut message = Vec::new();
        results.iter().for_each(|result| result.write(&mut message));
        let mut rest = &message[..];
        let found = [MicroBatch::read(&mut rest), MicroBatch::read(&mut rest)];
        assert!(rest.is_empty());
        assert_eq!(format!("{found:?}"), format!("{results:?}"), "NaN is not equal to itself");
    }
}
