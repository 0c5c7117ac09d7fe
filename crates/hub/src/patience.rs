//! Gives up on connections that are open and bring nothing more.
//!
//! `hf-hub` sets no time limit and takes no HTTP client of ours. So each of its calls runs in a thread of its own that says when
//! something has arrived. A thread that waits for a dead connection cannot be stopped: it is left behind.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::ApiError;

enum Message<T> {
    /// Something happened.
    Alive,
    /// So many bytes of the file are there.
    Bytes(u64),
    Done(Result<T, ApiError>),
}

/// Tells the thread that waits of a transfer's progress.
pub(crate) struct Pulse<T> {
    sender: SyncSender<Message<T>>,
    bytes: u64,
}

impl<T> Pulse<T> {
    /// Each message is handed over, not queued. So the crate writes to a part only what it has read while somebody waited for it:
    /// another transfer of the same file may be under way by the time that an abandoned one wakes up.
    fn send(&self, message: Message<T>) {
        if self.sender.send(message).is_err() {
            loop {
                thread::park();
            }
        }
    }
}

impl<T> Progress for Pulse<T> {
    fn init(&mut self, _: usize, _: &str) {
        self.bytes = 0;
        self.send(Message::Alive);
    }

    fn update(&mut self, size: usize) {
        self.bytes += size as u64;
        self.send(Message::Bytes(self.bytes));
    }

    fn finish(&mut self) {}
}

/// Does `work`, which fails where it gives no sign of life for as long as `patience`. `report` is told of bytes.
pub(crate) fn wait_for<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce(Pulse<T>) -> Result<T, ApiError> + Send + 'static,
    report: &mut dyn FnMut(u64),
) -> Result<T, ApiError> {
    let (sender, receiver) = sync_channel(0);
    thread::Builder::new().name("download".into()).spawn(move || {
        let done = work(Pulse { sender: sender.clone(), bytes: 0 });
        // Nobody waits for an abandoned one.
        let _ = sender.send(Message::Done(done));
    })?;
    loop {
        match receiver.recv_timeout(patience) {
            Ok(Message::Alive) => {}
            Ok(Message::Bytes(bytes)) => report(bytes),
            Ok(Message::Done(done)) => return done,
            Err(RecvTimeoutError::Timeout) => {
                let reason = format!("nothing arrived for {patience:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason).into());
            }
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the transfer ended early").into()),
        }
    }
}
