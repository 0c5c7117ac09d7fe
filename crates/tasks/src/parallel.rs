//! A parallel map whose result does not depend on the number of threads.

use std::sync::{Mutex, PoisonError};

use cloze_files::machine::on_threads;

/// Applies `work` to each item and returns the results in order. Each thread processes one contiguous chunk of items at
/// a time.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let share = items.len().div_ceil(threads.max(1)).max(1);
    if share >= items.len() {
        return items.iter().map(work).collect();
    }
    let chunks = Mutex::new(items.chunks(share).enumerate());
    let done = Mutex::new(Vec::new());
    on_threads(threads, || {
        loop {
            let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, chunk)) = next else { return };
            let results: Vec<R> = chunk.iter().map(&work).collect();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, results));
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

/// Applies `work` to each item in place, with its index.
pub(crate) fn for_each_mut<T: Send>(items: &mut [T], threads: usize, work: impl Fn(usize, &mut T) + Sync) {
    let share = items.len().div_ceil(threads.max(1)).max(1);
    if share >= items.len() {
        return items.iter_mut().enumerate().for_each(|(index, item)| work(index, item));
    }
    let chunks = Mutex::new(items.chunks_mut(share).enumerate());
    on_threads(threads, || {
        loop {
            let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, chunk)) = next else { return };
            chunk.iter_mut().enumerate().for_each(|(index, item)| work(number * share + index, item));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_changed_once_by_any_number_of_threads() {
        for threads in [0, 1, 3, 20] {
            let mut items = vec![1; 10];
            for_each_mut(&mut items, threads, |index, item| *item += index);
            assert_eq!(items, (1..11).collect::<Vec<_>>());
        }
        for_each_mut(&mut [] as &mut [u8], 2, |_, item| *item += 1);
    }

    #[test]
    fn the_order_of_the_items_is_kept_for_any_number_of_threads() {
        let items: Vec<usize> = (0..10).collect();
        for threads in [0, 1, 3, 20] {
            assert_eq!(map(&items, threads, |i| i * i), items.iter().map(|i| i * i).collect::<Vec<_>>());
        }
        assert!(map(&[] as &[u8], 2, |i| *i).is_empty());
    }
}
