//! Buffers of packed panels that each thread keeps and lends out again: no allocation and no page faults in the steady state.

use std::cell::Cell;
use std::thread::LocalKey;

use super::layout::Line;
use crate::host::{Buffer, MAPPED};

thread_local! {
    /// The operand that a product packs for all its threads.
    static WHOLE: Cell<Option<Buffer>> = const { Cell::new(None) };
    /// The panels that a thread packs for itself, and its tiles.
    static KEPT: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// A buffer on loan: it goes back to its thread when dropped. A second loan of a kind on one thread (a product within another
/// product's sink) gets a buffer of its own.
pub(super) struct Loan {
    lines: Option<Buffer>,
    home: &'static LocalKey<Cell<Option<Buffer>>>,
}

impl Loan {
    pub(super) fn whole(lines: usize) -> Loan {
        Loan::of(&WHOLE, lines)
    }

    pub(super) fn kept(lines: usize) -> Loan {
        Loan::of(&KEPT, lines)
    }

    fn of(home: &'static LocalKey<Cell<Option<Buffer>>>, lines: usize) -> Loan {
        let bytes = lines * size_of::<Line>();
        let kept = home.take();
        let room = kept.as_ref().map_or(0, Buffer::len);
        if room >= bytes {
            return Loan { lines: kept, home };
        }
        drop(kept);
        // Half as much again, so that slowly growing sizes seldom allocate; and huge pages, of which kept panels and tiles miss
        // the TLB less.
        Loan { lines: Some(Buffer::new(bytes.max(room * 3 / 2).max(MAPPED))), home }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut Line {
        self.lines.as_mut().map_or(std::ptr::dangling_mut(), |buffer| buffer.as_mut_ptr().cast())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Fails only while the thread is being torn down; the buffer is freed then.
        let _ = self.home.try_with(|home| home.set(self.lines.take()));
    }
}
