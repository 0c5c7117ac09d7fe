//! Ends connections that are open but transfer no more data.
//!
//! `hf-hub` sets no time limit and does not accept another HTTP client. Each of its calls therefore runs in a separate thread that
//! reports progress. A thread that waits for a dead connection cannot be stopped, so it is abandoned.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::ApiError;

enum Message<T> {
    /// Signals that the transfer is active.
    Alive,
    /// Number of bytes of the file received so far.
    Bytes(u64),
    Done(Result<T, ApiError>),
}

/// Reports the progress of a transfer to the waiting thread.
pub(crate) struct ProgressSender<T> {
    sender: SyncSender<Message<T>>,
    bytes: u64,
}

impl<T> ProgressSender<T> {
    /// Messages are passed without a queue. The crate therefore writes data to a part only while another thread waits for it. When an
    /// abandoned transfer continues, another transfer of the same file may be in progress, so the abandoned one must not write.
    fn send(&self, message: Message<T>) {
        if self.sender.send(message).is_err() {
            loop {
                thread::park();
            }
        }
    }
}

impl<T> Progress for ProgressSender<T> {
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

/// Runs `work` in a thread. It fails if there is no progress for `stall_timeout`. `report` is called with the number of bytes.
pub(crate) fn wait_for<T: Send + 'static>(
    stall_timeout: Duration,
    work: impl FnOnce(ProgressSender<T>) -> Result<T, ApiError> + Send + 'static,
    report: &mut dyn FnMut(u64),
) -> Result<T, ApiError> {
    let (sender, receiver) = sync_channel(0);
    thread::Builder::new().name("download".into()).spawn(move || {
        let done = work(ProgressSender { sender: sender.clone(), bytes: 0 });
        // An abandoned transfer has no receiver.
        let _ = sender.send(Message::Done(done));
    })?;
    loop {
        match receiver.recv_timeout(stall_timeout) {
            Ok(Message::Alive) => {}
            Ok(Message::Bytes(bytes)) => report(bytes),
            Ok(Message::Done(done)) => return done,
            Err(RecvTimeoutError::Timeout) => {
                let reason = format!("nothing arrived for {stall_timeout:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason).into());
            }
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the transfer ended early").into()),
        }
    }
}
