//! Several ranks tokenise together.
//!
//! Chunks are dealt in blocks of [`BLOCK`]: block b belongs to rank b mod n. In a round, each rank gives one block to rank 0, which
//! writes them in the order of ranks, and so in the order of the text. A rank tokenises its next blocks while it waits; how many is
//! limited by the memory of each rank.

use std::ops::ControlFlow;

use cloze_comm::Communicator;
use xxhash_rust::xxh3::xxh3_64;

use super::chunk::TokenisedChunk;
use super::wire;
use crate::DataError;
use crate::report::CorpusReport;

/// Chunks that a rank gives to rank 0 at once.
const BLOCK: u64 = 4;
/// Bytes that rank 0 receives from the others at once.
const WINDOW: usize = 32 << 20;

/// The rank that tokenises a chunk.
pub(super) fn owner(chunk: u64, size: usize) -> usize {
    (chunk / BLOCK % size as u64) as usize
}

/// Checks that several ranks can read the corpus (not if it `has_pipes`), and that they have the same tokenizer and version.
pub(super) fn check(ranks: &Communicator, has_pipes: bool, tokenizer: &str) -> Result<(), DataError> {
    if has_pipes {
        return Err(DataError::Ranks(format!(
            "standard input and pipes can be read by one process only, and this job has {}: give files, or start one process",
            ranks.size()
        )));
    }
    let setting = format!("{} {tokenizer}", env!("CARGO_PKG_VERSION"));
    match ranks.first_difference(xxh3_64(setting.as_bytes())) {
        Some((rank, host)) => Err(DataError::Ranks(format!(
            "rank {rank} ({host}) has another tokenizer or another version of Cloze than rank 0: all machines need the same ones"
        ))),
        None => Ok(()),
    }
}

/// Sends the report of rank 0 to the others.
pub(super) fn send_report(ranks: &Communicator, report: &CorpusReport) -> Result<(), DataError> {
    if !ranks.is_single() {
        ranks.broadcast(serde_json::to_vec(report).map_err(not_sent)?);
    }
    Ok(())
}

/// Receives the report of rank 0.
pub(super) fn receive_report(ranks: &Communicator) -> Result<CorpusReport, DataError> {
    serde_json::from_slice(&ranks.broadcast(Vec::new())).map_err(not_sent)
}

fn not_sent(error: serde_json::Error) -> DataError {
    DataError::Ranks(format!("the report cannot be sent to the other ranks: {error}"))
}

/// What becomes of tokenised chunks. `Break` stops the work of all ranks.
pub(super) trait Sink {
    /// Writes the next chunk of the text, at rank 0.
    fn write(&mut self, chunk: TokenisedChunk) -> Result<ControlFlow<()>, DataError>;

    /// Sees a chunk of this rank that rank 0 will write.
    fn pass(&mut self, chunk: &TokenisedChunk) -> ControlFlow<()>;
}

/// Takes the tokenised chunks of this rank, in order. Rank 0 writes those of all ranks.
pub(super) struct Exchange<'a, S> {
    ranks: &'a Communicator,
    sink: S,
    /// The chunks of this rank for the next round.
    block: Vec<TokenisedChunk>,
    /// Whether the sink of this rank wants to stop.
    stops: bool,
}

impl<'a, S: Sink> Exchange<'a, S> {
    pub(super) fn new(ranks: &'a Communicator, sink: S) -> Exchange<'a, S> {
        Exchange { ranks, sink, block: Vec::new(), stops: false }
    }

    /// Takes the next chunk of this rank.
    pub(super) fn take(&mut self, chunk: TokenisedChunk) -> Result<(), DataError> {
        if self.ranks.is_single() {
            return if self.sink.write(chunk)?.is_break() { Err(DataError::Interrupted) } else { Ok(()) };
        }
        if !self.ranks.is_root() {
            self.stops |= self.sink.pass(&chunk).is_break();
        }
        self.block.push(chunk);
        if self.block.len() as u64 == BLOCK {
            self.round(false)?;
        }
        Ok(())
    }

    /// Writes what is left, when this rank has no more chunks. Compares the `digest` of what the ranks have read. Returns the sum
    /// of `count` over the other ranks.
    pub(super) fn finish(mut self, digest: u64, count: u64) -> Result<u64, DataError> {
        if self.ranks.is_single() {
            return Ok(0);
        }
        while !self.round(true)? {}
        if self.ranks.any(self.stops) {
            return Err(DataError::Interrupted);
        }
        if let Some((rank, host)) = self.ranks.first_difference(digest) {
            return Err(DataError::Ranks(format!(
                "rank {rank} ({host}) has read other text than rank 0: all machines need the same files under the same paths"
            )));
        }
        Ok(self.ranks.all_gather_numbers(&[count]).iter().sum::<u64>() - count)
    }

    /// Gives a block of each rank to rank 0. Returns whether no rank has more.
    fn round(&mut self, ended: bool) -> Result<bool, DataError> {
        let Exchange { ranks, sink, block, stops } = self;
        let flags = ranks.all_gather_numbers(&[[u8::from(ended), u8::from(*stops)]]);
        if flags.iter().any(|[_, stops]| *stops == 1) {
            return Err(DataError::Interrupted);
        }
        let (block, mut sent) = (std::mem::take(block), Vec::new());
        if ranks.is_root() {
            for chunk in block {
                *stops |= sink.write(chunk)?.is_break();
            }
        } else {
            block.iter().for_each(|chunk| wire::append(chunk, &mut sent));
        }
        ranks.gather_bytes(&sent, WINDOW, |rank, mut bytes| {
            while !bytes.is_empty() {
                let chunk = wire::read(&mut bytes).ok_or_else(|| {
                    DataError::Ranks(format!("rank {rank} sent text that rank 0 cannot read: is it the same program?"))
                })?;
                *stops |= sink.write(chunk)?.is_break();
            }
            Ok::<(), DataError>(())
        })?;
        Ok(flags.iter().all(|[ended, _]| *ended == 1))
    }
}
