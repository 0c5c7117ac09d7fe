//! The operations of a transport.

/// Operations in which all ranks of a job take part, in the same order. They carry bytes.
///
/// A failure ends the process: see the crate's documentation.
pub trait Collective: Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// The machine of this process.
    fn host(&self) -> String;

    /// The transport, for messages.
    fn describe(&self) -> String;

    /// Sends `send_counts[r]` bytes of `send` to each rank r, one after another, and receives `receive_counts[r]` bytes from it. What this
    /// rank has for itself is not copied if its `receive_counts` is 0.
    fn all_to_all(&self, send: &[u8], send_counts: &[usize], receive: &mut [u8], receive_counts: &[usize]);

    /// Every rank r gives `counts[r]` bytes, its part of `all`; then `all` has those of all ranks, one after another.
    fn all_gather(&self, all: &mut [u8], counts: &[usize]);

    /// Copies the bytes of rank `root` to all ranks.
    fn broadcast(&self, bytes: &mut [u8], root: usize);

    /// Waits until all ranks are here.
    fn barrier(&self);

    /// Ends the processes of all ranks with this exit code.
    fn abort(&self, code: u8) -> !;

    /// Ends the communication of this rank. No other operation may follow.
    fn finish(&self);
}
