//! Buffers of packed panels that each thread keeps and lends out again: no allocation and no page faults in the steady state.

use std::cell::Cell;
use std::thread::LocalKey;

use super::kernel::Line;

thread_local! {
    /// The panels that a product packs for all its threads.
    static STREAMED: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    /// The panels that a thread packs for itself.
    static KEPT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    /// Tiles of C.
    static TILES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// A buffer on loan: it goes back to its thread when dropped. A second loan of a kind on one thread (a product within another
/// product's sink) gets a buffer of its own.
pub(super) struct Loan {
    lines: Vec<Line>,
    home: &'static LocalKey<Cell<Vec<Line>>>,
}

impl Loan {
    pub(super) fn streamed(lines: usize) -> Loan {
        Loan::of(&STREAMED, lines)
    }

    pub(super) fn kept(lines: usize) -> Loan {
        Loan::of(&KEPT, lines)
    }

    pub(super) fn tiles(lines: usize) -> Loan {
        Loan::of(&TILES, lines)
    }

    fn of(home: &'static LocalKey<Cell<Vec<Line>>>, lines: usize) -> Loan {
        let mut buffer = home.take();
        if buffer.len() < lines {
            // Half as much again, so that slowly growing sizes seldom allocate.
            let room = lines.max(buffer.len() * 3 / 2);
            drop(buffer);
            buffer = vec![Line::ZERO; room];
        }
        Loan { lines: buffer, home }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut Line {
        self.lines.as_mut_ptr()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Fails only while the thread is being torn down; the buffer is freed then.
        let _ = self.home.try_with(|home| home.set(std::mem::take(&mut self.lines)));
    }
}
