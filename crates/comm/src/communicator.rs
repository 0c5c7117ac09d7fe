//! What callers use: values of all ranks, and sums in a fixed order.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::{Pod, cast_slice, cast_slice_mut};

use crate::{Collective, CommError, Launch, Single, Tree, part};

/// The number of bytes that one operation sends at most: MPI counts with 32 bits.
const MAX_BYTES: usize = 1 << 30;

/// A transport, with operations on values.
#[derive(Clone)]
pub struct Communicator(Arc<dyn Collective>);

/// Memory for received numbers, to be used again: new memory costs as much time as the exchange.
#[derive(Debug, Default)]
pub struct ReduceBuffers {
    numbers: Vec<f32>,
    rounded: Vec<u16>,
}

/// Numbers that are sent and added in f32.
pub trait Reducible: Pod {
    /// The number in f32.
    fn to_f32(self) -> f32;

    /// Receives `count` numbers, and returns them in f32.
    fn receive(buffers: &mut ReduceBuffers, count: usize, receive: impl FnOnce(&mut [Self])) -> &mut [f32];
}

impl Reducible for f32 {
    fn to_f32(self) -> f32 {
        self
    }

    fn receive(buffers: &mut ReduceBuffers, count: usize, receive: impl FnOnce(&mut [f32])) -> &mut [f32] {
        let numbers = first(&mut buffers.numbers, count);
        receive(numbers);
        numbers
    }
}

/// bf16, by its bits.
impl Reducible for u16 {
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    fn receive(buffers: &mut ReduceBuffers, count: usize, receive: impl FnOnce(&mut [u16])) -> &mut [f32] {
        let ReduceBuffers { numbers, rounded } = buffers;
        let (numbers, rounded) = (first(numbers, count), first(rounded, count));
        receive(rounded);
        numbers.iter_mut().zip(rounded).for_each(|(to, bits)| *to = bits.to_f32());
        numbers
    }
}

/// The first `count` numbers of a buffer, which grows if necessary.
fn first<T: Pod>(buffer: &mut Vec<T>, count: usize) -> &mut [T] {
    if buffer.len() < count {
        buffer.resize(count, T::zeroed());
    }
    &mut buffer[..count]
}

impl Default for Communicator {
    fn default() -> Communicator {
        Communicator::single()
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}, {}", self.rank(), self.size(), self.0.describe())
    }
}

impl Communicator {
    /// A communicator on a transport.
    pub fn new(collective: impl Collective + 'static) -> Communicator {
        Communicator(Arc::new(collective))
    }

    /// That of the job that a launcher started: MPI. See [`Launch::detect`]. `on_failure` gets one line when the communication fails,
    /// before all processes end with exit code 1. If other ranks do not come to an operation for `patience`, that is a failure, too.
    ///
    /// # Errors
    /// No library, or one that is not the launcher's.
    #[cfg(unix)]
    pub fn start(
        launch: Launch,
        patience: Duration,
        on_failure: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Communicator, CommError> {
        Ok(Communicator::new(crate::mpi::Mpi::start(launch, patience, on_failure)?))
    }

    /// MPI is supported on Unix only.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(unix))]
    pub fn start(
        launch: Launch,
        _: Duration,
        _: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Communicator, CommError> {
        let tried = "nothing: MPI is supported on Unix only".to_owned();
        Err(CommError::NoLibrary { launcher: launch.launcher.to_string(), size: launch.size, tried })
    }

    /// That of a job of one process.
    pub fn single() -> Communicator {
        Communicator::new(Single)
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.rank()
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// Whether there is only this process.
    pub fn is_single(&self) -> bool {
        self.size() == 1
    }

    /// Whether this is rank 0, which writes files and prints.
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// The machine of this process.
    pub fn host(&self) -> String {
        self.0.host()
    }

    /// The transport, for messages.
    pub fn describe(&self) -> String {
        self.0.describe()
    }

    /// The part of this rank in `0..count` items.
    pub fn part(&self, count: usize) -> Range<usize> {
        part(count, self.rank(), self.size())
    }

    /// Waits until all ranks are here.
    pub fn barrier(&self) {
        self.0.barrier();
    }

    /// Ends the processes of all ranks with this exit code.
    pub fn abort(&self, code: u8) -> ! {
        self.0.abort(code)
    }

    /// Ends the communication of this rank.
    pub fn finish(&self) {
        self.0.finish();
    }

    /// The numbers of each rank, in order. Ranks may have different counts.
    pub fn all_gather<T: Pod>(&self, mine: &[T]) -> Vec<Vec<T>> {
        if self.is_single() {
            return vec![mine.to_vec()];
        }
        let lengths: Vec<usize> =
            self.all_gather_numbers(&[mine.len() as u64]).into_iter().map(|length| length as usize).collect();
        // In rounds, of which each rank gives at most a window.
        let window = (MAX_BYTES / size_of::<T>() / self.size()).max(1);
        let mut of_ranks: Vec<Vec<T>> = lengths.iter().map(|length| Vec::with_capacity(*length)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        for start in (0..longest).step_by(window) {
            let counts: Vec<usize> = lengths.iter().map(|length| length.saturating_sub(start).min(window)).collect();
            let mut all = vec![T::zeroed(); counts.iter().sum()];
            let before: usize = counts[..self.rank()].iter().sum();
            let count = counts[self.rank()];
            let from = start.min(mine.len());
            all[before..before + count].copy_from_slice(&mine[from..from + count]);
            self.all_gather_parts(&mut all, &counts);
            let mut rest = &all[..];
            for (numbers, count) in of_ranks.iter_mut().zip(counts) {
                let (now, later) = rest.split_at(count);
                numbers.extend_from_slice(now);
                rest = later;
            }
        }
        of_ranks
    }

    /// The numbers of all ranks, one after another; each has the same count.
    pub fn all_gather_numbers<T: Pod>(&self, mine: &[T]) -> Vec<T> {
        let mut all = vec![T::zeroed(); mine.len() * self.size()];
        all[self.rank() * mine.len()..][..mine.len()].copy_from_slice(mine);
        self.0.all_gather(cast_slice_mut(&mut all), &vec![size_of_val(mine); self.size()]);
        all
    }

    /// Every rank r has `counts[r]` numbers, its part of `all`; then `all` has those of all ranks, one after another.
    pub fn all_gather_parts<T: Pod>(&self, all: &mut [T], counts: &[usize]) {
        let bytes: Vec<usize> = counts.iter().map(|count| count * size_of::<T>()).collect();
        self.0.all_gather(cast_slice_mut(all), &bytes);
    }

    /// The numbers of all ranks at rank 0, one after another: `counts[r]` of each rank r. Nothing at other ranks.
    pub fn gather_parts<T: Pod>(&self, mine: &[T], counts: &[usize]) -> Vec<T> {
        let bytes = |counts: &[usize]| counts.iter().map(|count| count * size_of::<T>()).collect::<Vec<_>>();
        let mut send = vec![0; self.size()];
        send[0] = size_of_val(mine);
        let receive = if self.is_root() { bytes(counts) } else { vec![0; self.size()] };
        let mut all = vec![T::zeroed(); if self.is_root() { counts.iter().sum() } else { 0 }];
        self.0.all_to_all(cast_slice(mine), &send, cast_slice_mut(&mut all), &receive);
        all
    }

    /// Whether it is true for one of the ranks.
    pub fn any(&self, mine: bool) -> bool {
        if self.is_single() { mine } else { self.all_gather_numbers(&[u8::from(mine)]).contains(&1) }
    }

    /// The number of rank 0.
    pub fn of_root<T: Pod>(&self, mine: T) -> T {
        let mut number = [mine];
        self.broadcast_numbers(&mut number);
        number[0]
    }

    /// Completes a list of which each rank has the entries that it owns.
    pub fn all_gather_entries<T: Pod>(&self, entries: &mut [T], owner: impl Fn(usize) -> usize) {
        if self.is_single() {
            return;
        }
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); self.size()];
        (0..entries.len()).for_each(|index| places[owner(index)].push(index));
        let counts: Vec<usize> = places.iter().map(Vec::len).collect();
        let mut all: Vec<T> = places.iter().flatten().map(|&index| entries[index]).collect();
        self.all_gather_parts(&mut all, &counts);
        places.iter().flatten().zip(all).for_each(|(&index, entry)| entries[index] = entry);
    }

    /// The bytes of rank 0.
    pub fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let mut length = [bytes.len() as u64];
        self.0.broadcast(cast_slice_mut(&mut length), 0);
        bytes.resize(length[0] as usize, 0);
        bytes.chunks_mut(MAX_BYTES).for_each(|chunk| self.0.broadcast(chunk, 0));
        bytes
    }

    /// The numbers of rank 0.
    pub fn broadcast_numbers<T: Pod>(&self, numbers: &mut [T]) {
        cast_slice_mut(numbers).chunks_mut(MAX_BYTES).for_each(|chunk| self.0.broadcast(chunk, 0));
    }

    /// Sums of numbered parts, of which this rank has those of [`part`](Self::part), each rank a slice of the result. `send` has
    /// for each rank r, for each of this rank's [`Tree::sums_of`], the `counts[r]` numbers of the slice of r. Numbers are added in
    /// f32 in the order of the [`Tree`], and written to `to`.
    pub fn reduce_scatter<T: Reducible>(
        &self,
        parts: usize,
        send: &[T],
        counts: &[usize],
        buffers: &mut ReduceBuffers,
        to: &mut [f32],
    ) {
        let tree = Tree::new(parts);
        let sums: Vec<Vec<Range<usize>>> =
            (0..self.size()).map(|rank| tree.sums_of(part(parts, rank, self.size()))).collect();
        let (mine, length) = (sums[self.rank()].len(), counts[self.rank()]);
        let bytes = |count: usize| count * size_of::<T>();
        let send_counts: Vec<usize> = counts.iter().map(|count| bytes(count * mine)).collect();
        // This rank's own numbers are read where they are.
        let received = |rank: usize| if rank == self.rank() { 0 } else { sums[rank].len() * length };
        let receive_counts: Vec<usize> = (0..self.size()).map(|rank| bytes(received(rank))).collect();
        let numbers = T::receive(buffers, (0..self.size()).map(received).sum(), |received| {
            self.0.all_to_all(cast_slice(send), &send_counts, cast_slice_mut(received), &receive_counts);
        });
        let own: usize = counts[..self.rank()].iter().sum::<usize>() * mine;
        let mut places = Vec::new();
        let mut received = 0;
        for (rank, sums) in sums.iter().enumerate() {
            for number in 0..sums.len() {
                if rank == self.rank() {
                    places.push(Place::Own(own + number * length));
                } else {
                    places.push(Place::Received(received));
                    received += length;
                }
            }
        }
        let pieces: Vec<Range<usize>> = sums.into_iter().flatten().collect();
        add_pieces(tree, &pieces, places, Numbers { own: send, received: numbers, length }, to);
    }

    /// Replaces the numbers by their sums over all ranks, added in the order of the [`Tree`] of ranks.
    pub fn all_reduce(&self, numbers: &mut [f32]) {
        if self.is_single() {
            return;
        }
        let counts: Vec<usize> = (0..self.size()).map(|rank| part(numbers.len(), rank, self.size()).len()).collect();
        let own = self.part(numbers.len());
        let mut sums = vec![0.0; own.len()];
        self.reduce_scatter(self.size(), numbers, &counts, &mut ReduceBuffers::default(), &mut sums);
        numbers[own].copy_from_slice(&sums);
        self.all_gather_parts(numbers, &counts);
    }
}

/// Where the numbers of a piece of a sum are.
#[derive(Clone, Copy)]
enum Place {
    /// Among those that this rank sends.
    Own(usize),
    Received(usize),
}

/// The numbers of all pieces.
struct Numbers<'a, T> {
    own: &'a [T],
    received: &'a mut [f32],
    /// Of a piece.
    length: usize,
}

/// Adds pieces in the order of the tree, and writes the sum.
fn add_pieces<T: Reducible>(
    tree: Tree,
    pieces: &[Range<usize>],
    mut places: Vec<Place>,
    numbers: Numbers<'_, T>,
    to: &mut [f32],
) {
    let Numbers { own, received, length } = numbers;
    if let [only] = places[..] {
        match only {
            Place::Own(at) => to.iter_mut().zip(&own[at..]).for_each(|(to, number)| *to = number.to_f32()),
            Place::Received(at) => to.copy_from_slice(&received[at..at + length]),
        }
        return;
    }
    let mut additions = pieces.len() - 1;
    tree.combine(pieces, &mut |left, right| {
        additions -= 1;
        // The last addition is that of the complete sum. f32 addition is commutative, so that the order of two operands is free.
        match (places[left], places[right], additions) {
            (Place::Received(a), Place::Received(b), 0) => {
                let sums = received[a..a + length].iter().zip(&received[b..b + length]);
                to.iter_mut().zip(sums).for_each(|(to, (x, y))| *to = x + y);
            }
            (Place::Own(a), Place::Received(b), 0) | (Place::Received(b), Place::Own(a), 0) => {
                let sums = own[a..a + length].iter().zip(&received[b..b + length]);
                to.iter_mut().zip(sums).for_each(|(to, (x, y))| *to = x.to_f32() + y);
            }
            (Place::Received(a), Place::Received(b), _) => {
                let (before, after) = received.split_at_mut(b);
                before[a..a + length].iter_mut().zip(&after[..length]).for_each(|(sum, number)| *sum += number);
            }
            (Place::Own(a), Place::Received(b), _) | (Place::Received(b), Place::Own(a), _) => {
                let sums = received[b..b + length].iter_mut();
                sums.zip(&own[a..a + length]).for_each(|(sum, number)| *sum += number.to_f32());
                places[left] = Place::Received(b);
            }
            (Place::Own(_), Place::Own(_), _) => unreachable!("a rank adds what it can add alone before it sends"),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_rank_has_its_own_values() {
        let one = Communicator::single();
        assert_eq!(one.all_gather(b"ab"), [b"ab".to_vec()]);
        assert_eq!(one.broadcast(b"ab".to_vec()), b"ab");
        let mut sums = [0.0; 2];
        one.reduce_scatter(1, &[1.5f32, 2.5], &[2], &mut ReduceBuffers::default(), &mut sums);
        assert_eq!(sums, [1.5, 2.5]);
        // bf16, by its bits.
        one.reduce_scatter(1, &[0x3fc0u16, 0xc020], &[2], &mut ReduceBuffers::default(), &mut sums);
        assert_eq!(sums, [1.5, -2.5]);
        let mut numbers = [1.0, 2.0];
        one.all_reduce(&mut numbers);
        one.all_gather_entries(&mut numbers, |_| 0);
        assert_eq!(numbers, [1.0, 2.0]);
    }
}
