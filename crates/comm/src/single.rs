//! A job of one process.

use crate::Collective;

/// The transport of a job of one process: it copies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Collective for Single {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn host(&self) -> String {
        "localhost".to_owned()
    }

    fn describe(&self) -> String {
        "one process".to_owned()
    }

    fn all_to_all(&self, send: &[u8], _: &[usize], receive: &mut [u8], _: &[usize]) {
        if !receive.is_empty() {
            receive.copy_from_slice(send);
        }
    }

    fn all_gather(&self, _: &mut [u8], _: &[usize]) {}

    fn broadcast(&self, _: &mut [u8], _: usize) {}

    fn barrier(&self) {}

    fn abort(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }

    fn finish(&self) {}
}
